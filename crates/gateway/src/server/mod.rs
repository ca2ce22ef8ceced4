//! Connections that speak HTTP/1.1, each served by a thread of its own.
//!
//! [`hyper`] reads and writes HTTP. It is made for programs in which nothing blocks: it is *polled*, does what it can do at
//! once, and says what it waits for. The store is made of calls that block. One thread does both, because it never does both
//! at a time:
//!
//! ```text
//!   thread of a connection                          hyper (server/driver.rs)
//!
//!   next request?  ── poll ─▶ waits for the socket ─▶ reads a head, lays the request on the desk
//!        │                                                                  │
//!        ▼  ◀───────────────────────────────────────────────────────────────┘
//!   Facade::serve(request, reply)                   hyper rests: it is polled by what follows only
//!        │
//!        ├─ body.read()   ── poll ─▶ waits for the socket ─▶ hands over a piece of the body
//!        ├─ store.put()      blocks, as it may
//!        └─ answer.write()── poll ─▶ waits for the socket ─▶ takes a piece of the answer
//! ```
//!
//! So a façade is plain code: it reads a body, calls the store, writes an answer. Nothing is handed from one thread to another.
//! A body is read no faster than the store takes it, and an answer is made no faster than the client takes it. No runtime is
//! needed either: what hyper waits for is always this connection's socket, so `poll(2)` with a deadline is all there is to it.
//!
//! # How long a thread waits for its client
//!
//! A client can be slow, silent, or hostile. Each wait for one is limited ([`Limits`]):
//!
//! | the client | limit |
//! |---|---|
//! | says nothing after it has connected, or between requests | `idle` |
//! | sends a head slowly, or not to its end | `head`, from its first byte on, however many follow |
//! | sends a body slowly, or takes an answer slowly | `stall`, which bytes that move earn back at `slowest_rate` (`pace`) |
//! | sends a larger head | `head_bytes`: status 431 |
//! | comes when there are enough | `connections`: status 503 |
//!
//! A façade that answers before it has read the body ends the connection, unless little is left of the body. Then what the
//! client still sends is read and dropped for a moment: to close at once would reset the connection, and the client would
//! see that in place of the answer.
//!
//! # The end
//!
//! [`Server::stop`] takes no more connections, ends those between requests, and gives the others some time to finish
//! theirs: each such answer says `Connection: close`. After that their sockets are shut down, which ends their threads.
//!
//! | file | what |
//! |---|---|
//! | `socket` | a socket that hyper can poll, and a thread can wait for |
//! | `pace` | how much longer a slow client is waited for |
//! | `driver` | hyper, polled by code that blocks |
//! | `exchange` | what a façade sees: a request, its body, and the way to answer |
//! | `tls` | TLS between the two |
//! | `connections` | how many there are, and which of them wait for a request |

mod connections;
mod driver;
mod exchange;
pub(crate) mod pace;
mod socket;
mod tls;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use stevedore::server::ThreadGroup;

use connections::Connections;
use driver::{Driver, End};
pub use exchange::{Answer, Body, Head, Reply, Request};
use socket::Socket;
pub use tls::Tls;

/// What a client may make last or grow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// So many connections are served at a time.
    pub connections: usize,
    /// A head may have so many bytes.
    pub head_bytes: usize,
    /// So long after its first byte a head must have come.
    pub head: Duration,
    /// So long a connection may be silent between requests.
    pub idle: Duration,
    /// So long a client may neither send what it has announced nor take what it has asked for.
    pub stall: Duration,
    /// In bytes a second: a body that moves slower than this for long ends, even if it never stalls.
    pub slowest_rate: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_bytes: 32 << 10,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            stall: Duration::from_secs(30),
            slowest_rate: 1 << 10,
        }
    }
}

/// What answers requests.
pub trait Facade: Send + Sync + 'static {
    /// Answers a request. May block. A request that is left without an answer gets status 500.
    fn serve(&self, request: Request, reply: Reply);
}

