//! Which Controllers there are, and how one is added or removed. (depot 4.7, 4.8)
//!
//! A Controller is its log's folder: it keeps a random number there, its id. One that returns without its disk has another id,
//! and the others do not know it. That is needed: with its disk it has lost for whom it voted and what it promised to keep.
//!
//! One member is added or removed at a time. Then any majority before the change and any after it have a member in common, so
//! that no two leaders are elected in one term by groups that do not know of each other. A member is first added as a
//! *learner*, which gets the log and has no vote, and is promoted once it has caught up: until then the others do not wait for
//! it.
//!
//! ```text
//!  empty folder ──AddLearner──▶ learner ──Promote──▶ voter
//!                                  └──────Remove───────┘ ──▶ no member; its folder is of no more use
//! ```
//!
//! A change of the group takes effect where it is applied, not where it is entered. It is safe that a member that starts again
//! may be one such change behind what others have applied: the frame that holds the next change also says that this one is
//! committed, for the leader enters none before the last is applied.
//!
//! Where only the leader knows that a member became a voter, the others still elect as the group before: if the leader's disk is
//! lost then, one more may be missing than they can do without. So the leader enters something more, which takes the news with it,
//! and says that the group has changed once most voters of the new group have that on their disks.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use raft::ProgressState;
use raft::eraftpb::{ConfChange, ConfChangeType};

use super::core::Waiting;
use super::drive::Told;
use super::{Entered, ProposeError, Replica};
use crate::disk::{Folder, random, remove_if_there};
use crate::identity::ControllerId;
use crate::log::segments::OpenError;
use crate::log::snapshots;
use crate::words::{Reader, Words};

/// The Controllers of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those that elect the leader, and keep what is acknowledged.
    pub voters: Vec<ControllerId>,
    /// Those that are to catch up first.
    pub learners: Vec<ControllerId>,
}

impl Members {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = ControllerId> {
        self.voters.iter().chain(&self.learners).copied()
    }
}

/// What the leader knows of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub id: ControllerId,
    /// The last entry that it is known to have.
    pub last_index: u64,
    /// Behind this change its namespace is known to be the same as this member's, under any leader. (depot 4.8)
    pub agreed: Option<u64>,
    /// It lags so far behind that it is being sent a snapshot.
    pub is_sent_snapshot: bool,
    /// How long ago it was last heard of, if it was.
    pub silence: Option<Duration>,
}

/// A leader that was elected, as this member has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Election {
    /// Which member leads since then.
    pub leader: ControllerId,
    /// In which term.
    pub term: u64,
    /// When this member learned of it.
    pub at: Instant,
    /// So long it had heard nothing of the leader before, if there was one that it knew.
    pub gap: Option<Duration>,
}

/// A change of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// Gets the log from now on, without a vote.
    AddLearner(ControllerId),
    /// A learner gets a vote.
    Promote(ControllerId),
    /// Is a member no more.
    Remove(ControllerId),
}

/// Why the group was not changed, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberError {
    /// As for any proposal. A leader that is to remove itself hands over to another and says `NotLeader`: that one removes it.
    Propose(ProposeError),
    /// Another change of the group is under way. Nothing was done.
    Busy,
    /// It is a member already. Nothing was done.
    IsMember,
    /// It is no member, or no learner if it is to be promoted. Nothing was done.
    NoMember,
    /// It is to be promoted, and lacks more than the last thousand entries. Nothing was done.
    Lags,
    /// It is the only one that votes. Nothing was done.
    OnlyVoter,
}

impl fmt::Display for MemberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Propose(error) => error.fmt(f),
            Self::Busy => f.write_str("another change of the group of Controllers is under way; try again"),
            Self::IsMember => f.write_str("this Controller is in the group already"),
            Self::NoMember => f.write_str("no such Controller is in the group"),
            Self::Lags => f.write_str("this Controller has not caught up with the others yet; try again"),
            Self::OnlyVoter => f.write_str("the only Controller that votes cannot be removed"),
        }
    }
}

impl std::error::Error for MemberError {}

impl From<ProposeError> for MemberError {
    fn from(error: ProposeError) -> Self {
        Self::Propose(error)
    }
}

/// A learner that lacks more entries is not promoted.
const MOST_LAG: u64 = 1000;

impl Replica {
    /// Which Controller this is.
    pub fn id(&self) -> ControllerId {
        self.id
    }

    /// Which Controller leads, as far as this one knows.
    pub fn leader(&self) -> Option<ControllerId> {
        Some(ControllerId(self.core.lock().node.raft.leader_id)).filter(|id| id.0 != 0)
    }

    /// The last leaders that this Controller has heard of, or has been itself, since it was started: the latest last.
    pub fn elections(&self) -> Vec<Election> {
        self.core.lock().elections.iter().copied().collect()
    }

