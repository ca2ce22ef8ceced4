//! Threads and sockets that can all be ended together.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use crate::sync::Mutex;

/// Enough stack for any of our threads. With thousands of connections the default of 2 MiB would cost too much memory.
const STACK_BYTES: usize = 512 << 10;

/// The threads and sockets of one server, so that all of them can be ended.
///
/// A thread that waits for a socket ends once the socket is shut down. So a socket that a thread of the group waits for
/// is [tracked](Self::track) for as long, and [`stop`](Self::stop) needs to know nothing else about the threads.
pub struct ThreadGroup {
    name: String,
    /// `None` once stopped.
    threads: Mutex<Option<Threads>>,
    sockets: Mutex<HashMap<u64, Arc<TcpStream>>>,
    next_key: AtomicU64,
    is_stopped: AtomicBool,
}

#[derive(Default)]
struct Threads {
    handles: Vec<JoinHandle<()>>,
    /// How many have come to their end and may still be among the handles.
    ended: usize,
}

impl Threads {
    /// Lets go of threads that have ended: the system keeps part of a thread's stack until then. All handles are looked
    /// at only once half of them may have ended, so that the cost for each thread does not grow with their number.
    fn forget_ended(&mut self) {
        if self.ended * 2 >= self.handles.len() {
            self.handles.retain(|thread| !thread.is_finished());
            self.handles.shrink_to(2 * self.handles.len());
            self.ended = 0;
        }
    }
}

impl ThreadGroup {
    /// No threads yet; each will be called `name`.
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            threads: Mutex::new(Some(Threads::default())),
            sockets: Mutex::default(),
            next_key: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
        })
    }

    /// Runs `job` on a new thread. Fails if there can be no more, or after [`stop`](Self::stop).
    pub fn spawn(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let group = Arc::clone(self);
        let job = move || {
            job();
            if let Some(threads) = &mut *group.threads.lock() {
                threads.ended += 1;
                threads.forget_ended();
            }
        };
        let mut threads = self.threads.lock();
        let Some(threads) = &mut *threads else { return Err(io::Error::other("stopping")) };
        threads.handles.push(thread::Builder::new().name(self.name.clone()).stack_size(STACK_BYTES).spawn(job)?);
        Ok(())
    }

    /// Has [`stop`](Self::stop) shut this socket down, until the guard is dropped.
    pub fn track(self: &Arc<Self>, socket: &Arc<TcpStream>) -> Tracked {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        self.sockets.lock().insert(key, Arc::clone(socket));
        // Checked after the insertion: either `stop` finds the socket, or this finds that `stop` has missed it.
        if self.is_stopped.load(Ordering::SeqCst) {
            shut_down(socket);
        }
        Tracked { group: Arc::clone(self), key }
    }

    /// Shuts every tracked socket down and waits for every thread to end. Not to be called by a thread of the group.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        let threads = self.threads.lock().take();
        for thread in threads.unwrap_or_default().handles {
            // Repeated: a socket that was just about to connect does not notice the first shutdown.
            while !thread.is_finished() {
                self.sockets.lock().values().for_each(|socket| shut_down(socket));
                thread::sleep(Duration::from_millis(1));
            }
            let _ = thread.join();
        }
    }
}

/// Wakes the thread that waits for a socket. A socket that is set to end in a reset is only closed for reading: its peer
/// must not see an orderly end, and its thread waits for nothing but what the peer sends.
fn shut_down(socket: &TcpStream) {
    let resets = SockRef::from(socket).linger().is_ok_and(|linger| linger == Some(Duration::ZERO));
    // An error means that it has ended already.
    let _ = socket.shutdown(if resets { Shutdown::Read } else { Shutdown::Both });
}

/// A socket that [`ThreadGroup::stop`] shuts down, for as long as this exists.
pub struct Tracked {
    group: Arc<ThreadGroup>,
    key: u64,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.group.sockets.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn threads_that_have_ended_are_let_go_of() {
        let group = ThreadGroup::new("test");
        let (begin, may_begin) = channel::<()>();
        let may_begin = Arc::new(Mutex::new(may_begin));
        for _ in 0..100 {
            let may_begin = Arc::clone(&may_begin);
            group.spawn(move || while may_begin.lock().recv().is_ok() {}).unwrap();
        }
        assert_eq!(group.threads.lock().as_ref().unwrap().handles.len(), 100);
        drop(begin);
        let left = || group.threads.lock().as_ref().map_or(0, |threads| threads.handles.len());
        while left() > 4 {
            thread::yield_now(); // the last ones cannot be seen to have ended by themselves
        }
        group.stop();
        assert!(group.spawn(|| ()).is_err());
    }
}