/// A server of HTTP/1.1. See the module.
pub struct Server {
    acceptor: stevedore::server::Server,
    threads: Arc<ThreadGroup>,
    shared: Arc<Shared>,
}

struct Shared {
    facade: Arc<dyn Facade>,
    tls: Option<Tls>,
    limits: Limits,
    connections: Arc<Connections>,
}

impl Server {
    /// Starts to serve what comes to `listener`, over TLS if that is given.
    pub fn start(listener: TcpListener, tls: Option<Tls>, limits: Limits, facade: Arc<dyn Facade>) -> io::Result<Self> {
        let threads = ThreadGroup::new("http");
        let patience = limits.idle;
        let shared = Arc::new(Shared { facade, tls, limits, connections: Arc::default() });
        let of_connections = Arc::clone(&shared);
        let serve = move |stream| of_connections.serve(stream);
        let acceptor = stevedore::server::Server::start(listener, &threads, Some(patience), serve)?;
        Ok(Self { acceptor, threads, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.acceptor.address()
    }

    /// Takes no more connections, ends those that wait for a request, and gives the others `grace` to finish theirs.
    pub fn stop(mut self, grace: Duration) {
        self.acceptor.stop();
        self.shared.connections.end_idle();
        self.shared.connections.wait_for_end(grace);
        self.threads.stop();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.acceptor.stop();
        self.shared.connections.end_idle();
        self.threads.stop();
    }
}

impl Shared {
    /// Serves a connection until it ends.
    fn serve(&self, stream: Arc<TcpStream>) {
        let Ok(peer) = stream.peer_addr() else { return }; // it has ended already
        let Some(entry) = self.connections.enter(&stream, self.limits.connections) else {
            log::info!("{peer}: refused: there are {} connections", self.limits.connections);
            let text = "the gateway has as many connections as it may have: try again soon";
            return self.refuse(&stream, "503 Service Unavailable", "too-many-connections", text);
        };
        let session = self.tls.as_ref().map(Tls::session).transpose();
        let socket = session.and_then(|tls| Ok((Socket::new(Arc::clone(&stream))?, tls)));
        let ended = socket.map_err(End::Io).and_then(|(socket, tls)| {
            let driver = Arc::new(parking_lot::Mutex::new(Driver::new(socket, tls, entry, self.limits.clone())));
            loop {
                let (head, body) = driver.lock().next_request()?;
                let request = Request { head, body: Body::new(Arc::clone(&driver), body), peer };
                self.facade.serve(request, Reply::new(Arc::clone(&driver)));
            }
        });
        let Err::<std::convert::Infallible, End>(end) = ended;
        match end {
            End::Ended => linger(&stream),
            End::SlowHead => {
                log::info!("{peer}: closed: {end}");
                self.refuse(
                    &stream,
                    "408 Request Timeout",
                    "timed-out",
                    "the head of the request did not come in time",
                );
            }
            End::Idle => {}
            _ => log::info!("{peer}: closed: {end}"),
        }
    }

    /// Answers a connection that hyper does not serve, as well as that can be done without waiting, and ends it.
    fn refuse(&self, mut stream: &TcpStream, status: &str, code: &str, message: &str) {
        if self.tls.is_some() {
            return; // it would not be understood
        }
        let body = format!("{{\"error\":\"{code}\",\"message\":\"{message}\"}}\n");
        let again = if status.starts_with("503") { "Retry-After: 1\r\n" } else { "" };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{again}Connection: close\r\n\r\n{body}",
            body.len()
        );
        let sent = stream.set_nonblocking(true).and_then(|()| stream.write_all(answer.as_bytes()));
        if sent.and_then(|()| stream.shutdown(std::net::Shutdown::Write)).is_ok() {
            linger(stream);
        }
    }
}

/// Reads what the client still sends, and drops it, until it has seen that the connection has ended; for a moment only.
fn linger(stream: &TcpStream) {
    const SILENCE: Duration = Duration::from_secs(1);
    const IN_ALL: Duration = Duration::from_secs(5);
    socket::discard(stream, SILENCE, IN_ALL);
}
