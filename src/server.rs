//! One listener, a thread for every connection, and a way to end them all. (design: a thread per connection)
//!
//! Knows nothing of the protocol: a Controller and a Dstore differ in what they do with a connection.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::sync::Mutex;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How long a thread waits for a connection before it ends, unless nobody else waits.
const PARKED: Duration = Duration::from_secs(5);

/// How many threads wait for connections at most, once as many have been needed at a time. Each has a descriptor meanwhile:
/// Linux reserves that of the connection to come.
const MOST_WAITING: usize = 16;

/// How long accepting rests after an error: out of descriptors, trying again at once would only spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Enough for any of our threads; with thousands of connections the default of 2 MiB would show.
const STACK_BYTES: usize = 512 << 10;

/// Listens on `port` (0: any free one) of `bind`, or of every address, IPv4 and IPv6 alike. (spec 7.14)
pub fn listen(bind: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    match bind {
        Some(ip) => listen_on(SocketAddr::from((ip, port))),
        // A machine without IPv6 refuses the first.
        None => listen_on(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
            _ => listen_on(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
        }),
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for the connections of the run before to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts connections and has each served by a thread of a [`Crew`].
///
/// The thread that accepts a connection serves it, and accepts again: no connection is handed from one to another, which
/// would cost as much as all else that a small transfer needs from the processor. One thread always waits for the next
/// connection: who accepts and leaves nobody waiting starts another first.
pub struct Server(Arc<Acceptors>);

struct Acceptors {
    listener: TcpListener,
    crew: Arc<Crew>,
    serve: Box<dyn Fn(Arc<TcpStream>) + Send + Sync>,
    /// How many threads wait for a connection, or are about to.
    waiting: AtomicUsize,
    stopping: AtomicBool,
    trouble: Mutex<Trouble>,
}

impl Server {
    /// Starts accepting. `serve` runs once for each connection, which closes when it returns. The threads end with the
    /// crew, after [`stop`](Self::stop).
    pub fn start(
        listener: TcpListener,
        crew: &Arc<Crew>,
        serve: impl Fn(Arc<TcpStream>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        // On Linux this bounds the wait of an accept. Elsewhere a thread that has come to wait does so for ever.
        SockRef::from(&listener).set_read_timeout(Some(PARKED))?;
        let acceptors = Arc::new(Acceptors {
            listener,
            crew: Arc::clone(crew),
            serve: Box::new(serve),
            waiting: AtomicUsize::new(1),
            stopping: AtomicBool::new(false),
            trouble: Mutex::default(),
        });
        acceptors.start_one()?;
        Ok(Self(acceptors))
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.listener.local_addr()
    }

    /// Accepts no more; the connections that there are go on.
    pub fn stop(&mut self) {
        if self.0.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        // Linux wakes all who accept at once. Elsewhere as many throwaway connections do.
        if SockRef::from(&self.0.listener).shutdown(Shutdown::Both).is_err() {
            for _ in 0..self.0.waiting.load(Ordering::Acquire) {
                let _ = self.address().and_then(|address| TcpStream::connect(reachable(address)));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Acceptors {
    /// Starts a thread that is counted as waiting already.
    fn start_one(self: &Arc<Self>) -> io::Result<()> {
        let acceptors = Arc::clone(self);
        self.crew.run(move || acceptors.run())
    }

    /// Accepts and serves one connection after another; ends when stopping, when enough others wait, or when anything is
    /// short and one other waits.
    fn run(self: &Arc<Self>) {
        loop {
            let accepted = self.listener.accept();
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            let taken = match accepted {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.is_left_to_others(1) {
                        return; // none has come for a while
                    }
                    continue;
                }
                Err(error) if is_about_one_connection(&error) => continue,
                accepted => accepted.and_then(|(stream, _)| self.take(stream)),
            };
            match taken {
                Ok(serve) => {
                    self.trouble.lock().is_over();
                    serve();
                    self.waiting.fetch_add(1, Ordering::AcqRel);
                    if self.is_left_to_others(MOST_WAITING) {
                        return;
                    }
                }
                Err(error) => {
                    self.trouble.lock().has_come(&error);
                    if self.is_left_to_others(1) {
                        return; // others may need what this thread has
                    }
                    thread::sleep(BACK_OFF);
                }
            }
        }
    }

    /// Sees to it that another thread waits for the next connection; what is returned serves this one.
    fn take(self: &Arc<Self>, stream: TcpStream) -> io::Result<impl FnOnce()> {
        // Linux has a new socket inherit what is set for its listener.
        stream.set_read_timeout(None)?;
        let stream = Arc::new(stream);
        let adopted = self.crew.adopt(&stream);
        if !self.is_left_to_others(1) {
            self.start_one()?; // in the place of this one
        }
        Ok(|| {
            (self.serve)(stream);
            drop(adopted);
        })
    }

    /// Counts this thread out, if at least so many others wait.
    fn is_left_to_others(&self, others: usize) -> bool {
        let count_out = |waiting| (waiting > others).then(|| waiting - 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, count_out).is_ok()
    }
}

/// Whether only the connection that was to be accepted has failed, so that the next one may be tried at once. All other
/// errors are taken for a want of descriptors, memory or threads.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | Interrupted
            | PermissionDenied
            | NetworkDown
            | NetworkUnreachable
            | HostUnreachable
            | TimedOut
    )
}

/// Where an address that is listened on can be reached from this machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// What has been said about connections that cannot be taken: that it is so and that it is over, but not time after
/// time where it comes and goes.
#[derive(Default)]
struct Trouble {
    told: Option<Instant>,
    is_on: bool,
}

impl Trouble {
    /// It is not told again before this.
    const QUIET: Duration = Duration::from_secs(10);

    fn has_come(&mut self, error: &io::Error) {
        if !self.is_on && self.told.is_none_or(|told| told.elapsed() >= Self::QUIET) {
            log::error!("cannot take new connections, will keep trying: {error}");
            self.told = Some(Instant::now());
            self.is_on = true;
        }
    }

    fn is_over(&mut self) {
        if self.is_on {
            log::warn!("can take new connections again");
            self.is_on = false;
        }
    }
}

/// The threads and sockets of one Controller or Dstore, so that all of them can be ended.
pub struct Crew {
    name: String,
    /// `None` once stopped.
    threads: Mutex<Option<Vec<JoinHandle<()>>>>,
    sockets: Mutex<HashMap<u64, Arc<TcpStream>>>,
    adoptions: AtomicU64,
    is_stopped: AtomicBool,
}

impl Crew {
    /// Nobody yet; `name` is what its threads are called.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            threads: Mutex::new(Some(Vec::new())),
            sockets: Mutex::default(),
            adoptions: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
        })
    }

    /// Runs `job` on a new thread. Fails if there can be no more, or after [`stop`](Self::stop).
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut threads = self.threads.lock();
        let Some(threads) = &mut *threads else { return Err(io::Error::other("stopping")) };
        if threads.len() == threads.capacity() {
            threads.retain(|thread| !thread.is_finished());
        }
        threads.push(thread::Builder::new().name(self.name.clone()).stack_size(STACK_BYTES).spawn(job)?);
        Ok(())
    }

    /// Sees to it that `stop` ends this socket, until the guard is dropped.
    pub fn adopt(self: &Arc<Self>, socket: &Arc<TcpStream>) -> Adopted {
        let key = self.adoptions.fetch_add(1, Ordering::Relaxed);
        self.sockets.lock().insert(key, Arc::clone(socket));
        // Looked at after the insertion, so that either `stop` finds the socket or this finds that it was missed.
        if self.is_stopped.load(Ordering::SeqCst) {
            end(socket);
        }
        Adopted { crew: Arc::clone(self), key }
    }

    /// Ends every socket, which ends whoever waits on one, and waits for every thread to end. Not to be called by a
    /// thread of the crew.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        let threads = self.threads.lock().take();
        for thread in threads.into_iter().flatten() {
            // Again and again: a socket that was just about to connect does not feel the first time.
            while !thread.is_finished() {
                self.sockets.lock().values().for_each(|socket| end(socket));
                thread::sleep(Duration::from_millis(1));
            }
            let _ = thread.join();
        }
    }
}

