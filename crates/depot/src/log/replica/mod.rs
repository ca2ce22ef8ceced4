//! One Controller's copy of the log, and of the namespace that it adds up to. (depot 4.2, 4.5)
//!
//! Raft's library decides what the log is; this module carries its decisions out. It hides the library behind a few verbs:
//! [`propose`](Replica::propose) a change and learn its outcome, [`read`](Replica::read) the namespace,
//! [`tick`](Replica::tick) now and then. A single Controller is a group of one: it elects itself and agrees with itself, by
//! the same code as a group of five.
//!
//! # No thread of its own
//!
//! The library is driven by the threads that propose. Each enters its change under the lock. The first then writes and
//! syncs what has been entered, without the lock; what others enter meanwhile is its next write. So one sync serves all
//! that wait for it, and the next begins when it ends, with no timer in between.
//!
//! ```text
//! thread A   enter 1   write 1, sync           apply 1   write 2, 3, sync         apply 2, 3
//! thread B                 enter 2   waits                                        wakes
//! thread C                    enter 3   waits                                     wakes
//! ```
//!
//! # A group of several
//!
//! Messages to other members go through the [`Post`] that the owner gives, and theirs come in by [`step`](Replica::step). A
//! message that says what this member has, or for which other member it voted, leaves only after the sync.
//! [`enter`](Replica::enter) and [`outcome`](Replica::outcome) are a proposal without a waiting thread, [`ask`](Replica::ask) and
//! [`is_confirmed`](Replica::is_confirmed) a read: with them one thread drives many members.
//!
//! ```text
//!             client           client                 Post ──▶ other members
//!               │ propose        │ read                ▲ │
//!               ▼                ▼                     │ ▼ step
//!  Observer ◀── core: Raft's library, what waits for it ──▶ disk: segments, snapshots
//!               │ apply
//!               ▼
//!             namespace
//! ```
//!
//! # An epoch begins every leadership
//!
//! A leader's first change says which history and term it leads in. Until that is applied it serves nothing: neither the
//! namespace nor what a leader issues is certain before. (depot 2.1)

//! # The modules
//!
//! | | |
//! |---|---|
//! | `open` | what a folder is, and how it begins |
//! | `core` | what the lock guards |
//! | `drive` | carries out what the library decides, in the one right order |
//! | `reads` | reads that see all that was acknowledged before |
//! | `membership` | which Controllers there are |
//! | `transfer` | snapshots: made, sent, and taken from others |
//! | `comparison` | whether all members have come to the same |
//! | `message`, `seat` | what members tell each other, and what a replica is given |

mod comparison;
mod core;
mod drive;
mod membership;
mod message;
mod open;
mod reads;
mod seat;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod transfer;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use raft::eraftpb;
use raft::prelude::EntryType;

use self::core::Core;
pub(super) use membership::ID;
pub use membership::{Election, MemberChange, MemberError, Members, Progress};
pub use message::{InvalidMessage, Message};
pub use seat::{Observer, Post, Seat};
pub(super) use transfer::INCOMING;
pub use transfer::{Backup, IncomingSnapshot};

use super::frame::{Entry, EntryKind, HardState};
use super::segments::{LogError, Options, Segments};
use crate::disk::Folder;
use crate::identity::{ControllerId, Epoch};
use crate::namespace::change::Change;
use crate::namespace::{Applied, Namespace};
use crate::words::{Words, words};

/// When something that was written counts. (depot 5.7)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// When it is on the disk.
    Always,
    /// When it is written; it is on the disk a second later.
    Interval,
    /// When it is written; it is on the disk whenever the system likes.
    Never,
}

words!(enum SyncMode, "mode of syncs" { "always" => Always, "interval" => Interval, "never" => Never });

