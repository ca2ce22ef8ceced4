//! A queue from many threads to one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::{Condvar, Mutex};

/// The queue, and whether anything may still come.
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

    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        change(&mut self.state.lock());
        self.changed.notify_one();
    }
}

/// The sending end of a channel. Dropping it closes the channel.
pub struct Sender<T>(Arc<Channel<T>>);

/// The receiving end of a channel.
pub struct Receiver<T>(Arc<Channel<T>>);

/// The receiving end of what one thread is told, until it is stopped.
pub struct Inbox<T>(Arc<Channel<T>>);

/// Dropping it ends the thread of an [`Inbox`].
pub struct Stop(Box<dyn Fn() + Send + Sync>);

/// What an [`Inbox`] has for its thread.
pub enum Next<T> {
    /// A message.
    Message(T),
    /// There was none before the deadline.
    TimedOut,
    /// The thread is to end.
    Stopped,
}

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
        move || channel.change(|state| state.is_stopped = true)
    }));
    (Sender(Arc::clone(&channel)), stop, Inbox(channel))
}

impl<T> Sender<T> {
    /// Sends, and never waits. With the receiver gone nobody hears of it.
    pub fn send(&self, message: T) {
        self.0.change(|state| state.messages.push_back(message));
    }

    /// How much has not been received yet.
    pub fn len(&self) -> usize {
        self.0.state.lock().messages.len()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.change(|state| state.is_closed = true);
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<T> Receiver<T> {
    /// Waits for a message; `None` once the channel is closed and empty.
    pub fn recv(&self) -> Option<T> {
        let mut state = self.0.state.lock();
        loop {
            if let Some(message) = state.messages.pop_front() {
                return Some(message);
            }
            if state.is_closed {
                return None;
            }
            self.0.changed.wait(&mut state);
        }
    }
}

impl<T> Inbox<T> {
    /// Waits for a message, until the deadline if there is one, or until the thread is stopped, which comes before what
    /// has not been received yet.
    pub fn next(&self, deadline: Option<Instant>) -> Next<T> {
        let mut state = self.0.state.lock();
        loop {
            if state.is_stopped {
                return Next::Stopped;
            }
            if let Some(message) = state.messages.pop_front() {
                return Next::Message(message);
            }
            if state.is_closed {
                return Next::Stopped;
            }
            match deadline {
                None => self.0.changed.wait(&mut state),
                Some(deadline) => {
                    if self.0.changed.wait_until(&mut state, deadline) && state.messages.is_empty() {
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
