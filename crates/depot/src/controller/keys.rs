//! Which keys are leased to which client. (depot 5.1, 5.3)
//!
//! A key that is leased is not garbage although no file names it yet. A lease ends with the commit of its key, once that is
//! applied, or a minute after the client last renewed it. It is memory of one leadership: no key of another one is leased.
//! A key whose lease has ended is never leased again, and what has no lease cannot be committed: what is garbage stays it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::identity::SessionId;
use crate::wire::ClientId;

/// The most keys that one client may have on lease. (depot 12)
const MOST_PER_CLIENT: usize = 16_384;

/// The keys on lease, by number.
#[derive(Debug)]
pub(super) struct Keys {
    /// How long a lease lasts without renewal.
    lease: Duration,
    last: u64,
    leases: BTreeMap<u64, Lease>,
    by_client: HashMap<ClientId, usize>,
}

#[derive(Debug)]
struct Lease {
    client: ClientId,
    until: Instant,
    /// The change that has been proposed with it: a repeat of the same is let through.
    proposed: Option<(SessionId, u64)>,
}

impl Keys {
    /// None are leased. A lease will last so long without renewal.
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, last: 0, leases: BTreeMap::new(), by_client: HashMap::new() }
    }

    /// Whether a client may still commit this key, or is doing so.
    pub(super) fn is_leased(&self, number: u64) -> bool {
        self.leases.contains_key(&number)
    }

    /// The number of a new key; `None` if the client has too many.
    pub(super) fn grant(&mut self, client: ClientId, now: Instant) -> Option<u64> {
        let count = self.by_client.entry(client).or_default();
        if *count >= MOST_PER_CLIENT {
            return None;
        }
        *count += 1;
        self.last += 1;
        self.leases.insert(self.last, Lease { client, until: now + self.lease, proposed: None });
        Some(self.last)
    }

    /// Prolongs a client's lease; false if there is none.
    pub(super) fn renew(&mut self, client: ClientId, number: u64, now: Instant) -> bool {
        let until = now + self.lease;
        let lease = self.leases.get_mut(&number).filter(|lease| lease.client == client);
        lease.is_some_and(|lease| {
            lease.until = until;
            true
        })
    }

    /// A client proposes a change with these keys. False, and without effect, unless it has a lease on each, and has
    /// proposed none of them in another change.
    pub(super) fn propose(&mut self, client: ClientId, numbers: &[u64], change: (SessionId, u64)) -> bool {
        let is_free = |number: &u64| {
            let lease = self.leases.get(number).filter(|lease| lease.client == client);
            lease.is_some_and(|lease| lease.proposed.is_none_or(|proposed| proposed == change))
        };
        let all = numbers.iter().all(is_free);
        if all {
            numbers.iter().for_each(|number| {
                if let Some(lease) = self.leases.get_mut(number) {
                    lease.proposed = Some(change);
                }
            });
        }
        all
    }

    /// The change with these keys was made, or was refused for ever: their leases end.
    pub(super) fn settle(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.end(*number));
    }

    /// Ends the leases that were not renewed. One that is part of a proposed change lasts until that is settled.
    pub(super) fn expire(&mut self, now: Instant) {
        let over = |lease: &Lease| lease.until <= now && lease.proposed.is_none();
        let ended: Vec<u64> = self.leases.iter().filter(|(_, lease)| over(lease)).map(|(number, _)| *number).collect();
        ended.into_iter().for_each(|number| self.end(number));
    }

    fn end(&mut self, number: u64) {
        let Some(lease) = self.leases.remove(&number) else { return };
        if let Some(count) = self.by_client.get_mut(&lease.client) {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&lease.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(60);
    const ONE: ClientId = ClientId(1);
    const OTHER: ClientId = ClientId(2);

    #[test]
    fn a_key_is_committed_once_and_by_its_client() {
        let now = Instant::now();
        let mut keys = Keys::new(LEASE);
        let number = keys.grant(ONE, now).expect("a key");
        let change = (SessionId(1), 1);
        assert!(!keys.propose(OTHER, &[number], change), "another client's");
        assert!(!keys.propose(ONE, &[number, number + 1], change), "one was never granted");
        assert!(keys.propose(ONE, &[number], change));
        assert!(keys.propose(ONE, &[number], change), "a repeat of the same change");
        assert!(!keys.propose(ONE, &[number], (SessionId(1), 2)), "another change");
        keys.settle(&[number]);
        assert!(!keys.propose(ONE, &[number], change), "committed");
        assert_ne!(keys.grant(ONE, now), Some(number));
    }

    #[test]
    fn a_lease_lasts_as_long_as_it_is_renewed() {
        let now = Instant::now();
        let mut keys = Keys::new(LEASE);
        let kept = keys.grant(ONE, now).expect("a key");
        let left = keys.grant(ONE, now).expect("a key");
        let proposed = keys.grant(ONE, now).expect("a key");
        assert!(keys.propose(ONE, &[proposed], (SessionId(1), 1)));
        assert!(keys.renew(ONE, kept, now + LEASE / 2) && !keys.renew(OTHER, left, now));
        keys.expire(now + LEASE);
        assert!(keys.renew(ONE, kept, now) && !keys.renew(ONE, left, now) && keys.renew(ONE, proposed, now));
    }

    #[test]
    fn a_client_has_so_many_keys_at_most() {
        let now = Instant::now();
        let mut keys = Keys::new(LEASE);
        let first = keys.grant(ONE, now).expect("a key");
        assert_eq!((1..MOST_PER_CLIENT).filter(|_| keys.grant(ONE, now).is_none()).count(), 0);
        assert_eq!(keys.grant(ONE, now), None);
        assert!(keys.grant(OTHER, now).is_some(), "others are not concerned");
        keys.settle(&[first]);
        assert!(keys.grant(ONE, now).is_some());
    }
}
