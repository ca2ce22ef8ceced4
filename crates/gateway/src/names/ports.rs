//! Ports that clients are told to listen on.
//!
//! A client binds its port without SO_REUSEADDR, so the same client is offered no port again while its system may still
//! remember a connection there. And no two transfers to one address have the same port at a time, since two clients may share a
//! machine. Clients of other addresses take no port away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// So many ports of clients are remembered: more than there are ports, for many clients.
const MOST_REMEMBERED: usize = 100_000;

/// The ports of a façade.
pub(super) struct Ports {
    range: RangeInclusive<u16>,
    /// So long a client is not offered a port again.
    rest: Duration,
    state: Mutex<State>,
    given_back: Condvar,
}

#[derive(Default)]
struct State {
    /// Of transfers that are under way.
    taken: BTreeSet<(IpAddr, u16)>,
    /// When a client's transfer on a port ended.
    used: BTreeMap<(IpAddr, u16), Instant>,
    is_closed: bool,
}

/// A port that one transfer has, until this is dropped.
pub(super) struct Port {
    pub(super) number: u16,
    client: IpAddr,
    ports: Arc<Ports>,
}

impl Ports {
    pub(super) fn new(range: RangeInclusive<u16>, rest: Duration) -> Arc<Self> {
        Arc::new(Self { range, rest, state: Mutex::default(), given_back: Condvar::new() })
    }

    /// One for this client. Where all have been used lately, it waits until one has rested; `None` if the façade ends meanwhile.
    pub(super) fn take(self: &Arc<Self>, client: IpAddr) -> Option<Port> {
        let mut state = self.state.lock();
        while !state.is_closed {
            let now = Instant::now();
            state.used.retain(|_, ended| now.duration_since(*ended) < self.rest);
            let is_free = |port: &u16| {
                let place = (client, *port);
                !state.taken.contains(&place) && !state.used.contains_key(&place)
            };
            if let Some(number) = self.range.clone().find(is_free) {
                state.taken.insert((client, number));
                return Some(Port { number, client, ports: Arc::clone(self) });
            }
            let of_client = state.used.iter().filter(|((whose, _), _)| *whose == client);
            let next = of_client.map(|(_, ended)| *ended + self.rest).min();
            match next {
                Some(next) => drop(self.given_back.wait_until(&mut state, next)),
                None => self.given_back.wait(&mut state),
            }
        }
        None
    }

    /// Has those that wait go on without a port.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.given_back.notify_all();
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut state = self.ports.state.lock();
        state.taken.remove(&(self.client, self.number));
        if state.used.len() < MOST_REMEMBERED {
            state.used.insert((self.client, self.number), Instant::now());
        }
        drop(state);
        self.ports.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const LONG: Duration = Duration::from_secs(3_600);

    fn client(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn no_two_transfers_to_an_address_have_the_same_port() {
        let ports = Ports::new(3_504..=3_505, Duration::ZERO);
        let taken: Vec<_> = [1, 1, 2].map(|number| ports.take(client(number)).unwrap()).into();
        let numbers: Vec<_> = taken.iter().map(|port| port.number).collect();
        assert_eq!(numbers, [3_504, 3_505, 3_504], "a client has all ports, whatever others have");
        thread::scope(|scope| {
            let waits = scope.spawn(|| ports.take(client(1)).unwrap().number);
            drop(taken);
            assert!((3_504..=3_505).contains(&waits.join().unwrap()));
        });
    }

    #[test]
    fn a_client_is_not_offered_a_port_again_before_it_has_rested() {
        // Taken, and given back at once.
        let used = |ports: &Arc<Ports>, number| ports.take(client(number)).map(|port| port.number);
        let ports = Ports::new(3_504..=3_505, LONG);
        assert_eq!([used(&ports, 1), used(&ports, 1)], [Some(3_504), Some(3_505)]);
        assert_eq!(used(&ports, 2), Some(3_504), "another client's system knows nothing of it");
        thread::scope(|scope| {
            let waits = scope.spawn(|| used(&ports, 1));
            ports.close();
            assert_eq!(waits.join().unwrap(), None, "it is not offered one, however long it waits");
        });
        let soon = Ports::new(3_504..=3_504, Duration::from_millis(1));
        assert_eq!([used(&soon, 1), used(&soon, 1)], [Some(3_504), Some(3_504)]);
    }
}
