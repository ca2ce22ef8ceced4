//! What the programs are built with.

use std::convert::Infallible;
use std::time::Instant;

use crossbeam_channel::{at, bounded, never, select};

use super::Next;

pub use crossbeam_channel::{Receiver, Sender, unbounded};
pub use parking_lot::{Condvar, Mutex};
pub use std::thread;

/// Dropping it ends the thread of an [`Inbox`].
pub type Stop = Sender<Infallible>;

/// The receiving end of what one thread is told, until it is stopped.
pub struct Inbox<T> {
    messages: Receiver<T>,
    stop: Receiver<Infallible>,
}

/// An inbox, how to put something into it, and how to stop the thread whose it is.
pub fn inbox<T>() -> (Sender<T>, Stop, Inbox<T>) {
    let (sender, messages) = unbounded();
    let (stopper, stop) = bounded(0);
    (sender, stopper, Inbox { messages, stop })
}

impl<T> Inbox<T> {
    /// Waits for a message, until the deadline if there is one, or until the thread is stopped.
    pub fn next(&self, deadline: Option<Instant>) -> Next<T> {
        let timeout = deadline.map_or_else(never, at);
        select! {
            recv(self.messages) -> message => message.map_or(Next::Stopped, Next::Message),
            recv(timeout) -> _ => Next::TimedOut,
            recv(self.stop) -> _ => Next::Stopped,
        }
    }

    /// Drops what has come so far.
    pub fn clear(&self) {
        while self.messages.try_recv().is_ok() {}
    }
}
