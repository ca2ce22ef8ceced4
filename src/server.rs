//! One listener, a thread for every connection, and a way to end them all. (design: a thread per connection)
//!
//! Knows nothing of the protocol: a Controller and a Dstore differ in what they do with a connection.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use parking_lot::Mutex;
use socket2::{Domain, SockRef, Socket, Type};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How long a thread whose connection has ended waits for another before it ends, too.
const PARKED: Duration = Duration::from_secs(5);

/// How long the accept loop rests after an error: out of descriptors, trying again at once would only spin.
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
pub struct Server {
    listener: Arc<TcpListener>,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts accepting. `serve` runs once for each connection, which closes when it returns.
    pub fn start<F>(listener: TcpListener, crew: &Arc<Crew>, serve: F) -> io::Result<Self>
    where
        F: Fn(Arc<TcpStream>) + Send + Sync + 'static,
    {
        let listener = Arc::new(listener);
        let stopping = Arc::new(AtomicBool::new(false));
        let accepting = thread::Builder::new().name("accept".into()).spawn({
            let (listener, stopping, crew) = (Arc::clone(&listener), Arc::clone(&stopping), Arc::clone(crew));
            move || accept(&listener, &stopping, &crew, &Arc::new(serve))
        })?;
        Ok(Self { listener, stopping, accepting: Some(accepting) })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts no more; the connections that there are go on.
    pub fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.stopping.store(true, Ordering::Release);
        // Linux wakes the accept at once. Elsewhere a throwaway connection does.
        if SockRef::from(&*self.listener).shutdown(Shutdown::Both).is_err() {
            let _ = self.listener.local_addr().and_then(|address| TcpStream::connect(reachable(address)));
        }
        let _ = accepting.join();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ends when `stopping` is set and the listener shut down.
fn accept<F>(listener: &TcpListener, stopping: &AtomicBool, crew: &Arc<Crew>, serve: &Arc<F>)
where
    F: Fn(Arc<TcpStream>) + Send + Sync + 'static,
{
    let mut trouble = Trouble::default();
    loop {
        let accepted = listener.accept();
        if stopping.load(Ordering::Acquire) {
            return;
        }
        let outcome = match accepted {
            Err(error) if is_about_one_connection(&error) => continue,
            accepted => accepted.and_then(|(stream, _)| {
                let stream = Arc::new(stream);
                let serve = Arc::clone(serve);
                let guard = crew.adopt(&stream);
                crew.run(move || {
                    serve(stream);
                    drop(guard);
                })
            }),
        };
        match outcome {
            Ok(()) => trouble.is_over(),
            Err(error) => {
                trouble.has_come(&error);
                thread::sleep(BACK_OFF);
            }
        }
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
///
/// A thread that has done its job is parked for a while and takes the next: with a connection per transfer, starting
/// a thread would be a large part of the work.
pub struct Crew {
    name: String,
    /// Hands a job to a parked thread; `None` once stopped. The receiving end is the parked threads'.
    jobs: Mutex<Option<Sender<Job>>>,
    parked: Receiver<Job>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    sockets: Mutex<HashMap<u64, Arc<TcpStream>>>,
    adoptions: AtomicU64,
}

type Job = Box<dyn FnOnce() + Send>;

impl Crew {
    /// Nobody yet; `name` is what its threads are called.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        // No capacity: a job is handed over only to a thread that waits for one.
        let (jobs, parked) = crossbeam_channel::bounded(0);
        Arc::new(Self {
            name: name.into(),
            jobs: Mutex::new(Some(jobs)),
            parked,
            threads: Mutex::default(),
            sockets: Mutex::default(),
            adoptions: AtomicU64::new(0),
        })
    }

    /// Runs `job` on a parked thread, or on a new one if none is. Fails if there can be no more threads, or after
    /// [`stop`](Self::stop).
    pub fn run(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let jobs = self.jobs.lock();
        let Some(sender) = &*jobs else { return Err(io::Error::other("stopping")) };
        let job = match sender.try_send(Box::new(job)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job,
        };
        let parked = self.parked.clone();
        let thread = thread::Builder::new().name(self.name.clone()).stack_size(STACK_BYTES).spawn(move || {
            let mut job = job;
            loop {
                job();
                job = match parked.recv_timeout(PARKED) {
                    Ok(next) => next,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
                };
            }
        })?;
        let mut threads = self.threads.lock();
        if threads.len() == threads.capacity() {
            threads.retain(|thread| !thread.is_finished());
        }
        threads.push(thread);
        Ok(())
    }

    /// Sees to it that `stop` ends this socket, until the guard is dropped.
    pub fn adopt(self: &Arc<Self>, socket: &Arc<TcpStream>) -> Adopted {
        let key = self.adoptions.fetch_add(1, Ordering::Relaxed);
        self.sockets.lock().insert(key, Arc::clone(socket));
        // Looked at after the insertion, so that either `stop` finds the socket or this finds that it was missed.
        if self.jobs.lock().is_none() {
            end(socket);
        }
        Adopted { crew: Arc::clone(self), key }
    }

    /// Ends every socket, which ends whoever waits on one, and waits for every thread to end. Not to be called by a
    /// thread of the crew.
    pub fn stop(&self) {
        drop(self.jobs.lock().take());
        for thread in std::mem::take(&mut *self.threads.lock()) {
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
    fn only_a_want_of_resources_makes_the_accept_loop_rest() {
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
