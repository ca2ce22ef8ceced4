//! Which Controllers belong to the store, and how that changes while it runs. (depot 4.7)
//!
//! The namespace has a table of the Controllers: what an operator wants. Raft's library has its members: who votes. The leader
//! brings the members in line with the table, one step at a time, and any later leader goes on with it:
//!
//! ```text
//! in the table, no member           ──▶ becomes a learner: it is sent all that there is
//! a learner that has caught up      ──▶ becomes a voter
//! a member that is not in the table ──▶ is a member no more
//! ```
//!
//! So a Controller is added by one change of the namespace, and removed by one, whatever happens meanwhile.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Shared, now_ms};
use crate::identity::ControllerId;
use crate::log::{MemberChange, MemberError, ProposeError};
use crate::namespace::change::{Change, Command};
use crate::wire::Address;
use crate::wire::message::{Answer, Failure, Order};

/// So often it is looked whether there is something to do.
const PERIOD: Duration = Duration::from_millis(100);

/// A learner that lacks no more entries than this gets a vote.
const CLOSE: u64 = 1_000;

/// A member that was not heard of for so long is away.
pub(super) const AWAY: Duration = Duration::from_secs(3);

/// A Controller that is added may take so long to catch up before the request is answered.
const CATCH_UP: Duration = Duration::from_secs(20);

/// A hand-over may take so long; and so long where this Controller ends, and the others may end as well.
pub(super) const HAND_OVER: Duration = Duration::from_secs(2);
pub(super) const LAST_HAND_OVER: Duration = Duration::from_millis(500);

/// No group has more members: with more, each change only costs more.
const MOST_CONTROLLERS: usize = 9;

/// Looks after the group until the Controller stops.
pub(super) fn look_after(shared: &Arc<Shared>) {
    let mut told = None;
    while !shared.is_stopping() {
        let table = shared.table();
        shared.peers.follow(shared, &table);
        let news = (shared.replica.leader(), shared.controllers());
        if told.as_ref() != Some(&news) {
            shared.tell_dstores_of_controllers();
            told = Some(news);
        }
        shared.serve_without_dstores();
        if shared.epoch().is_ok() {
            shared.bring_in_line();
        }
        thread::park_timeout(PERIOD);
    }
}

impl Shared {
    /// Where all Controllers are, for a Dstore.
    pub(super) fn controllers_order(&self) -> Order {
        Order::Controllers { leader: self.replica.leader(), controllers: self.controllers() }
    }

    fn tell_dstores_of_controllers(&self) {
        let order = self.controllers_order();
        for link in self.state.lock().links.values() {
            link.order(order.clone()); // one that reads too slowly is told of the next news
        }
    }

    /// One step towards what the table says. Errors mean that this Controller leads no more, or that it is tried again.
    fn bring_in_line(&self) {
        let table = self.table();
        let ours = self.replica.id();
        let moved = match table.is_empty() {
            true => Some((ours, self.address.clone())),
            false => table.iter().find_map(|(id, address)| {
                let now = if *id == ours { Some(self.address.clone()) } else { self.peers.introduced(*id) };
                now.filter(|now| now != address).map(|now| (*id, now))
            }),
        };
        if let Some((id, address)) = moved {
            let _ = self.propose(Command::EnterController { id, address });
            return;
        }
        let members = self.replica.members();
        let is_wanted = |id: &ControllerId| table.iter().any(|(wanted, _)| wanted == id);
        let last = self.replica.last_index();
        let progress = self.replica.progress();
        let has_caught_up = |id: &ControllerId| {
            progress.iter().any(|known| {
                known.id == *id
                    && known.last_index + CLOSE >= last
                    && known.silence.is_some_and(|silence| silence < AWAY)
            })
        };
        let surplus = members.all().find(|id| !is_wanted(id)).map(MemberChange::Remove);
        let missing = || table.iter().map(|(id, _)| *id).find(|id| members.all().all(|member| member != *id));
        let ready = || members.learners.iter().copied().find(has_caught_up);
        let step =
            surplus.or_else(|| missing().map(MemberChange::AddLearner)).or_else(|| ready().map(MemberChange::Promote));
        match step.map(|step| (step, self.replica.change_members(step))) {
            Some((step, Ok(()))) => log::info!("the group of Controllers has changed: {step:?}"),
            None
            | Some((_, Err(MemberError::Busy | MemberError::Lags | MemberError::Propose(ProposeError::NotLeader)))) => {
            }
            Some((step, Err(error))) => log::warn!("the group of Controllers is not changed ({step:?}): {error}"),
        }
    }

    fn propose(&self, command: Command) -> Result<(), Failure> {
        let change = Change { now_ms: now_ms(), stamp: None, command };
        let applied = self.replica.propose(&change).map_err(|error| self.failed(error))?;
        applied.outcome.map(drop).map_err(Failure::from)
    }

    /// The group as it is here outlives this Controller's disk, and no other leader has changed it.
    fn make_known(&self) -> Result<(), Failure> {
        self.replica.make_known().map_err(|error| self.failed(error))
    }

