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
//! message that says what this member has, or for which other member it voted, leaves only after the sync; a leader's new
//! entries leave before its own. [`enter`](Replica::enter) and [`outcome`](Replica::outcome) are a proposal without a waiting
//! thread, [`ask`](Replica::ask) and [`is_confirmed`](Replica::is_confirmed) a read: with them one thread drives many members.
//!
//! A read must not be answered by a leader that was deposed and does not know it. So a majority is asked first whether this
//! leadership still stands, by the leader itself or on behalf of a follower, and the answer waits until as much is applied as
//! was committed when they were asked. All reads that come while one such round is under way share the next.
//!
//! # An epoch begins every leadership
//!
//! A leader's first change says which history and term it leads in. Until that is applied it serves nothing: neither the
//! namespace nor what a leader issues is certain before. (depot 2.1)

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use raft::prelude::{ConfState, Config, EntryType};
use raft::{RawNode, ReadState, StateRole, eraftpb};

use super::frame::{Entry, EntryKind, HardState};
use super::recovery;
use super::segments::{LogError, OpenError, Options, Segments};
use super::snapshots::{self, Members, Meta};
use super::store::Store;
use crate::disk::{Folder, Handle, random};
use crate::identity::{Epoch, History};
use crate::namespace::change::{Change, Command};
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

/// What one member tells another: bytes of Raft's library.
pub type Message = eraftpb::Message;

/// Takes messages to other members. Each says in `to` which member it is for; any may be lost, late, or come twice.
pub trait Post: Send + Sync {
    /// Sends messages; must not wait for the network. No lock of the replica is held meanwhile.
    fn send(&self, messages: Vec<Message>);
}

/// A place in a group of several Controllers.
pub struct Seat {
    /// Which member this is.
    pub id: u64,
    /// What takes its messages.
    pub post: Box<dyn Post>,
    /// After so many ticks without a word of the leader it stands for election; each time drawn anew.
    pub election_ticks: Range<usize>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A change that was entered, and whose outcome can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entered {
    index: u64,
    term: u64,
}

/// A read waits at most so long for a majority to confirm the leader.
const READ_WAIT: Duration = Duration::from_secs(5);

/// A Controller's copy of the log and of the namespace.
///
/// Lock order: `walking`, then `core`, then `namespace`; `disk` is taken while neither of the last two is held. No disk is
/// touched under `core`.
pub struct Replica {
    folder: Arc<dyn Folder>,
    options: ReplicaOptions,
    core: Mutex<Core>,
    /// Signalled whenever something was applied, or the log has failed.
    progress: Condvar,
    namespace: Mutex<Namespace>,
    disk: Mutex<Segments>,
    /// Held by the thread that writes a snapshot.
    walking: Mutex<()>,
    /// Takes messages to other members; a group of one has none.
    post: Option<Box<dyn Post>>,
}

/// All metadata at one sequence, in a file. (depot 4.9)
#[derive(Debug)]
pub struct Backup {
    /// The last change that it has.
    pub sequence: u64,
    /// In bytes.
    pub length: u64,
    /// The file: a snapshot's.
    pub file: Arc<dyn Handle>,
}

/// Raft, and the threads that wait for it.
struct Core {
    node: RawNode<Store>,
    /// What became of the proposals that are waited for, once that is known.
    waiting: BTreeMap<Entered, Option<Result<Applied, ProposeError>>>,
    /// A thread is carrying out what the library has decided.
    is_driven: bool,
    /// The epoch that begins this leadership, once it is applied.
    epoch: Option<Epoch>,
    /// The entry that proposes it: it is synced whatever else is.
    epoch_index: u64,
    /// The history of the next epoch.
    history: History,
    /// What must not be forgotten, as it was written last.
    state: HardState,
    /// Bytes of log since the last snapshot.
    bytes: u64,
    failure: Option<LogError>,
    reads: Reads,
}

/// The rounds in which a majority is asked whether the leader still leads. At most one is under way.
struct Reads {
    /// Drawn at each start: an answer to an earlier start's round must not be taken for one to this start's.
    nonce: u64,
    /// The round that was begun last.
    begun: u64,
    /// The round that was confirmed last.
    done: u64,
    /// What must be applied for the round under way, once it was answered.
    index: Option<u64>,
    /// Reads wait for a round that begins after the one under way.
    is_wanted: bool,
}

impl Replica {
    /// Opens what is in a folder; a new store is made in an empty one. When this returns, a group of one serves.
    pub fn open(folder: Arc<dyn Folder>, options: ReplicaOptions) -> Result<Self, OpenError> {
        Self::open_seat(folder, options, None)
    }

