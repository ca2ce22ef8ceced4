//! How many files a second, and how many bytes, go through a whole cluster on this machine?
//!
//! Controller, Dstores and clients are threads of this process and talk over loopback. The floor, called *bare*, has the
//! same threads exchange as many bytes in the same order and keep the same files, and nothing else.
//!
//! Parts: `small`, `large`.

mod common;

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::{Clock, Figures, Rng, Run, Size, Table, digits, measure};
use stevedore::client::Client;
use stevedore::{controller, dstore};

const SEED: u64 = 1;
const REPLICAS: usize = 3;
const DSTORES: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(30);

const CLIENTS: Size<&[usize]> = Size { full: &[1, 8, 32], tiny: &[1, 2] };
const SMALL_BYTES: usize = 1_000;
/// Files stored, loaded and removed in a round, by all clients together.
const SMALL_FILES: Size<usize> = Size { full: 1_024, tiny: 4 };
/// Lists in a round, likewise.
const LISTS: Size<usize> = Size { full: 256, tiny: 2 };
const SMALL_ROUNDS: Size<usize> = Size { full: 5, tiny: 1 };

/// Clients that each store, load and remove one large file in a round.
const LARGE_CLIENTS: Size<&[usize]> = Size { full: &[1, 4], tiny: &[1, 2] };
const LARGE_BYTES: Size<usize> = Size { full: 64 << 20, tiny: 300_000 };
const LARGE_ROUNDS: Size<usize> = Size { full: 5, tiny: 1 };

/// Whether a client keeps its connections to Dstores, or makes one for each transfer.
const HABITS: [(&str, bool); 2] = [("kept", true), ("new", false)];

fn main() -> io::Result<()> {
    let run = Run::new();
    if run.wants("small") {
        small_files(&run)?;
    }
    if run.wants("large") {
        large_files(&run)?;
    }
    Ok(())
}

/// Many operations on small files: what counts is how often who waits for whom.
fn small_files(run: &Run) -> io::Result<()> {
    let parent = folder_in_memory();
    let sizes = run.size(CLIENTS);
    let files = Files::new(run.size(SMALL_FILES), SMALL_BYTES);
    let measured =
        sizes.iter().map(|&clients| time_small_files(run, clients, &files, &parent)).collect::<io::Result<Vec<_>>>()?;
    let title = format!(
        "{SMALL_BYTES} bytes a file, {DSTORES} Dstores with folders in {}, R = {REPLICAS}; a list has {} names of 20 bytes",
        parent.display(),
        files.count
    );
    let heads = ["operation", "clients", "connections", "operations/s", "p50 us", "p99 us", "time / bare"];
    let mut table = Table::new(title, &heads);
    for operation in ["store", "load", "list", "remove"] {
        for (clients, figures) in sizes.iter().zip(&measured) {
            for way in ["kept", "new", "bare"] {
                let figure = |what| &figures[&format!("{way} {operation}{what}")];
                table.row([
                    operation.to_owned(),
                    clients.to_string(),
                    way.to_owned(),
                    figure("").rate(1.0).to_string(),
                    figure(", p50").parts(1e6).brief(),
                    figure(", p99").parts(1e6).brief(),
                    figure("").over(&figures[&format!("bare {operation}")]).brief(),
                ]);
            }
        }
    }
    table.print();
    Ok(())
}

fn time_small_files(run: &Run, clients: usize, files: &Files, parent: &Path) -> io::Result<Figures> {
    let cluster = Cluster::start(parent)?;
    let bare = BareCluster::start(&cluster.folder)?;
    let mut ways = HABITS.map(|(way, keeps)| (way, (0..clients).map(|_| cluster.client(keeps)).collect::<Vec<_>>()));
    let mut bare_clients = (0..clients).map(|_| bare.client()).collect::<io::Result<Vec<_>>>()?;
    let lists = run.size(LISTS);
    let list_bytes = "LIST\n".len() + files.names.iter().map(|name| 1 + name.len()).sum::<usize>();
    Ok(measure(run.size(SMALL_ROUNDS), |clock| {
        for (way, clients) in &mut ways {
            let operation = |operation| format!("{way} {operation}");
            time_together(clock, &operation("store"), files.count, clients, |client, file| {
                client.store_bytes(&files.names[file], files.content(file)).expect("stored");
            });
            assert_eq!(cluster.files_in_folders(), files.count * REPLICAS);
            time_together(clock, &operation("load"), files.count, clients, |client, file| {
                let content = client.load_bytes(&files.names[file]).expect("loaded");
                assert!(content == files.content(file), "what was stored is loaded");
            });
            time_together(clock, &operation("list"), lists, clients, |client, _| {
                assert_eq!(client.list().expect("listed").len(), files.count);
            });
            time_together(clock, &operation("remove"), files.count, clients, |client, file| {
                client.remove(&files.names[file]).expect("removed");
            });
            assert_eq!(cluster.files_in_folders(), 0);
        }
        let clients = &mut bare_clients;
        time_together(clock, "bare store", files.count, clients, |client, file| {
            client.store(file, files.content(file)).expect("stored");
        });
        time_together(clock, "bare load", files.count, clients, |client, file| {
            client.load(file, SMALL_BYTES).expect("loaded");
        });
        time_together(clock, "bare list", lists, clients, |client, _| client.list(list_bytes).expect("listed"));
        time_together(clock, "bare remove", files.count, clients, |client, file| {
            client.remove(file).expect("removed");
        });
    }))
}

