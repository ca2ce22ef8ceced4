//! When to rebalance, and how one goes. (spec 4.6)
//!
//! One thread, so that there are never two at once. It waits for joins, departures, the period, the Dstores' replies and
//! the Controller's stop, each a channel of its own; what it says, the links' writers send.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::{Duration, Instant};

use super::shared::Controller;
use crate::index::{Budget, DstoreId, Inventory, Lists, Plan};
use crate::protocol::FileName;
use crate::protocol::connection::AllowanceShare;
use crate::sync::{Receiver, Sender, at, never, select, unbounded};

/// Rounds are numbered from the start of the Controller on.
pub(super) type Round = u64;

/// What the other threads tell the coordinator.
pub(super) struct Notices {
    /// A Dstore has become a member.
    pub(super) joins: Sender<()>,
    /// A Dstore is a member no longer.
    pub(super) departures: Sender<DstoreId>,
    /// A Dstore has answered.
    pub(super) replies: Sender<Reply>,
}

/// The coordinator's ends of its channels.
pub(super) struct Incoming {
    joins: Receiver<()>,
    departures: Receiver<DstoreId>,
    replies: Receiver<Reply>,
    /// Nothing is ever sent here: it closes when the Controller stops.
    stop: Receiver<Infallible>,
}

/// What a Dstore answers in a round.
pub(super) struct Reply {
    pub(super) dstore: DstoreId,
    pub(super) round: Round,
    pub(super) answer: Answer,
}

pub(super) enum Answer {
    /// The files that it has, and what its list takes beyond what was expected.
    Listed(Vec<FileName>, Option<AllowanceShare>),
    /// It has carried out its order.
    Reported,
}

/// What tells the coordinator, what it waits for, and what it stops at once dropped.
pub(super) fn channels() -> (Notices, Incoming, Sender<Infallible>) {
    let (joins, joined) = unbounded();
    let (departures, left) = unbounded();
    let (replies, replied) = unbounded();
    let (stop, stopped) = unbounded();
    let notices = Notices { joins, departures, replies };
    (notices, Incoming { joins: joined, departures: left, replies: replied, stop: stopped }, stop)
}

/// How far a round came.
enum Progress {
    /// Everything that was to do is done, or all that can be.
    Finished,
    /// There is more than one round can do. (spec 7.19)
    MoreToDo,
    /// The Controller stops.
    Stopped,
}

/// How much a round found to do, and with which Dstores.
struct Extent {
    participants: Vec<DstoreId>,
    steps: usize,
}

impl Extent {
    /// Whether the round in between has left less to do. If other Dstores take part now, that cannot be told: true.
    fn is_progress_from(&self, earlier: &Self) -> bool {
        self.participants != earlier.participants || self.steps < earlier.steps
    }
}

pub(super) struct Coordinator<'a> {
    controller: &'a Controller,
    incoming: Incoming,
    round: Round,
    /// What a Dstore can do within the timeout, as far as is known. (spec 7.19)
    budget: Budget,
    /// What the last round of this rebalance found to do.
    last_plan: Option<Extent>,
    /// What the last round has worked with, until there is time to free it.
    spent: Option<(Lists, Inventory, Vec<AllowanceShare>)>,
}

impl<'a> Coordinator<'a> {
    pub(super) fn new(controller: &'a Controller, incoming: Incoming) -> Self {
        let budget = first_budget(controller.config.timeout);
        Self { controller, incoming, round: 0, budget, last_plan: None, spent: None }
    }

    /// Rebalances after every join and in every period, until the Controller stops.
    pub(super) fn run(mut self) {
        while self.wait_for_cause() && self.rebalance() {}
    }

    /// False when the Controller stops.
    fn wait_for_cause(&self) -> bool {
        let Incoming { joins, departures, replies, stop } = &self.incoming;
        let due = timer(self.controller.config.rebalance_period);
        loop {
            select! {
                recv(joins) -> _ => return true,
                recv(due) -> _ => return true,
                recv(departures) -> _ => {},
                recv(replies) -> _ => {}, // to a round that is over
                recv(stop) -> _ => return false,
            }
        }
    }

    /// One rebalance, in as many rounds as it takes, with requests served in between. False when the Controller stops.
    fn rebalance(&mut self) -> bool {
        self.last_plan = None;
        loop {
            if !self.controller.gate.close() {
                return false;
            }
            // This round serves all joins so far (spec 7.10). From here on they wait at the gate: the next to unsettle the
            // cluster does so after this round.
            self.incoming.joins.try_iter().for_each(drop);
            self.controller.state.lock().is_unsettled = true;
            let progress = self.round();
            {
                let mut state = self.controller.state.lock();
                state.rebalances = self.round;
                state.is_unsettled = matches!(progress, Progress::MoreToDo);
                self.controller.changed.notify_all();
            }
            self.controller.gate.open();
            // A million names take a while to be freed: no thread has to wait for that.
            self.spent = None;
            match progress {
                Progress::Finished => return true,
                Progress::MoreToDo => {}
                Progress::Stopped => return false,
            }
        }
    }