    /// Opens a member of a group of several, whose folder has a log already. It serves once it follows a leader, or leads.
    pub fn open_in_group(folder: Arc<dyn Folder>, options: ReplicaOptions, seat: Seat) -> Result<Self, OpenError> {
        Self::open_seat(folder, options, Some(seat))
    }

    fn open_seat(folder: Arc<dyn Folder>, options: ReplicaOptions, seat: Option<Seat>) -> Result<Self, OpenError> {
        recovery::complete(&*folder)?;
        let sequences = snapshots::sequences(&*folder)?;
        let (meta, mut namespace) = match sequences.last() {
            None if recovery::has_segments(&*folder)? => {
                return Err(OpenError::Damaged { file: "log".into(), offset: 0, reason: "a log without its snapshot" });
            }
            None => create(&*folder)?,
            Some(newest) => newest_readable(&*folder, &sequences, *newest)?,
        };
        if !recovery::has_segments(&*folder)? && !recovery::is_beginning(&namespace) {
            return Err(OpenError::Damaged { file: "log".into(), offset: 0, reason: "a snapshot without its log" });
        }
        let mut entries: Vec<Entry> = Vec::new();
        let log = Options { first_index: meta.sequence + 1, ..options.log };
        let disk = Segments::open(Arc::clone(&folder), log, |entry| {
            while entries.last().is_some_and(|last| last.index >= entry.index) {
                entries.pop();
            }
            if entry.index > meta.sequence {
                entries.push(entry);
            }
        })?;
        if disk.first_index() > meta.sequence + 1 || disk.last_index() < meta.sequence {
            return Err(OpenError::Damaged {
                file: format!("log behind snapshot {}", meta.sequence),
                offset: 0,
                reason: "a part of the log is missing",
            });
        }
        let is_alone = meta.members.voters.len() == 1;
        let id = seat.as_ref().map_or(meta.members.voters.first().copied().unwrap_or(1), |seat| seat.id);
        let ticks = seat.as_ref().map_or(7..14, |seat| seat.election_ticks.clone());
        let mut store = Store::new((meta.sequence, meta.term), conf_state(&meta.members));
        store.append(&entries.iter().map(to_library).collect::<Vec<_>>());
        let mut state = disk.state();
        // Progress alone is not always written down: what a snapshot has was committed.
        state.commit = state.commit.max(meta.sequence);
        if state.term < meta.term {
            // A store that was restored: its log is new, and its terms go on.
            state = HardState { term: meta.term, vote: 0, ..state };
        }
        store.set_hard_state(hard_state_to_library(state));
        let config = Config {
            id,
            applied: meta.sequence,
            election_tick: ticks.start,
            min_election_tick: ticks.start,
            max_election_tick: ticks.end,
            heartbeat_tick: 1,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            max_uncommitted_size: 1 << 30,
            check_quorum: true,
            pre_vote: true,
            batch_append: true,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, store, &logger).map_err(library_error)?;
        // Without syncs, an unclean end may have taken the store back to an earlier state. (depot 2.1)
        let may_be_earlier = is_alone && options.sync != SyncMode::Always && !disk.was_closed();
        let history = match namespace_history(&namespace, &entries) {
            Some(history) if !may_be_earlier => history,
            _ => History(u64::from_le_bytes(random()?).max(1)),
        };
        namespace.end_walk();
        let core = Core {
            node,
            waiting: BTreeMap::new(),
            is_driven: false,
            epoch: None,
            epoch_index: 0,
            history,
            state: disk.state(),
            bytes: entries.iter().map(bytes_of).sum(),
            failure: None,
            reads: Reads { nonce: u64::from_le_bytes(random()?), begun: 0, done: 0, index: None, is_wanted: false },
        };
        let replica = Self {
            folder,
            options,
            core: Mutex::new(core),
            progress: Condvar::new(),
            namespace: Mutex::new(namespace),
            disk: Mutex::new(disk),
            walking: Mutex::new(()),
            post: seat.map(|seat| seat.post),
        };
        replica.campaign_alone()?;
        Ok(replica)
    }

