//! How much memory uploads may take.
//!
//! The store keeps a chunk of what it is sent in memory until enough Dstores have it. A client may send all but the last byte of
//! a chunk and then wait, for as long as its pace allows, and thousands may do so at a time. So what comes of all uploads is
//! taken from one budget, up to a chunk for each.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What is left of the memory for uploads, in bytes.
pub(crate) struct Budget {
    left: Mutex<u64>,
    given_back: Condvar,
}

/// What an upload has taken, until it is dropped.
pub(crate) struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { left: Mutex::new(bytes), given_back: Condvar::new() }
    }

    /// Nothing yet.
    pub(crate) fn share(&self) -> Share<'_> {
        Share { budget: self, bytes: 0 }
    }
}

impl Share<'_> {
    /// Takes so many bytes more. If there are not so many, it waits for others to give back theirs; false if they do not within
    /// `patience`.
    pub(crate) fn grow(&mut self, bytes: u64, patience: Duration) -> bool {
        if bytes == 0 {
            return true;
        }
        let deadline = Instant::now() + patience;
        let mut left = self.budget.left.lock();
        while *left < bytes {
            if self.budget.given_back.wait_until(&mut left, deadline).timed_out() && *left < bytes {
                return false;
            }
        }
        *left -= bytes;
        self.bytes += bytes;
        true
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.budget.left.lock() += self.bytes;
        // Several that wait for less may go on.
        self.budget.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn shares_add_up_to_the_budget_and_come_back() {
        let budget = Budget::new(10);
        let mut first = budget.share();
        let mut second = budget.share();
        assert!(first.grow(3, Duration::ZERO) && first.grow(3, Duration::ZERO) && second.grow(4, Duration::ZERO));
        assert!(!second.grow(1, Duration::ZERO), "there is nothing left");
        assert!(second.grow(0, Duration::ZERO), "and nothing needs nothing");
        drop(second);
        let mut third = budget.share();
        assert!(!third.grow(5, Duration::ZERO));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| third.grow(5, Duration::from_secs(60)));
            drop(first);
            assert!(waiting.join().unwrap(), "it waits for what comes back");
        });
        drop(third);
        assert_eq!(*budget.left.lock(), 10);
    }
}
