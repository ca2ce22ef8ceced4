//! What begins and ends with a leadership. (depot 4.5, 5.2, 6.2)
//!
//! One Controller decides; the others follow, and may lead at any time. A follower knows which Dstore has which objects as well
//! as the leader, because Dstores report to every Controller (depot 4.6). What is a leader's alone is memory of one leadership,
//! and is begun anew with each: the keys that are leased, the orders that were given, how long Dstores have had to come.
//!
//! ```text
//!             elected, its epoch applied                          deposed
//! follows ──────────────────────────────▶ leads ───────────────────────────────────▶ follows
//!            keys, healing, times: new      │         keys, orders: forgotten
//!            LEADS to every Dstore          │         FOLLOWS to every Dstore
//!                                     FENCED: a Dstore obeys
//! ```
//!
//! The state has the epoch that it is of. A thread that has decided something under one leadership looks under the lock whether it
//! is still that one before it enters anything: what it has decided, the next leadership may decide otherwise.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::healing::Healing;
use super::keys::Keys;
use super::links::Leadership;
use super::status::Census;
use super::{Shared, StartError, State};
use crate::identity::{ClusterId, DstoreId, Epoch};
use crate::log::{Observer, ProposeError};
use crate::namespace::Applied;
use crate::namespace::change::{Change, Command, DstoreRecord, Duty, NewObjects, Refusal};
use crate::wire::message::Failure;

/// What the log tells of goes from here to the Controller, once there is one.
#[derive(Default)]
pub(super) struct Ears(OnceLock<Weak<Shared>>);

impl Ears {
    /// From now on it hears. What was applied before, the Controller finds in the namespace.
    pub(super) fn listen(&self, shared: &Arc<Shared>) {
        let _ = self.0.set(Arc::downgrade(shared)); // it is set once
    }

    fn shared(&self) -> Option<Arc<Shared>> {
        self.0.get()?.upgrade()
    }
}

impl Observer for Ears {
    fn applied(&self, _sequence: u64, change: &Change, applied: &Applied) {
        let Some(shared) = self.shared() else { return };
        match &change.command {
            Command::Put { objects, .. } if applied.outcome.is_ok() => shared.claim_copies(objects),
            Command::Create { cluster, .. } => shared.check_store(*cluster),
            _ => {}
        }
    }

    fn replaced(&self, _sequence: u64) {
        if let Some(shared) = self.shared() {
            shared.check_store(shared.replica.look(|namespace| namespace.cluster()));
        }
    }

    fn led(&self, epoch: Option<Epoch>) {
        if let Some(shared) = self.shared() {
            shared.note_leadership(epoch);
        }
    }
}

impl Shared {
    /// A follower learns from the change that commits a file which Dstores have its objects. A leader has known before.
    /// (depot 4.6)
    fn claim_copies(&self, objects: &NewObjects) {
        let mut state = self.state.lock();
        if state.epoch.is_some() {
            return;
        }
        for object in &objects.objects {
            for (dstore, position) in &object.holders {
                state.holdings.claim(objects.key(object), *dstore, *position);
            }
        }
    }

    /// What it was sent must be of its own store.
    fn check_store(&self, theirs: ClusterId) {
        if theirs != self.cluster {
            self.give_up(StartError::OtherStore { theirs, ours: self.cluster }.to_string());
        }
    }

    /// A leadership of this Controller has begun, or has ended.
    pub(super) fn note_leadership(&self, epoch: Option<Epoch>) {
        let mut strays = Vec::new();
        loop {
            let followed: Vec<Epoch> = {
                let mut state = self.state.lock();
                strays.extend(state.healing.take_strays());
                state.links.values().filter_map(|link| link.followed).collect()
            };
            let leadership = epoch.and_then(|epoch| {
                let newest = self.replica.look(|namespace| {
                    // They were reported to a follower, which may have been behind.
                    strays.retain(|(key, _)| key.history != namespace.history() && namespace.object(*key).is_none());
                    Leadership::newest(namespace, &followed)
                });
                newest.filter(|newest| newest.epoch == epoch) // another one has begun elsewhere meanwhile
            });
            let mut state = self.state.lock();
            if state.links.values().filter_map(|link| link.followed).any(|epoch| !followed.contains(&epoch)) {
                continue; // a Dstore has joined, and is to be told whether its leadership is known
            }
            state.begin(leadership.as_ref(), self.settling);
            state.healing.strays_reported(&strays);
            self.may_serve.store(false, Ordering::Release);
            break;
        }
        self.news.tell();
        self.to_heal.notify_all();
        self.serve_without_dstores();
    }

