//! Which Controller to ask. (depot 4.5, 7)
//!
//! What changes something is for the leader. Everything else any Controller answers: a client asks one of them, always the
//! same, so that the reads of many clients are spread over all. The addresses that a client is given are a beginning; one that
//! is reached says where all of them are. Should none of those be reached any more, the given ones are tried again.

use std::time::{Duration, Instant};

use crate::identity::ControllerId;
use crate::wire::Address;
use crate::wire::message::Request;

/// So often a client asks where the Controllers are, beside something else: in time, each that it knows may be replaced by
/// another one.
const REFRESH: Duration = Duration::from_secs(10);

/// Where the Controllers are, as far as a client knows.
pub(super) struct Controllers {
    /// Those that belong to the store, and behind them those that were given and do not.
    pub(super) all: Vec<Address>,
    /// So many of them belong to the store.
    members: usize,
    given: Vec<Address>,
    /// The one that was the leader last.
    leader: Option<Address>,
    /// The one that is asked what any of them can answer.
    reader: Option<Address>,
    /// They may have changed since they were asked for.
    is_stale: bool,
    /// When they were asked for last.
    asked: Option<Instant>,
}

impl Controllers {
    pub(super) fn new(given: Vec<Address>) -> Self {
        let all = given.clone();
        let (members, leader, reader) = (given.len(), None, None);
        let mut controllers = Self { all, members, given, leader, reader, is_stale: true, asked: None };
        controllers.choose_reader();
        controllers
    }

    fn choose_reader(&mut self) {
        self.reader = (self.members > 0).then(|| self.all[fastrand::usize(..self.members)].clone());
    }

    /// Whether a Controller of the store should be there. Another program may have taken the place of one that was.
    pub(super) fn belongs(&self, address: &Address) -> bool {
        self.all[..self.members].contains(address) || self.leader.as_ref() == Some(address)
    }

    pub(super) fn has_several(&self) -> bool {
        self.all.len() > 1
    }

    /// Which one to ask first; `None` if none is known.
    pub(super) fn first(&self, request: &Request) -> Option<Address> {
        let leader = self.leader.as_ref().filter(|_| request.is_for_leader());
        leader.or(self.reader.as_ref()).cloned()
    }

    /// Which one to ask after this one has failed.
    pub(super) fn other(&mut self, failed: &Address) -> Address {
        self.is_stale = true;
        self.leader.take_if(|leader| leader == failed);
        let at = self.all.iter().position(|address| address == failed).map_or(0, |at| at + 1);
        let next = self.all.get(at).or(self.all.first()).unwrap_or(failed).clone();
        if self.reader.as_ref() == Some(failed) {
            self.reader = Some(next.clone());
        }
        next
    }

    /// This one does not lead; perhaps it knows which one does. Which one to ask next.
    pub(super) fn not_leader(&mut self, asked: &Address, leader: Option<Address>) -> Address {
        self.leader = leader.filter(|leader| leader != asked);
        self.is_stale |= self.leader.as_ref().is_some_and(|leader| !self.all.contains(leader));
        match self.leader.clone() {
            Some(leader) => leader,
            None => {
                let reader = self.reader.clone();
                let next = self.other(asked);
                self.reader = reader; // it answers what any of them can
                next
            }
        }
    }

    /// This one has done what it was asked for. Whether it should be asked where all of them are.
    pub(super) fn answered(&mut self, address: &Address, request: &Request, now: Instant) -> bool {
        if request.is_for_leader() {
            self.leader = Some(address.clone());
        }
        // Else a client that changes several in a moment would know none of them in the end.
        self.is_stale |= matches!(request, Request::AddController { .. } | Request::RemoveController { .. });
        self.asks(now)
    }

    /// Whether one that has answered should be asked where all of them are.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        let is_due = self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= REFRESH);
        let asks = std::mem::take(&mut self.is_stale) || is_due;
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// This one is asked what any of them can answer.
    pub(super) fn prefer(&mut self, address: Address) {
        self.reader = Some(address);
    }

    /// All that there are.
    pub(super) fn learn(&mut self, leader: Option<ControllerId>, controllers: Vec<(ControllerId, Address)>) {
        if controllers.is_empty() {
            return;
        }
        let at =
            |id: ControllerId| controllers.iter().find(|(other, _)| *other == id).map(|(_, address)| address.clone());
        self.leader = leader.and_then(at).or(self.leader.take());
        self.all = controllers.into_iter().map(|(_, address)| address).collect();
        self.members = self.all.len();
        if self.reader.as_ref().is_none_or(|reader| !self.all.contains(reader)) {
            self.choose_reader();
        }
        let others: Vec<Address> = self.given.iter().filter(|given| !self.all.contains(given)).cloned().collect();
        self.all.extend(others);
    }
}

