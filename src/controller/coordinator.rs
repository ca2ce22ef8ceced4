//! When to rebalance, and how one goes. (spec 4.6)
//!
//! One thread, so that there are never two at once. It waits on its inbox only, where the Dstores' readers put what
//! they receive, and the links' writers send what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Controller;
use crate::index::{Budget, DstoreId, Inventory, Lists, Plan};
use crate::protocol::FileName;
use crate::sync::{Inbox, Next};

/// Rounds are numbered from the start of the Controller on.
pub(super) type Round = u64;

/// What the coordinator hears of.
pub(super) enum Event {
    /// A Dstore has become a member.
    Joined,
    /// A Dstore is a member no longer.
    Left { dstore: DstoreId },
    /// A Dstore has answered the LIST of this round.
    Listed { dstore: DstoreId, round: Round, names: Vec<FileName> },
    /// A Dstore has carried out the order of this round.
    Reported { dstore: DstoreId, round: Round },
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

/// How much a round found to do, for whom.
struct Extent {
    participants: Vec<DstoreId>,
    steps: usize,
}

impl Extent {
    /// Whether the round in between has left less to do; with others taking part nobody can tell, and it counts as if.
    fn is_progress_from(&self, earlier: &Self) -> bool {
        self.participants != earlier.participants || self.steps < earlier.steps
    }
}

pub(super) struct Coordinator<'a> {
    controller: &'a Controller,
    events: Inbox<Event>,
    round: Round,
    /// What a Dstore can do within the timeout, as far as is known. (spec 7.19)
    budget: Budget,
    /// What the last round of this rebalance found to do.
    last_plan: Option<Extent>,
    /// What the last round has worked with, until there is time to free it.
    spent: Option<(Lists, Inventory)>,
}

impl<'a> Coordinator<'a> {
    pub(super) fn new(controller: &'a Controller, events: Inbox<Event>) -> Self {
        let budget = first_budget(controller.config.timeout);
        Self { controller, events, round: 0, budget, last_plan: None, spent: None }
    }

    /// Rebalances after every join and in every period, until the Controller stops.
    pub(super) fn run(mut self) {
        while self.wait_for_cause() {
            // Joins that have been made by now are served by the rebalance to come (spec 7.10); whatever else has
            // been said in the meantime answers to rounds that are over.
            self.events.clear();
            if !self.rebalance() {
                return;
            }
        }
    }

    /// False when the Controller stops.
    fn wait_for_cause(&self) -> bool {
        let due = self.controller.config.rebalance_period.and_then(from_now);
        loop {
            match self.events.next(due) {
                Next::Message(Event::Joined) | Next::TimedOut => return true,
                Next::Message(_) => {}
                Next::Stopped => return false,
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
            // Joins wait at the gate meanwhile: whoever unsettles the cluster again does so after this round.
            self.controller.state.lock().is_unsettled = true;
            let progress = self.round();
            {
                let mut state = self.controller.state.lock();
                state.rebalances = self.round;
                state.is_unsettled = matches!(progress, Progress::MoreToDo);
                self.controller.changed.notify_all();
            }
            self.controller.gate.open();
            // A million names take a while to be freed: nobody has to wait for that.
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
        let Some(lists) = self.collect_lists() else { return Progress::Stopped };
        let lists = Lists::new(lists);
        let inventory = self.controller.state.lock().index.reconcile(&lists);
        let progress = self.improve(&inventory);
        self.spent = Some((lists, inventory));
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
        let Some(reported) = self.carry_out(inventory, &plan) else { return Progress::Stopped };
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
    fn collect_lists(&self) -> Option<BTreeMap<DstoreId, Vec<FileName>>> {
        let links = self.controller.links.all();
        for (_, link) in &links {
            link.ask_for_list(self.round);
        }
        let mut lists = BTreeMap::new();
        let asked = links.into_iter().map(|(dstore, _)| dstore).collect();
        self.collect(asked, |event| match event {
            Event::Listed { dstore, round, names } if round == self.round => {
                lists.insert(dstore, names);
                Some(dstore)
            }
            _ => None,
        })?;
        Some(lists)
    }

    /// Gives every Dstore that takes part its order, if only an empty one (spec 7.8); returns those that report to have
    /// carried it out in time. (spec 4.6.4 to 4.6.6)
    fn carry_out(&self, inventory: &Inventory, plan: &Plan) -> Option<BTreeSet<DstoreId>> {
        let mut ordered = BTreeSet::new();
        for ((dstore, _), order) in inventory.dstores.iter().zip(inventory.orders(plan)) {
            if let Some(link) = self.controller.links.get(*dstore) {
                link.order(self.round, order);
                ordered.insert(*dstore);
            }
        }
        let mut reported = BTreeSet::new();
        self.collect(ordered, |event| match event {
            Event::Reported { dstore, round } if round == self.round => {
                reported.insert(dstore);
                Some(dstore)
            }
            _ => None,
        })?;
        Some(reported)
    }

    /// Takes events until each of `awaited` has done what `answer` looks for, has left, or the time is up. `None` when
    /// the Controller stops.
    fn collect(
        &self,
        mut awaited: BTreeSet<DstoreId>,
        mut answer: impl FnMut(Event) -> Option<DstoreId>,
    ) -> Option<()> {
        let deadline = from_now(self.controller.config.timeout);
        while !awaited.is_empty() {
            let done = match self.events.next(deadline) {
                Next::Message(Event::Left { dstore }) => Some(dstore), // spec 7.9
                Next::Message(event) => answer(event),
                Next::TimedOut => break,
                Next::Stopped => return None,
            };
            if let Some(dstore) = done {
                awaited.remove(&dstore);
            }
        }
        Some(())
    }
}

/// `None` if it is too far off ever to come.
fn from_now(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

/// What even a slow Dstore can do within half of the timeout: 1 ms a copy, 20 MB/s, 1/4 ms a remove.
fn first_budget(timeout: Duration) -> Budget {
    let half = u64::try_from(timeout.as_millis() / 2).unwrap_or(u64::MAX).max(1);
    let copies = usize::try_from(half).unwrap_or(usize::MAX);
    Budget { copies, bytes: half.saturating_mul(20_000), removes: copies.saturating_mul(4) }
}

/// The budget after a round: the next should take a good part of the timeout and never all of it. (spec 7.19)
///
/// `most` is what the busiest Dstores were given, `None` where nobody was given less than there was to do; the round
/// `took` so long, `None` where not everybody has reported in time.
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
    fn a_round_that_does_all_there_is_to_do_tells_nothing_about_larger_ones() {
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

    #[test]
    fn a_round_that_takes_too_much_of_the_timeout_or_all_of_it_halves_the_budget_but_not_below_the_first() {
        let half = Budget { copies: 2_000, bytes: 40_000_000, removes: 8_000 };
        assert_eq!(after(Some(BUDGET), Some(501)), half);
        assert_eq!(after(Some(BUDGET), None), half);
        assert_eq!(after(None, None), half);
        let least = first_budget(TIMEOUT);
        assert_eq!(next_budget(least, Some(least), None, TIMEOUT), least);
    }
}
