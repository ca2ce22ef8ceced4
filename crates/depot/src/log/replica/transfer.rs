//! Snapshots: made beside changes, sent to members that lag behind, and taken from others. (depot 4.4, 4.8)
//!
//! What a member lacks and the leader no longer keeps in memory, it is sent as a snapshot's file. Raft's message about it is
//! only a ticket. At the receiver the file comes first, in pieces, under a name that means nothing:
//!
//! ```text
//! incoming-7             is written
//!    │ complete, synced, and its records add up
//! received-70123         the library is given the ticket. If it takes it:
//!    │ one frame of the log says: all up to 70123 is in a snapshot. That decides, and the same frame has term and vote.
//!    │ rename
//! snapshot-70123         what was there before goes: older snapshots, and the log before that frame
//! ```
//!
//! A crash before the frame is on the disk leaves all as it was; behind it, the next start renames the file.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::MutexGuard;
use raft::{SnapshotStatus, eraftpb};

use super::core::Core;
use super::{Message, Replica, library_error};
use crate::disk::{Appender, Folder, Handle, remove_if_there};
use crate::identity::ControllerId;
use crate::log::recovery;
use crate::log::snapshots::{self, Members, Meta};
use crate::namespace::Namespace;

/// All metadata at one sequence, in a file. (depot 4.9)
#[derive(Clone, Debug)]
pub struct Backup {
    /// It has every change up to this one.
    pub sequence: u64,
    /// In bytes.
    pub length: u64,
    /// The file: a snapshot's.
    pub file: Arc<dyn Handle>,
}

/// The file of another member's snapshot, as it comes. Dropped before it is installed, it is removed.
#[derive(Debug)]
pub struct IncomingSnapshot {
    folder: Arc<dyn Folder>,
    name: String,
    file: Box<dyn Appender>,
}

impl IncomingSnapshot {
    /// Takes the next bytes.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.append(bytes)
    }

    /// How many bytes have come.
    pub fn length(&self) -> u64 {
        self.file.length()
    }
}

impl Drop for IncomingSnapshot {
    fn drop(&mut self) {
        let _ = self.folder.remove(&self.name); // if not, the next start does
    }
}

/// What a snapshot's file is called while it comes; then a number follows.
pub(in crate::log) const INCOMING: &str = "incoming-";

/// A snapshot that is on the disk, whole, and that the library has not decided about.
pub(super) struct Received {
    pub(super) meta: Meta,
    pub(super) namespace: Namespace,
}

