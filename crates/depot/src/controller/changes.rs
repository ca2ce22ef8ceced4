//! Changes that clients ask for: checked, proposed, and what follows from them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::requests::ELECTION;
use super::{Shared, State, now_ms};
use crate::identity::{DstoreId, Epoch, Key, SessionId, Version};
use crate::log::ProposeError;
use crate::namespace::change::{Change, Command, Duty, NewObjects, Replicas, Settings};
use crate::namespace::{Applied, Namespace};
use crate::pack;
use crate::placement::CopyState;
use crate::wire::ClientId;
use crate::wire::message::{Answer, Failure, Outcome, StampedCommand};

/// The most changes that are made with one request.
const MOST_CHANGES: usize = 256;

/// The most objects that are granted with the answer to a change. (depot 5.1)
const MOST_AHEAD: u32 = 16;

/// A commit waits for so long for Dstores that may have its objects. Clients wait longer for an answer.
const COMMIT_PATIENCE: Duration = Duration::from_secs(20);

/// A change that may be proposed, and the keys that it has on lease.
struct Accepted {
    change: Change,
    keys: Vec<Key>,
}

impl Shared {
    /// Makes a change, and grants keys for the puts to come.
    pub(super) fn change(&self, client: ClientId, change: StampedCommand, more: u32) -> Result<Answer, Failure> {
        let version = self.make(client, vec![change]).pop().expect("an outcome for each change")?;
        // A client that asks for more than there is asks again when it needs them.
        let more = more.min(MOST_AHEAD);
        let grants = if more > 0 { self.grant(client, None, more).unwrap_or_default() } else { Default::default() };
        Ok(Answer::Done { version, grants })
    }

    /// Makes several changes, each for itself.
    pub(super) fn change_many(&self, client: ClientId, changes: Vec<StampedCommand>) -> Result<Answer, Failure> {
        if changes.len() > MOST_CHANGES {
            return Err(Failure::BadRequest { why: format!("at most {MOST_CHANGES} changes are made at a time") });
        }
        let outcomes = self.make(client, changes).into_iter().map(|made| match made {
            Ok(version) => Outcome::Done { version },
            Err(failure) => Outcome::Failed { failure },
        });
        Ok(Answer::Outcomes { outcomes: outcomes.collect() })
    }

    /// What becomes of each of these changes: those that are accepted are proposed together.
    fn make(&self, client: ClientId, changes: Vec<StampedCommand>) -> Vec<Result<Version, Failure>> {
        let epoch = self.epoch().ok().filter(|_| !self.ending.load(Ordering::Acquire));
        let Some(epoch) = epoch else { return changes.iter().map(|_| Err(self.not_leader())).collect() };
        let deadline = Instant::now() + COMMIT_PATIENCE;
        let accepted = changes.into_iter().map(|change| self.accept(epoch, client, change, deadline));
        let accepted: Vec<Result<Accepted, Failure>> = accepted.collect();
        let proposed = self.replica.propose_in(epoch, accepted.iter().flatten().map(|accepted| &accepted.change));
        if proposed.iter().any(|result| matches!(result, Err(ProposeError::NotLeader))) {
            // It may be handing over: the client is told to which one.
            self.wait_until(ELECTION, || self.leads_elsewhere());
        }
        let mut proposed = proposed.into_iter();
        let outcomes = accepted.into_iter().map(|accepted| {
            let accepted = accepted?;
            let applied = match proposed.next().expect("a result for each proposal") {
                Ok(applied) => applied,
                Err(error @ (ProposeError::Deposed | ProposeError::Log(_))) => {
                    return Err(Failure::OutcomeUnknown { why: error.to_string() });
                }
                // It had no effect; the leases stay for a repeat.
                Err(error) => return Err(self.failed(error)),
            };
            self.follow_up(epoch, &accepted, &applied);
            let sequence = applied.outcome?;
            Ok(self.replica.look(|namespace| namespace.version(sequence)))
        });
        outcomes.collect()
    }