    /// Has a change made, and waits for its outcome.
    pub fn propose(&self, change: &Change) -> Result<Applied, ProposeError> {
        let mut core = self.core.lock();
        let entered = core.enter(change)?;
        loop {
            if let Some(result) = core.take_outcome(entered) {
                return result;
            }
            if !core.is_driven && core.node.has_ready() {
                self.drive(&mut core, |core| core.is_known(entered));
            } else {
                self.progress.wait(&mut core);
            }
        }
    }

    /// Enters a change without waiting for it: [`step`](Self::step) and [`tick`](Self::tick) carry it on. Its outcome must
    /// be asked for until there is one.
    pub fn enter(&self, change: &Change) -> Result<Entered, ProposeError> {
        let mut core = self.core.lock();
        let entered = core.enter(change)?;
        if !core.is_driven {
            self.drive(&mut core, |_| false);
        }
        Ok(entered)
    }

    /// What became of a change that was entered, once that is known; it is told once.
    pub fn outcome(&self, entered: &Entered) -> Option<Result<Applied, ProposeError>> {
        self.core.lock().take_outcome(*entered)
    }

    /// Takes a message of another member.
    pub fn step(&self, message: Message) {
        let mut core = self.core.lock();
        if core.failure.is_some() {
            return; // it may not answer for a disk that has failed
        }
        // What does not fit, the library drops: a message of a member that it does not know, or one that is out of date.
        let _ = core.node.step(message);
        if !core.is_driven {
            self.drive(&mut core, |_| false);
        }
    }

    /// Which member leads, as far as this one knows.
    pub fn leader(&self) -> Option<u64> {
        Some(self.core.lock().node.raft.leader_id).filter(|id| *id != 0)
    }

    /// Has the leader hand over to another member, which begins once it has all entries. Given up after an election's time.
    pub fn transfer_leader(&self, to: u64) {
        let mut core = self.core.lock();
        core.node.transfer_leader(to);
        if !core.is_driven {
            self.drive(&mut core, |_| false);
        }
    }

    /// Looks at the namespace, which has every change that was acknowledged before, through any Controller. An error if this
    /// Controller is alone and does not lead, or if a majority confirms no leader within 5 s.
    pub fn read<T>(&self, look: impl FnOnce(&Namespace) -> T) -> Result<T, ProposeError> {
        let mut core = self.core.lock();
        if core.is_alone() {
            if core.epoch.is_none() {
                return Err(ProposeError::NotLeader);
            }
        } else {
            let (round, deadline) = (core.join_round(), Instant::now() + READ_WAIT);
            while core.reads.done < round {
                if let Some(failure) = core.failure.clone() {
                    return Err(ProposeError::Log(failure));
                }
                if !core.is_driven && core.node.has_ready() {
                    self.drive(&mut core, |core| core.reads.done >= round);
                } else if self.progress.wait_until(&mut core, deadline).timed_out() {
                    return Err(ProposeError::NotLeader);
                }
            }
        }
        drop(core);
        Ok(look(&self.namespace.lock()))
    }

