//! How many files a second, and how many bytes, go through a whole cluster on this machine, and how close is that to the
//! most that it could be?
//!
//! Controller and Dstores are processes, the clients are threads of this one, and they talk over loopback. Each figure
//! stands beside that of the [floor](floor), taken in the same rounds: programs that say the same messages, keep the same
//! files, and do nothing else.
//!
//! Parts: `small`, `large`, `log`.

mod cluster;
mod common;
mod floor;

use std::io;
use std::path::Path;

use cluster::{Cluster, Log, Setup, time_together};
use common::{Clock, Figures, Rng, Run, Size, Table, digits, measure};
use floor::Style;
use kit::folder::place_in_memory;
use stevedore::client::Client;

const SEED: u64 = 1;
const REPLICAS: usize = 3;
const DSTORES: usize = 4;

const CLIENTS: Size<&[usize]> = Size { full: &[1, 8, 32], tiny: &[1, 2] };
const SMALL_BYTES: usize = 1_000;
/// Files stored, loaded and removed in a round, by all clients together.
const SMALL_FILES: Size<usize> = Size { full: 2_048, tiny: 4 };
/// Lists in a round, likewise.
const LISTS: Size<usize> = Size { full: 256, tiny: 2 };
const SMALL_ROUNDS: Size<usize> = Size { full: 7, tiny: 1 };

/// Clients that each store, load and remove one large file in a round.
const LARGE_CLIENTS: Size<&[usize]> = Size { full: &[1, 4], tiny: &[1, 2] };
const LARGE_BYTES: Size<usize> = Size { full: 64 << 20, tiny: 300_000 };
const LARGE_ROUNDS: Size<usize> = Size { full: 7, tiny: 1 };

/// Clients, files and rounds when the programs log each message, and when they do not.
const LOG_CLIENTS: Size<usize> = Size { full: 8, tiny: 2 };
const LOG_FILES: Size<usize> = Size { full: 4_096, tiny: 4 };
const LOG_ROUNDS: Size<usize> = Size { full: 9, tiny: 1 };

/// The ways that are measured, each with its floor.
const WAYS: [Way; 4] = [
    // A floor that waits for each ACK, as the coursework has it.
    Way { name: "ours", floor: "kept floor" },
    // One that says just what ours says.
    Way { name: "ours", floor: "ahead floor" },
    // The official client's steps with nothing on top, so that only the servers differ.
    Way { name: "official", floor: "official floor" },
    // Ours without KEEP_ALIVE, as with Dstores of another implementation.
    Way { name: "ours, not kept", floor: "official floor" },
];
const FLOORS: [&str; 3] = ["kept floor", "ahead floor", "official floor"];

struct Way {
    name: &'static str,
    floor: &'static str,
}

fn main() -> io::Result<()> {
    floor::serve_if_asked()?;
    let run = Run::new();
    if run.wants("small") {
        small_files(&run)?;
    }
    if run.wants("large") {
        large_files(&run)?;
    }
    if run.wants("log") {
        logging(&run)?;
    }
    Ok(())
}

/// Many operations on small files: what counts is how often a thread waits for another.
fn small_files(run: &Run) -> io::Result<()> {
    let parent = place_in_memory();
    let count = run.size(SMALL_FILES);
    let title = format!(
        "{SMALL_BYTES} bytes a file, {DSTORES} Dstores with folders in {}, R = {REPLICAS}; a list has {count} names",
        parent.display(),
    );
    let heads = [
        "operation",
        "clients",
        "way",
        "floor",
        "of the floor",
        "operations/s",
        "p50 us",
        "p99 us",
        "p99 / p50",
        "CPU us: client",
        "Controller",
        "Dstores",
    ];
    let mut table = Table::new(title, &heads);
    for &clients in run.size(CLIENTS) {
        let figures = time_small_files(run, clients, count, &parent)?;
        for operation in ["store", "load", "list", "remove"] {
            for (way, floor) in WAYS.iter().map(|way| (way.name, way.floor)).chain(FLOORS.map(|floor| (floor, ""))) {
                let figure = |what: &str| &figures[&format!("{way} {operation}{what}")];
                table.row([
                    operation.to_owned(),
                    clients.to_string(),
                    way.to_owned(),
                    floor.to_owned(),
                    of_the_floor(&figures, way, floor, operation),
                    figure("").rate(1.0).to_string(),
                    figure(", p50").parts(1e6).brief(),
                    figure(", p99").parts(1e6).brief(),
                    figure(", p99").over(figure(", p50")).brief(),
                    figure(", client").parts(1e6).brief(),
                    figure(", Controller").parts(1e6).brief(),
                    figure(", Dstores").parts(1e6).brief(),
                ]);
            }
        }
    }
    table.print();
    Ok(())
}

