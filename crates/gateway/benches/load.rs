//! Files over HTTP and S3 beside the depot's own client, which the gateway itself uses, and beside nginx as a WebDAV server.
//!
//! One Controller and three Dstores in this process, in memory, so that no disk has a say. Each round asks all rivals in turn;
//! a figure is the median of the rounds, with the ratio to the own client's. What is read is compared as it comes, what was put
//! is read back after the timing. Requests of S3 are not signed here: the MD5 of what is put is what S3 costs most. nginx keeps one copy in one file, verifies nothing, and asks no Controller: it is what HTTP alone
//! costs, not a rival in what is kept.

#[path = "../../depot/benches/cluster/mod.rs"]
mod cluster;

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Store, StoreOptions};
use depot::client::{Files, ObjectCache, PutOptions, Source};
use depot::controller::HealingOptions;
use depot::namespace::change::{Condition, Details};
use gateway::cache::Memory;
use gateway::{Gateway, Options};
use kit::{TempFolder, bytes};

const SMALL: usize = 1_000;

/// What can be put and got.
trait Rival: Sync {
    fn name(&self) -> &str;

    /// A connection of its own, or what is like one.
    fn connect(&self) -> Box<dyn Connection + '_>;
}

trait Connection: Send {
    /// Puts a file of this content.
    fn put(&mut self, path: &str, content: &[u8]);

    /// Reads a file, which has to have this content.
    fn get(&mut self, path: &str, content: &[u8]);

    fn remove(&mut self, path: &str);
}

/// The depot's own client.
struct Own(depot::client::Cluster);

struct OwnConnection<'a>(&'a depot::client::Cluster);

impl Rival for Own {
    fn name(&self) -> &str {
        "own client"
    }

    fn connect(&self) -> Box<dyn Connection + '_> {
        Box::new(OwnConnection(&self.0))
    }
}

impl Connection for OwnConnection<'_> {
    fn put(&mut self, path: &str, content: &[u8]) {
        let path = path.parse().expect("a path");
        self.0.put(&path, Source::Once(&mut Cursor::new(content)), &PutOptions::default()).expect("a put");
    }

    fn get(&mut self, path: &str, content: &[u8]) {
        let mut file = self.0.get(&path.parse().expect("a path"), Condition::Any).expect("it was put");
        let mut rest = Rest(content);
        file.copy_to(0..u64::MAX, &mut rest).expect("it is whole");
        assert!(rest.0.is_empty(), "the end is missing");
    }

    fn remove(&mut self, path: &str) {
        self.0.remove(&path.parse().expect("a path"), Condition::Any).expect("it is there");
    }
}

/// Takes bytes that are what is left of the content, and nothing else.
struct Rest<'a>(&'a [u8]);

impl Write for Rest<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(self.0.starts_with(bytes), "other bytes came back");
        self.0 = &self.0[bytes.len()..];
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server of HTTP, or of what is like it.
struct Http {
    name: &'static str,
    address: SocketAddr,
    /// The folder that paths are in: S3's bucket.
    folder: &'static str,
}

/// nginx. It ends with this.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("it ran until now");
    }
}

struct HttpConnection {
    stream: BufReader<TcpStream>,
    buffer: Vec<u8>,
    folder: &'static str,
}

/// The bucket of S3's files.
const BUCKET: &str = "/bucket";

/// A gateway, which may have a cache.
fn gateway(store: &Store, cache: Option<Memory>) -> Gateway {
    let client = store.client();
    let client = match cache {
        Some(cache) => client.with_cache(Arc::new(cache) as Arc<dyn ObjectCache>),
        None => client,
    };
    let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
    let options = Options { s3: Some(listen()), ..Options::new(listen()) };
    Gateway::start(options, Arc::new(client)).expect("a gateway")
}