    /// Whether Dstores belong to the store.
    pub(super) fn has_dstores(&self) -> bool {
        let is_member = |(_, record): (DstoreId, &DstoreRecord)| record.duty != Duty::Removed;
        self.replica.look(|namespace| namespace.dstores().any(is_member))
    }

    /// Answers requests if there are no Dstores to ask, or none has come in time.
    pub(super) fn serve_without_dstores(&self) {
        if let Ok((state, epoch)) = self.lead()
            && !self.may_serve.load(Ordering::Acquire)
        {
            let is_late = state.since.elapsed() >= self.settling;
            drop(state);
            if is_late || !self.has_dstores() {
                self.begin_to_serve(epoch);
            }
        }
    }

    /// Answers requests as the leader of this epoch from now on, and has followers answer reads.
    pub(super) fn begin_to_serve(&self, epoch: Epoch) {
        if self.fatal.lock().is_some() {
            return;
        }
        if let Ok((state, now)) = self.lead()
            && now == epoch
        {
            self.may_serve.store(true, Ordering::Release);
            drop(state);
            self.replica.vouch(epoch);
        }
    }

    /// The leadership that decides here.
    pub(super) fn epoch(&self) -> Result<Epoch, Failure> {
        self.lead().map(|(_, epoch)| epoch)
    }

    /// The state, and the leadership that it is of, to decide something.
    pub(super) fn lead(&self) -> Result<(MutexGuard<'_, State>, Epoch), Failure> {
        let state = self.state.lock();
        match state.epoch {
            Some(epoch) => Ok((state, epoch)),
            None => {
                drop(state);
                Err(self.not_leader())
            }
        }
    }

    /// What a client is told that asks for something that only the leader does.
    pub(super) fn not_leader(&self) -> Failure {
        let ours = self.replica.id();
        // Where it has just been elected, its epoch is on its way: the client asks again.
        let leader = self.replica.leader().filter(|leader| *leader != ours);
        let address = |id| {
            let table = || self.replica.look(|namespace| namespace.controller(id).cloned());
            self.peers.introduced(id).or_else(table)
        };
        // One that waits to be added knows no leader. A member that it has heard of knows more.
        let member = || self.peers.any_introduced().filter(|_| self.waits());
        Failure::NotLeader { leader: leader.and_then(address).or_else(member) }
    }

    /// Why a proposal has come to nothing, or a read.
    pub(super) fn failed(&self, error: ProposeError) -> Failure {
        match error {
            ProposeError::NotLeader | ProposeError::Replaced => self.not_leader(),
            ProposeError::TooLarge => Refusal::TooLarge.into(),
            ProposeError::Deposed => Failure::OutcomeUnknown { why: error.to_string() },
            ProposeError::Log(error) => self.cannot_go_on(error.to_string()),
        }
    }

    /// What a client is told where this Controller cannot answer any more: others may, if there are any.
    pub(super) fn cannot_go_on(&self, why: String) -> Failure {
        let is_alone = self.replica.members().voters == [self.replica.id()];
        if is_alone { Failure::Unavailable { what: why } } else { self.not_leader() }
    }
}

impl State {
    /// Begins anew what is of one leadership.
    fn begin(&mut self, leadership: Option<&Leadership>, settling: Duration) {
        let had_one = self.epoch.is_some();
        self.epoch = leadership.map(|leadership| leadership.epoch);
        if self.epoch.is_none() && !had_one {
            return;
        }
        self.since = Instant::now();
        self.census = Census::default();
        self.keys = Keys::new(self.healing.options().lease);
        self.healing = Healing::new(self.healing.options(), self.since + settling);
        self.links.values_mut().for_each(|link| link.begin(leadership));
    }
}
