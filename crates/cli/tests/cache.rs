//! Gateways that share a cache in Redis: it is never stale, and a Redis that stops, dies or lies fails no request.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::{Gateway, Whole, text};
use kit::{Program, TempFolder, eventually, has_tools};

/// A Redis server of its own.
struct Redis {
    port: u16,
    folder: TempFolder,
    server: Program,
}

impl Redis {
    /// `None`, and says so, if it is not installed.
    fn start() -> Option<Self> {
        if !has_tools(&["redis-server", "redis-cli"]) {
            return None;
        }
        let port = kit::free_port();
        let folder = TempFolder::new();
        let server = Self::run(port, &folder);
        Some(Self { port, folder, server })
    }

    fn run(port: u16, folder: &TempFolder) -> Program {
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir", text(folder.path())]);
        let mut server = Program::spawn(command);
        server.wait_for_log("Ready to accept connections");
        server
    }

    fn restart(&mut self) {
        self.server.kill();
        self.server = Self::run(self.port, &self.folder);
    }

    fn ask(&self, words: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A gateway with that cache.
struct Cached {
    _gateway: Gateway,
    http: String,
    admin: String,
}

impl Cached {
    fn start(store: &Whole, redis: &Redis) -> Self {
        let cache = format!("redis://127.0.0.1:{}/", redis.port);
        let mut gateway = Gateway::start(&store.user, &["--admin", "0", "--cache", &cache]);
        let address = |url: String| url.trim_start_matches("http://").split('/').next().expect("an address").to_owned();
        let (http, admin) = (address(gateway.place("HTTP")), address(gateway.place("Metrics")));
        Self { _gateway: gateway, http, admin }
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let (status, body) = ask(&self.http, "GET", path, b"");
        assert_eq!(status, 200, "{path}");
        body
    }

    fn put(&self, path: &str, content: &[u8]) {
        let (status, _) = ask(&self.http, "PUT", path, content);
        assert!(matches!(status, 200..=204), "{path}: {status}");
    }

    fn count(&self, what: &str) -> u64 {
        let (_, metrics) = ask(&self.admin, "GET", "/metrics", b"");
        let metrics = String::from_utf8(metrics).unwrap();
        let name = format!("stevedore_gateway_cache_{what}_total ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("the metric").parse().unwrap()
    }
}

fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), answer[end + 4..].to_vec())
}

/// Ends the readers, also where the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Content that says which version it is of.
fn version(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(1_000)
}

/// The version that all of this content is of.
fn version_of(content: &[u8]) -> u64 {
    let number = u64::from_be_bytes(content[..8].try_into().unwrap());
    assert!(content == version(number), "parts of two versions");
    number
}

#[test]
fn what_two_gateways_share_is_never_stale() {
    let Some(redis) = Redis::start() else { return };
    let store = Whole::start(3, "never");
    let gateways = [Cached::start(&store, &redis), Cached::start(&store, &redis)];
    gateways[0].put("/a", &version(0));
    // An exchange with Redis that takes too long is given up, and that gateway does without for a while.
    assert_eq!(version_of(&gateways[0].get("/a")), 0);
    eventually("the first has put it there", || {
        !redis.ask(&["keys", "stevedore:*"]).is_empty() || version_of(&gateways[0].get("/a")) != 0
    });
    eventually("the second has it of the first", || {
        version_of(&gateways[1].get("/a")) == 0 && gateways[1].count("hits") > 0
    });
    let (stored, done, reads) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _done = Done(&done);
        for reader in 0..4 {
            let (gateways, stored, done, reads) = (&gateways, &stored, &done, &reads);
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    let at_least = stored.load(Ordering::Acquire);
                    let got = version_of(&gateways[reader % 2].get("/a"));
                    assert!(got >= at_least, "{got} was read after {at_least} had been stored");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for number in 1..=100 {
            gateways[number as usize % 2].put("/a", &version(number));
            stored.store(number, Ordering::Release);
        }
        let before = reads.load(Ordering::Relaxed);
        eventually("the last one is read, too", || reads.load(Ordering::Relaxed) >= before + 20);
    });
    assert!(gateways[0].count("hits") + gateways[1].count("hits") > 10, "it was a cache meanwhile");
    // What another program alters there is not believed.
    eventually("it was there, and was not believed", || {
        for key in redis.ask(&["keys", "stevedore:*"]).lines() {
            redis.ask(&["setrange", key, "100", "altered"]);
        }
        let before = gateways[0].count("hits");
        assert_eq!(version_of(&gateways[0].get("/a")), 100);
        gateways[0].count("hits") == before + 1
    });
}

#[test]
fn a_redis_that_stops_or_dies_fails_no_request() {
    let Some(mut redis) = Redis::start() else { return };
    let store = Whole::start(3, "never");
    let gateway = Cached::start(&store, &redis);
    gateway.put("/a", &version(7));
    let all_is_well = || {
        thread::scope(|scope| {
            for reader in 0..8 {
                let gateway = &gateway;
                scope.spawn(move || {
                    for round in 0..20 {
                        assert_eq!(version_of(&gateway.get("/a")), 7);
                        gateway.put(&format!("/b{reader}"), &version(round));
                        assert_eq!(version_of(&gateway.get(&format!("/b{reader}"))), round);
                    }
                });
            }
        });
    };
    let is_used_again = || {
        let before = gateway.count("hits");
        gateway.get("/a");
        gateway.count("hits") > before
    };
    eventually("it is used", is_used_again);
    redis.server.signal("STOP");
    all_is_well();
    assert!(gateway.count("failures") > 0, "it was asked, and said nothing");
    let of_a_stopped_one = gateway.count("failures");
    redis.server.signal("CONT");
    eventually("it is used once it goes on", is_used_again);
    redis.server.kill();
    all_is_well();
    assert!(gateway.count("failures") > of_a_stopped_one, "it was gone");
    redis.restart();
    eventually("it is used once it is there again", is_used_again);
}