/// How a replica keeps what it has.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaOptions {
    /// When a change counts.
    pub sync: SyncMode,
    /// How the log is kept.
    pub log: Options,
    /// After so many bytes of log a snapshot is due.
    pub snapshot_bytes: u64,
    /// So many of the last changes stay in the log although a snapshot has them: `watch` reads them.
    pub kept_changes: u64,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self { sync: SyncMode::Always, log: Options::default(), snapshot_bytes: 64 << 20, kept_changes: 100_000 }
    }
}

/// Why the outcome of a proposal is not known, or there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// Another Controller leads, or none. The change has no effect.
    NotLeader,
    /// The change is larger than 8 MiB. It has no effect.
    TooLarge,
    /// Another leader's change took its place. It has no effect.
    Replaced,
    /// This Controller led when the change came in, and leads no more. The change may have had effect, or may have it later.
    Deposed,
    /// The log takes nothing more. The change may be found to have had effect after the next start.
    Log(LogError),
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader => f.write_str("this Controller does not lead"),
            Self::TooLarge => write!(f, "a change has at most {MOST_CHANGE_BYTES} bytes"),
            Self::Replaced => f.write_str("another leader's change took its place"),
            Self::Deposed => f.write_str("the outcome is unknown: this Controller leads no more"),
            Self::Log(error) => write!(f, "the outcome is unknown: {error}"),
        }
    }
}

impl std::error::Error for ProposeError {}

/// The largest change in bytes, as a line. (depot 12)
pub const MOST_CHANGE_BYTES: usize = 8 << 20;

/// A change that was entered, and whose outcome can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entered {
    index: u64,
    term: u64,
}

/// A Controller's copy of the log and of the namespace.
///
/// Lock order: `walking`, then `core`, then `namespace`; `disk` is taken while neither of the last two is held. No disk is
/// touched under `core`, and neither post nor observer is called.
pub struct Replica {
    id: ControllerId,
    folder: Arc<dyn Folder>,
    options: ReplicaOptions,
    seat: Seat,
    core: Mutex<Core>,
    /// Signalled whenever something was applied, or the log has failed; threads that wait for a proposal are woken by themselves.
    progress: Condvar,
    namespace: Mutex<Namespace>,
    disk: Mutex<Segments>,
    /// Held by the thread that writes a snapshot, or installs another member's.
    walking: Mutex<()>,
    /// The number of the next file of a snapshot that comes.
    incoming: AtomicU64,
}

impl Replica {
    /// Has a change made, and waits for its outcome.
    pub fn propose(&self, change: &Change) -> Result<Applied, ProposeError> {
        let mut core = self.core.lock();
        let entered = core.enter(change)?;
        self.wait_for(core, entered)
    }

    /// The same for several changes, which are entered in this order and written together, as part of this leadership: what it
    /// decided before may not hold in another one. Without effect if it has ended.
    pub fn propose_in<'a>(
        &self,
        epoch: Epoch,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Vec<Result<Applied, ProposeError>> {
        let mut core = self.core.lock();
        let has_ended = core.epoch != Some(epoch) && core.failure.is_none();
        let enter = |change| if has_ended { Err(ProposeError::NotLeader) } else { core.enter(change) };
        let entered: Vec<Result<Entered, ProposeError>> = changes.map(enter).collect();
        drop(core);
        entered.into_iter().map(|entered| self.wait_for(self.core.lock(), entered?)).collect()
    }

    fn wait_for(&self, mut core: MutexGuard<'_, Core>, entered: Entered) -> Result<Applied, ProposeError> {
        loop {
            if let Some(result) = core.take_outcome(entered) {
                return result;
            }
            // Without a clock it would not even notice that the others have gone. Alone, it comes to an end by itself.
            if core.is_retiring && !core.is_only_voter() {
                core.waiting.remove(&entered);
                return Err(ProposeError::Deposed);
            }
            if !core.is_driven && core.node.has_ready() {
                self.drive(&mut core, |core| core.is_known(entered));
            } else {
                if let Some(waiting) = core.waiting.get_mut(&entered) {
                    waiting.thread = Some(thread::current());
                }
                MutexGuard::unlocked(&mut core, thread::park);
            }
        }
    }