    /// Asks for a read without waiting for it: the round that must be confirmed first.
    pub fn ask(&self) -> u64 {
        let mut core = self.core.lock();
        let round = core.join_round();
        if !core.is_driven {
            self.drive(&mut core, |_| false);
        }
        round
    }

    /// Whether a round is confirmed: then [`look`](Self::look) sees every change that was acknowledged before it was asked for.
    pub fn is_confirmed(&self, round: u64) -> bool {
        self.core.lock().reads.done >= round
    }

    /// Looks at the namespace as it is here, which may be behind.
    pub fn look<T>(&self, look: impl FnOnce(&Namespace) -> T) -> T {
        look(&self.namespace.lock())
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
    /// `is_stopping` says so: it is asked again at each change, and on [`wake`](Self::wake).
    pub fn wait_beyond(&self, sequence: u64, deadline: Instant, is_stopping: impl Fn() -> bool) {
        let mut core = self.core.lock();
        let goes_on = |core: &Core| core.failure.is_none() && core.epoch.is_some() && !is_stopping();
        while goes_on(&core) && self.namespace.lock().sequence() <= sequence {
            if self.progress.wait_until(&mut core, deadline).timed_out() {
                return;
            }
        }
    }

    /// Has threads in [`wait_beyond`](Self::wait_beyond) ask whether they are to stop.
    pub fn wake(&self) {
        let _core = self.core.lock(); // none of them is between asking and waiting
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

    /// Raft's clock: to be called every 100 ms.
    pub fn tick(&self) {
        let mut core = self.core.lock();
        core.node.tick();
        if core.reads.begun > core.reads.done && core.reads.index.is_none() {
            core.send_round(); // the library forgets a round without a word when the leader changes
        }
        if !core.is_driven {
            self.drive(&mut core, |_| false);
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

    /// Writes a snapshot if one is due, beside changes, and gives up the log before it. True if it did.
    pub fn snapshot_if_due(&self) -> io::Result<bool> {
        let _one_at_a_time = self.walking.lock();
        let is_due = {
            let core = self.core.lock();
            core.bytes >= self.options.snapshot_bytes && core.failure.is_none()
        };
        if is_due {
            self.snapshot(None)?;
        }
        Ok(is_due)
    }

    /// A snapshot that has all that was applied before, as a file to be read: it stays readable when newer ones replace it.
    /// Waits while another one is made, and shares what that one has. An error if that is not done before the deadline, as
    /// far as it does not depend on the disk. (depot 4.9)
    pub fn backup(&self, deadline: Option<Instant>) -> io::Result<Backup> {
        let least = self.namespace.lock().sequence();
        let _one_at_a_time = match deadline {
            Some(deadline) => self.walking.try_lock_until(deadline).ok_or(io::ErrorKind::TimedOut)?,
            None => self.walking.lock(),
        };
        let newest = snapshots::sequences(&*self.folder)?.last().copied();
        let sequence = match newest.filter(|newest| *newest >= least) {
            Some(newest) => newest,
            None => self.snapshot(deadline)?,
        };
        let file = self.folder.handle(&snapshots::name(sequence))?;
        Ok(Backup { sequence, length: file.length()?, file })
    }

    /// Writes a snapshot, beside changes, and gives up the log before it; its sequence. One at a time.
    fn snapshot(&self, deadline: Option<Instant>) -> io::Result<u64> {
        let (meta, hash) = {
            let mut core = self.core.lock();
            core.bytes = 0;
            let beginning = self.namespace.lock().begin_walk();
            let term = core.node.raft.raft_log.term(beginning.sequence).map_err(library_error)?;
            let members = core.node.store().members();
            let members = Members { voters: members.voters.clone(), learners: members.learners.clone() };
            (Meta { sequence: beginning.sequence, term, members }, beginning.hash)
        };
        let made = snapshots::make(&*self.folder, &meta, hash, || {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "all metadata cannot be written in so short a time",
                ));
            }
            Ok(self.namespace.lock().walk_on(1000))
        });
        self.namespace.lock().end_walk(); // if it was not written to its end
        made?;
        // The older snapshot must still find what follows it.
        let oldest = snapshots::sequences(&*self.folder)?.first().copied().unwrap_or(0);
        let mut disk = self.disk.lock();
        let needed = (oldest + 1).min(disk.last_index().saturating_sub(self.options.kept_changes));
        disk.discard_before(needed).map_err(io::Error::other)?;
        Ok(meta.sequence)
    }

    /// Ends in order: what was written is on the disk, and the log says that it ended.
    pub fn close(self) -> Result<(), LogError> {
        self.disk.into_inner().close()
    }

    fn campaign_alone(&self) -> Result<(), OpenError> {
        let mut core = self.core.lock();
        if core.node.store().members().voters.len() == 1 {
            core.node.campaign().map_err(library_error)?;
            while core.epoch.is_none() && core.failure.is_none() {
                self.drive(&mut core, |_| false);
            }
        }
        match &core.failure {
            Some(failure) => Err(OpenError::Io(io::Error::other(failure.clone()))),
            None => Ok(()),
        }
    }

    /// Carries out what the library decides, until there is nothing left or the caller has enough: then a thread that still
    /// waits goes on. The lock is let go while the disk works.
    fn drive(&self, core: &mut MutexGuard<'_, Core>, is_enough: impl Fn(&Core) -> bool) {
        core.is_driven = true;
        while core.failure.is_none() && core.node.has_ready() {
            // In a group of several, messages must not stay behind for want of a thread that waits.
            if is_enough(core) && (self.post.is_none() || core.waiting.len() > 1) {
                break;
            }
            let mut ready = core.node.ready();
            let role = ready.ss().map(|state| state.raft_state);
            let entries = ready.take_entries();
            let committed = ready.take_committed_entries();
            let state = ready.hs().cloned();
            let number = ready.number();
            let (messages, after_sync) = (ready.take_messages(), ready.take_persisted_messages());
            core.answer_round(ready.read_states());
            core.node.mut_store().append(&entries);
            let is_alone = core.is_alone();
            let mut must_sync = !entries.is_empty() && (self.options.sync == SyncMode::Always || !is_alone);
            must_sync |= entries.iter().any(|entry| entry.index == core.epoch_index);
            if let Some(state) = state {
                // Terms and votes are synced before use, whatever else is. (depot 2.3)
                must_sync |= (core.state.term, core.state.vote) != (state.term, state.vote);
                core.state = hard_state(&state);
                core.node.mut_store().set_hard_state(state);
            }
            core.node.advance_append_async(ready);
            if role.is_some() {
                core.epoch = None;
                core.give_up_waiting();
            }
            if role == Some(StateRole::Leader) {
                core.propose_epoch();
            }
            let sequence = self.apply(core, &committed);
            core.node.advance_apply();
            core.finish_round();
            core.node.mut_store().trim(sequence);
            self.progress.notify_all();

            // That more was committed need not be written by itself: it is found out again.
            let must_write = !entries.is_empty() || must_sync;
            if must_write || !messages.is_empty() || !after_sync.is_empty() {
                let entries: Vec<_> = entries.iter().map(from_library).collect();
                let state = Some(core.state);
                core.bytes += entries.iter().map(bytes_of).sum::<u64>();
                let written = MutexGuard::unlocked(core, || {
                    self.send(messages);
                    if must_write {
                        let mut disk = self.disk.lock();
                        disk.append(&entries, state)?;
                        if must_sync {
                            disk.sync()?;
                        }
                    }
                    self.send(after_sync);
                    Ok(())
                });
                if let Err(error) = written {
                    self.fail(core, error);
                    break;
                }
            }
            core.node.on_persist_ready(number);
        }
        core.is_driven = false;
        self.progress.notify_all();
    }

    /// The last change that was applied.
    fn apply(&self, core: &mut Core, committed: &[eraftpb::Entry]) -> u64 {
        let mut namespace = self.namespace.lock();
        for entry in committed {
            match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => {}
                EntryType::EntryNormal => {
                    let line = str::from_utf8(&entry.data).expect("a change is a line of text");
                    let change = Change::from_line(line).expect("what was proposed was written by us");
                    let applied = namespace.apply(entry.index, &change);
                    if let Command::Lead { epoch } = change.command
                        && core.node.raft.state == StateRole::Leader
                        && core.node.raft.term == entry.term
                    {
                        core.epoch = Some(epoch);
                    }
                    core.tell(entry, Ok(applied));
                    continue;
                }
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    unreachable!("no change of the group is proposed yet")
                }
            }
            core.tell(entry, Err(ProposeError::Replaced));
        }
        namespace.sequence()
    }