impl Http {
    /// nginx, if it is installed.
    fn nginx(folder: &TempFolder) -> Option<(Self, Nginx)> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let prefix: PathBuf = folder.path().join("nginx");
        fs::create_dir_all(prefix.join("root")).expect("a folder");
        let configuration = format!(
            "daemon off; master_process off; pid {0}/pid; error_log stderr crit;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_body_temp_path {0}/body; client_max_body_size 0; keepalive_requests 1000000000;\n\
             server {{ listen 127.0.0.1:{port}; root {0}/root; dav_methods PUT DELETE; create_full_put_path on; }} }}\n",
            prefix.display()
        );
        let file = prefix.join("nginx.conf");
        fs::write(&file, configuration).expect("a file");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-p").arg(&prefix).stdin(Stdio::null());
        let child = command.spawn().ok()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        kit::eventually("nginx listens", || TcpStream::connect(address).is_ok());
        Some((Self { name: "nginx", address, folder: "" }, Nginx(child)))
    }
}

impl Rival for Http {
    fn name(&self) -> &str {
        self.name
    }

    fn connect(&self) -> Box<dyn Connection + '_> {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let stream = BufReader::with_capacity(256 << 10, stream);
        Box::new(HttpConnection { stream, buffer: vec![0; 256 << 10], folder: self.folder })
    }
}

impl HttpConnection {
    /// Asks, and reads the head of the answer: its status and the length of its body.
    fn ask(&mut self, method: &str, path: &str, content: &[u8]) -> (u16, usize) {
        let (folder, length) = (self.folder, content.len());
        let head = format!("{method} {folder}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let mut stream = self.stream.get_ref();
        if content.len() <= SMALL {
            stream.write_all(&[head.as_bytes(), content].concat()).expect("it is sent");
        } else {
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(content)).expect("it is sent");
        }
        let (mut status, mut length) = (0, 0);
        let mut line = String::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line).expect("an answer");
            let text = line.trim_end();
            match text.split_once(": ") {
                None if text.is_empty() => return (status, length),
                None => status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status"),
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().expect("a number");
                }
                Some(_) => {}
            }
        }
    }

    /// Reads the body of an answer.
    fn body(&mut self, mut length: usize, sink: &mut dyn Write) {
        while length > 0 {
            let some = length.min(self.buffer.len());
            let read = self.stream.read(&mut self.buffer[..some]).expect("the body");
            assert!(read > 0, "the body is cut off");
            sink.write_all(&self.buffer[..read]).expect("it is compared");
            length -= read;
        }
    }
}

impl Connection for HttpConnection {
    fn put(&mut self, path: &str, content: &[u8]) {
        let (status, length) = self.ask("PUT", path, content);
        assert!(matches!(status, 200 | 201 | 204), "{status}");
        self.body(length, &mut io::sink());
    }

    fn get(&mut self, path: &str, content: &[u8]) {
        let (status, length) = self.ask("GET", path, b"");
        assert_eq!((status, length), (200, content.len()));
        self.body(length, &mut Rest(content));
    }

    fn remove(&mut self, path: &str) {
        let (status, length) = self.ask("DELETE", path, b"");
        assert_eq!(status, 204);
        self.body(length, &mut io::sink());
    }
}

/// So many operations a second, done over so many connections at a time.
fn rate(rival: &dyn Rival, clients: u64, operations: u64, operate: &(dyn Fn(&mut dyn Connection, u64) + Sync)) -> f64 {
    // Connected, and warm, off the clock.
    let mut connections: Vec<_> = (0..clients).map(|_| rival.connect()).collect();
    connections.iter_mut().for_each(|connection| connection.get("/warm", b"warm"));
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        for connection in &mut connections {
            let next = &next;
            scope.spawn(move || {
                while let number = next.fetch_add(1, Ordering::Relaxed)
                    && number < operations
                {
                    operate(&mut **connection, number);
                }
            });
        }
    });
    operations as f64 / begun.elapsed().as_secs_f64()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A line for each rival; `rates` has those of each, round by round.