/// Ends whoever waits on a socket. One that is to be closed by a reset is not ended in order before that: whoever owns it
/// has seen to it that the peer cannot take the end for a good one, and waits for what the peer sends only.
fn end(socket: &TcpStream) {
    let resets = SockRef::from(socket).linger().is_ok_and(|linger| linger == Some(Duration::ZERO));
    // An error means that it has ended already.
    let _ = socket.shutdown(if resets { Shutdown::Read } else { Shutdown::Both });
}

/// A socket that its crew would end; see [`Crew::adopt`].
pub struct Adopted {
    crew: Arc<Crew>,
    key: u64,
}

impl Drop for Adopted {
    fn drop(&mut self) {
        self.crew.sockets.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn only_a_want_of_resources_makes_accepting_rest() {
        // By Linux's numbers: EMFILE, ENFILE, ENOBUFS, ENOMEM, EAGAIN (no thread), and ECONNABORTED, EINTR, EPERM,
        // ENETDOWN, EHOSTUNREACH, ENETUNREACH of the connection that was to come.
        for (number, expected) in [24, 23, 105, 12, 11].map(|number| (number, false)).into_iter().chain([
            (103, true),
            (4, true),
            (1, true),
            (100, true),
            (113, true),
            (101, true),
        ]) {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(is_about_one_connection(&error), expected, "{error}");
        }
    }

    #[test]
    fn an_address_listened_on_can_be_reached() {
        for (listening, expected) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("127.0.1.1:1", "127.0.1.1:1"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(reachable(listening.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
