//! Small objects in a Redis server, for all gateways of a store.
//!
//! Redis only makes reads cheaper. Each exchange with it, and each connection to an address of it, has [`PATIENCE`]; where one fails, the Dstores are asked as if there
//! were no cache, and for [`PAUSE`] Redis is left alone. So a server that hangs delays one request each [`PAUSE`] by [`PATIENCE`], and
//! besides those that were waiting for it when it began to hang.
//!
//! Only the look-up of its name has no limit of ours: the system's resolver has its own, often 5 s. So give an address, or a name that is
//! answered on the machine, where the name server may be lost.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use depot::client::ObjectCache;
use depot::identity::{ClusterId, Key};
use parking_lot::Mutex;
use redis::{Client, Connection, RedisResult};

use super::{Cache, Figures, LARGEST};

/// How long Redis may take for an exchange. In one network it takes a thousandth of that.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long Redis is left alone after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// How long an object is kept that is read no more, in seconds: its file may be gone. A server of its own limits its memory, too.
const LIFE: u64 = 24 * 3_600;

/// More connections than this are not kept open between requests.
const MOST_IDLE: usize = 64;

/// A cache in a Redis server.
pub struct Redis {
    client: Client,
    /// Several stores may share a server.
    prefix: String,
    connections: Mutex<Connections>,
    hits: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
}

struct Connections {
    idle: Vec<Connection>,
    /// Redis failed: it is left alone until then.
    paused: Option<Instant>,
}

/// A text that names no Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidServer(String);

impl fmt::Display for InvalidServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; a Redis server is written redis://HOST:PORT, as in redis://:password@10.0.0.9:6379/0", self.0)
    }
}

impl std::error::Error for InvalidServer {}

impl Redis {
    /// A cache for a store in the server at this URL, which is connected to when there is something to ask.
    pub fn new(url: &str, cluster: ClusterId) -> Result<Self, InvalidServer> {
        let client = Client::open(url).map_err(|error| InvalidServer(error.to_string()))?;
        Ok(Self {
            client,
            prefix: format!("stevedore:{cluster}:"),
            connections: Mutex::new(Connections { idle: Vec::new(), paused: None }),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Does something with a connection; `None` if Redis is not to be had.
    fn with<T>(&self, exchange: impl FnOnce(&mut Connection) -> RedisResult<T>) -> Option<T> {
        let idle = {
            let mut connections = self.connections.lock();
            match connections.paused {
                Some(until) if Instant::now() < until => return None,
                // This thread tries. The others go on without meanwhile.
                Some(_) => connections.paused = Some(Instant::now() + PAUSE),
                None => {}
            }
            connections.idle.pop()
        };
        let exchanged = idle.map_or_else(|| self.connect(), Ok).and_then(|mut connection| {
            let answer = exchange(&mut connection)?;
            Ok((connection, answer))
        });
        let mut connections = self.connections.lock();
        match exchanged {
            Ok((connection, answer)) => {
                if connections.paused.take().is_some() {
                    log::warn!("the cache in Redis is used again");
                }
                if connections.idle.len() < MOST_IDLE {
                    connections.idle.push(connection);
                }
                Some(answer)
            }
            Err(error) => {
                // The others have probably broken with it.
                connections.idle.clear();
                if connections.paused.replace(Instant::now() + PAUSE).is_none() {
                    log::warn!("reads go on without the cache in Redis: {error}");
                }
                drop(connections);
                self.failures.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    fn connect(&self) -> RedisResult<Connection> {
        let connection = self.client.get_connection_with_timeout(PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        Ok(connection)
    }
}

impl ObjectCache for Redis {
    fn largest(&self) -> u64 {
        LARGEST
    }

    fn get(&self, key: &Key) -> Option<Arc<[u8]>> {
        let found: Option<Vec<u8>> = self.with(|redis| redis::cmd("GET").arg(self.name(key)).query(redis)).flatten();
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found.map(Arc::from)
    }

    fn keep(&self, key: Key, bytes: Arc<[u8]>) {
        self.with(|redis| redis::cmd("SET").arg(self.name(&key)).arg(&*bytes).arg("EX").arg(LIFE).exec(redis));
    }
}

impl Cache for Redis {
    fn figures(&self) -> Figures {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures { hits: of(&self.hits), misses: of(&self.misses), bytes: 0, failures: of(&self.failures) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn a_url_that_names_no_server_is_refused() {
        for url in ["", "10.0.0.9:6379", "http://a:1", "redis://a:port"] {
            let refused = Redis::new(url, ClusterId(1)).map(|_| ()).unwrap_err().to_string();
            assert!(refused.contains("redis://HOST:PORT"), "{url}: {refused}");
        }
    }

    #[test]
    fn a_server_that_says_nothing_is_left_alone_for_a_while() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cache = Redis::new(&format!("redis://{}/", listener.local_addr().unwrap()), ClusterId(1)).unwrap();
        for _ in 0..1_000 {
            assert!(cache.get(&Key::default()).is_none());
        }
        let Figures { misses, failures, .. } = cache.figures();
        assert_eq!(misses, 1_000);
        assert!((1..=10).contains(&failures), "{failures} of 1000 have waited");
    }

    #[test]
    fn what_breaks_off_or_answers_nonsense_is_a_miss() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cache = Redis::new(&format!("redis://{}/", listener.local_addr().unwrap()), ClusterId(1)).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(b"HTTP/1.1 400 what?\r\n\r\n").unwrap();
        });
        assert!(cache.get(&Key::default()).is_none());
        server.join().unwrap();
        cache.keep(Key::default(), vec![1].into());
        assert_eq!(cache.figures(), Figures { misses: 1, failures: 1, ..Figures::default() });
    }
}