fn time_small_files(run: &Run, clients: usize, count: usize, parent: &Path) -> io::Result<Figures> {
    let lists = run.size(LISTS);
    let list_bytes = "LIST\n".len() + count * (1 + floor::NAME_BYTES);
    let cluster = Cluster::start(parent, REPLICAS, DSTORES)?;
    let floor = Cluster::floor(parent, REPLICAS, DSTORES, SMALL_BYTES, list_bytes)?;
    let mut ways = contenders(&cluster, &floor, clients, &Files::new(count, SMALL_BYTES));
    Ok(measure(run.size(SMALL_ROUNDS), |clock| {
        for contender in &mut ways {
            contender.store_and_load(clock);
            let Contender { way, cluster, clients, .. } = contender;
            time_together(clock, &format!("{way} list"), lists, cluster, clients, |client, _| {
                client.list(list_bytes, count).expect("listed");
            });
            contender.remove(clock);
        }
    }))
}

/// One large file for each client: what counts is how the bytes are moved.
fn large_files(run: &Run) -> io::Result<()> {
    let bytes = run.size(LARGE_BYTES);
    let parent = place_in_memory();
    let title = format!(
        "{} MB a file and a client, {DSTORES} Dstores with folders in {}, R = {REPLICAS}",
        digits(bytes as f64 / 1e6),
        parent.display()
    );
    let heads = [
        "operation",
        "clients",
        "way",
        "floor",
        "of the floor",
        "MB/s",
        "ms a file",
        "CPU ms: client",
        "Controller",
        "Dstores",
    ];
    let mut table = Table::new(title, &heads);
    for &clients in run.size(LARGE_CLIENTS) {
        let cluster = Cluster::start(&parent, REPLICAS, DSTORES)?;
        let floor = Cluster::floor(&parent, REPLICAS, DSTORES, bytes, 100)?;
        let mut ways = contenders(&cluster, &floor, clients, &Files::new(clients, bytes));
        let figures = measure(run.size(LARGE_ROUNDS), |clock| {
            for Contender { way, cluster, clients, files } in &mut ways {
                let count = clients.len();
                time_together(clock, &format!("{way} store"), count, cluster, clients, |client, file| {
                    client.store(&files.names[file], files.content(file)).expect("stored");
                });
                time_together(clock, &format!("{way} load"), count, cluster, clients, |client, file| {
                    client.load(&files.names[file]).expect("loaded");
                });
                for (file, client) in clients.iter_mut().enumerate() {
                    assert!(client.content() == files.content(file), "what was stored is loaded");
                    client.remove(&files.names[file]).expect("removed");
                }
            }
        });
        for operation in ["store", "load"] {
            for (way, floor) in WAYS.iter().map(|way| (way.name, way.floor)).chain(FLOORS.map(|floor| (floor, ""))) {
                let figure = |what: &str| &figures[&format!("{way} {operation}{what}")];
                table.row([
                    operation.to_owned(),
                    clients.to_string(),
                    way.to_owned(),
                    floor.to_owned(),
                    of_the_floor(&figures, way, floor, operation),
                    figure("").rate(bytes as f64 / 1e6).to_string(),
                    figure(", p50").parts(1e3).brief(),
                    figure(", client").parts(1e3).brief(),
                    figure(", Controller").parts(1e3).brief(),
                    figure(", Dstores").parts(1e3).brief(),
                ]);
            }
        }
    }
    table.print();
    Ok(())
}

