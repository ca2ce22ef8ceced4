//! What an operator asks for: repair, to empty a Dstore, to give one up, to collect what is unclaimed. (depot 4.9, 6.2, 6.4)

use super::{Shared, now_ms};
use crate::identity::{DstoreId, Key};
use crate::log::ProposeError;
use crate::namespace::Namespace;
use crate::namespace::change::{Change, Command, DstoreRecord, Duty};
use crate::placement::CopyState;
use crate::wire::message::{Answer, Failure, Order};

/// So many objects are looked at under one hold of the lock.
const STEP: usize = 1_000;

impl Shared {
    pub(super) fn repair(&self, all: bool) -> Result<Answer, Failure> {
        let mut state = self.state.lock();
        if all {
            state.healing.repair_all();
        } else {
            state.healing.look_at_all();
        }
        drop(state);
        self.to_heal.notify_all();
        Ok(Answer::Ok)
    }

    pub(super) fn drain(&self, dstore: DstoreId, drains: bool) -> Result<Answer, Failure> {
        self.set_duty(dstore, if drains { Duty::Draining } else { Duty::Active })
    }

    /// Has a Dstore belong to the store no longer, unless it may have the last good copy of an object.
    pub(super) fn discharge(&self, dstore: DstoreId, is_lost: bool) -> Result<Answer, Failure> {
        self.record_of(dstore)?;
        let is_there = self.state.lock().links.contains_key(&dstore);
        if is_lost && is_there {
            let why = format!("Dstore {dstore} is there, so it is not lost: drain it, or stop it first");
            return Err(Failure::NotPermitted { why });
        }
        // While it drains, no copy elsewhere is removed because it has one; and one Dstore at a time is counted out.
        let _one_at_a_time = self.discharging.lock();
        let duty = self.record_of(dstore)?.duty;
        let last = if is_lost {
            0
        } else {
            self.set_duty(dstore, Duty::Draining)?;
            self.count_without(dstore)?
        };
        if last > 0 {
            self.set_duty(dstore, duty)?;
            let why = format!(
                "{last} objects have no good copy at another Dstore that is there. Drain Dstore {dstore} first, and remove it \
                 when it is empty; if its disk is lost, say --lost"
            );
            return Err(Failure::NotPermitted { why });
        }
        let answer = self.set_duty(dstore, Duty::Removed)?;
        let mut state = self.state.lock();
        if let Some(link) = state.links.remove(&dstore) {
            let why = format!("Dstore {dstore} was removed from this store");
            link.order(Order::Error { failure: Failure::NotPermitted { why } }); // it closes the connection
        }
        state.holdings.forget(dstore);
        drop(state);
        let mut after = None;
        loop {
            after = self.state.lock().holdings.sweep(dstore, after, STEP);
            if after.is_none() {
                break;
            }
        }
        Ok(answer)
    }

    /// Has the objects go that no file of this history or of those before it names, as if their last file was removed now.
    /// A Dstore that comes later with others keeps them until this is asked for again. (depot 4.9)
    pub(super) fn collect_unclaimed(&self) -> Result<Answer, Failure> {
        let count = self.state.lock().healing.release_unclaimed();
        log::info!("an operator has {count} unclaimed objects removed");
        self.to_heal.notify_all();
        Ok(Answer::Ok)
    }

    fn record_of(&self, dstore: DstoreId) -> Result<DstoreRecord, Failure> {
        let found = self
            .replica
            .read(|namespace| namespace.dstores().find(|(id, _)| *id == dstore).map(|(_, record)| record.clone()));
        let record = found.map_err(unavailable)?.filter(|record| record.duty != Duty::Removed);
        record.ok_or_else(|| Failure::NotPermitted { why: format!("there is no Dstore {dstore}") })
    }

    fn set_duty(&self, dstore: DstoreId, duty: Duty) -> Result<Answer, Failure> {
        let _one_at_a_time = self.membership.lock();
        let record = self.record_of(dstore)?;
        if record.duty != duty {
            let record = DstoreRecord { duty, ..record };
            let change = Change { now_ms: now_ms(), stamp: None, command: Command::Dstore { record } };
            let applied = self.replica.propose(&change).map_err(unavailable)?;
            applied.outcome.map_err(|refusal| Failure::Refused { refusal })?;
            self.state.lock().healing.duties_changed();
            self.to_heal.notify_all();
        }
        Ok(Answer::Ok)
    }

    /// How many objects of files have no certain copy at a Dstore that is there, other than this one.
    fn count_without(&self, dstore: DstoreId) -> Result<u64, Failure> {
        let (mut from, mut safe, mut without) = (0, 0, 0);
        loop {
            let step = |namespace: &Namespace| (namespace.walk_objects(from, STEP), namespace.object_count() as u64);
            let (named, all) = self.replica.read(step).map_err(unavailable)?;
            // Those that were put meanwhile may have places that the walk has passed: what it has not seen is not safe.
            let Some(named) = named else { return Ok(without.max(all.saturating_sub(safe))) };
            from += STEP;
            let state = self.state.lock();
            let is_safe = |key: &Key| {
                state.holdings.holders(*key).iter().any(|(holder, kind)| {
                    let is_there = state.links.get(holder).is_some_and(|link| link.is_fenced && link.has_reported);
                    let is_busy = state.healing.has_order(*key, *holder); // it may be told to remove it
                    *holder != dstore && *kind == CopyState::Certain && is_there && !is_busy
                })
            };
            let safe_here = named.iter().filter(|(key, _)| is_safe(key)).count();
            safe += safe_here as u64;
            without += (named.len() - safe_here) as u64;
        }
    }
}

fn unavailable(error: ProposeError) -> Failure {
    Failure::Unavailable { what: error.to_string() }
}
