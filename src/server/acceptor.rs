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

/// How long a thread waits for a connection before it ends, unless nobody else waits.
const PARKED: Duration = Duration::from_secs(5);

/// How many threads wait for connections at most, once as many have been needed at a time. Each has a descriptor meanwhile:
/// Linux reserves that of the connection to come.
const MOST_WAITING: usize = 16;

/// How long accepting rests after an error: out of descriptors, trying again at once would only spin.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Accepts connections and has each served by a thread of a [`ThreadGroup`].
///
/// The thread that accepts a connection serves it, and accepts again: no connection is handed from one to another, which
/// would cost as much as all else that a small transfer needs from the processor. One thread always waits for the next
/// connection: who accepts and leaves nobody waiting starts another first.
pub struct Server(Arc<Acceptors>);

struct Acceptors {
    listener: TcpListener,
    threads: Arc<ThreadGroup>,
    serve: Box<dyn Fn(Arc<TcpStream>) + Send + Sync>,
    /// How many threads wait for a connection, or are about to.
    waiting: AtomicUsize,
    stopping: AtomicBool,
    trouble: Mutex<Trouble>,
}

impl Server {
    /// Starts accepting. `serve` runs once for each connection, which closes when it returns. The threads end with the
    /// group, after [`stop`](Self::stop).
    pub fn start(
        listener: TcpListener,
        threads: &Arc<ThreadGroup>,
        serve: impl Fn(Arc<TcpStream>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        // On Linux this bounds the wait of an accept. Elsewhere a thread that has come to wait does so for ever.
        SockRef::from(&listener).set_read_timeout(Some(PARKED))?;
        let acceptors = Arc::new(Acceptors {
            listener,
            threads: Arc::clone(threads),
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
        self.threads.spawn(move || acceptors.run())
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
        let tracked = self.threads.track(&stream);
        if !self.is_left_to_others(1) {
            self.start_one()?; // in the place of this one
        }
        Ok(|| {
            (self.serve)(stream);
            drop(tracked);
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
}
