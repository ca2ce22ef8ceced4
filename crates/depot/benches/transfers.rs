//! Large files over links that are slower than the machine: from one holder, from three, and from three of which one is slow.
//! (depot 5.5, 11)
//!
//! Each Dstore is behind a relay that passes on so many bytes a second. The rounds of all rows are interleaved; each figure is
//! the median of its rounds, with the ratio to the row that it is to be compared with.

#[path = "cluster/mod.rs"]
mod cluster;

use std::env;
use std::io::{Cursor, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Store, StoreOptions};
use depot::client::{Cluster, Files, ParallelReads, PutOptions, Source};
use depot::identity::DstoreId;
use depot::namespace::change::Condition;
use depot::path::Path;
use depot::wire::Address;
use kit::{TempFolder, bytes};
use parking_lot::Mutex;
use stevedore::server::{Server, ThreadGroup};

/// What a link passes on in a second, in each direction.
const RATE: u64 = 20_000_000;

/// So much slower is the slow one of three.
const SLOWER: u64 = 10;

/// A link that was idle passes on so much at once.
const SLACK: Duration = Duration::from_millis(20);

/// A network link to a server, shared by all connections over it.
struct Link {
    address: Address,
    rate: Arc<AtomicU64>,
    server: Option<Server>,
    threads: Arc<ThreadGroup>,
}

impl Link {
    fn to(server: Address) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").into();
        let (rate, threads) = (Arc::new(AtomicU64::new(u64::MAX)), ThreadGroup::new("link"));
        let directions = Arc::new([Direction::new(&rate), Direction::new(&rate)]);
        let pass = move |near: Arc<TcpStream>| {
            let Ok(far) = TcpStream::connect(server.to_string()) else { return };
            thread::scope(|scope| {
                scope.spawn(|| directions[0].pass_on(&near, &far));
                directions[1].pass_on(&far, &near);
            });
        };
        let server = Some(Server::start(listener, &threads, None, pass).expect("threads"));
        Self { address, rate, server, threads }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.server = None;
        self.threads.stop();
    }
}

struct Direction {
    rate: Arc<AtomicU64>,
    /// When the link will have passed on what it was given.
    free: Mutex<Instant>,
}

impl Direction {
    fn new(rate: &Arc<AtomicU64>) -> Self {
        Self { rate: Arc::clone(rate), free: Mutex::new(Instant::now()) }
    }

    fn pass_on(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let takes = Duration::from_secs(1).mul_f64(count as f64 / self.rate.load(Ordering::Relaxed) as f64);
            let passed = {
                let mut free = self.free.lock();
                // What a sleep took too long is made up for.
                *free = (*free).max(Instant::now() - SLACK) + takes;
                *free
            };
            // A sleep is never shorter than a moment: what is due within one waits for the next.
            let ahead = passed.saturating_duration_since(Instant::now());
            if ahead > Duration::from_millis(1) {
                thread::sleep(ahead);
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)); // one that has ended already
    }
}

/// Reads a file, as it is or from one Dstore alone; how many bytes a second.
fn get(client: &Cluster, at: &Path, from: Option<DstoreId>, expected: &[u8]) -> f64 {
    let mut out = Vec::with_capacity(expected.len());
    let begun = Instant::now();
    let mut file = client.get(at, Condition::Any).expect("it was put");
    if let Some(dstore) = from {
        file.prefer(dstore);
    }
    file.copy_to(0..u64::MAX, &mut out).expect("it is whole");
    let rate = expected.len() as f64 / begun.elapsed().as_secs_f64();
    assert!(out == expected, "other bytes came back");
    rate
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo bench` passes --bench; a test run does not, and only checks that this still works.
    let is_bench = env::args().any(|arg| arg == "--bench");
    let (rounds, size) = if is_bench { (5, 64 << 20) } else { (1, 5 << 20) };
    let folder = TempFolder::in_memory();
    let links: Arc<Mutex<Vec<Link>>> = Arc::default();
    let linked = Arc::clone(&links);
    let behind_link = move |server: Address| {
        let link = Link::to(server);
        let address = link.address.clone();
        linked.lock().push(link);
        address
    };
    let store = Store::start_behind(folder.path(), StoreOptions::default(), &behind_link);
    let client = store.client();
    let (path, content): (Path, _) = ("/large".parse().expect("a path"), bytes(1, size));
    let all_have_it = || {
        client.put(&path, Source::Once(&mut Cursor::new(&content)), &PutOptions::default()).expect("a put");
        client.copies(&path).expect("it was put").iter().all(|object| object.copies.len() == 3)
    };
    kit::eventually("all three have it", all_have_it);
    let [mut one, mut three, mut slow] = [const { Vec::new() }; 3];
    let mut counts = ParallelReads::default();
    for round in 0..rounds {
        let links = links.lock();
        links.iter().for_each(|link| link.rate.store(RATE, Ordering::Relaxed));
        one.push(get(&client, &path, Some(DstoreId(round % 3 + 1)), &content));
        three.push(get(&client, &path, None, &content));
        links[round as usize % 3].rate.store(RATE / SLOWER, Ordering::Relaxed);
        let before = client.parallel_reads();
        slow.push(get(&client, &path, None, &content));
        let after = client.parallel_reads();
        counts.pieces += after.pieces - before.pieces;
        counts.stolen += after.stolen - before.stolen;
        counts.doubled += after.doubled - before.doubled;
    }
    let row = |what: &str, rates: &[f64], than: &[f64], of: &str| {
        let (rate, ratio) = (median(rates) / 1e6, median(rates) / median(than));
        println!(
            "get {} MB over links of {} MB/s, {what:32} {rate:6.0} MB/s, {ratio:.2} of {of}",
            size / 1_000_000,
            RATE / 1_000_000
        );
    };
    row("from one holder", &one, &[RATE as f64], "its link");
    row("from three", &three, &one, "from one");
    row("one of three 10 times slower", &slow, &three, "from three");
    let ParallelReads { pieces, stolen, doubled } = counts;
    println!("with a slow one: {stolen} of {pieces} pieces stolen, {doubled} read twice");
}
