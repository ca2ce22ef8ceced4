//! Puts and gets of a whole store beside floors: one Controller and three Dstores in this process, over loopback. (depot 11)
//!
//! The floor's programs move the same bytes, append and sync the same amounts, and decide nothing. Rounds of both are
//! interleaved; each figure is the median of the rounds, with the ratio of the medians.

mod floor;

use std::env;
use std::io::{Cursor, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use depot::client::{Cluster, ClusterOptions, Files, PutOptions, SEARCH, Source};
use depot::identity::ClusterId;
use depot::log::{ReplicaOptions, SyncMode};
use depot::namespace::change::{Condition, Settings};
use depot::path::Path;
use depot::wire::{Address, ClientId, Secret};
use depot::words::Words;
use depot::{controller, dstore, pack};
use floor::{Connection, Floor};
use kit::{TempFolder, bytes};

const SMALL: usize = 1000;
const CLUSTER: ClusterId = ClusterId(0xbe);

struct Store {
    // Dropped in this order: the Dstores say goodbye to a Controller that is there.
    _dstores: Vec<dstore::Handle>,
    _controller: controller::Handle,
    address: Address,
    secret: Secret,
}

impl Store {
    fn start(folder: &std::path::Path, sync: SyncMode) -> Self {
        let secret = Secret::draw().expect("random bytes");
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let listener = listen();
        let address: Address = listener.local_addr().expect("bound").into();
        let mut replica = ReplicaOptions { sync, ..ReplicaOptions::default() };
        replica.log.ballast_bytes = 0;
        let controller = controller::Handle::start(controller::Options {
            data: folder.join("log"),
            cluster: CLUSTER,
            name: "bench".into(),
            settings: Settings::default(),
            secret: secret.clone(),
            listener,
            address: address.clone(),
            replica,
            settling: controller::SETTLING,
            backup_period: controller::BACKUP_PERIOD,
            healing: controller::HealingOptions::default(),
        });
        let dstores = (1..=3).map(|number| {
            let listener = listen();
            let own = listener.local_addr().expect("bound").into();
            let options = dstore::Options {
                data: folder.join(format!("dstore-{number}")),
                cluster: CLUSTER,
                secret: secret.clone(),
                listener,
                address: own,
                controllers: vec![address.clone()],
                host: format!("host-{number}"),
                zone: String::new(),
                disk: pack::Options { sync, ..pack::Options::default() },
                scrub_period: Duration::from_secs(30 * 86_400),
                gives_up_after: dstore::GIVES_UP_AFTER,
                copy_rate: dstore::COPY_RATE,
            };
            dstore::Handle::start(options).expect("a Dstore")
        });
        Self { _dstores: dstores.collect(), _controller: controller.expect("a Controller"), address, secret }
    }

    fn client(&self) -> Cluster {
        let client = ClientId(1);
        let key = self.secret.client_key(client);
        Cluster::new(ClusterOptions {
            controllers: vec![self.address.clone()],
            cluster: CLUSTER,
            client,
            key,
            search: SEARCH,
        })
    }
}

/// So many operations a second, done by so many threads at a time; `prepare` makes what each thread does.
fn rate<F: FnMut(u64) + Send>(clients: u64, operations: u64, prepare: impl Fn(u64) -> F + Sync) -> f64 {
    // Connections are made off the clock. A thread that fails ends the bench: none waits for it.
    let mut prepared: Vec<F> = thread::scope(|scope| {
        let prepare = &prepare;
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn(move || {
                    let mut operate = prepare(client);
                    operate(0);
                    operate
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("an operation")).collect()
    });
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        for operate in &mut prepared {
            let next = &next;
            scope.spawn(move || {
                while let number @ 1.. = next.fetch_add(1, Ordering::Relaxed) + 1
                    && number <= operations
                {
                    operate(number);
                }
            });
        }
    });
    operations as f64 / begun.elapsed().as_secs_f64()
}