    /// Enters a change without waiting for it: [`step`](Self::step) and [`tick`](Self::tick) carry it on. Its outcome must
    /// be asked for until there is one.
    pub fn enter(&self, change: &Change) -> Result<Entered, ProposeError> {
        let mut core = self.core.lock();
        let entered = core.enter(change)?;
        self.carry_on(&mut core);
        Ok(entered)
    }

    /// What became of a change that was entered, once that is known; it is told once.
    pub fn outcome(&self, entered: &Entered) -> Option<Result<Applied, ProposeError>> {
        self.core.lock().take_outcome(*entered)
    }

    /// Takes a message of another member. One that announces a snapshot is for [`install_snapshot`](Self::install_snapshot).
    pub fn step(&self, message: Message) {
        if message.to() != self.id || message.snapshot().is_some() {
            return; // it is for a Controller whose folder is lost, or it comes without its file
        }
        let mut core = self.core.lock();
        match message {
            Message::Raft(message) => self.step_library(&mut core, message),
            Message::Hash { from, sequence, hash, .. } => core.hear_hash(from.0, sequence, hash),
        }
        self.carry_on(&mut core);
    }

    fn step_library(&self, core: &mut MutexGuard<'_, Core>, message: eraftpb::Message) {
        if core.is_member(message.from) {
            core.heard.insert(message.from, Instant::now());
        }
        if core.failure.is_some() || core.is_installing {
            return; // it may not answer for a disk that has failed, and the library has no log while one takes its place
        }
        if core.has_lost(&message) {
            return self.fail(core, LogError::OldCopy);
        }
        let Some(mut message) = core.hold(message) else { return };
        core.number_request(&mut message);
        // What does not fit, the library drops: a message of a member that it does not know, or one that is out of date.
        let _ = core.node.step(message);
    }