fn report(what: &str, unit: &str, rivals: &[&dyn Rival], mut rates: Vec<Vec<f64>>) {
    let own = median(&mut rates[0]);
    for (rival, rates) in rivals.iter().zip(&mut rates) {
        let middle = median(rates);
        let (least, most) = (rates[0], rates[rates.len() - 1]);
        let (name, ratio) = (rival.name(), middle / own);
        println!("{what:22} {name:18} {middle:9.0} {unit} ({least:.0}-{most:.0}), ratio {ratio:.2}");
    }
}

fn main() {
    // `cargo bench` passes --bench; a test run does not, and only checks that this still works.
    let is_bench = env::args().any(|arg| arg == "--bench");
    let rounds = if is_bench { 5 } else { 1 };
    stevedore::server::raise_descriptor_limit();
    let folder = TempFolder::in_memory();
    let healing = HealingOptions { keep_removed: Duration::ZERO, margin: Duration::ZERO, ..HealingOptions::default() };
    let store = Store::start(folder.path(), StoreOptions { healing, ..StoreOptions::default() });
    let own = Own(store.client());
    let (gateway, with_cache) = (gateway(&store, None), gateway(&store, Some(Memory::new(64 << 20))));
    let plain = Http { name: "HTTP", address: gateway.address(), folder: "" };
    let cached = Http { name: "HTTP, with cache", address: with_cache.address(), folder: "" };
    let s3 = Http { name: "S3", address: gateway.s3_address().expect("it has S3"), folder: BUCKET };
    let bucket = BUCKET.parse().expect("a path");
    own.0.make_directory(&bucket, false, &Details::default(), None).expect("a folder");
    let nginx = if is_bench { Http::nginx(&folder) } else { None };
    let mut rivals: Vec<&dyn Rival> = vec![&own, &plain, &cached, &s3];
    match &nginx {
        Some((nginx, _)) => rivals.push(nginx),
        None if is_bench => println!("nginx is not installed: its lines are missing"),
        None => {}
    }
    // As in `cargo bench --bench load large`.
    let is_small_left_out = env::args().any(|arg| arg == "large");
    let content = bytes(1, SMALL);
    rivals.iter().for_each(|rival| rival.connect().put("/warm", b"warm"));
    let counts: &[u64] = if is_small_left_out { &[] } else { &[1, 8, 32] };
    for &clients in counts {
        let operations = if is_bench { 1_500 + clients * 150 } else { clients * 2 };
        let mut rates = vec![Vec::new(); rivals.len()];
        for round in 0..rounds {
            for (at, (rival, rates)) in rivals.iter().zip(&mut rates).enumerate() {
                let name = |number| format!("/{at}-{clients}-{round}-{number}");
                rates.push(rate(*rival, clients, operations, &|connection, number| {
                    connection.put(&name(number), &content);
                }));
                rival.connect().get(&name(operations - 1), &content);
            }
        }
        report(&format!("put 1 KB, {clients} clients"), "/s", &rivals, rates);
    }
    for rival in &rivals {
        (0..100).for_each(|number| rival.connect().put(&format!("/read-{number}"), &content));
    }
    for &clients in counts {
        let operations = if is_bench { 3_000 + clients * 300 } else { clients * 2 };
        let mut rates = vec![Vec::new(); rivals.len()];
        for _ in 0..rounds {
            for (rival, rates) in rivals.iter().zip(&mut rates) {
                rates.push(rate(*rival, clients, operations, &|connection, number| {
                    connection.get(&format!("/read-{}", number % 100), &content);
                }));
            }
        }
        report(&format!("get 1 KB, {clients} clients"), "/s", &rivals, rates);
    }
    let (idle, slow, operations) = if is_bench { (5_000, 500, 20_000) } else { (20, 4, 16) };
    if !is_small_left_out {
        crowded(&plain, rounds, idle, slow, operations, &content);
    }
    let content = bytes(2, if is_bench { 1 << 30 } else { 1 << 20 });
    let used_before = used(&own.0);
    let (mut puts, mut gets) = (vec![Vec::new(); rivals.len()], vec![Vec::new(); rivals.len()]);
    let megabytes = content.len() as f64 / 1e6;
    for _ in 0..rounds.min(3) {
        for ((rival, puts), gets) in rivals.iter().zip(&mut puts).zip(&mut gets) {
            let mut connection = rival.connect();
            puts.push(megabytes * per_second(|| connection.put("/large", &content)));
            gets.push(megabytes * per_second(|| connection.get("/large", &content)));
            connection.remove("/large");
            kit::eventually("what was removed is gone", || used(&own.0) < used_before + content.len() as u64);
        }
    }
    let size = content.len() >> 20;
    report(&format!("put {size} MiB"), "MB/s", &rivals, puts);
    report(&format!("get {size} MiB"), "MB/s", &rivals, gets);
}