    fn send(&self, messages: Vec<Message>) {
        if let Some(post) = self.post.as_ref().filter(|_| !messages.is_empty()) {
            post.send(messages);
        }
    }

    fn fail(&self, core: &mut Core, error: LogError) {
        core.epoch = None;
        core.failure.get_or_insert(error);
        self.progress.notify_all();
    }
}

impl Core {
    fn is_alone(&self) -> bool {
        self.node.store().members().voters.len() == 1
    }

    fn enter(&mut self, change: &Change) -> Result<Entered, ProposeError> {
        let line = change.to_line().into_bytes();
        if line.len() > MOST_CHANGE_BYTES {
            return Err(ProposeError::TooLarge);
        }
        if let Some(failure) = &self.failure {
            return Err(ProposeError::Log(failure.clone()));
        }
        if self.epoch.is_none() {
            return Err(ProposeError::NotLeader);
        }
        let (index, term) = self.propose(line)?;
        let entered = Entered { index, term };
        self.waiting.insert(entered, None);
        Ok(entered)
    }

    fn take_outcome(&mut self, entered: Entered) -> Option<Result<Applied, ProposeError>> {
        let known = self.waiting.get_mut(&entered).and_then(Option::take);
        let result = known.or_else(|| self.failure.clone().map(|failure| Err(ProposeError::Log(failure))))?;
        self.waiting.remove(&entered);
        Some(result)
    }

