//! The same for shuttle, which has no clock: time passes as the scheduler likes. A wait with a deadline may end at any
//! moment, or long after everybody else has come to rest; one without ends only when somebody ends it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync;

use super::Next;

pub use shuttle::thread;

/// shuttle's mutex, as parking_lot words it.
#[derive(Default)]
pub struct Mutex<T>(sync::Mutex<T>);

/// The lock, until it is dropped. Without the inner guard only within [`Condvar::wait`].
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    inner: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// Unlocked.
    pub fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Locked.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, inner: Some(self.relock()) }
    }

    /// parking_lot knows no poison.
    fn relock(&self) -> sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("locked")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("locked")
    }
}

/// shuttle's condition variable, as parking_lot words it.
#[derive(Default)]
pub struct Condvar(sync::Condvar);

/// Why a wait with a deadline has ended.
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether it was the deadline.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// Nobody waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits to be notified.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let inner = guard.inner.take().expect("locked");
        guard.inner = Some(self.0.wait(inner).unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets others go on for a while; then the deadline may have passed, or the thread was woken, perhaps for nothing.
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) -> WaitTimeoutResult {
        guard.inner = None;
        thread::yield_now();
        guard.inner = Some(guard.mutex.relock());
        WaitTimeoutResult(thread_rng().gen_ratio(1, 4))
    }

    /// Wakes one of those who wait.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A channel, or an inbox: a queue, and whether anything may still come.
struct Channel<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    messages: VecDeque<T>,
    is_closed: bool,
    is_stopped: bool,
}

impl<T> Channel<T> {
    fn new() -> Arc<Self> {
        let state = State { messages: VecDeque::new(), is_closed: false, is_stopped: false };
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }
}

/// The sending end of a channel.
pub struct Sender<T>(Arc<Channel<T>>);

/// The receiving end of a channel.
pub struct Receiver<T>(Arc<Channel<T>>);

/// The receiving end of what one thread is told, until it is stopped.
pub struct Inbox<T>(Arc<Channel<T>>);

/// Dropping it ends the thread of an [`Inbox`].
pub struct Stop(Box<dyn Fn() + Send + Sync>);

/// The channel is closed, and empty.
#[derive(Debug)]
pub struct Disconnected;

/// A channel that takes any number of messages.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let channel = Channel::new();
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

/// An inbox, how to put something into it, and how to stop the thread whose it is.
pub fn inbox<T: Send + 'static>() -> (Sender<T>, Stop, Inbox<T>) {
    let channel = Channel::new();
    let stop = Stop(Box::new({
        let channel = Arc::clone(&channel);
        move || {
            channel.state.lock().is_stopped = true;
            channel.changed.notify_all();
        }
    }));
    (Sender(Arc::clone(&channel)), stop, Inbox(channel))
}

impl<T> Sender<T> {
    /// Sends; with the receiver gone nobody notices, which nobody here asks for.
    pub fn send(&self, message: T) -> Result<(), Infallible> {
        self.0.state.lock().messages.push_back(message);
        self.0.changed.notify_all();
        Ok(())
    }

    /// How much has not been received yet.
    pub fn len(&self) -> usize {
        self.0.state.lock().messages.len()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<T> Receiver<T> {
    /// Waits for a message, or for the end of the channel.
    pub fn recv(&self) -> Result<T, Disconnected> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(message) = state.messages.pop_front() {
                return Ok(message);
            }
            if state.is_closed {
                return Err(Disconnected);
            }
            self.0.changed.wait(&mut state);
        }
    }
}

impl<T> Inbox<T> {
    /// Waits for a message, until the deadline if there is one, or until the thread is stopped. Of what is there
    /// already it takes any, as `select!` does.
    pub fn next(&self, deadline: Option<Instant>) -> Next<T> {
        let mut state = self.0.state.lock();
        loop {
            let is_stopped = state.is_stopped || state.is_closed;
            if is_stopped && (state.messages.is_empty() || thread_rng().r#gen()) {
                return Next::Stopped;
            }
            if let Some(message) = state.messages.pop_front() {
                return Next::Message(message);
            }
            match deadline {
                None => self.0.changed.wait(&mut state),
                Some(deadline) => {
                    if self.0.changed.wait_until(&mut state, deadline).timed_out() {
                        return Next::TimedOut;
                    }
                }
            }
        }
    }

    /// Drops what has come so far.
    pub fn clear(&self) {
        let cleared = std::mem::take(&mut self.0.state.lock().messages);
        drop(cleared);
    }
}