    /// Whether a change may be proposed in this leadership.
    fn accept(
        &self,
        epoch: Epoch,
        client: ClientId,
        change: StampedCommand,
        deadline: Instant,
    ) -> Result<Accepted, Failure> {
        let StampedCommand { stamp, command } = change;
        match &command {
            Command::Remove { .. } | Command::RemoveDirectory { .. } | Command::Format { .. } => {}
            Command::Set { settings } => {
                check_settings(settings)?;
                self.check_space()?;
            }
            Command::Put { .. }
            | Command::Move { .. }
            | Command::Copy { .. }
            | Command::MakeDirectory { .. }
            | Command::SetAttributes { .. }
            | Command::Compose { .. } => self.check_space()?,
            Command::Create { .. }
            | Command::Lead { .. }
            | Command::Dstore { .. }
            | Command::EnterController { .. }
            | Command::LeaveController { .. }
            | Command::Reap => {
                return Err(Failure::NotPermitted { why: "this change is not a client's to make".into() });
            }
        }
        let was_made = || self.replica.look(|namespace| namespace.was_made(&stamp));
        let mut keys = Vec::new();
        if let Command::Put { objects, details, .. } = &command
            && !objects.objects.is_empty()
            && !was_made()
        {
            let change = (stamp.session, stamp.number);
            match self.accept_objects(epoch, client, change, objects, details.replicas, deadline) {
                Ok(accepted) => keys = accepted,
                // An attempt before this one was made in this moment, and its leases have ended with it.
                Err(Failure::NoLease) if was_made() => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(Accepted { change: Change { now_ms: now_ms(), stamp: Some(stamp), command }, keys })
    }

    /// What follows from a change that was applied: its leases end, and healing is told.
    fn follow_up(&self, epoch: Epoch, accepted: &Accepted, applied: &Applied) {
        // Nothing of this leadership is left when it has ended meanwhile.
        let Ok((mut state, now)) = self.lead() else { return };
        if now != epoch {
            return;
        }
        state.keys.settle(&accepted.keys);
        state.healing.released(applied.released.iter().map(|released| released.key));
        match &accepted.change.command {
            // As files name them now, missing copies may be made.
            Command::Put { objects, .. } => {
                objects.objects.iter().for_each(|object| state.healing.stored(objects.key(object)));
            }
            // Objects that have been stored may be wanted on more Dstores.
            Command::Copy { details: Some(details), .. } | Command::Compose { details, .. }
                if details.replicas.is_some() =>
            {
                state.healing.look_at_all();
            }
            _ => {}
        }
    }

    /// Whether a put with these objects may be made; if so, their keys, which are proposed from now on.
    fn accept_objects(
        &self,
        epoch: Epoch,
        client: ClientId,
        change: (SessionId, u64),
        objects: &NewObjects,
        replicas: Option<Replicas>,
        deadline: Instant,
    ) -> Result<Vec<Key>, Failure> {
        let (_, quorum) = self.wanted(replicas);
        for object in &objects.objects {
            let mut holders: Vec<DstoreId> = object.holders.iter().map(|(dstore, _)| *dstore).collect();
            holders.sort_unstable();
            holders.dedup();
            if holders.len() < quorum {
                let (there, needed) = (holders.len() as u32, quorum as u32);
                return Err(Failure::NotEnoughDstores { there, needed });
            }
        }
        let mine = |namespace: &Namespace| {
            let staying = namespace.dstores().filter(|(_, record)| record.duty != Duty::Removed);
            staying.map(|(id, _)| id).collect::<Vec<DstoreId>>()
        };
        let known = self.replica.look(mine);
        let named = objects.objects.iter().flat_map(|object| &object.holders);
        if let Some((stranger, _)) = named.clone().find(|(dstore, _)| !known.contains(dstore)) {
            return Err(Failure::BadRequest { why: format!("Dstore {stranger} is no Dstore of this store") });
        }
        if let Some(object) = objects.objects.iter().find(|object| object.length > pack::MOST_BYTES) {
            return Err(Failure::BadRequest { why: format!("no object has {} bytes", object.length) });
        }
        let keys: Vec<Key> = objects.objects.iter().map(|object| objects.key(object)).collect();
        self.refuse_later(&keys, epoch)?;
        let mut may_wait = true;
        loop {
            let times = self.news.times();
            {
                let (mut state, now) = self.lead()?;
                if now != epoch || !state.keys.propose(client, &keys, change) {
                    return Err(Failure::NoLease);
                }
                let (fewest, fewest_expected) = state.enter_claims(objects, epoch);
                if fewest >= quorum {
                    return Ok(keys);
                }
                if fewest_expected < quorum || !may_wait {
                    state.keys.settle(&keys);
                    return Err(Failure::NotEnoughDstores { there: fewest as u32, needed: quorum as u32 });
                }
            }
            may_wait = self.news.wait_beyond(times, deadline) && !self.is_stopping();
        }
    }

    /// A Controller that granted keys in a later term leads by now, though this one has not heard of it: only that one knows
    /// whether the keys are leased.
    pub(super) fn refuse_later(&self, keys: &[Key], epoch: Epoch) -> Result<(), Failure> {
        let is_later = |key: &Key| key.history == epoch.history && key.term > epoch.term;
        if keys.iter().any(is_later) { Err(self.not_leader()) } else { Ok(()) }
    }
}

impl State {
    /// Enters what a commit says of copies, before its change is applied: a reader that sees the file must find its objects. How
    /// many copies of an object count, and how many may come to count: of that object of which there are fewest.
    ///
    /// A Dstore may have lost its copy since it was stored, and have said so: then the claim does not count. A key of an earlier
    /// leadership may even have been garbage in one between. Of such a key only copies count that were reported since their
    /// Dstore has acknowledged this leadership: nothing older can remove them. (depot 5.3)
    fn enter_claims(&mut self, objects: &NewObjects, epoch: Epoch) -> (usize, usize) {
        let (mut fewest, mut fewest_expected) = (usize::MAX, usize::MAX);
        for object in &objects.objects {
            let key = objects.key(object);
            let is_own = (key.history, key.term) == (epoch.history, epoch.term);
            let claims = object.holders.iter();
            let claims = claims.map(|(dstore, position)| (*dstore, self.holdings.claim(key, *dstore, *position)));
            let claimed: BTreeMap<DstoreId, Option<CopyState>> = claims.collect(); // one may be named twice
            self.healing.stored(key);
            let (mut good, mut expected) = (0, 0);
            for (dstore, state) in claimed {
                let has_reported = self.links.get(&dstore).is_some_and(|link| link.is_fenced && link.has_reported);
                let (is_good, may_be_there) = match state {
                    Some(CopyState::Certain) => (is_own || has_reported, true),
                    Some(CopyState::Claimed) => (is_own, true),
                    Some(CopyState::Damaged) | None => (false, false),
                };
                good += usize::from(is_good);
                expected += usize::from(may_be_there);
            }
            (fewest, fewest_expected) = (fewest.min(good), fewest_expected.min(expected));
        }
        (fewest, fewest_expected)
    }
}

/// What no store can work with is refused.
fn check_settings(settings: &Settings) -> Result<(), Failure> {
    let refused = |why: &str| Err(Failure::BadRequest { why: why.into() });
    match (settings.replicas, settings.write_quorum) {
        (_, Some(0)) => refused("at least 1 Dstore must have stored an object"),
        (Replicas::Number(replicas), Some(quorum)) if quorum > replicas => {
            refused("more Dstores than there are replicas cannot have stored an object")
        }
        _ if !(64 << 10..=1 << 30).contains(&settings.chunk_bytes) => refused("a chunk has 64 KiB to 1 GiB"),
        _ => Ok(()),
    }
}