/// One large file for each client: what counts is how the bytes are moved.
fn large_files(run: &Run) -> io::Result<()> {
    let bytes = run.size(LARGE_BYTES);
    let parent = folder_in_memory();
    let cluster = Cluster::start(&parent)?;
    let bare = BareCluster::start(&cluster.folder)?;
    let title = format!(
        "{} MB a file and a client, {DSTORES} Dstores with folders in {}, R = {REPLICAS}",
        digits(bytes as f64 / 1e6),
        parent.display()
    );
    let mut table = Table::new(title, &["operation", "clients", "connections", "MB/s", "ms a file", "time / bare"]);
    for &clients in run.size(LARGE_CLIENTS) {
        let files = Files::new(clients, bytes);
        let mut ways = HABITS.map(|(way, keeps)| {
            let client = |_| (cluster.client(keeps), Vec::with_capacity(bytes));
            (way, (0..clients).map(client).collect::<Vec<_>>())
        });
        let mut bare_clients = (0..clients).map(|_| bare.client()).collect::<io::Result<Vec<_>>>()?;
        let figures = measure(run.size(LARGE_ROUNDS), |clock| {
            for (way, clients) in &mut ways {
                time_together(clock, &format!("{way} store"), files.count, clients, |(client, _), file| {
                    client.store_bytes(&files.names[file], files.content(file)).expect("stored");
                });
                time_together(clock, &format!("{way} load"), files.count, clients, |(client, content), file| {
                    content.clear();
                    client.load(&files.names[file], content).expect("loaded");
                });
                for (file, (client, content)) in clients.iter_mut().enumerate() {
                    assert!(content == files.content(file), "what was stored is loaded");
                    client.remove(&files.names[file]).expect("removed");
                }
            }
            let clients = &mut bare_clients;
            time_together(clock, "bare store", files.count, clients, |client, file| {
                client.store(file, files.content(file)).expect("stored");
            });
            time_together(clock, "bare load", files.count, clients, |client, file| {
                client.load(file, bytes).expect("loaded");
            });
            for (file, client) in clients.iter_mut().enumerate() {
                assert!(client.content == files.content(file), "what was stored is loaded");
                client.remove(file).expect("removed");
            }
        });
        for operation in ["store", "load"] {
            for way in ["kept", "new", "bare"] {
                let figure = |what| &figures[&format!("{way} {operation}{what}")];
                table.row([
                    operation.to_owned(),
                    clients.to_string(),
                    way.to_owned(),
                    figure("").rate(bytes as f64 / 1e6).to_string(),
                    figure(", p50").parts(1e3).brief(),
                    figure("").over(&figures[&format!("bare {operation}")]).brief(),
                ]);
            }
        }
    }
    table.print();
    Ok(())
}

/// Has every client do its share of `count` operations, all clients at the same time, and takes down the time for each
/// operation, with many at once, and how long the operations themselves took.
fn time_together<C: Send>(
    clock: &mut Clock,
    name: &str,
    count: usize,
    clients: &mut [C],
    operation: impl Fn(&mut C, usize) + Sync,
) {
    let share = count / clients.len();
    let start = Barrier::new(clients.len());
    let mut latencies = Vec::with_capacity(count);
    let mut span: Option<(Instant, Instant)> = None;
    thread::scope(|scope| {
        let mut threads = Vec::with_capacity(clients.len());
        for (at, client) in clients.iter_mut().enumerate() {
            let (start, operation) = (&start, &operation);
            threads.push(scope.spawn(move || {
                let mut times = Vec::with_capacity(share);
                start.wait();
                for number in at * share..(at + 1) * share {
                    let begun = Instant::now();
                    operation(client, number);
                    times.push((begun, Instant::now()));
                }
                times
            }));
        }
        for (begun, ended) in threads.into_iter().flat_map(|thread| thread.join().expect("no operation fails")) {
            latencies.push((ended - begun).as_secs_f64());
            let (first, last) = span.unwrap_or((begun, ended));
            span = Some((first.min(begun), last.max(ended)));
        }
    });
    let (first, last) = span.expect("at least one operation");
    latencies.sort_by(f64::total_cmp);
    clock.record(name, (last - first).as_secs_f64() / latencies.len() as f64);
    clock.record(&format!("{name}, p50"), latencies[latencies.len() / 2]);
    clock.record(&format!("{name}, p99"), latencies[latencies.len() * 99 / 100]);
}

