//! What the log says about peers that do not keep to the protocol: enough to find out what happened, and never so much
//! that a peer could fill the disk with it. (spec 2.6)
//!
//! Well-formed messages are logged whatever their number (spec 5.2); this is for everything else that is said only
//! because a peer did something.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The log target of every complaint about a peer, at level `warn`.
pub const PEER_LOG: &str = "stevedore::peers";

/// How many complaints are logged in a [`PERIOD`], whichever peers cause them.
const MOST: u32 = 100;

/// See [`MOST`].
const PERIOD: Duration = Duration::from_secs(10);

/// Per connection the first 10 mistakes are logged, later ones at each power of two.
const TOLD_ONE_BY_ONE: u64 = 10;

/// Logs a warning about a peer, unless too many have been logged lately; how many were left out is said later.
pub fn complain(complaint: fmt::Arguments<'_>) {
    static LIMIT: Mutex<Limit> = Mutex::new(Limit { begun: None, told: 0, left_out: 0 });
    let admitted = LIMIT.lock().admit(Instant::now());
    if let Some(left_out) = admitted {
        if left_out > 0 {
            log::warn!(target: PEER_LOG, "{left_out} more warnings about peers were not logged");
        }
        log::warn!(target: PEER_LOG, "{complaint}");
    }
}

struct Limit {
    begun: Option<Instant>,
    told: u32,
    left_out: u64,
}

impl Limit {
    /// Whether to tell the next one, and then how many have been left out before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.begun.is_none_or(|begun| now.duration_since(begun) >= PERIOD) {
            *self = Self { begun: Some(now), told: 0, left_out: self.left_out };
        }
        if self.told == MOST {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// The mistakes of one connection. Says at its end how many there were, if not all have been told.
pub(crate) struct Mistakes {
    peer: SocketAddr,
    count: u64,
}

impl Mistakes {
    pub(crate) fn of(peer: SocketAddr) -> Self {
        Self { peer, count: 0 }
    }

    /// Whether the next one will be told.
    pub(crate) fn next_is_told(&self) -> bool {
        let next = self.count + 1;
        next <= TOLD_ONE_BY_ONE || next.is_power_of_two()
    }

    /// One more, with what is wrong with it.
    pub(crate) fn add(&mut self, what: &dyn fmt::Display) {
        let is_told = self.next_is_told();
        self.count += 1;
        match self.count {
            _ if !is_told => {}
            ..=TOLD_ONE_BY_ONE => complain(format_args!("{}: {what}; ignored", self.peer)),
            count => complain(format_args!("{}: {what}; ignored, as {count} in all by now", self.peer)),
        }
    }
}

impl Drop for Mistakes {
    fn drop(&mut self) {
        if self.count > TOLD_ONE_BY_ONE {
            complain(format_args!("{}: closed; ignored {} of its lines in all", self.peer, self.count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_few_however_many_there_would_be() {
        // spec 2.6
        let mut limit = Limit { begun: None, told: 0, left_out: 0 };
        let start = Instant::now();
        let told = (0..10_000).filter(|_| limit.admit(start).is_some()).count();
        assert_eq!(told, MOST as usize);
        assert_eq!(limit.admit(start + PERIOD), Some(10_000 - u64::from(MOST)), "later it is said how many");
        assert_eq!(limit.admit(start + PERIOD), Some(0));
    }

    #[test]
    fn of_a_million_mistakes_on_one_connection_few_are_told() {
        let mut mistakes = Mistakes::of(([127, 0, 0, 1], 1).into());
        let mut told = 0;
        for _ in 0..1_000_000 {
            told += u32::from(mistakes.next_is_told());
            mistakes.count += 1;
        }
        assert_eq!(told, 10 + 16, "and 16, 32, ... 524288");
    }
}