/// What it costs to log every message, as the programs do without `RUST_LOG`.
fn logging(run: &Run) -> io::Result<()> {
    let parent = place_in_memory();
    let (clients, count) = (run.size(LOG_CLIENTS), run.size(LOG_FILES));
    let quiet = Cluster::start(&parent, REPLICAS, DSTORES)?;
    let setup = Setup { log: Log::Messages, ..Setup::new(&parent, REPLICAS, DSTORES) };
    let logged = Cluster::start_with(&setup)?;
    let ways = [("ours", &quiet), ("ours, logged", &logged), ("official", &quiet), ("official, logged", &logged)];
    let files = Files::new(count, SMALL_BYTES);
    let mut contenders: Vec<_> = (0..)
        .zip(ways)
        .map(|(at, (way, cluster))| Contender::new(way, cluster, clients, files.named(at * clients, clients)))
        .collect();
    let figures = measure(run.size(LOG_ROUNDS), |clock| {
        for contender in &mut contenders {
            contender.store_and_load(clock);
            contender.remove(clock);
        }
    });
    let title = format!(
        "every message logged to a file, of the same with RUST_LOG=warn: {SMALL_BYTES} bytes a file, {clients} clients, \
         {DSTORES} Dstores with folders and logs in {}, R = {REPLICAS}",
        parent.display(),
    );
    let heads = ["operation", "way", "operations/s", "of the quiet", "CPU of Controller", "of Dstores"];
    let mut table = Table::new(title, &heads);
    for operation in ["store", "load", "remove"] {
        for way in ["ours", "official"] {
            let quiet = |what: &str| &figures[&format!("{way} {operation}{what}")];
            let logged = |what: &str| &figures[&format!("{way}, logged {operation}{what}")];
            let over = |what| logged(what).over(quiet(what));
            table.row([
                operation.to_owned(),
                way.to_owned(),
                logged("").rate(1.0).to_string(),
                quiet("").over(logged("")).to_string(),
                over(", Controller").to_string(),
                over(", Dstores").to_string(),
            ]);
        }
    }
    table.print();
    Ok(())
}

/// Our throughput by that of the floor, round by round.
fn of_the_floor(figures: &Figures, way: &str, floor: &str, operation: &str) -> String {
    if floor.is_empty() {
        return String::new();
    }
    figures[&format!("{floor} {operation}")].over(&figures[&format!("{way} {operation}")]).to_string()
}

/// Clients of one way, the cluster that they talk to, and the files that they store.
struct Contender<'a> {
    way: &'static str,
    cluster: &'a Cluster,
    clients: Vec<AnyClient>,
    files: Files,
}

fn contenders<'a>(cluster: &'a Cluster, floor: &'a Cluster, clients: usize, files: &Files) -> Vec<Contender<'a>> {
    // Each in its turn, beside its floor.
    ["kept floor", "ours", "ahead floor", "official", "official floor", "ours, not kept"]
        .into_iter()
        .enumerate()
        .map(|(number, way)| {
            let cluster = if FLOORS.contains(&way) { floor } else { cluster };
            Contender::new(way, cluster, clients, files.named(number * clients, clients))
        })
        .collect()
}

impl<'a> Contender<'a> {
    fn new(way: &'static str, cluster: &'a Cluster, clients: usize, files: Files) -> Self {
        let client = |_| match way {
            "ours" | "ours, logged" => AnyClient::ours(cluster, true),
            "ours, not kept" => AnyClient::ours(cluster, false),
            "kept floor" => AnyClient::Floor(cluster.floor_client(Style::Kept)),
            "ahead floor" => AnyClient::Floor(cluster.floor_client(Style::Ahead)),
            _ => AnyClient::Floor(cluster.floor_client(Style::Official)),
        };
        Self { way, cluster, clients: (0..clients).map(client).collect(), files }
    }