    /// A leader that is deposed cannot say what becomes of the changes that it had.
    fn give_up_waiting(&mut self) {
        for waiting in self.waiting.values_mut() {
            waiting.get_or_insert(Err(ProposeError::Deposed));
        }
    }

    /// The round that a read that begins now must wait for.
    fn join_round(&mut self) -> u64 {
        if self.reads.begun > self.reads.done {
            // What was committed since the round under way began is not in its answer.
            self.reads.is_wanted = true;
            return self.reads.begun + 1;
        }
        self.reads.begun += 1;
        self.send_round();
        self.reads.begun
    }

    fn round_context(&self) -> Vec<u8> {
        [self.reads.nonce, self.reads.begun].map(u64::to_le_bytes).concat()
    }

    fn send_round(&mut self) {
        let context = self.round_context();
        self.node.read_index(context);
    }

    fn answer_round(&mut self, answers: &[ReadState]) {
        let context = self.round_context();
        if let Some(answer) = answers.iter().find(|answer| answer.request_ctx == context) {
            self.reads.index = Some(answer.index);
        }
    }

    /// The round under way is confirmed once its index is applied; the next begins if reads wait for it.
    fn finish_round(&mut self) {
        if self.reads.index.is_some_and(|index| index <= self.node.raft.raft_log.applied) {
            self.reads.index = None;
            self.reads.done = self.reads.begun;
            if std::mem::take(&mut self.reads.is_wanted) {
                self.join_round();
            }
        }
    }