/// The files of a round, no two alike.
struct Files {
    count: usize,
    names: Vec<String>,
    bytes: usize,
    /// Each file is a piece of it, and begins a little later than the one before.
    pool: Vec<u8>,
}

/// By how much a file begins later than the one before.
const OFFSET: usize = 8;

impl Files {
    fn new(count: usize, bytes: usize) -> Self {
        let mut rng = Rng(SEED);
        let names = (0..count).map(|_| rng.name().to_string()).collect();
        let pool = (0..(bytes / OFFSET + 1 + count)).flat_map(|_| rng.next().to_le_bytes()).collect();
        Self { count, names, bytes, pool }
    }

    fn content(&self, file: usize) -> &[u8] {
        &self.pool[file * OFFSET..][..self.bytes]
    }
}

/// A Controller and its Dstores. Dropped, even by a panic, it leaves nothing behind.
struct Cluster {
    // Dropped in this order: the folder once nobody uses it any more.
    _dstores: Vec<dstore::Handle>,
    controller: controller::Handle,
    folder: TemporaryFolder,
}

impl Cluster {
    /// With its folders in `parent`.
    fn start(parent: &Path) -> io::Result<Self> {
        let folder = TemporaryFolder::create(parent)?;
        let mut config = controller::Config::new(REPLICAS);
        config.timeout = TIMEOUT;
        let controller = controller::start(config)?;
        let port = controller.address()?.port();
        let start_dstore = |number| {
            let mut config = dstore::Config::new(port, folder.dstore(number));
            config.timeout = TIMEOUT;
            dstore::start(config).map_err(io::Error::other)
        };
        let dstores = (0..DSTORES).map(start_dstore).collect::<io::Result<Vec<_>>>()?;
        let is_ready = |status: &controller::Status| status.members.len() == DSTORES && status.rebalances > 0;
        controller.wait_until(TIMEOUT, is_ready).expect("the Dstores join");
        Ok(Self { _dstores: dstores, controller, folder })
    }

    fn client(&self, keeps_connections: bool) -> Client {
        let port = self.controller.address().expect("it listens").port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut client = Client::connect(address, TIMEOUT).expect("the Controller accepts");
        client.keep_connections(keeps_connections);
        client
    }

    fn files_in_folders(&self) -> usize {
        let files = |number| fs::read_dir(self.folder.dstore(number)).expect("a Dstore's folder").count();
        (0..DSTORES).map(files).sum()
    }
}

/// Where files are made and removed at little cost, if there is such a place and TMPDIR asks for no other.
///
/// On a disk the file system would be most of what is measured. Ext4, for one, never takes the inode of a file that was
/// removed in the last minutes: after some thousands of those, looking for another takes longer than all the rest of
/// a store.
fn folder_in_memory() -> PathBuf {
    let in_memory = Path::new("/dev/shm");
    if env::var_os("TMPDIR").is_none() && in_memory.is_dir() { in_memory.to_owned() } else { env::temp_dir() }
}

struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn create(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!("stevedore-bench-{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn dstore(&self, number: usize) -> PathBuf {
        self.0.join(format!("dstore-{number}"))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// One that answers like a Controller, and R that keep files like Dstores: threads, sockets and files, and no more.
struct BareCluster {
    addresses: Vec<SocketAddr>,
}

/// What a bare client asks for.
#[derive(Clone, Copy)]
enum Action {
    /// So many bytes.
    Answer = 0,
    /// To keep a file of so many bytes.
    Store = 1,
    /// The file.
    Load = 2,
    /// To remove the file.
    Remove = 3,
}

/// A request's length, and most answers': about that of a message.
const MESSAGE_BYTES: usize = 32;
const ACK_BYTES: usize = 4;
const BUFFER_BYTES: usize = 256 << 10;

impl BareCluster {
    fn start(folder: &TemporaryFolder) -> io::Result<Self> {
        let start = |number| {
            let path = folder.0.join(format!("bare-{number}"));
            fs::create_dir(&path)?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = listener.local_addr()?;
            // Ends with the process; a connection's thread, with the connection.
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let path = path.clone();
                    thread::spawn(move || serve_bare(&stream, &path));
                }
            });
            Ok(address)
        };
        Ok(Self { addresses: (0..=REPLICAS).map(start).collect::<io::Result<_>>()? })
    }

    fn client(&self) -> io::Result<BareClient> {
        let streams = self.addresses.iter().map(|address| {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            Ok(stream)
        });
        Ok(BareClient { streams: streams.collect::<io::Result<_>>()?, content: Vec::new() })
    }
}

