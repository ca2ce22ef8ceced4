//! Carrying out what Raft's library decides.
//!
//! The order of things is what keeps the promises:
//!
//! 1. What was committed is applied, told to the observer, and only then to the threads that wait for it.
//! 2. A leader's messages leave, with entries that it has not written yet: it counts itself only after its own sync. But no
//!    message leaves in a term or after a vote that is not on the disk, which happens where a member elects itself alone.
//! 3. Entries, term and vote are written and synced.
//! 4. All other messages leave. They may say what this member has, or for which other it voted.
//!
//! What claims nothing about the disk does not wait for it: a sync of a second would depose leaders. See
//! [`take_urgent`](Core::take_urgent).

use parking_lot::MutexGuard;
use protobuf::Message as _;
use raft::eraftpb::{self, ConfChange, ConfChangeV2, EntryType};

use super::core::{Core, News};
use super::{Entered, Message, ProposeError, Replica, SyncMode, from_library, hard_state};
use crate::log::frame::{Entry, EntryKind};
use crate::log::recovery::received_name;
use crate::log::segments::LogError;
use crate::log::snapshots::{self, Meta};
use crate::namespace::Applied;
use crate::namespace::change::{Change, Command};
use crate::words::Words;

/// What became of an entry.
pub(super) struct Told {
    pub(super) entered: Entered,
    pub(super) result: Result<Applied, ProposeError>,
    /// It is a change of the group.
    pub(super) is_of_group: bool,
}

impl Replica {
    /// Has the library's decisions carried out, by this thread if none does it already.
    pub(super) fn carry_on(&self, core: &mut MutexGuard<'_, Core>) {
        if core.is_driven {
            // The thread that drives may be at the disk.
            let urgent = core.take_urgent();
            if !urgent.is_empty() {
                MutexGuard::unlocked(core, || self.send(urgent));
            }
        } else {
            self.drive(core, |_| false);
        }
    }

    /// Carries out what the library decides, until there is nothing left or the caller has enough: then a thread that still
    /// waits goes on. The lock is let go while the disk works.
    pub(super) fn drive(&self, core: &mut MutexGuard<'_, Core>, is_enough: impl Fn(&Core) -> bool) {
        core.is_driven = true;
        while core.failure.is_none() && (core.node.has_ready() || !core.news.is_empty()) {
            self.tell_observer(core);
            // In a group of several, messages must not stay behind for want of a thread that waits.
            if is_enough(core) && (core.is_alone() || core.waiting.len() > 1) {
                break;
            }
            if !core.node.has_ready() {
                continue;
            }
            let mut ready = core.node.ready();
            let number = ready.number();
            let (entries, committed) = (ready.take_entries(), ready.take_committed_entries());
            let (mut messages, mut after_sync) = (ready.take_messages(), ready.take_persisted_messages());
            core.answer_round(ready.read_states());
            let snapshot = Some(ready.snapshot()).filter(|snapshot| !snapshot.is_empty()).cloned();
            let replaced = snapshot.map(|snapshot| self.replace(core, &snapshot));
            core.node.mut_store().append(&entries);
            if let Some(state) = ready.hs().cloned() {
                core.state = hard_state(&state);
                core.node.mut_store().set_hard_state(state);
            }
            core.node.advance_append_async(ready);
            core.notice_leadership();
            let told = self.apply(core, &committed);
            self.tell_observer(core);
            // The group has changed once that is on the disk. If not, a start might look for members that are no more.
            let (of_group, others): (Vec<_>, Vec<_>) = told.into_iter().partition(|told| told.is_of_group);
            core.tell(&others);
            core.tell_known_changes();
            if replaced.is_none() {
                core.advance_apply();
            }
            self.progress.notify_all();

            let is_promise = (core.state.term, core.state.vote) != core.promised;
            if is_promise {
                after_sync.splice(..0, messages.drain(..));
            }
            let must_sync =
                is_promise || replaced.is_some() || !of_group.is_empty() || core.must_sync(&entries, self.options.sync);
            // That more was committed need not be written by itself: it is found out again.
            let must_write = !entries.is_empty() || must_sync;
            if must_write || !messages.is_empty() || !after_sync.is_empty() {
                let entries: Vec<_> = entries.iter().map(from_library).collect();
                core.bytes += entries.iter().map(bytes_of).sum::<u64>();
                let state = core.state;
                let written = MutexGuard::unlocked(core, || {
                    self.send(messages);
                    if must_write {
                        let mut disk = self.disk.lock();
                        let beginning = replaced.as_ref().map(beginning_behind);
                        disk.append(&beginning.into_iter().chain(entries).collect::<Vec<_>>(), Some(state))?;
                        if must_sync {
                            disk.sync()?;
                        }
                        if let Some(Meta { index, .. }) = &replaced {
                            snapshots::adopt(&*self.folder, &received_name(*index), *index)
                                .map_err(|error| LogError::Disk(error.to_string()))?;
                            disk.discard_before(*index)?;
                        }
                    }
                    self.send(after_sync);
                    Ok(())
                });
                if let Err(error) = written {
                    core.end_epoch();
                    core.failure.get_or_insert(error);
                    break;
                }
                if must_sync {
                    core.promised = (state.term, state.vote);
                }
            }
            core.node.on_persist_ready(number);
            core.make_known(of_group);
            if replaced.is_some() {
                core.advance_apply();
                core.is_installing = false;
            }
        }
        self.tell_observer(core);
        core.is_driven = false;
        core.pass_on();
        self.progress.notify_all();
    }