    /// The changes behind one that was applied, at most about `most_bytes` of them, each with its place in the sequence: also
    /// those that had no effect. An error if the log does not go back so far.
    pub fn changes_after(&self, sequence: u64, most_bytes: usize) -> io::Result<Vec<(u64, Change)>> {
        let last = self.namespace.lock().sequence();
        if sequence >= last {
            return Ok(Vec::new());
        }
        // The newest are in memory; the disk is asked for older ones only.
        let recent = self.core.lock().node.store().recent(sequence + 1, last + 1, most_bytes);
        let entries = match recent {
            Some(entries) => entries.iter().map(from_library).collect(),
            None => self.disk.lock().read(sequence + 1, most_bytes)?,
        };
        if entries.first().is_none_or(|entry| entry.index != sequence + 1) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the log does not go back so far"));
        }
        let changes = entries.into_iter().take_while(|entry| entry.index <= last);
        let changes = changes.filter(|entry| entry.kind == EntryKind::Change && !entry.data.is_empty());
        let parsed = changes.map(|entry| {
            let line = str::from_utf8(&entry.data).map_err(io::Error::other)?;
            Ok((entry.index, Change::from_line(line).map_err(io::Error::other)?))
        });
        parsed.collect()
    }

    /// Waits until a change behind `sequence` is applied, until `deadline`, until nothing more will be written, or until
    /// `is_stopping` says so: it is asked again at each change, and on [`retire`](Self::retire).
    pub fn wait_beyond(&self, sequence: u64, deadline: Instant, is_stopping: impl Fn() -> bool) {
        let mut core = self.core.lock();
        let goes_on = |core: &Core| core.failure.is_none() && !is_stopping();
        while goes_on(&core) && self.namespace.lock().sequence() <= sequence {
            if self.progress.wait_until(&mut core, deadline).timed_out() {
                return;
            }
        }
    }

    /// This member is about to end: from now on no thread waits for others. What they have not agreed to is
    /// [`Deposed`](ProposeError::Deposed), and threads in [`wait_beyond`](Self::wait_beyond) ask whether they are to stop.
    pub fn retire(&self) {
        let mut core = self.core.lock(); // no thread is between asking and waiting
        core.is_retiring = true;
        core.wake_all();
        drop(core);
        self.progress.notify_all();
    }

    /// The last entry of the log.
    pub fn last_index(&self) -> u64 {
        self.core.lock().node.raft.raft_log.last_index()
    }

    /// The leadership that is under way here, once it serves.
    pub fn epoch(&self) -> Option<Epoch> {
        self.core.lock().epoch
    }

    /// Why nothing more is written, if that is so.
    pub fn failure(&self) -> Option<LogError> {
        self.core.lock().failure.clone()
    }

    /// Whether the disk was full when something was written last.
    pub fn is_short_of_space(&self) -> bool {
        self.disk.lock().is_short_of_space()
    }

    /// Behind this change the voters' namespaces differ, and there is no majority that would be right. (depot 4.8)
    pub fn doubt(&self) -> Option<u64> {
        self.core.lock().doubt()
    }

    /// Raft's clock: to be called about every 100 ms, not in step with other members.
    pub fn tick(&self) {
        let mut core = self.core.lock();
        if core.failure.is_some() {
            return;
        }
        if core.may_tick() {
            core.node.tick();
            core.ask_for_votes_again();
            core.repeat_round();
            core.make_known(Vec::new());
        }
        let hashes = core.compare_on(|| self.look(|namespace| (namespace.sequence(), namespace.hash())));
        self.carry_on(&mut core);
        if let Some(sequence) = core.has_to_stop() {
            self.fail(&mut core, LogError::Diverged { sequence });
        }
        drop(core);
        if !hashes.is_empty() {
            self.seat.post.send(hashes);
        }
    }

    /// In a quiet moment: what was written is on the disk, and a mark says so. To be called about every 100 ms; syncs where
    /// [`SyncMode`] leaves that to a clock are due once a second.
    pub fn settle(&self, is_sync_due: bool) {
        let mut disk = self.disk.lock();
        let result = match self.options.sync {
            SyncMode::Interval if is_sync_due => disk.sync().and_then(|()| disk.mark()),
            _ => disk.mark(),
        };
        drop(disk);
        if let Err(error) = result {
            self.fail(&mut self.core.lock(), error);
        }
    }

    /// Ends in order: what was written is on the disk, and the log says that it ended.
    pub fn close(self) -> Result<(), LogError> {
        self.disk.into_inner().close()
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("folder", &self.folder).field("options", &self.options).finish_non_exhaustive()
    }
}

fn hard_state(state: &eraftpb::HardState) -> HardState {
    HardState { term: state.term, vote: state.vote, commit: state.commit }
}

fn hard_state_to_library(state: HardState) -> eraftpb::HardState {
    eraftpb::HardState { term: state.term, vote: state.vote, commit: state.commit, ..Default::default() }
}

fn from_library(entry: &eraftpb::Entry) -> Entry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => EntryKind::Change,
        EntryType::EntryConfChange => EntryKind::Membership,
        EntryType::EntryConfChangeV2 => EntryKind::JointMembership,
    };
    Entry { index: entry.index, term: entry.term, kind, data: entry.data.to_vec() }
}

fn to_library(entry: &Entry) -> eraftpb::Entry {
    let entry_type = match entry.kind {
        EntryKind::Change => EntryType::EntryNormal,
        EntryKind::Membership => EntryType::EntryConfChange,
        EntryKind::JointMembership => EntryType::EntryConfChangeV2,
        EntryKind::Snapshot => unreachable!("it only says where the log begins"),
    };
    eraftpb::Entry {
        index: entry.index,
        term: entry.term,
        entry_type,
        data: entry.data.clone().into(),
        ..Default::default()
    }
}

fn library_error(error: raft::Error) -> io::Error {
    io::Error::other(error)
}