fn serve_bare(mut stream: &TcpStream, folder: &Path) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; MESSAGE_BYTES];
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        stream.read_exact(&mut request)?;
        let field = |at: usize| u64::from_le_bytes(request[at * 8..][..8].try_into().expect("8 bytes"));
        let (action, file, bytes) = (field(0), field(1), field(2));
        let path = folder.join(file.to_string());
        if action == Action::Load as u64 {
            copy_bare(&mut File::open(path)?, &mut stream, bytes, &mut buffer)?;
            continue;
        }
        let mut answer = MESSAGE_BYTES;
        if action == Action::Answer as u64 {
            answer = bytes as usize;
        } else if action == Action::Remove as u64 {
            fs::remove_file(path)?;
        } else {
            let incoming = folder.join(format!("incoming {file}"));
            let mut writer = File::create_new(&incoming)?;
            stream.write_all(&buffer[..ACK_BYTES])?;
            copy_bare(&mut stream, &mut writer, bytes, &mut buffer)?;
            fs::rename(incoming, path)?;
        }
        stream.write_all(&buffer[..answer])?;
    }
}

fn copy_bare(from: &mut impl Read, to: &mut impl Write, bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut remaining = bytes as usize;
    while remaining > 0 {
        let most = remaining.min(buffer.len());
        match from.read(&mut buffer[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                to.write_all(&buffer[..read])?;
                remaining -= read;
            }
        }
    }
    Ok(())
}

/// Connected to the bare Controller, then the bare Dstores.
struct BareClient {
    streams: Vec<TcpStream>,
    /// What was loaded last, or scratch space.
    content: Vec<u8>,
}

impl BareClient {
    fn store(&mut self, file: usize, content: &[u8]) -> io::Result<()> {
        self.ask(0..1, Action::Answer, file, MESSAGE_BYTES)?;
        self.take(0..1, MESSAGE_BYTES)?;
        self.ask(1..REPLICAS + 1, Action::Store, file, content.len())?;
        self.take(1..REPLICAS + 1, ACK_BYTES)?;
        for piece in content.chunks(BUFFER_BYTES) {
            self.streams[1..].iter_mut().try_for_each(|stream| stream.write_all(piece))?;
        }
        self.take(1..REPLICAS + 1, MESSAGE_BYTES)
    }

    fn load(&mut self, file: usize, bytes: usize) -> io::Result<()> {
        self.ask(0..1, Action::Answer, file, MESSAGE_BYTES)?;
        self.take(0..1, MESSAGE_BYTES)?;
        let holder = 1 + file % REPLICAS;
        self.ask(holder..holder + 1, Action::Load, file, bytes)?;
        self.take(holder..holder + 1, bytes)
    }

    fn list(&mut self, bytes: usize) -> io::Result<()> {
        self.ask(0..1, Action::Answer, 0, bytes)?;
        self.take(0..1, bytes)
    }

    /// The real one goes by way of the Controller; here the client asks the holders itself, after as many steps.
    fn remove(&mut self, file: usize) -> io::Result<()> {
        self.ask(0..1, Action::Answer, file, MESSAGE_BYTES)?;
        self.take(0..1, MESSAGE_BYTES)?;
        self.ask(1..REPLICAS + 1, Action::Remove, file, 0)?;
        self.take(1..REPLICAS + 1, MESSAGE_BYTES)
    }

    fn ask(&mut self, whom: Range<usize>, action: Action, file: usize, bytes: usize) -> io::Result<()> {
        let mut request = [0; MESSAGE_BYTES];
        for (at, field) in [action as u64, file as u64, bytes as u64].into_iter().enumerate() {
            request[at * 8..][..8].copy_from_slice(&field.to_le_bytes());
        }
        self.streams[whom].iter_mut().try_for_each(|stream| stream.write_all(&request))
    }

    fn take(&mut self, whom: Range<usize>, bytes: usize) -> io::Result<()> {
        self.content.resize(bytes, 0);
        self.streams[whom].iter_mut().try_for_each(|stream| stream.read_exact(&mut self.content))
    }
}