impl Request {
    /// Whether only the leader answers it. (depot 4.5)
    fn is_for_leader(&self) -> bool {
        match self {
            Self::Session
            | Self::Stat { .. }
            | Self::Open { .. }
            | Self::List { .. }
            | Self::Find { .. }
            | Self::Watch { .. }
            | Self::Backup
            | Self::Controllers => false,
            Self::Status
            | Self::Places { .. }
            | Self::Copies { .. }
            | Self::Replace { .. }
            | Self::Renew { .. }
            | Self::Change { .. }
            | Self::ChangeMany { .. }
            | Self::Holders { .. }
            | Self::Suspect { .. }
            | Self::Repair { .. }
            | Self::Drain { .. }
            | Self::Discharge { .. }
            | Self::CollectUnclaimed
            | Self::AddController { .. }
            | Self::RemoveController { .. }
            | Self::HandOver { .. } => true,
        }
    }

    /// How long the answer may be awaited on purpose.
    pub(super) fn waits(&self) -> Duration {
        match self {
            Self::Watch { wait_ms, .. } => Duration::from_millis(*wait_ms),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> Address {
        format!("h:{}", 7000 + number).parse().expect("an address")
    }

    fn controllers(count: usize) -> Controllers {
        Controllers::new((0..count).map(address).collect())
    }

    const READ: Request = Request::Session;

    fn change() -> Request {
        Request::Renew { keys: Vec::new() }
    }

    #[test]
    fn changes_go_to_the_leader_and_reads_to_one_of_all() {
        let mut controllers = controllers(3);
        let reader = controllers.first(&READ).expect("one is known");
        assert_eq!(controllers.first(&change()), Some(reader.clone()), "none is known to lead");
        let leader = (0..3).map(address).find(|address| *address != reader).expect("another one");
        assert_eq!(controllers.not_leader(&reader, Some(leader.clone())), leader);
        assert_eq!(controllers.first(&change()), Some(leader.clone()));
        assert_eq!(controllers.first(&READ), Some(reader.clone()), "it answers what any of them can");
        // It leads no more, and knows no other one: all are asked in turn.
        let next = controllers.not_leader(&leader, None);
        assert_ne!(next, leader);
        assert_eq!((controllers.first(&change()), controllers.first(&READ)), (Some(reader.clone()), Some(reader)));
    }

    #[test]
    fn after_failures_every_controller_is_asked() {
        let mut controllers = controllers(3);
        let first = controllers.first(&READ).expect("one is known");
        let second = controllers.other(&first);
        let third = controllers.other(&second);
        assert_eq!(controllers.other(&third), first);
        let all: std::collections::BTreeSet<Address> = [first, second, third].into();
        assert_eq!(all.len(), 3);
        assert_eq!(Controllers::new(Vec::new()).first(&READ), None);
    }

    #[test]
    fn what_was_given_is_a_beginning_only() {
        let (mut controllers, now) = (controllers(1), Instant::now());
        assert!(controllers.answered(&address(0), &READ, now), "it is asked where all are");
        let all = vec![(ControllerId(1), address(7)), (ControllerId(2), address(8))];
        controllers.learn(Some(ControllerId(2)), all);
        assert_eq!(controllers.first(&change()), Some(address(8)));
        assert!([Some(address(7)), Some(address(8))].contains(&controllers.first(&READ)));
        assert!(!controllers.answered(&address(8), &change(), now), "it was asked");
        controllers.other(&address(8));
        assert!(controllers.answered(&address(7), &READ, now), "one has failed since");
        controllers.not_leader(&address(7), Some(address(8)));
        assert!(!controllers.answered(&address(8), &change(), now), "it is known");
        controllers.not_leader(&address(8), Some(address(9)));
        assert!(controllers.answered(&address(9), &change(), now), "one leads that is new");
        assert!(controllers.answered(&address(9), &change(), now + REFRESH), "it was asked long ago");
        let add = Request::AddController { address: address(10) };
        assert!(controllers.answered(&address(9), &add, now + REFRESH), "the client itself has changed them");
        controllers.learn(None, Vec::new());
        assert!(controllers.first(&READ).is_some());
        let in_turn = [7, 8].map(|number| controllers.other(&address(number)));
        assert_eq!(in_turn, [8, 0].map(address), "the given one is tried last");
        assert!(controllers.belongs(&address(8)) && !controllers.belongs(&address(0)));
    }
}
