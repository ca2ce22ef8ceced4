//! Opening a folder: what its snapshot and its log say decides what this Controller is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Condvar, Mutex};
use protobuf::Message as _;
use raft::RawNode;
use raft::eraftpb::{ConfChange, ConfChangeType};
use raft::prelude::Config;

use super::comparison::Comparison;
use super::core::{Core, Histories};
use super::drive::bytes_of;
use super::membership::identify;
use super::reads::Reads;
use super::{Replica, ReplicaOptions, Seat, SyncMode, hard_state_to_library, library_error, to_library};
use crate::disk::{Folder, random};
use crate::identity::{ControllerId, History};
use crate::log::frame::{Entry, EntryKind, HardState};
use crate::log::recovery;
use crate::log::segments::{OpenError, Options, Segments};
use crate::log::snapshots::{self, Members, Meta};
use crate::log::store::Store;
use crate::namespace::Namespace;
use crate::namespace::change::{Change, Command};
use crate::words::Words;

/// What an empty folder becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beginning {
    /// A new store, of one Controller.
    Store,
    /// A Controller that waits to be added to a group.
    Joining,
}

impl Replica {
    /// Opens what is in a folder; a new store is made in an empty one. A Controller that votes alone serves when this returns;
    /// one of several does once it leads, or follows a leader.
    pub fn open(folder: Arc<dyn Folder>, options: ReplicaOptions, seat: Seat) -> Result<Self, OpenError> {
        Self::open_as(folder, options, seat, Beginning::Store)
    }

    /// As [`open`](Self::open), but in an empty folder there is no store until a group takes this Controller in: it is sent all
    /// that the group has.
    pub fn open_to_join(folder: Arc<dyn Folder>, options: ReplicaOptions, seat: Seat) -> Result<Self, OpenError> {
        Self::open_as(folder, options, seat, Beginning::Joining)
    }