    /// Stores all small files, and loads them.
    fn store_and_load(&mut self, clock: &mut Clock) {
        let Self { way, cluster, clients, files } = self;
        let count = files.names.len();
        time_together(clock, &format!("{way} store"), count, cluster, clients, |client, file| {
            client.store(&files.names[file], files.content(file)).expect("stored");
        });
        assert_eq!(cluster.files_in_folders(), count * REPLICAS);
        time_together(clock, &format!("{way} load"), count, cluster, clients, |client, file| {
            client.load(&files.names[file]).expect("loaded");
            assert!(client.content() == files.content(file), "what was stored is loaded");
        });
    }

    /// Removes all files.
    fn remove(&mut self, clock: &mut Clock) {
        let Self { way, cluster, clients, files } = self;
        time_together(clock, &format!("{way} remove"), files.names.len(), cluster, clients, |client, file| {
            client.remove(&files.names[file]).expect("removed");
        });
        assert_eq!(cluster.files_in_folders(), 0);
    }
}

/// Ours or the floor's.
enum AnyClient {
    Ours { client: Box<Client>, content: Vec<u8> },
    Floor(floor::Client),
}

impl AnyClient {
    fn ours(cluster: &Cluster, keeps_connections: bool) -> Self {
        let mut client = cluster.client();
        client.keep_connections(keeps_connections);
        Self::Ours { client: Box::new(client), content: Vec::new() }
    }

    fn store(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        match self {
            Self::Ours { client, .. } => client.store_bytes(name, content).map_err(io::Error::other),
            Self::Floor(client) => client.store(name, content),
        }
    }

    fn load(&mut self, name: &str) -> io::Result<()> {
        match self {
            Self::Ours { client, content } => {
                content.clear();
                client.load(name, content).map(drop).map_err(io::Error::other)
            }
            Self::Floor(client) => client.load(name),
        }
    }

    /// What was loaded last.
    fn content(&self) -> &[u8] {
        match self {
            Self::Ours { content, .. } => content,
            Self::Floor(client) => &client.content,
        }
    }

    fn list(&mut self, bytes: usize, names: usize) -> io::Result<()> {
        match self {
            Self::Ours { client, .. } => {
                assert_eq!(client.list().map_err(io::Error::other)?.len(), names);
                Ok(())
            }
            Self::Floor(client) => client.list(bytes),
        }
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match self {
            Self::Ours { client, .. } => client.remove(name).map_err(io::Error::other),
            Self::Floor(client) => client.remove(name),
        }
    }
}

/// The files of a round, no two alike.
struct Files {
    names: Vec<String>,
    bytes: usize,
    /// Each file is a piece of it, and begins a little later than the one before.
    pool: std::sync::Arc<Vec<u8>>,
}

/// By how much a file begins later than the one before.
const OFFSET: usize = 8;

impl Files {
    fn new(count: usize, bytes: usize) -> Self {
        let mut rng = Rng(SEED);
        let pool: Vec<u8> = (0..(bytes / OFFSET + 1 + count)).flat_map(|_| rng.next().to_le_bytes()).collect();
        Self { names: vec![String::new(); count], bytes, pool: pool.into() }
    }

    /// The same as files of so many clients, numbered from `first` on: each stores as many, one after the other's.
    fn named(&self, first: usize, clients: usize) -> Self {
        let count = self.names.len();
        let name = |file| floor::name(first + file / (count / clients), file);
        Self { names: (0..count).map(name).collect(), bytes: self.bytes, pool: std::sync::Arc::clone(&self.pool) }
    }

    fn content(&self, file: usize) -> &[u8] {
        &self.pool[file * OFFSET..][..self.bytes]
    }
}
