//! Accepts connections, and has a thread serve each.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::ThreadGroup;
use super::listen::reachable;
use crate::sync::Mutex;

/// How long a thread waits for a connection before it ends, unless no other thread waits.
const PARKED: Duration = Duration::from_secs(5);

/// How long a connection may say nothing at all while others cannot be taken. Its thread looks this often whether that is
/// the case. If not, the thread goes on waiting. On Linux a connection inherits this limit from the listener.
const SILENCE: Duration = PARKED;

/// The same for a connection that is taken when others could not be.
const SILENCE_IF_SHORT: Duration = Duration::from_secs(1);

/// At most this many threads wait for connections, however many have been needed at a time. Each uses up a descriptor
/// meanwhile, as Linux reserves the one for the connection to come.
const MOST_WAITING: usize = 16;

/// How long accepting rests after an error: out of descriptors, trying again at once would only spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Accepts connections and has each served by a thread of a [`ThreadGroup`].
///
/// For protocols in which the connecting peer speaks first. A connection is served from its first byte on. Before that
/// it may be silent for as long as its server says, unless descriptors or threads are short: then it is closed after 5 s
/// at most.
///
/// The thread that accepts a connection serves it, and then accepts again. No connection is handed from one thread to
/// another: that would cost as much processor time as all the rest of a small transfer. One thread always waits for the
/// next connection: when the last waiting thread accepts one, it first starts another thread.
pub struct Server(Arc<Acceptors>);

struct Acceptors {
    listener: TcpListener,
    threads: Arc<ThreadGroup>,
    serve: Box<dyn Fn(Arc<TcpStream>) + Send + Sync>,
    patience: Option<Duration>,
    /// How many threads wait for a connection, or are about to.
    waiting: AtomicUsize,
    stopping: AtomicBool,
    trouble: Mutex<Trouble>,
}

impl Server {
    /// Starts accepting. `serve` runs once for each connection that has said something, and the connection closes when
    /// it returns. One that has said nothing for `patience`, or up to 5 s longer, is closed; with `None` it may be
    /// silent for ever. The threads end with the group, after [`stop`](Self::stop).
    pub fn start(
        listener: TcpListener,
        threads: &Arc<ThreadGroup>,
        patience: Option<Duration>,
        serve: impl Fn(Arc<TcpStream>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        // On Linux this bounds the wait of an accept. Elsewhere a thread that has come to wait does so for ever.
        SockRef::from(&listener).set_read_timeout(Some(PARKED))?;
        let acceptors = Arc::new(Acceptors {
            listener,
            threads: Arc::clone(threads),
            serve: Box::new(serve),
            patience,
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
        // On Linux this wakes all threads in accept. Elsewhere as many throwaway connections do.
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
        self.threads.spawn(move || acceptors.run())
    }

    /// Accepts and serves one connection after another. Ends when the server stops, when enough other threads wait, or
    /// when descriptors or threads are short and one other thread waits.
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
                    let is_short = self.trouble.lock().is_over();
                    serve(is_short);
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

    /// Makes sure that another thread waits for the next connection. Returns a closure that serves this one, and takes
    /// whether connections could not be taken lately.
    fn take(self: &Arc<Self>, stream: TcpStream) -> io::Result<impl FnOnce(bool)> {
        // Linux has a new socket inherit what is set for its listener.
        #[cfg(not(target_os = "linux"))]
        stream.set_read_timeout(Some(SILENCE))?;
        let stream = Arc::new(stream);
        let tracked = self.threads.track(&stream);
        if !self.is_left_to_others(1) {
            self.start_one()?; // in the place of this one
        }
        Ok(move |is_short| {
            // If the connection has failed already, there is nothing to serve.
            if self.wait_for_first_byte(&stream, is_short).is_ok() {
                (self.serve)(stream);
            }
            drop(tracked);
        })
    }

    /// Returns once a byte, or the end of the stream, has come. Fails with `WouldBlock` if the peer is silent for too long, or
    /// while other connections cannot be taken.
    fn wait_for_first_byte(&self, stream: &TcpStream, is_short: bool) -> io::Result<()> {
        let patience = if is_short { Some(SILENCE_IF_SHORT) } else { self.patience };
        if let Some(patience) = patience.filter(|patience| *patience < SILENCE) {
            stream.set_read_timeout(Some(patience))?;
        }
        let begun = Instant::now();
        let may_be_silent = || self.patience.is_none_or(|patience| begun.elapsed() < patience);
        while let Err(error) = stream.peek(&mut [0]) {
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock if may_be_silent() && !self.trouble.lock().is_recent() => {}
                _ => return Err(error),
            }
        }
        stream.set_read_timeout(None)
    }

    /// Counts this thread as not waiting any more, if at least so many others wait.
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

/// Connections that could not be taken. The log says when this begins and when it is over, but not each time if it
/// comes and goes.
#[derive(Default)]
struct Trouble {
    last: Option<Instant>,
    told: Option<Instant>,
    is_on: bool,
}

impl Trouble {
    /// The log does not repeat it sooner than this.
    const QUIET: Duration = Duration::from_secs(10);

    fn has_come(&mut self, error: &io::Error) {
        self.last = Some(Instant::now());
        if !self.is_on && self.told.is_none_or(|told| told.elapsed() >= Self::QUIET) {
            log::error!("cannot take new connections, will keep trying: {error}");
            self.told = self.last;
            self.is_on = true;
        }
    }

    /// Notes that a connection was taken. Returns whether another could not be taken lately.
    fn is_over(&mut self) -> bool {
        if self.is_on {
            log::warn!("can take new connections again");
            self.is_on = false;
        }
        self.is_recent()
    }

    fn is_recent(&self) -> bool {
        self.last.is_some_and(|last| last.elapsed() < SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::server::listen;

    #[test]
    fn a_connection_that_says_nothing_is_closed_in_time() {
        let threads = ThreadGroup::new("test");
        let patience = Some(Duration::from_millis(50));
        let mut server = Server::start(listen(None, 0).unwrap(), &threads, patience, |_| {}).unwrap();
        let mut silent = TcpStream::connect(reachable(server.address().unwrap())).unwrap();
        assert_eq!(silent.read(&mut [0]).unwrap(), 0, "it ends in order");
        server.stop();
        threads.stop();
    }

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
}
