//! How much longer a slow client is waited for.
//!
//! A deadline for a whole body would end large bodies, and a deadline for each wait would let a client that sends a byte now
//! and then hold a thread for ever. So a client has a purse of time. Waiting for it takes out of the purse; each byte that
//! moves puts something back, and the purse never holds more than at the start.
//!
//! ```text
//! stall 30 s, slowest rate 1,024 bytes a second:
//!   nothing at all             ends after 30 s
//!   a byte a second            earns 1 ms a second: ends after 31 s
//!   1,000 bytes a second       earns 0.98 s a second: ends after 21 minutes
//!   faster than the slowest    never ends; after a minute of pauses within a second each, all is paid back
//! ```
//!
//! Only waiting is counted: the time that the store takes is no fault of the client.

use std::time::Duration;

/// A client's purse of time.
pub(crate) struct Pace {
    full: Duration,
    left: Duration,
    /// Bytes a second.
    slowest_rate: u64,
}

impl Pace {
    pub(crate) fn new(full: Duration, slowest_rate: u64) -> Self {
        Self { full, left: full, slowest_rate: slowest_rate.max(1) }
    }

    /// How long the next wait may be.
    pub(crate) fn left(&self) -> Duration {
        self.left
    }

    /// Waited for so long.
    pub(crate) fn spend(&mut self, waited: Duration) {
        self.left = self.left.saturating_sub(waited);
    }

    /// So many bytes have moved.
    pub(crate) fn earn(&mut self, bytes: u64) {
        let earned = Duration::from_secs_f64(bytes as f64 / self.slowest_rate as f64);
        self.left = (self.left + earned).min(self.full);
    }

    /// Another request begins.
    pub(crate) fn refill(&mut self) {
        self.left = self.full;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many seconds a client is served that sends so many bytes in each.
    fn seconds_at(bytes: u64) -> Option<u32> {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(30 * second, 1024);
        (1..=100_000).find(|_| {
            pace.spend(second);
            if pace.left().is_zero() {
                return true;
            }
            pace.earn(bytes);
            false
        })
    }

    #[test]
    fn who_is_slower_than_the_rate_ends_in_time() {
        assert_eq!(seconds_at(0), Some(30));
        assert_eq!(seconds_at(1), Some(31));
        assert_eq!(seconds_at(512), Some(59));
        assert!(seconds_at(1000).is_some_and(|seconds| (1000..2000).contains(&seconds)));
        assert_eq!(seconds_at(1024), None);
        assert_eq!(seconds_at(1 << 20), None);
    }

    #[test]
    fn a_fast_start_buys_no_longer_stall() {
        let mut pace = Pace::new(Duration::from_secs(30), 1024);
        pace.earn(1 << 30);
        assert_eq!(pace.left(), Duration::from_secs(30));
    }
}