impl Replica {
    /// Writes a snapshot if one is due, beside changes, and gives up the log before it. True if it did.
    pub fn snapshot_if_due(&self) -> io::Result<bool> {
        let _one_at_a_time = self.walking.lock();
        let is_due = {
            let core = self.core.lock();
            let is_wanted = core.node.store().is_snapshot_wanted();
            (core.bytes >= self.options.snapshot_bytes || is_wanted) && core.failure.is_none()
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
        let newest = snapshots::indices(&*self.folder)?.last().copied();
        let sequence = match newest.filter(|newest| *newest >= least) {
            Some(newest) => newest,
            None => self.snapshot(deadline)?,
        };
        self.stored(sequence)
    }

    /// The snapshot of this sequence, as a file to be read.
    fn stored(&self, sequence: u64) -> io::Result<Backup> {
        let file = self.folder.handle(&snapshots::name(sequence))?;
        Ok(Backup { sequence, length: file.length()?, file })
    }

    /// Writes a snapshot, beside changes, and gives up the log before it; up to which entry it is. One at a time.
    fn snapshot(&self, deadline: Option<Instant>) -> io::Result<u64> {
        let (meta, hash) = {
            let mut core = self.core.lock();
            core.bytes = 0;
            let beginning = self.namespace.lock().begin_walk();
            let index = core.applied;
            let term = core.node.raft.raft_log.term(index).map_err(library_error)?;
            let members = Members::from_library(core.node.store().members());
            (Meta { index, term, sequence: beginning.sequence, members }, beginning.hash)
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
        self.core.lock().node.mut_store().set_newest(meta.to_library());
        // The older snapshot must still find what follows it.
        let oldest = snapshots::indices(&*self.folder)?.first().copied().unwrap_or(0);
        let mut disk = self.disk.lock();
        let needed = (oldest + 1).min(disk.last_index().saturating_sub(self.options.kept_changes));
        disk.discard_before(needed).map_err(io::Error::other)?;
        Ok(meta.index)
    }

    /// Sends the file that a message of the library announces.
    pub(super) fn send_snapshot(&self, message: eraftpb::Message) {
        let (to, sequence) = (ControllerId(message.to), message.get_snapshot().get_metadata().index);
        match self.stored(sequence) {
            Ok(file) => self.seat.post.send_snapshot(Message::Raft(message), file),
            Err(_) => self.snapshot_sent(to, false), // newer ones have taken its place
        }
    }

    /// What became of a snapshot that was sent to a member: true if the member has installed it. It is sent entries again, or
    /// another snapshot.
    pub fn snapshot_sent(&self, to: ControllerId, is_installed: bool) {
        let status = if is_installed { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        let mut core = self.core.lock();
        core.node.report_snapshot(to.0, status);
        self.carry_on(&mut core);
    }

    /// Something to write another member's snapshot to, piece by piece, for [`install_snapshot`](Self::install_snapshot).
    pub fn incoming_snapshot(&self) -> io::Result<IncomingSnapshot> {
        let name = format!("{INCOMING}{}", self.incoming.fetch_add(1, Ordering::Relaxed));
        let file = self.folder.create(&name)?;
        Ok(IncomingSnapshot { folder: Arc::clone(&self.folder), name, file })
    }

    /// Takes the message that announces a snapshot, whose file has come as a whole. When this returns, it is installed, or the
    /// library does not want it any more. An error if the file is damaged, or cannot be kept: then nothing was done, and the
    /// sender is to be told.
    pub fn install_snapshot(&self, message: Message, mut incoming: IncomingSnapshot) -> io::Result<()> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let Message::Raft(message) = message else { return Err(invalid("this message announces no snapshot")) };
        // One at a time, and none while one is made here: what a walk goes through is replaced.
        let _one_at_a_time = self.walking.lock();
        incoming.file.sync()?;
        let (meta, namespace) = snapshots::parse(&self.folder.read(&incoming.name)?, &incoming.name)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if meta.to_library() != *message.get_snapshot().get_metadata() {
            return Err(invalid("the snapshot is not the one that was announced"));
        }
        let name = recovery::received_name(meta.index);
        self.folder.rename(&incoming.name, &name)?;
        self.folder.sync()?;
        let mut core = self.core.lock();
        let index = meta.index;
        // The library may be given none while another is carried out.
        if core.failure.is_none() && !core.is_installing && core.node.snap().is_none() {
            core.received = Some(Received { meta, namespace });
            self.step_library(&mut core, message);
            while core.failure.is_none() && core.received.is_some() && core.is_wanted(index) {
                if core.is_driven {
                    self.progress.wait(&mut core);
                } else {
                    self.drive(&mut core, |_| false);
                }
            }
            core.received = None;
            while core.is_installing && core.failure.is_none() {
                self.progress.wait(&mut core);
            }
            self.carry_on(&mut core);
        }
        let failure = core.failure.clone();
        drop(core);
        match failure {
            // What is on the disk then is found out by the next start.
            Some(failure) => Err(io::Error::other(failure)),
            None => remove_if_there(&*self.folder, &name),
        }
    }

    /// The library has taken the snapshot: it is the namespace from now on, and the log begins behind it.
    pub(super) fn replace(&self, core: &mut MutexGuard<'_, Core>, snapshot: &eraftpb::Snapshot) -> Meta {
        let Received { meta, namespace } = core.received.take().expect("the library knows only what it was given");
        assert_eq!(meta.index, snapshot.get_metadata().index, "it is given one at a time");
        core.is_installing = true;
        core.node.mut_store().replace(snapshot.get_metadata().clone());
        core.histories.last = namespace.lineage().last();
        core.begin_behind(&meta);
        *self.namespace.lock() = namespace;
        meta
    }
}

impl Core {
    /// Whether the library has taken the snapshot up to this entry, and it is yet to be carried out.
    fn is_wanted(&self, index: u64) -> bool {
        self.node.snap().is_some_and(|snapshot| snapshot.get_metadata().index == index)
    }
}
