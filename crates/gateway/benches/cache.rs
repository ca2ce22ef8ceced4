//! What a cache saves: small files that are read as files are read, a few often and most seldom, with none, with one in memory, and
//! with one in Redis.
//!
//! One Controller and three Dstores in this process, in memory; a Redis server beside it, if it is installed. Each round asks all
//! variants in turn, in an order of reads that is the same for all; a figure is the median of the rounds. The first round of each
//! is not counted, and fills its cache. What is read is compared as it comes.

#[path = "../../depot/benches/cluster/mod.rs"]
mod cluster;

use std::env;
use std::io::Cursor;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Store, StoreOptions};
use depot::client::{Cluster, Files, ObjectCache, PutOptions, Source};
use depot::controller::HealingOptions;
use depot::namespace::change::Condition;
use gateway::cache::{Cache, Memory, Redis};
use kit::{Rng, TempFolder, bytes};

/// The size of a file.
const SIZE: usize = 16 << 10;
const READERS: usize = 8;

/// A client with its cache.
struct Variant {
    name: &'static str,
    client: Cluster,
    cache: Option<Arc<dyn Cache>>,
    rounds: Vec<Round>,
}

/// What was measured.
#[derive(Clone, Copy)]
struct Round {
    reads_per_second: f64,
    half: Duration,
    most: Duration,
    hit_percent: f64,
    megabytes_from_dstores: f64,
}

/// A Redis server, which ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("it ran until now");
    }
}

/// A Redis server and its URL, if it is installed.
fn redis() -> Option<(Server, String)> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]);
    let server = Server(command.stdout(Stdio::null()).spawn().ok()?);
    kit::eventually("redis listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    Some((server, format!("redis://127.0.0.1:{port}/")))
}

/// Which files are read, one after another: file k is read 1/k as often as the first (Zipf).
fn reads(seed: u64, files: usize, count: usize) -> Vec<usize> {
    let mut sums: Vec<f64> = Vec::with_capacity(files);
    let mut sum = 0.0;
    for file in 1..=files {
        sum += 1.0 / file as f64;
        sums.push(sum);
    }
    let mut rng = Rng(seed);
    let mut draw = || {
        let drawn = rng.fraction() * sum;
        sums.partition_point(|below| *below < drawn).min(files - 1)
    };
    (0..count).map(|_| draw()).collect()
}

fn name(file: usize) -> depot::path::Path {
    format!("/file-{file}").parse().expect("a path")
}

fn content(file: usize) -> Vec<u8> {
    bytes(file as u64, SIZE)
}

fn round(variant: &Variant, reads: &[usize], contents: &[Vec<u8>]) -> Round {
    let before = variant.cache.as_ref().map(|cache| cache.figures()).unwrap_or_default();
    let begun = Instant::now();
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                scope.spawn(move || {
                    let mut times = Vec::new();
                    let mut got = Vec::with_capacity(SIZE);
                    for file in reads.iter().skip(reader).step_by(READERS) {
                        got.clear();
                        let begun = Instant::now();
                        let mut open = variant.client.get(&name(*file), Condition::Any).expect("it is there");
                        open.copy_to(0..u64::MAX, &mut got).expect("it is whole");
                        times.push(begun.elapsed());
                        assert!(got == contents[*file], "other bytes came back");
                    }
                    times
                })
            })
            .collect();
        readers.into_iter().flat_map(|reader| reader.join().expect("no panic")).collect()
    });
    let took = begun.elapsed().as_secs_f64();
    times.sort();
    let misses = match &variant.cache {
        Some(cache) => cache.figures().misses - before.misses,
        None => reads.len() as u64,
    };
    Round {
        reads_per_second: reads.len() as f64 / took,
        half: times[times.len() / 2],
        most: times[times.len() * 99 / 100],
        hit_percent: 100.0 * (1.0 - misses as f64 / reads.len() as f64),
        megabytes_from_dstores: misses as f64 * SIZE as f64 / 1e6,
    }
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // `cargo bench` passes --bench; a test run does not, and only checks that this still works.
    let is_bench = env::args().any(|arg| arg == "--bench");
    let (files, count, rounds) = if is_bench { (4_000, 40_000, 5) } else { (20, 200, 1) };
    stevedore::server::raise_descriptor_limit();
    let folder = TempFolder::in_memory();
    let healing = HealingOptions { keep_removed: Duration::ZERO, margin: Duration::ZERO, ..HealingOptions::default() };
    let store = Store::start(folder.path(), StoreOptions { healing, ..StoreOptions::default() });
    let client = store.client();
    let contents: Vec<Vec<u8>> = (0..files).map(content).collect();
    for (file, content) in contents.iter().enumerate() {
        client.put(&name(file), Source::Once(&mut Cursor::new(content)), &PutOptions::default()).expect("a put");
    }
    let all = (files * SIZE) as u64;
    let redis = redis();
    if redis.is_none() {
        println!("redis-server is not installed: its line is missing");
    }
    let of_redis =
        redis.as_ref().map(|(_, url)| Arc::new(Redis::new(url, client.id()).expect("a URL")) as Arc<dyn Cache>);
    let caches: [(&str, Option<Arc<dyn Cache>>); 3] = [
        ("none", None),
        ("memory, an eighth", Some(Arc::new(Memory::new(all / 8)))),
        ("memory, all", Some(Arc::new(Memory::new(all * 2)))),
    ];
    let mut variants: Vec<Variant> = Vec::new();
    for (name, cache) in caches.into_iter().chain(of_redis.map(|cache| ("Redis, all", Some(cache)))) {
        let client = match &cache {
            Some(cache) => store.client().with_cache(Arc::<dyn Cache>::clone(cache) as Arc<dyn ObjectCache>),
            None => store.client(),
        };
        variants.push(Variant { name, client, cache, rounds: Vec::new() });
    }
    for number in 0..=rounds {
        let reads = reads(1 + number as u64, files, count);
        for variant in &mut variants {
            let measured = round(variant, &reads, &contents);
            if number > 0 {
                variant.rounds.push(measured);
            }
        }
    }
    let without = median(&variants[0].rounds, |round| round.reads_per_second);
    println!("{count} reads of {files} files of {} KiB, the k-th 1/k as often, {READERS} readers", SIZE >> 10);
    for Variant { name, rounds, .. } in &variants {
        let of = |of: fn(&Round) -> f64| median(rounds, of);
        let rate = of(|round| round.reads_per_second);
        println!(
            "{name:18} {rate:7.0} reads/s, ratio {:.2}; half within {:4.0} us, 99% within {:5.0} us; {:3.0}% hits, {:4.0} MB from Dstores",
            rate / without,
            of(|round| round.half.as_secs_f64() * 1e6),
            of(|round| round.most.as_secs_f64() * 1e6),
            of(|round| round.hit_percent),
            of(|round| round.megabytes_from_dstores),
        );
    }
}