    /// Has the Controller at an address belong to the store, and waits until it votes.
    pub(super) fn add_controller(&self, address: &Address) -> Result<Answer, Failure> {
        self.make_known()?;
        let refused = |why: String| Err(Failure::NotPermitted { why });
        let there = match self.who(address) {
            Ok(there) => there,
            Err(why) => {
                return Err(Failure::Unavailable {
                    what: format!(
                        "there is no Controller of this store at {address}: {why}. Start it there first: stevedore controller \
                         --join --data DIR, with a copy of cluster.toml in the empty folder DIR"
                    ),
                });
            }
        };
        let table = self.table();
        if table.iter().all(|(id, _)| *id != there.id) {
            if let Some((owner, _)) = table.iter().find(|(_, known)| known == address) {
                return refused(format!(
                    "{address} is the address of Controller {owner}, whose folder it has lost: stevedore controllers replace {owner} \
                     {address}"
                ));
            }
            if !there.waits {
                return refused(format!(
                    "the Controller at {address} has a log of its own: stop it, and start it again with an empty folder"
                ));
            }
            if table.len() >= MOST_CONTROLLERS {
                return refused(format!("a store has at most {MOST_CONTROLLERS} Controllers"));
            }
            self.propose(Command::EnterController { id: there.id, address: address.clone() })?;
        }
        let has_vote = || self.replica.members().voters.contains(&there.id);
        if self.wait_for_group(CATCH_UP, has_vote)? {
            return self.make_known().map(|()| Answer::Ok);
        }
        let id = there.id;
        Err(Failure::Unavailable { what: format!("Controller {id} is catching up, and gets its vote when it has") })
    }

    /// Has a Controller belong to the store no longer. The leader hands over first, and the next one removes it.
    pub(super) fn remove_controller(&self, id: ControllerId) -> Result<Answer, Failure> {
        self.make_known()?;
        let refused = |why: String| Err(Failure::NotPermitted { why });
        let members = self.replica.members();
        let table = self.table();
        let is_there = |id: ControllerId| table.iter().any(|(known, _)| *known == id);
        if !is_there(id) && members.all().all(|member| member != id) {
            return refused(format!("there is no Controller {id}: stevedore controllers list shows them"));
        }
        let progress = self.replica.progress();
        let is_heard = |id: &ControllerId| {
            progress.iter().any(|known| known.id == *id && known.silence.is_some_and(|silence| silence < AWAY))
        };
        let left: Vec<ControllerId> = members.voters.iter().copied().filter(|voter| *voter != id).collect();
        let heard = left.iter().filter(|id| is_heard(id)).count();
        if left.is_empty() {
            return refused("the only Controller cannot be removed".into());
        }
        if members.voters.contains(&id) && heard <= left.len() / 2 {
            return refused(format!(
                "of the {} Controllers that would be left, {heard} are there: that is no majority, and nothing could be changed any \
                 more. Start the others first, or remove one that is away",
                left.len()
            ));
        }
        if id == self.replica.id() {
            self.hand_over(None, HAND_OVER)?;
            return Err(self.not_leader());
        }
        if is_there(id) {
            self.propose(Command::LeaveController { id })?;
        }
        let has_gone = || self.replica.members().all().all(|member| member != id);
        if self.wait_for_group(CATCH_UP, has_gone)? {
            return self.make_known().map(|()| Answer::Ok);
        }
        Err(Failure::Unavailable { what: format!("Controller {id} is still about to be removed") })
    }

    /// Has another Controller lead.
    pub(super) fn hand_over(&self, to: Option<ControllerId>, patience: Duration) -> Result<Answer, Failure> {
        let members = self.replica.members();
        let is_ours = |id: &ControllerId| *id == self.replica.id();
        match to {
            Some(to) if is_ours(&to) => return Ok(Answer::Ok),
            Some(to) if !members.voters.contains(&to) => {
                return Err(Failure::NotPermitted { why: format!("Controller {to} has no vote, so it cannot lead") });
            }
            Some(to) => self.replica.transfer_leader(to),
            None => {
                let why = || "there is no other Controller that could lead".to_owned();
                self.replica.hand_over().ok_or_else(|| Failure::NotPermitted { why: why() })?;
            }
        }
        if self.wait_until(patience, || self.leads_elsewhere()) {
            return Ok(Answer::Ok);
        }
        Err(Failure::Unavailable { what: "no other Controller has taken over: is one of them there?".into() })
    }

    /// Whether another Controller is known to lead.
    pub(super) fn leads_elsewhere(&self) -> bool {
        self.replica.leader().is_some_and(|leader| leader != self.replica.id())
    }

    /// Whether this came about in time; an error if this Controller leads no more.
    fn wait_for_group(&self, patience: Duration, is_so: impl Fn() -> bool) -> Result<bool, Failure> {
        let is_so_or_over = self.wait_until(patience, || is_so() || self.epoch().is_err());
        if is_so() {
            return Ok(true);
        }
        self.epoch()?;
        Ok(is_so_or_over)
    }

    /// Waits until this is so, for so long; whether it is.
    pub(super) fn wait_until(&self, patience: Duration, is_so: impl Fn() -> bool) -> bool {
        /// What is waited for is not always told of.
        const STEP: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + patience;
        while !is_so() {
            let times = self.news.times();
            if self.is_stopping() || Instant::now() >= deadline {
                return is_so();
            }
            self.news.wait_beyond(times, deadline.min(Instant::now() + STEP));
        }
        true
    }

    /// Another Controller has refused this one. If the table that is applied here says that this one was removed, it is to stop.
    pub(super) fn note_expulsion(&self, why: &str) {
        let table = self.table();
        if !table.is_empty() && table.iter().all(|(id, _)| *id != self.replica.id()) {
            self.give_up(format!("this Controller was removed from the store: {why}"));
        }
    }
}