    fn open_as(
        folder: Arc<dyn Folder>,
        options: ReplicaOptions,
        seat: Seat,
        beginning: Beginning,
    ) -> Result<Self, OpenError> {
        recovery::complete(&*folder)?;
        let indices = snapshots::indices(&*folder)?;
        let (id, meta, mut namespace) = match indices.last() {
            None if recovery::has_segments(&*folder)? => {
                return Err(OpenError::Damaged { file: "log".into(), offset: 0, reason: "a log without its snapshot" });
            }
            None => {
                let id = identify(&*folder, None)?;
                let voters = if beginning == Beginning::Store { vec![id] } else { Vec::new() };
                let (meta, namespace) = create(&*folder, Members { voters, learners: Vec::new() })?;
                (id, meta, namespace)
            }
            Some(newest) => {
                let (meta, namespace) = newest_readable(&*folder, &indices, *newest)?;
                (identify(&*folder, Some(&meta.members))?, meta, namespace)
            }
        };
        if !recovery::has_segments(&*folder)? && !recovery::is_beginning(&namespace) {
            return Err(OpenError::Damaged { file: "log".into(), offset: 0, reason: "a snapshot without its log" });
        }
        let mut entries: Vec<Entry> = Vec::new();
        let log = Options { first_index: meta.index + 1, ..options.log };
        let mut beginning = 0;
        let disk = Segments::open(Arc::clone(&folder), log, |entry| {
            if entry.kind == EntryKind::Snapshot {
                beginning = entry.index;
                entries.clear();
                return;
            }
            while entries.last().is_some_and(|last| last.index >= entry.index) {
                entries.pop();
            }
            if entry.index > meta.index {
                entries.push(entry);
            }
        })?;
        let first_index = disk.first_index().max(beginning + 1);
        if first_index > meta.index + 1 || disk.last_index() < meta.index {
            return Err(OpenError::Damaged {
                file: format!("log behind snapshot {}", meta.index),
                offset: 0,
                reason: "a part of the log is missing",
            });
        }
        let mut store = Store::new(meta.to_library());
        store.append(&entries.iter().map(to_library).collect::<Vec<_>>());
        let mut state = disk.state();
        // Progress alone is not always written down: what a snapshot has was committed. It may also have been written down
        // without all of the entries that came with it.
        state.commit = state.commit.clamp(meta.index, disk.last_index());
        if state.term < meta.term {
            // A store that was restored: its log is new, and its terms go on.
            state = HardState { term: meta.term, vote: 0, ..state };
        }
        store.set_hard_state(hard_state_to_library(state));
        let config = Config {
            id,
            applied: meta.index,
            election_tick: seat.election_ticks.start,
            min_election_tick: seat.election_ticks.start,
            max_election_tick: seat.election_ticks.end,
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
        let may_be_earlier = options.sync != SyncMode::Always && !disk.was_closed() && ends_alone(&meta, &entries);
        let drawn = if may_be_earlier { Some(History(u64::from_le_bytes(random()?).max(1))) } else { None };
        let mut comparison = Comparison::default();
        comparison.begin(namespace.sequence());
        namespace.end_walk();
        let core = Core {
            id,
            node,
            waiting: BTreeMap::new(),
            is_driven: false,
            is_installing: false,
            is_retiring: false,
            leads_in: None,
            leader: (0, 0),
            led_at: None,
            elections: VecDeque::new(),
            epoch: None,
            epoch_index: 0,
            histories: Histories { last: last_history(&namespace, &entries), drawn },
            state: disk.state(),
            promised: (disk.state().term, disk.state().vote),
            applied: meta.index,
            bytes: entries.iter().map(bytes_of).sum(),
            of_group: Vec::new(),
            failure: None,
            reads: Reads::new(u64::from_le_bytes(random()?)),
            is_vouched_for: seat.is_vouched_for,
            vouched: None,
            held: Vec::new(),
            received: None,
            comparison,
            diverged: None,
            heard: BTreeMap::new(),
            news: Vec::new(),
        };
        let replica = Self {
            id: ControllerId(id),
            folder,
            options,
            seat,
            core: Mutex::new(core),
            progress: Condvar::new(),
            namespace: Mutex::new(namespace),
            disk: Mutex::new(disk),
            walking: Mutex::new(()),
            incoming: AtomicU64::new(0),
        };
        replica.campaign_alone()?;
        Ok(replica)
    }

    /// One that votes alone needs not wait for an election's time.
    fn campaign_alone(&self) -> Result<(), OpenError> {
        let mut core = self.core.lock();
        if core.is_only_voter() {
            core.node.campaign().map_err(library_error)?;
            // Its log may say that it is not alone: then it serves once the others are there.
            while core.epoch.is_none() && core.failure.is_none() && core.node.has_ready() {
                self.drive(&mut core, |_| false);
            }
        }
        match &core.failure {
            Some(failure) => Err(OpenError::Io(std::io::Error::other(failure.clone()))),
            None => Ok(()),
        }
    }
}

/// The first snapshot in an empty folder: of a new store, or of nothing where a Controller waits to be added.
pub(super) fn create(folder: &dyn Folder, members: Members) -> Result<(Meta, Namespace), OpenError> {
    let mut namespace = Namespace::new();
    // A store begins with a snapshot up to 1: the library takes 0 for none.
    let start = u64::from(!members.voters.is_empty());
    let beginning = namespace.begin_walk();
    let meta = Meta { index: start, term: start, sequence: start, members };
    snapshots::make(folder, &meta, beginning.hash, || Ok(namespace.walk_on(usize::MAX)))?;
    snapshots::read(folder, meta.index)
}

/// The newest snapshot, or the one before it if the disk has damaged the newest.
fn newest_readable(folder: &dyn Folder, indices: &[u64], newest: u64) -> Result<(Meta, Namespace), OpenError> {
    let error = match snapshots::read(folder, newest) {
        Ok(read) => return Ok(read),
        Err(error @ OpenError::Damaged { .. }) => error,
        Err(error) => return Err(error),
    };
    let older = indices.iter().rev().nth(1).ok_or(error)?;
    snapshots::read(folder, *older)
}

/// The history that the store is in, once the log is applied.
fn last_history(namespace: &Namespace, entries: &[Entry]) -> Option<History> {
    let led = entries.iter().rev().filter(|entry| entry.kind == EntryKind::Change && !entry.data.is_empty()).find_map(
        |entry| match Change::from_line(str::from_utf8(&entry.data).ok()?).ok()?.command {
            Command::Lead { epoch } => Some(epoch.history),
            _ => None,
        },
    );
    led.or_else(|| namespace.lineage().last())
}

/// Whether the log ends as that of a Controller alone, which need not have synced its last entries. Where others follow, all
/// is synced, from the change on that added the first of them.
fn ends_alone(meta: &Meta, entries: &[Entry]) -> bool {
    let Members { mut voters, mut learners } = meta.members.clone();
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Membership) {
        let Ok(change) = ConfChange::parse_from_bytes(&entry.data) else { continue };
        let id = change.node_id;
        voters.retain(|voter| *voter != id);
        learners.retain(|learner| *learner != id);
        match change.get_change_type() {
            ConfChangeType::AddNode => voters.push(id),
            ConfChangeType::AddLearnerNode => learners.push(id),
            ConfChangeType::RemoveNode => {}
        }
    }
    voters.len() == 1 && learners.is_empty()
}
