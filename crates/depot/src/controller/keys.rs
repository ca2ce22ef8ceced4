//! Which keys are leased to which client. (depot 5.1, 5.3)
//!
//! A key that is leased is not garbage although no file names it yet. A lease ends with the commit of its key, once that is
//! applied, or a minute after the client last renewed it. A key whose lease has ended is not leased again in that leadership, and
//! what has no lease cannot be committed: what is garbage stays it.
//!
//! Leases are memory of one leadership. A new leader knows none of those before, and leases keys of earlier leaderships again to
//! clients that renew them, for as long as it has not begun to collect what no file names.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::identity::{Epoch, Key, SessionId};
use crate::wire::ClientId;

/// The most keys that one client may have on lease. (depot 12)
const MOST_PER_CLIENT: usize = 16_384;

/// The keys on lease.
#[derive(Debug)]
pub(super) struct Keys {
    /// How long a lease lasts without renewal.
    lease: Duration,
    /// The number of the key that was granted last.
    last: u64,
    leases: BTreeMap<Key, Lease>,
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

    /// How long a lease lasts without renewal, in milliseconds.
    pub(super) fn lease_ms(&self) -> u64 {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a client may still commit this key, or is doing so.
    pub(super) fn is_leased(&self, key: Key) -> bool {
        self.leases.contains_key(&key)
    }

    /// A new key of this leadership; `None` if the client has too many.
    pub(super) fn grant(&mut self, client: ClientId, epoch: Epoch, now: Instant) -> Option<Key> {
        let key = Key { history: epoch.history, term: epoch.term, number: self.last + 1 };
        self.adopt(client, key, now).then(|| {
            self.last += 1;
            key
        })
    }

    /// Leases a key that is not on lease. False if the client has too many.
    pub(super) fn adopt(&mut self, client: ClientId, key: Key, now: Instant) -> bool {
        let count = self.by_client.entry(client).or_default();
        if *count >= MOST_PER_CLIENT {
            return false;
        }
        *count += 1;
        self.leases.insert(key, Lease { client, until: now + self.lease, proposed: None });
        true
    }

    /// Prolongs a client's lease; false if there is none.
    pub(super) fn renew(&mut self, client: ClientId, key: Key, now: Instant) -> bool {
        let until = now + self.lease;
        let lease = self.leases.get_mut(&key).filter(|lease| lease.client == client);
        lease.is_some_and(|lease| {
            lease.until = until;
            true
        })
    }

    /// A client proposes a change with these keys. False, and without effect, unless it has a lease on each, and has
    /// proposed none of them in another change.
    pub(super) fn propose(&mut self, client: ClientId, keys: &[Key], change: (SessionId, u64)) -> bool {
        let is_free = |key: &Key| {
            let lease = self.leases.get(key).filter(|lease| lease.client == client);
            lease.is_some_and(|lease| lease.proposed.is_none_or(|proposed| proposed == change))
        };
        let all = keys.iter().all(is_free);
        if all {
            keys.iter().for_each(|key| {
                if let Some(lease) = self.leases.get_mut(key) {
                    lease.proposed = Some(change);
                }
            });
        }
        all
    }

    /// The change with these keys was made, or was refused for ever: their leases end.
    pub(super) fn settle(&mut self, keys: &[Key]) {
        keys.iter().for_each(|key| self.end(*key));
    }

    /// Ends the leases that were not renewed. One that is part of a proposed change lasts until that is settled.
    pub(super) fn expire(&mut self, now: Instant) {
        let over = |lease: &Lease| lease.until <= now && lease.proposed.is_none();
        let ended: Vec<Key> = self.leases.iter().filter(|(_, lease)| over(lease)).map(|(key, _)| *key).collect();
        ended.into_iter().for_each(|key| self.end(key));
    }

    fn end(&mut self, key: Key) {
        let Some(lease) = self.leases.remove(&key) else { return };
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
    use crate::identity::History;

    const LEASE: Duration = Duration::from_secs(60);
    const EPOCH: Epoch = Epoch { history: History(1), term: 2, nonce: 3 };
    const ONE: ClientId = ClientId(1);
    const OTHER: ClientId = ClientId(2);

    #[test]
    fn a_key_is_committed_once_and_by_its_client() {
        let now = Instant::now();
        let mut keys = Keys::new(LEASE);
        let key = keys.grant(ONE, EPOCH, now).expect("a key");
        let other = Key { number: key.number + 1, ..key };
        let change = (SessionId(1), 1);
        assert!(!keys.propose(OTHER, &[key], change), "another client's");
        assert!(!keys.propose(ONE, &[key, other], change), "one was never granted");
        assert!(keys.propose(ONE, &[key], change));
        assert!(keys.propose(ONE, &[key], change), "a repeat of the same change");
        assert!(!keys.propose(ONE, &[key], (SessionId(1), 2)), "another change");
        keys.settle(&[key]);
        assert!(!keys.propose(ONE, &[key], change), "committed");
        assert_ne!(keys.grant(ONE, EPOCH, now), Some(key));
    }

    #[test]
    fn a_key_of_an_earlier_leadership_is_leased_again() {
        let now = Instant::now();
        let mut keys = Keys::new(LEASE);
        let earlier = Key { history: EPOCH.history, term: EPOCH.term - 1, number: 1 };
        assert!(!keys.renew(ONE, earlier, now));
        assert!(keys.adopt(ONE, earlier, now) && keys.renew(ONE, earlier, now) && keys.is_leased(earlier));
        assert_eq!(keys.grant(ONE, EPOCH, now).map(|key| key.number), Some(1), "of this one");
        assert!(keys.propose(ONE, &[earlier], (SessionId(1), 1)));
    }

    #[test]
    fn a_lease_lasts_as_long_as_it_is_renewed() {
        let now = Instant::now();
        let mut keys = Keys::new(LEASE);
        let kept = keys.grant(ONE, EPOCH, now).expect("a key");
        let left = keys.grant(ONE, EPOCH, now).expect("a key");
        let proposed = keys.grant(ONE, EPOCH, now).expect("a key");
        assert!(keys.propose(ONE, &[proposed], (SessionId(1), 1)));
        assert!(keys.renew(ONE, kept, now + LEASE / 2) && !keys.renew(OTHER, left, now));
        keys.expire(now + LEASE);
        assert!(keys.renew(ONE, kept, now) && !keys.renew(ONE, left, now) && keys.renew(ONE, proposed, now));
    }

    #[test]
    fn a_client_has_so_many_keys_at_most() {
        let now = Instant::now();
        let mut keys = Keys::new(LEASE);
        let first = keys.grant(ONE, EPOCH, now).expect("a key");
        assert_eq!((1..MOST_PER_CLIENT).filter(|_| keys.grant(ONE, EPOCH, now).is_none()).count(), 0);
        assert_eq!(keys.grant(ONE, EPOCH, now), None);
        assert!(keys.grant(OTHER, EPOCH, now).is_some(), "others are not concerned");
        keys.settle(&[first]);
        assert!(keys.grant(ONE, EPOCH, now).is_some());
    }
}
