//! How often passwords may be tried.
//!
//! Each wrong password fills two buckets, one of the address that it came from and one of the user that it was for. Both leak. When
//! one is full, no further password is looked at until it has leaked enough for one.
//!
//! | bucket | holds | leaks | so in a day |
//! |---|---|---|---|
//! | of an address | 10 | one in 5 s | 17,290 guesses |
//! | of a user | 100 | one in 2 s | 43,300 guesses, however many addresses guess |
//!
//! The second one can be filled by strangers: then no client can log in as that user, unless its password is remembered from before. That is the
//! price; it is over soon after the guessing is, and a user stays logged in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Of so many addresses and users it is known how often they failed.
const MOST_BUCKETS: usize = 10_000;

/// What has failed lately.
#[derive(Default)]
pub(super) struct Attempts {
    buckets: Mutex<HashMap<Whose, Bucket>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Whose {
    /// IPv6: of a network of 2^64 addresses, which one guesser may have all of.
    Address(IpAddr),
    User(String),
}

impl Whose {
    fn holds(&self) -> u32 {
        match self {
            Self::Address(_) => 10,
            Self::User(_) => 100,
        }
    }

    /// The time in which one failure leaks away.
    fn leak(&self) -> Duration {
        match self {
            Self::Address(_) => Duration::from_secs(5),
            Self::User(_) => Duration::from_secs(2),
        }
    }
}

/// A bucket is empty at this instant, if nothing is added.
#[derive(Clone, Copy)]
struct Bucket {
    empty_at: Instant,
}

impl Attempts {
    /// After so long an address may try another password; `None` if it may now.
    pub(super) fn time_until_next(&self, now: Instant, peer: IpAddr) -> Option<Duration> {
        time_until_room(&self.buckets.lock(), &Whose::Address(network(peer)), now)
    }

    /// Tries a password, and counts it if it is wrong. Fails with the time to wait if there were too many; it is not tried then.
    pub(super) fn try_once(
        &self,
        now: Instant,
        name: &str,
        peer: IpAddr,
        is_right: impl FnOnce() -> bool,
    ) -> Result<bool, Duration> {
        let whose = [Whose::Address(network(peer)), Whose::User(name.to_owned())];
        {
            let mut buckets = self.buckets.lock();
            if let Some(over) = whose.iter().find_map(|one| time_until_room(&buckets, one, now)) {
                return Err(over);
            }
            // Counted before the password is tried, and given back if it is right: many may be tried at a time.
            for one in &whose {
                make_room(&mut buckets, now);
                let bucket = buckets.entry(one.clone()).or_insert(Bucket { empty_at: now });
                bucket.empty_at = bucket.empty_at.max(now) + one.leak();
            }
        }
        let is_right = is_right();
        if is_right {
            let mut buckets = self.buckets.lock();
            for one in &whose {
                if let Some(bucket) = buckets.get_mut(one) {
                    bucket.empty_at = bucket.empty_at.checked_sub(one.leak()).unwrap_or(now);
                }
            }
        }
        Ok(is_right)
    }
}

/// After so long another attempt may be made; `None` if that is now.
fn time_until_room(buckets: &HashMap<Whose, Bucket>, one: &Whose, now: Instant) -> Option<Duration> {
    let full = one.leak() * one.holds();
    let left = buckets.get(one).map_or(Duration::ZERO, |bucket| bucket.empty_at.saturating_duration_since(now));
    // There must be room for one more.
    (left + one.leak()).checked_sub(full).filter(|over| !over.is_zero())
}

/// Forgets buckets that are empty, or else all: a peer that guesses from so many addresses gains little by that.
fn make_room(buckets: &mut HashMap<Whose, Bucket>, now: Instant) {
    if buckets.len() >= MOST_BUCKETS {
        buckets.retain(|_, bucket| bucket.empty_at > now);
    }
    if buckets.len() >= MOST_BUCKETS {
        buckets.clear();
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_ten_guesses_and_then_one_in_five_seconds() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let here = address("10.0.0.1");
        for guess in 0..10 {
            assert_eq!(attempts.try_once(start, &format!("user{guess}"), here, || false), Ok(false));
        }
        let wait = attempts.try_once(start, "alice", here, || panic!("it is not tried")).unwrap_err();
        assert_eq!(wait, Duration::from_secs(5));
        assert_eq!(attempts.try_once(start, "alice", address("10.0.0.2"), || true), Ok(true), "others may");
        let later = start + wait;
        assert_eq!(attempts.try_once(later, "alice", here, || false), Ok(false));
        assert!(attempts.try_once(later, "alice", here, || true).is_err(), "only one");
    }

    #[test]
    fn a_user_has_a_hundred_guesses_from_everywhere() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let guess = |number: u32, at| {
            attempts.try_once(at, "alice", IpAddr::V4(std::net::Ipv4Addr::from_bits(number)), || false)
        };
        for number in 0..100 {
            assert_eq!(guess(number, start), Ok(false));
        }
        assert_eq!(guess(1_000, start), Err(Duration::from_secs(2)));
        assert_eq!(guess(1_000, start + Duration::from_secs(2)), Ok(false));
        assert_eq!(attempts.try_once(start, "bob", address("10.0.0.1"), || true), Ok(true), "others may log in");
    }

    #[test]
    fn a_right_password_costs_nothing() {
        let attempts = Attempts::default();
        let start = Instant::now();
        for _ in 0..1_000 {
            assert_eq!(attempts.try_once(start, "alice", address("10.0.0.1"), || true), Ok(true));
        }
    }

    #[test]
    fn a_network_of_one_guesser_counts_as_one_address() {
        let attempts = Attempts::default();
        let start = Instant::now();
        for host in 0..10 {
            let _ = attempts.try_once(start, &format!("user{host}"), address(&format!("2001:db8::{host:x}")), || false);
        }
        assert!(attempts.try_once(start, "a", address("2001:db8::ffff"), || true).is_err());
        assert!(attempts.try_once(start, "a", address("2001:db8:0:1::1"), || true).is_ok());
        assert_eq!(network(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }

    #[test]
    fn however_many_guess_the_memory_is_bounded() {
        let attempts = Attempts::default();
        let start = Instant::now();
        for number in 0..20_000_u32 {
            let from = IpAddr::V4(std::net::Ipv4Addr::from_bits(number));
            let _ = attempts.try_once(start, &number.to_string(), from, || false);
        }
        assert!(attempts.buckets.lock().len() <= MOST_BUCKETS);
    }
}