    /// Applies what was committed; what became of each entry.
    fn apply(&self, core: &mut Core, committed: &[eraftpb::Entry]) -> Vec<Told> {
        let mut namespace = self.namespace.lock();
        let mut told = Vec::with_capacity(committed.len());
        for entry in committed {
            core.applied = entry.index;
            let result = match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => Err(ProposeError::Replaced),
                EntryType::EntryNormal => {
                    let line = str::from_utf8(&entry.data).expect("a change is a line of text");
                    let change = Change::from_line(line).expect("what was proposed was written by us");
                    let applied = namespace.apply(entry.index, &change);
                    if core.comparison.pass(entry.index) {
                        core.comparison.note(core.id, entry.index, namespace.hash());
                        core.judge(entry.index);
                    }
                    let epoch = if let Command::Lead { epoch } = change.command { Some(epoch) } else { None };
                    core.news.push(News::Applied(entry.index, Box::new(change), applied.clone()));
                    if let Some(epoch) = epoch {
                        core.note_epoch(epoch, entry.term);
                    }
                    Ok(applied)
                }
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => core.change_group(entry),
            };
            let entered = Entered { index: entry.index, term: entry.term };
            told.push(Told { entered, result, is_of_group: entry.get_entry_type() != EntryType::EntryNormal });
        }
        told
    }

    /// Tells the observer what it has not been told yet. Only the thread that drives does, so that all comes in order.
    fn tell_observer(&self, core: &mut MutexGuard<'_, Core>) {
        if core.news.is_empty() {
            return;
        }
        let news = std::mem::take(&mut core.news);
        MutexGuard::unlocked(core, || {
            for news in &news {
                match news {
                    News::Applied(sequence, change, applied) => self.seat.observer.applied(*sequence, change, applied),
                    News::Replaced(sequence) => self.seat.observer.replaced(*sequence),
                    News::Led(epoch) => self.seat.observer.led(*epoch),
                }
            }
        });
    }

    fn send(&self, messages: Vec<eraftpb::Message>) {
        let (snapshots, others): (Vec<_>, Vec<_>) = messages.into_iter().partition(eraftpb::Message::has_snapshot);
        if !others.is_empty() {
            self.seat.post.send(others.into_iter().map(Message::Raft).collect());
        }
        snapshots.into_iter().for_each(|message| self.send_snapshot(message));
    }

    /// Nothing more is decided or written here.
    pub(super) fn fail(&self, core: &mut MutexGuard<'_, Core>, error: LogError) {
        core.end_epoch();
        core.failure.get_or_insert(error);
        if !core.is_driven {
            core.is_driven = true;
            self.tell_observer(core);
            core.is_driven = false;
        }
        core.pass_on();
        self.progress.notify_all();
    }
}

impl Core {
    /// Whether what is written now must be synced. What others may hear of has to be on the disk, and so has an epoch. (depot 2.1,
    /// 4.2)
    fn must_sync(&self, entries: &[eraftpb::Entry], sync: SyncMode) -> bool {
        // A group of one need not sync. Once the change that ends it is applied, all up to there is synced.
        let is_kept = sync == SyncMode::Always || !self.is_alone();
        !entries.is_empty() && is_kept || entries.iter().any(|entry| entry.index == self.epoch_index)
    }

    /// What was committed is applied; what is not needed any more is let go.
    fn advance_apply(&mut self) {
        self.node.advance_apply();
        self.finish_round();
        let needed = if self.is_alone() { u64::MAX } else { self.least_needed() };
        let applied = self.applied;
        self.node.mut_store().trim(applied, needed);
    }

    /// Members may be sent what follows this: the newest snapshot, or one that is on its way.
    fn least_needed(&self) -> u64 {
        let sent = self.node.raft.prs().iter().map(|(_, progress)| progress.pending_snapshot);
        sent.filter(|sequence| *sequence > 0).fold(self.node.store().newest(), u64::min)
    }

    /// A change of the group was committed.
    fn change_group(&mut self, entry: &eraftpb::Entry) -> Result<Applied, ProposeError> {
        let changed = if entry.get_entry_type() == EntryType::EntryConfChange {
            let change = ConfChange::parse_from_bytes(&entry.data).expect("the library has written it");
            self.node.apply_conf_change(&change)
        } else {
            let change = ConfChangeV2::parse_from_bytes(&entry.data).expect("the library has written it");
            self.node.apply_conf_change(&change)
        };
        // What the group is not fit for has no effect, on any member.
        let members = changed.map_err(|_| ProposeError::Replaced)?;
        self.node.mut_store().set_members(members);
        if self.leads() && !self.node.raft.promotable() {
            // It was removed by a leader before it. The library would have it go on, and then miss its own progress.
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
        }
        Ok(Applied { outcome: Ok(entry.index), is_repeat: false, released: Vec::new() })
    }

    /// Another member's snapshot has taken the place of everything.
    pub(super) fn begin_behind(&mut self, meta: &Meta) {
        self.applied = meta.index;
        self.bytes = 0;
        self.comparison.begin(meta.sequence);
        self.news.push(News::Replaced(meta.sequence));
    }
}

/// What the log says where a snapshot takes its place.
fn beginning_behind(meta: &Meta) -> Entry {
    Entry { index: meta.index, term: meta.term, kind: EntryKind::Snapshot, data: Vec::new() }
}

/// About how many bytes of log an entry takes.
pub(super) fn bytes_of(entry: &Entry) -> u64 {
    entry.data.len() as u64 + 64
}