    /// The group, as far as this Controller has applied its changes. None at all where it still waits to be added.
    pub fn members(&self) -> Members {
        let core = self.core.lock();
        let members = core.node.store().members();
        let ids = |ids: &[u64]| ids.iter().copied().map(ControllerId).collect();
        Members { voters: ids(&members.voters), learners: ids(&members.learners) }
    }

    /// What this Controller knows of all members, if it leads; else only when each was last heard of, and what it has itself.
    pub fn progress(&self) -> Vec<Progress> {
        let core = self.core.lock();
        let members = core.node.store().members();
        let progress = members.voters.iter().chain(&members.learners).map(|id| {
            let tracked = core.node.raft.prs().get(*id).filter(|_| core.leads());
            let is_this = *id == core.id;
            Progress {
                id: ControllerId(*id),
                last_index: match tracked {
                    Some(tracked) => tracked.matched,
                    None if is_this => core.node.raft.raft_log.persisted,
                    None => 0,
                },
                agreed: core.comparison.agreed(core.id, *id),
                is_sent_snapshot: tracked.is_some_and(|tracked| tracked.state == ProgressState::Snapshot),
                silence: core.heard.get(id).map(|at| at.elapsed()).or(is_this.then_some(Duration::ZERO)),
            }
        });
        progress.collect()
    }

    /// Has the group changed, and waits until that is applied here and most voters know of it. Only at the leader.
    pub fn change_members(&self, change: MemberChange) -> Result<(), MemberError> {
        let mut core = self.core.lock();
        let entered = core.enter_member_change(change);
        if entered == Err(MemberError::Propose(ProposeError::NotLeader)) {
            self.carry_on(&mut core); // it may be handing over
        }
        // What takes its place without an error is an empty entry.
        self.wait_for(core, entered?).map_or_else(
            |error| Err(if error == ProposeError::Replaced { MemberError::Busy } else { error.into() }),
            |_| Ok(()),
        )
    }

    /// Enters a change of the group without waiting for it, as [`enter`](Self::enter) does.
    pub fn enter_member_change(&self, change: MemberChange) -> Result<Entered, MemberError> {
        let mut core = self.core.lock();
        let entered = core.enter_member_change(change);
        self.carry_on(&mut core);
        entered
    }