/// Clients that keep connections open, and ask for nothing, or never to the end.
struct Crowd {
    is_over: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Crowd {
    /// So many that are idle after a first request, and so many that send a byte a second: half of them of a head, half of a
    /// body. One that is sent away comes again.
    fn gather(address: SocketAddr, idle: usize, slow: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let connect = move || {
            let stream = TcpStream::connect(address).expect("it listens");
            stream.set_nonblocking(true).expect("a socket");
            stream
        };
        let resting: Vec<TcpStream> = (0..idle).map(|_| connect()).collect();
        for mut stream in &resting {
            stream.write_all(b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is sent");
        }
        let begin = move |number: usize| {
            let mut stream = connect();
            let head: &[u8] = match number % 2 {
                0 => b"GET / HTTP/1.1\r\nHost: localhost\r\nSlow: ",
                _ => b"PUT /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
            };
            stream.write_all(head).expect("it is sent");
            stream
        };
        let mut dripping: Vec<TcpStream> = (0..slow).map(begin).collect();
        let drip = move || {
            while !until.load(Ordering::Acquire) {
                for (number, stream) in dripping.iter_mut().enumerate() {
                    thread::sleep(Duration::from_secs(1) / slow as u32);
                    if stream.write_all(b"x").is_err() {
                        *stream = begin(number);
                    }
                }
            }
            drop(resting);
        };
        Self { is_over, thread: thread::spawn(drip) }
    }

    fn leave(self) {
        self.is_over.store(true, Ordering::Release);
        self.thread.join().expect("it drips to the end");
    }
}

/// What the process has resident, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}

/// How fast a few clients are while many others are idle or slow.
fn crowded(gateway: &Http, rounds: usize, idle: usize, slow: usize, operations: u64, content: &[u8]) {
    let measure = || -> Vec<f64> {
        let get = |connection: &mut dyn Connection, number| connection.get(&format!("/read-{}", number % 100), content);
        (0..rounds).map(|_| rate(gateway, 8, operations, &get)).collect()
    };
    let (mut before, memory) = (measure(), resident());
    let crowd = Crowd::gather(gateway.address, idle, slow);
    let mut beside = measure();
    let each = resident().saturating_sub(memory) / (idle + slow) as u64;
    crowd.leave();
    let mut after = measure();
    let [before, beside, after] = [&mut before, &mut beside, &mut after].map(|rates| median(rates));
    println!(
        "get 1 KB, 8 clients beside {idle} idle and {slow} slow ones: {beside:.0} /s; before {before:.0}, after {after:.0}, ratio {:.2}; \
         {} KiB of memory each, with the crowd's own sockets",
        beside * 2.0 / (before + after),
        each >> 10
    );
}

/// The bytes of objects that Dstores have.
fn used(client: &depot::client::Cluster) -> u64 {
    client.status().expect("a status").dstores.iter().map(|dstore| dstore.used_bytes).sum()
}

fn per_second(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    1.0 / begun.elapsed().as_secs_f64()
}