    /// Enters a line; its index and term.
    fn propose(&mut self, line: Vec<u8>) -> Result<(u64, u64), ProposeError> {
        if self.node.raft.state != StateRole::Leader {
            return Err(ProposeError::NotLeader); // the library would send it on
        }
        self.node.propose(Vec::new(), line).map_err(|_| ProposeError::NotLeader)?;
        Ok((self.node.raft.raft_log.last_index(), self.node.raft.term))
    }

    fn is_known(&self, entered: Entered) -> bool {
        self.waiting.get(&entered).is_some_and(Option::is_some)
    }

    fn propose_epoch(&mut self) {
        let nonce = random().map(u64::from_le_bytes).unwrap_or_default();
        let epoch = Epoch { history: self.history, term: self.node.raft.term, nonce };
        let change = Change { now_ms: 0, stamp: None, command: Command::Lead { epoch } };
        // A leader that is deposed at once proposes in vain, and its successor proposes its own.
        if let Ok((index, _)) = self.propose(change.to_line().into_bytes()) {
            self.epoch_index = index;
        }
    }

    /// A thread may wait for what became of this entry, or of another that it took the place of.
    fn tell(&mut self, entry: &eraftpb::Entry, result: Result<Applied, ProposeError>) {
        let at = |term| Entered { index: entry.index, term };
        for (entered, known) in self.waiting.range_mut(at(0)..=at(u64::MAX)) {
            let is_it = entered.term == entry.term;
            *known = Some(if is_it { result.clone() } else { Err(ProposeError::Replaced) });
        }
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("folder", &self.folder).field("options", &self.options).finish_non_exhaustive()
    }
}

/// The first snapshot of a new store: an empty namespace, and a group of one.
fn create(folder: &dyn Folder) -> Result<(Meta, Namespace), OpenError> {
    let id = u64::from_le_bytes(random()?).max(1);
    create_with(folder, Members { voters: vec![id], learners: Vec::new() })
}

fn create_with(folder: &dyn Folder, members: Members) -> Result<(Meta, Namespace), OpenError> {
    let mut namespace = Namespace::new();
    // A snapshot of sequence 1: the library has no entry before the first.
    let meta = Meta { sequence: 1, term: 1, members };
    let beginning = namespace.begin_walk();
    snapshots::make(folder, &meta, beginning.hash, || Ok(namespace.walk_on(usize::MAX)))?;
    snapshots::read(folder, meta.sequence)
}

/// The newest snapshot, or the one before it if the disk has damaged the newest.
fn newest_readable(folder: &dyn Folder, sequences: &[u64], newest: u64) -> Result<(Meta, Namespace), OpenError> {
    let error = match snapshots::read(folder, newest) {
        Ok(read) => return Ok(read),
        Err(error @ OpenError::Damaged { .. }) => error,
        Err(error) => return Err(error),
    };
    let older = sequences.iter().rev().nth(1).ok_or(error)?;
    snapshots::read(folder, *older)
}

/// The history that the store is in, once the log is applied.
fn namespace_history(namespace: &Namespace, entries: &[Entry]) -> Option<History> {
    let led = entries.iter().rev().filter(|entry| entry.kind == EntryKind::Change && !entry.data.is_empty()).find_map(
        |entry| match Change::from_line(str::from_utf8(&entry.data).ok()?).ok()?.command {
            Command::Lead { epoch } => Some(epoch.history),
            _ => None,
        },
    );
    led.or_else(|| namespace.lineage().last())
}

fn conf_state(members: &Members) -> ConfState {
    ConfState { voters: members.voters.clone(), learners: members.learners.clone(), ..ConfState::default() }
}

/// About how many bytes of log an entry takes.
fn bytes_of(entry: &Entry) -> u64 {
    entry.data.len() as u64 + 64
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