    /// Waits until most voters have all that is applied here on their disks, the group included: then it outlives this member's
    /// disk. An error if this member does not lead, or leads no more.
    pub fn make_known(&self) -> Result<(), ProposeError> {
        let mut core = self.core.lock();
        core.check_leads()?;
        let epoch = core.epoch;
        let entered = core.propose(Vec::new())?;
        core.waiting.insert(entered, Waiting::default());
        match self.wait_for(core, entered) {
            // That is what is told of an entry without effect. It is this one, if no other leader came in between.
            Err(ProposeError::Replaced) if self.epoch() == epoch => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Has the leader hand over to another member, which begins once it has all entries. Given up after an election's time.
    pub fn transfer_leader(&self, to: ControllerId) {
        let mut core = self.core.lock();
        core.node.transfer_leader(to.0);
        self.carry_on(&mut core);
    }

    /// Has this Controller hand over to the voter that has most of the log, if it leads and there is another voter: which. Given
    /// up after an election's time.
    pub fn hand_over(&self) -> Option<ControllerId> {
        let mut core = self.core.lock();
        let to = core.hand_over();
        self.carry_on(&mut core);
        to.map(ControllerId)
    }
}

impl super::core::Core {
    fn enter_member_change(&mut self, change: MemberChange) -> Result<Entered, MemberError> {
        self.check_leads()?;
        let members = self.node.store().members();
        let (is_voter, is_learner) =
            (|id: ControllerId| members.voters.contains(&id.0), |id: ControllerId| members.learners.contains(&id.0));
        let (kind, id) = match change {
            MemberChange::AddLearner(id) if is_voter(id) || is_learner(id) => return Err(MemberError::IsMember),
            MemberChange::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
            MemberChange::Promote(id) if is_voter(id) => return Err(MemberError::IsMember),
            MemberChange::Promote(id) if !is_learner(id) => return Err(MemberError::NoMember),
            MemberChange::Promote(id) if !self.has_caught_up(id.0) => return Err(MemberError::Lags),
            MemberChange::Promote(id) => (ConfChangeType::AddNode, id),
            MemberChange::Remove(id) if !is_voter(id) && !is_learner(id) => return Err(MemberError::NoMember),
            MemberChange::Remove(id) if members.voters == [id.0] => return Err(MemberError::OnlyVoter),
            MemberChange::Remove(id) => (ConfChangeType::RemoveNode, id),
        };
        if self.node.raft.has_pending_conf() {
            return Err(MemberError::Busy);
        }
        if change == MemberChange::Remove(ControllerId(self.id)) {
            // The library has a leader that removes itself commit without a majority to count itself in. Another does it.
            self.hand_over();
            return Err(ProposeError::NotLeader.into());
        }
        let mut proposal = ConfChange::default();
        proposal.set_change_type(kind);
        proposal.node_id = id.0;
        self.node.propose_conf_change(Vec::new(), proposal).map_err(|_| ProposeError::NotLeader)?;
        let entered = self.last_entered();
        self.waiting.insert(entered, Waiting::default());
        Ok(entered)
    }

    /// Changes of the group are applied here. The leader makes them known by one more entry each; if it is about to hand over
    /// it cannot enter any, and is asked again. Any other Controller cannot say what becomes of them.
    pub(super) fn make_known(&mut self, changes: Vec<Told>) {
        if !self.leads() {
            let deposed = |told| Told { result: Err(ProposeError::Deposed), ..told };
            return self.tell(&changes.into_iter().map(deposed).collect::<Vec<_>>());
        }
        self.of_group.extend(changes.into_iter().map(|told| (told, None)));
        for at in 0..self.of_group.len() {
            if self.of_group[at].1.is_none() {
                self.of_group[at].1 = self.propose(Vec::new()).ok().map(|next| next.index);
            }
        }
    }

    /// Tells what became of those changes of the group that most voters know of.
    pub(super) fn tell_known_changes(&mut self) {
        let applied = self.applied;
        let is_known = |(_, next): &mut (Told, Option<u64>)| next.is_some_and(|next| next <= applied);
        let known: Vec<Told> = self.of_group.extract_if(.., is_known).map(|(told, _)| told).collect();
        self.tell(&known);
    }

    /// Whether a member lacks no more than the last entries.
    fn has_caught_up(&self, id: u64) -> bool {
        let raft = &self.node.raft;
        let matched = raft.prs().get(id).map_or(0, |progress| progress.matched);
        matched > 0 && matched + MOST_LAG >= raft.raft_log.last_index()
    }

    pub(super) fn hand_over(&mut self) -> Option<u64> {
        if !self.leads() {
            return None;
        }
        let raft = &self.node.raft;
        let voters = self.node.store().members().voters.iter().copied().filter(|id| *id != self.id);
        let to =
            voters.max_by_key(|id| raft.prs().get(*id).map(|progress| (progress.recent_active, progress.matched)))?;
        self.node.transfer_leader(to);
        Some(to)
    }
}

/// Where a folder says which Controller it is.
pub(in crate::log) const ID: &str = "controller-id";
/// Its name while it is made.
const NEW_ID: &str = "new-controller-id";
const FORMAT: &str = "stevedore-controller";
const VERSION: u64 = 1;

/// Which Controller the folder is. One without a log becomes one; one that was made as a group of one, before Controllers had
/// ids, keeps the only voter of its snapshot.
pub(super) fn identify(folder: &dyn Folder, members: Option<&snapshots::Members>) -> Result<u64, OpenError> {
    if folder.names()?.iter().any(|name| name == ID) {
        return read_id(&folder.read(ID)?);
    }
    let id = match members.map(|members| (&members.voters[..], &members.learners[..])) {
        None => u64::from_le_bytes(random()?).max(1),
        Some(([only], [])) => *only,
        Some(_) => {
            let reason = "it does not say which Controller it is";
            return Err(OpenError::Damaged { file: ID.into(), offset: 0, reason });
        }
    };
    write_id(folder, id)?;
    Ok(id)
}

/// After this, the folder is this Controller, whatever happens.
pub(super) fn write_id(folder: &dyn Folder, id: u64) -> io::Result<()> {
    remove_if_there(folder, NEW_ID)?;
    let words = format!("{FORMAT} {VERSION} {}", ControllerId(id));
    let mut file = folder.create(NEW_ID)?;
    file.append(format!("{words} {}\n", sum(&words)).as_bytes())?;
    file.sync()?;
    folder.rename(NEW_ID, ID)?;
    folder.sync()
}

fn read_id(bytes: &[u8]) -> Result<u64, OpenError> {
    let damaged = || OpenError::Damaged { file: ID.into(), offset: 0, reason: "a bad line" };
    let line = str::from_utf8(bytes).ok().and_then(|text| text.strip_suffix('\n')).ok_or_else(damaged)?;
    let (words, expected) = line.rsplit_once(' ').ok_or_else(damaged)?;
    if sum(words) != expected {
        return Err(damaged());
    }
    let mut reader = Reader::new(words);
    let format = (reader.raw("format").ok(), u64::read(&mut reader).ok());
    if format != (Some(FORMAT), Some(VERSION)) {
        return Err(OpenError::Format { file: ID.into() });
    }
    ControllerId::read(&mut reader).map(|id| id.0).map_err(|_| damaged())
}

fn sum(words: &str) -> String {
    format!("{:016x}", twox_hash::XxHash3_64::oneshot(words.as_bytes()))
}