    /// A complete rebalance of as much as the Dstores can do within the timeout; leaves the index true.
    fn round(&mut self) -> Progress {
        if !self.controller.state.lock().index.has_enough_dstores() {
            return Progress::Finished;
        }
        self.round += 1;
        let Some((lists, shares)) = self.collect_lists() else { return Progress::Stopped };
        let inventory = self.controller.state.lock().index.reconcile(&lists);
        let progress = self.improve(&inventory);
        self.spent = Some((lists, inventory, shares));
        progress
    }

    /// Plans, has as much of the plan carried out as fits a round, and lets the index know what was done.
    fn improve(&mut self, inventory: &Inventory) -> Progress {
        let mut plan = inventory.plan(self.controller.config.replicas);
        if plan.is_empty() {
            return Progress::Finished; // spec 7.8
        }
        let extent = Extent {
            participants: inventory.dstores.iter().map(|(dstore, _)| *dstore).collect(),
            steps: plan.steps() + plan.put_off,
        };
        let is_progress = self.last_plan.as_ref().is_none_or(|last| extent.is_progress_from(last));
        self.last_plan = Some(extent);
        let planned = plan.steps();
        plan.cut(inventory, self.budget);
        let is_cut = plan.steps() < planned;
        let begun = Instant::now();
        let Some(reported) = self.carry_out(inventory, &mut plan) else { return Progress::Stopped };
        let took = begun.elapsed();
        let extents = plan.extents(inventory);
        let is_done = extents
            .iter()
            .zip(&inventory.dstores)
            .all(|(extent, (dstore, _))| *extent == Budget::default() || reported.contains(dstore));
        let most = is_cut.then(|| extents.into_iter().fold(Budget::default(), Budget::max));
        self.budget = next_budget(self.budget, most, is_done.then_some(took), self.controller.config.timeout);
        self.controller.state.lock().index.confirm(inventory, &plan, &reported);
        if !is_done {
            log::warn!("rebalance: not every Dstore has reported in time; the next one sorts it out"); // spec 4.6.6
        }
        // One bad Dstore must neither stop the others from healing nor keep them at it for ever.
        if plan.put_off > 0 && is_progress { Progress::MoreToDo } else { Progress::Finished }
    }

    /// Asks every Dstore for its files; those that do not answer in time take no part. (spec 4.6.1)
    ///
    /// Also what the lists take beyond what was expected of them, to be kept as long as they are.
    fn collect_lists(&self) -> Option<(Lists, Vec<AllowanceShare>)> {
        let links = self.controller.links.all();
        let members = self.controller.state.lock().index.members();
        let files: BTreeMap<_, _> = members.into_iter().map(|member| (member.dstore, member.files)).collect();
        for (dstore, link) in &links {
            link.ask_for_list(self.round, files.get(dstore).copied().unwrap_or(0));
        }
        let mut lists = BTreeMap::new();
        let mut shares = Vec::new();
        let asked = links.into_iter().map(|(dstore, _)| dstore).collect();
        self.collect(asked, |dstore, answer| match answer {
            Answer::Listed(names, share) => {
                lists.insert(dstore, names);
                shares.extend(share);
                true
            }
            Answer::Reported => false,
        })?;
        Some((Lists::new(lists), shares))
    }

    /// Gives every Dstore that takes part its order, if only an empty one (spec 7.8); returns those that report to have
    /// carried it out in time. (spec 4.6.4 to 4.6.6)
    ///
    /// One that has not even read its last order gets no other: its part is left out of the plan.
    fn carry_out(&self, inventory: &Inventory, plan: &mut Plan) -> Option<BTreeSet<DstoreId>> {
        let mut ordered = BTreeSet::new();
        let mut unable = BTreeSet::new();
        for ((place, (dstore, _)), order) in (0..).zip(&inventory.dstores).zip(inventory.orders(plan)) {
            let Some(link) = self.controller.links.get(*dstore) else { continue };
            if link.order(self.round, order) {
                ordered.insert(*dstore);
            } else {
                unable.insert(place);
            }
        }
        plan.leave_out(inventory, &unable);
        let mut reported = BTreeSet::new();
        self.collect(ordered, |dstore, answer| match answer {
            Answer::Reported => reported.insert(dstore),
            Answer::Listed(..) => false,
        })?;
        Some(reported)
    }