fn path(text: String) -> Path {
    text.parse().expect("a path")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(what: &str, ours: Vec<f64>, floor: Vec<f64>, unit: &str) {
    let spread = |values: &[f64]| {
        let most = values.iter().copied().fold(0.0, f64::max);
        let least = values.iter().copied().fold(f64::MAX, f64::min);
        format!("{least:.0}-{most:.0}")
    };
    let (range, floor_range) = (spread(&ours), spread(&floor));
    let (ours, floor) = (median(ours), median(floor));
    println!("{what:44} {ours:9.0} {unit} ({range}), floor {floor:9.0} ({floor_range}), ratio {:.2}", ours / floor);
}

fn main() {
    // `cargo bench` passes --bench; a test run does not, and only checks that this still works.
    let is_bench = env::args().any(|arg| arg == "--bench");
    let rounds = if is_bench { 5 } else { 1 };
    let large = if is_bench { 256 << 20 } else { 1 << 20 };
    let content = bytes(1, SMALL);
    for sync in [SyncMode::Never, SyncMode::Interval, SyncMode::Always] {
        let syncs = sync == SyncMode::Always;
        // If nothing is ever synced, in memory, so that the disk has no say.
        let folder = if sync == SyncMode::Never { TempFolder::in_memory() } else { TempFolder::new() };
        let store = Store::start(folder.path(), sync);
        let floor = Floor::start(folder.path(), syncs);
        let client = store.client();
        let options = PutOptions { parents: true, ..PutOptions::default() };
        let put = |name: String, content: &[u8]| {
            client.put(&path(name), Source::Once(&mut Cursor::new(content)), &options).expect("a put")
        };
        let name = sync.to_line();
        for clients in [1, 8, 32] {
            let operations = match (is_bench, syncs) {
                (false, _) => clients * 2,
                (true, false) => 1_500 + clients * 150,
                (true, true) => 100 + clients * 40,
            };
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                ours.push(rate(clients, operations, |client| {
                    let content = &content;
                    move |number| {
                        put(format!("/{round}-{clients}/{client}-{number}"), content);
                    }
                }));
                theirs.push(rate(clients, operations, |_| {
                    let mut dstores: Vec<Connection> = floor.dstores.iter().map(Connection::to).collect();
                    let mut controller = Connection::to(&floor.controller);
                    let content = &content;
                    move |_| {
                        dstores.iter_mut().for_each(|dstore| dstore.send(content, 20));
                        dstores.iter_mut().for_each(|dstore| dstore.receive(20));
                        controller.send(&content[..200], 60);
                        controller.receive(60);
                    }
                }));
            }
            report(&format!("put 1 KB, --sync {name}, {clients} clients"), ours, theirs, "/s");
        }
        if sync != SyncMode::Never {
            continue;
        }
        for clients in [1, 8, 32] {
            let operations = if is_bench { 2_000 + clients * 200 } else { clients * 2 };
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                ours.push(rate(clients, operations, |reader| {
                    let (client, content) = (&client, &content);
                    move |number| {
                        let name = path(format!("/{round}-1/0-{}", number % 3));
                        let mut out = Vec::with_capacity(SMALL);
                        let mut file = client.get(&name, Condition::Any).expect("it was put");
                        file.copy_to(0..u64::MAX, &mut out).expect("it is whole");
                        assert!(out == *content, "reader {reader} got other bytes");
                    }
                }));
                theirs.push(rate(clients, operations, |reader| {
                    let mut dstore = Connection::to(&floor.dstores[reader as usize % 3]);
                    let mut controller = Connection::to(&floor.controller);
                    move |_| {
                        controller.send(&[], 250);
                        controller.receive(250);
                        dstore.send(&[], SMALL + 40);
                        dstore.receive(SMALL + 40);
                    }
                }));
            }
            report(&format!("get 1 KB, {clients} clients"), ours, theirs, "/s");
        }
        let content = bytes(2, large);
        let file = folder.path().join("large");
        std::fs::File::create(&file).and_then(|mut file| file.write_all(&content)).expect("a file");
        let (mut puts, mut put_floors, mut gets, mut get_floors) = (vec![], vec![], vec![], vec![]);
        let megabytes = large as f64 / 1e6;
        for _ in 0..rounds.min(3) {
            let source = std::fs::File::open(&file).expect("a file");
            puts.push(
                megabytes
                    * rate_of_one(|| {
                        client.put(&path("/large".into()), Source::File(&source), &options).expect("a put");
                    }),
            );
            put_floors.push(
                megabytes
                    * rate_of_one(|| {
                        thread::scope(|scope| {
                            for dstore in &floor.dstores {
                                let content = &content;
                                scope.spawn(move || {
                                    let mut connection = Connection::to(dstore);
                                    connection.send(content, 20);
                                    connection.receive(20);
                                });
                            }
                        });
                    }),
            );
            let mut out = Vec::with_capacity(large);
            gets.push(
                megabytes
                    * rate_of_one(|| {
                        let mut file = client.get(&path("/large".into()), Condition::Any).expect("it was put");
                        file.copy_to(0..u64::MAX, &mut out).expect("it is whole");
                    }),
            );
            assert!(out == content, "other bytes came back");
            get_floors.push(
                megabytes
                    * rate_of_one(|| {
                        let mut connection = Connection::to(&floor.dstores[0]);
                        connection.send(&[], large);
                        connection.receive(large);
                    }),
            );
        }
        report(&format!("put {} MB, R = 3", large / 1_000_000), puts, put_floors, "MB/s");
        report(&format!("get {} MB", large / 1_000_000), gets, get_floors, "MB/s");
    }
}

fn rate_of_one(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    1.0 / begun.elapsed().as_secs_f64()
}
