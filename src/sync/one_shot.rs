//! One value, told once, from one thread to another that waits for it.
//!
//! A channel of capacity 1 would do; one lock and one condition variable do it without spinning, and let the
//! schedule-exploring tests see into it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Condvar, Mutex};

/// Tells the value. Dropped without having told it, it tells that there will be none.
#[must_use = "dropped, it ends the wait"]
pub struct Sender<T>(Arc<Shared<T>>);

/// Waits for the value.
pub struct Receiver<T>(Arc<Shared<T>>);

/// No value: not yet, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It may still come.
    Pending,
    /// It will not: the sender is gone, or the value has been taken.
    Gone,
}

struct Shared<T> {
    value: Mutex<Result<T, Missing>>,
    /// Signalled when the value comes, or is known not to.
    told: Condvar,
}

/// The two ends.
pub fn one_shot<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared { value: Mutex::new(Err(Missing::Pending)), told: Condvar::new() });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Tells the value; never waits for the receiver.
    pub fn send(self, value: T) {
        self.settle(Ok(value));
    }

    /// The first time counts.
    fn settle(&self, outcome: Result<T, Missing>) {
        let mut value = self.0.value.lock();
        if matches!(*value, Err(Missing::Pending)) {
            *value = outcome;
            drop(value);
            self.0.told.notify_one();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.settle(Err(Missing::Gone));
    }
}

impl<T> Receiver<T> {
    /// The value, if it is there.
    pub fn try_recv(&self) -> Result<T, Missing> {
        take(&mut self.0.value.lock())
    }

    /// Waits for the value; [`Missing::Gone`] if there will be none.
    pub fn recv(&self) -> Result<T, Missing> {
        self.recv_timeout(Duration::MAX)
    }

    /// Waits for the value, but not longer than this; then it is [`Missing::Pending`].
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, Missing> {
        let deadline = Instant::now().checked_add(timeout); // one that cannot be reached is none
        let mut value = self.0.value.lock();
        while matches!(*value, Err(Missing::Pending)) {
            match deadline {
                None => self.0.told.wait(&mut value),
                Some(deadline) => {
                    if self.0.told.wait_until(&mut value, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        take(&mut value)
    }
}

fn take<T>(value: &mut Result<T, Missing>) -> Result<T, Missing> {
    match value {
        Ok(_) => std::mem::replace(value, Err(Missing::Gone)),
        Err(missing) => Err(*missing),
    }
}