    /// Takes this round's replies until each of `awaited` has given the one that `take` looks for, or has left, or until
    /// the time is up. `None` when the Controller stops.
    fn collect(&self, mut awaited: BTreeSet<DstoreId>, mut take: impl FnMut(DstoreId, Answer) -> bool) -> Option<()> {
        let Incoming { departures, replies, stop, .. } = &self.incoming;
        let time_is_up = timer(Some(self.controller.config.timeout));
        let mut hear = |awaited: &mut BTreeSet<DstoreId>, Reply { dstore, round, answer }: Reply| {
            if round == self.round && take(dstore, answer) {
                awaited.remove(&dstore);
            }
        };
        while !awaited.is_empty() {
            select! {
                recv(replies) -> reply => reply.into_iter().for_each(|reply| hear(&mut awaited, reply)),
                recv(departures) -> dstore => {
                    // What it said before it left counts. (spec 7.9)
                    replies.try_iter().for_each(|reply| hear(&mut awaited, reply));
                    awaited.retain(|awaited| dstore != Ok(*awaited));
                },
                recv(time_is_up) -> _ => break,
                recv(stop) -> _ => return None,
            }
        }
        Some(())
    }
}

/// Sends once, after this time; never if that is too far off, or `None`.
fn timer(time: Option<Duration>) -> Receiver<Instant> {
    time.and_then(|time| Instant::now().checked_add(time)).map_or_else(never, at)
}

/// What even a slow Dstore can do within half of the timeout: 1 ms a copy, 20 MB/s, 1/4 ms a remove.
fn first_budget(timeout: Duration) -> Budget {
    let half = u64::try_from(timeout.as_millis() / 2).unwrap_or(u64::MAX).max(1);
    let copies = usize::try_from(half).unwrap_or(usize::MAX);
    Budget { copies, bytes: half.saturating_mul(20_000), removes: copies.saturating_mul(4) }
}

/// The budget after a round: the next should take a good part of the timeout and never all of it. (spec 7.19)
///
/// `most` is what the busiest Dstores were given, `None` if no Dstore was given less than there was to do; the round
/// `took` so long, `None` if not all Dstores have reported in time.
fn next_budget(budget: Budget, most: Option<Budget>, took: Option<Duration>, timeout: Duration) -> Budget {
    let Budget { copies, bytes, removes } = budget;
    match (took, most) {
        (Some(took), Some(most)) if took < timeout / 4 => Budget {
            // What was hardly used has not been tried: a round of a few small files tells nothing about a large one.
            copies: if most.copies > copies / 2 { copies.saturating_mul(2) } else { copies },
            bytes: if most.bytes > bytes / 2 { bytes.saturating_mul(2) } else { bytes },
            removes: if most.removes > removes / 2 { removes.saturating_mul(2) } else { removes },
        },
        (Some(took), _) if took <= timeout / 2 => budget,
        _ => {
            // Not below the first: with steps enough, some succeed in every round although others always fail.
            let least = first_budget(timeout);
            Budget {
                copies: (copies / 2).max(least.copies),
                bytes: (bytes / 2).max(least.bytes),
                removes: (removes / 2).max(least.removes),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);
    const BUDGET: Budget = Budget { copies: 4_000, bytes: 80_000_000, removes: 16_000 };

    fn after(most: Option<Budget>, took_ms: Option<u64>) -> Budget {
        next_budget(BUDGET, most, took_ms.map(Duration::from_millis), TIMEOUT)
    }

    #[test]
    fn a_round_that_leaves_no_work_does_not_change_the_budget() {
        // spec 7.19: the end of a rebalance is quick, and so is every small one
        assert_eq!(after(None, Some(1)), BUDGET);
    }

    #[test]
    fn only_what_limited_a_quick_round_is_doubled() {
        let hardly = Budget { copies: 1, bytes: 1, removes: 1 };
        let twice = Budget { copies: 8_000, bytes: 160_000_000, removes: 32_000 };
        assert_eq!(after(Some(BUDGET), Some(249)), twice);
        let tried = Budget { copies: 4_000, ..hardly };
        assert_eq!(after(Some(tried), Some(1)), Budget { copies: 8_000, ..BUDGET });
        let tried = Budget { bytes: 80_000_000, ..hardly };
        assert_eq!(after(Some(tried), Some(1)), Budget { bytes: 160_000_000, ..BUDGET });
        let tried = Budget { removes: 16_000, ..hardly };
        assert_eq!(after(Some(tried), Some(1)), Budget { removes: 32_000, ..BUDGET });
        assert_eq!(after(Some(BUDGET), Some(251)), BUDGET);
    }

    /// A round is slow if it takes more than half of the timeout, or all of it.
    #[test]
    fn a_slow_round_halves_the_budget_but_not_below_the_first() {
        let half = Budget { copies: 2_000, bytes: 40_000_000, removes: 8_000 };
        assert_eq!(after(Some(BUDGET), Some(501)), half);
        assert_eq!(after(Some(BUDGET), None), half);
        assert_eq!(after(None, None), half);
        let least = first_budget(TIMEOUT);
        assert_eq!(next_budget(least, Some(least), None, TIMEOUT), least);
    }
}
