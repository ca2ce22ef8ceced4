//! The Controller's memory: which files exist, in what state, and on which Dstores. (spec 3, 4)
//!
//! A deterministic state machine: methods take facts and return decisions. Performs no I/O, reads no clock, starts
//! no thread: the caller holds the lock, sends the messages, and keeps the threads that wait for an operation's end.
//!
//! The index knows only what it is told, and that may be late, missing or wrong. The words for that:
//!
//! | word | meaning | why |
//! |---|---|---|
//! | *replica* | one Dstore's copy of a complete file (`index::replica`) | |
//! | *doubtful* | a replica that may or may not be there, or be right: an order about it was not reported, or its Dstore acknowledged a STORE that it was not asked for | no client is sent there, and the file is not given up: guessing either way could lose it (spec 7.6, 7.20) |
//! | *suspect* | a member that does not store what others do (`index::rebalance::suspects`) | it holds fewest, and would be chosen again and again (spec 7.2, 7.17) |
//! | *newcomer* | a member that has joined lately, in a cluster that is older | nothing is taken away for it before it has shown what it got (spec 7.19) |
//! | *silent* | a member that has not answered LIST in time | silence is not proof of loss (spec 7.16) |
//! | *unwanted* | a listed copy that is to go: of no file, of one that is removed, or where no copy was ordered | a store that failed leaves such debris, with other content (spec 4.6.2) |
//! | *pending removal* | an order to remove unwanted debris that was not reported | carried out late, it would remove a new file of that name (spec 7.20) |
//! | *late acknowledgement* | a STORE_ACK that comes when its store has ended | it carries only a name. If a newer store waits for this Dstore, the two acknowledgements cannot be told apart. If the Dstore holds a complete file of the name, other content may be in its place (spec 7.5, 7.6) |

pub mod rebalance;
mod reconcile;
mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::protocol::{Address, FileName};

pub use rebalance::{Budget, Plan};
pub use reconcile::{Inventory, Lists};
use replica::{Event, Replica};

/// One membership of one Dstore: from its JOIN until its connection drops. Never used again, so that a fact about
/// a Dstore that has left cannot be taken for one about its successor on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DstoreId(u32);

impl DstoreId {
    /// Memberships are numbered without a gap: this is its place in a table of all.
    fn place(self) -> usize {
        self.0 as usize
    }
}

/// Why a request is refused. (spec 3.2, 3.3, 4.3)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Fewer than R Dstores have joined; comes before any other reason.
    NotEnoughDstores,
    /// The name is taken, whatever state the file is in.
    FileAlreadyExists,
    /// There is no complete file of this name.
    FileDoesNotExist,
    /// Every Dstore that has the file has been tried in this load.
    AllTried,
}

/// Where to load a file from. (spec 4.3)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The chosen holder; counts as tried from now on.
    pub dstore: DstoreId,
    /// Where it listens.
    pub address: Address,
    /// The file's size in bytes.
    pub size: u64,
}

/// The operations that a Dstore's departure ends. (spec 4.4, 7.3)
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// Stores that waited for it and can no longer complete; their entries are gone.
    pub failed_stores: Vec<FileName>,
    /// Removes that waited for no other Dstore; their entries are gone.
    pub completed_removes: Vec<FileName>,
}

/// One row of [`Index::members`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Which membership this is.
    pub dstore: DstoreId,
    /// Where it listens.
    pub address: Address,
    /// How many files it holds or is about to hold.
    pub files: usize,
}

/// Which files exist, in what state, and on which of the Dstores that have joined.
#[derive(Debug)]
pub struct Index {
    replicas: usize,
    members: BTreeMap<DstoreId, Member>,
    files: BTreeMap<FileName, File>,
    /// The files with an operation that a thread waits for: few, so that a departure need not look at all files.
    in_progress: BTreeSet<FileName>,
    joins: u32,
    version: u64,
}

#[derive(Debug)]
struct Member {
    address: Address,
    /// Copies it holds or is about to hold: what even placement goes by. (spec 7.2)
    load: usize,
    /// It did not acknowledge a store in time when others did, or does not have what a rebalance sent it, and has not been
    /// seen to store anything since. Were it chosen as before, a Dstore that hangs, or has no room, would be the least
    /// loaded for ever: every store would fail, and no rebalance would give files the copies that they lack.
    is_suspect: bool,
    /// Files that an order which was not reported has it remove, though the index does not say that it has them. It may
    /// come to the order late: then a new file of such a name goes, too. Known to be over when it answers a LIST.
    pending_removes: BTreeSet<FileName>,
    /// How many rebalances it has taken part in: by this a newcomer is told from others.
    lists_answered: u32,
}

#[derive(Debug)]
struct File {
    size: u64,
    state: State,
}

/// What is stored is many; what is in progress is few, and boxed to keep the many small.
#[derive(Debug)]
enum State {
    Storing(Box<Storing>),
    Stored { replicas: Vec<Replica> },
    Removing(Box<Removing>),
}

#[derive(Debug)]
struct Storing {
    acknowledged: Vec<DstoreId>,
    awaited: Vec<DstoreId>,
}

#[derive(Debug)]
struct Removing {
    /// The Dstores that may still have a copy.
    awaited: Vec<DstoreId>,
    /// No thread waits for the end any more: the next rebalance sees to it. (spec 4.4)
    abandoned: bool,
}

impl State {
    /// The Dstores that have a copy, may have one, or are about to get one.
    fn for_each_holder(&self, mut see: impl FnMut(DstoreId)) {
        match self {
            Self::Storing(storing) => storing.acknowledged.iter().chain(&storing.awaited).copied().for_each(see),
            Self::Stored { replicas } => replicas.iter().for_each(|replica| see(replica.dstore)),
            Self::Removing(removing) => removing.awaited.iter().copied().for_each(see),
        }
    }

    fn is_store_waiting_for(&self, dstore: DstoreId) -> bool {
        matches!(self, Self::Storing(storing) if storing.awaited.contains(&dstore))
    }
}

impl Index {
    /// An empty index for `replicas` (R) copies of each file; R is at least 1.
    pub fn new(replicas: usize) -> Self {
        assert!(replicas >= 1, "R is at least 1");
        Self {
            replicas,
            members: BTreeMap::new(),
            files: BTreeMap::new(),
            in_progress: BTreeSet::new(),
            joins: 0,
            version: 0,
        }
    }

    /// A Dstore joins. (spec 4.1)
    ///
    /// The caller has seen to it that no member has this address (spec 7.7).
    pub fn join(&mut self, address: Address) -> DstoreId {
        let dstore = DstoreId(self.joins);
        self.joins += 1;
        self.members.insert(
            dstore,
            Member { address, load: 0, is_suspect: false, pending_removes: BTreeSet::new(), lists_answered: 0 },
        );
        dstore
    }

    /// A Dstore's connection has dropped: its copies no longer count. (spec 4.1, 4.4, 7.3)
    pub fn leave(&mut self, dstore: DstoreId) -> Departure {
        let mut departure = Departure::default();
        if self.members.remove(&dstore).is_none() {
            return departure;
        }
        for name in &self.in_progress {
            match self.files.get_mut(name).map(|file| &mut file.state) {
                Some(State::Storing(storing)) if storing.awaited.contains(&dstore) => {
                    departure.failed_stores.push(name.clone());
                }
                Some(State::Removing(removing)) => {
                    let was_awaited = take(&mut removing.awaited, dstore);
                    if was_awaited && removing.awaited.is_empty() {
                        departure.completed_removes.push(name.clone());
                    }
                }
                _ => {}
            }
        }
        for name in &departure.failed_stores {
            self.end_store(name);
        }
        for name in &departure.completed_removes {
            self.files.remove(name);
            self.in_progress.remove(name);
        }
        departure
    }

    /// The member that listens at `address`.
    pub fn member_at(&self, address: &Address) -> Option<DstoreId> {
        self.members.iter().find(|(_, member)| member.address == *address).map(|(&dstore, _)| dstore)
    }

    /// Every member with its load, in order of joining.
    pub fn members(&self) -> Vec<MemberStatus> {
        self.members
            .iter()
            .map(|(&dstore, member)| MemberStatus { dstore, address: member.address.clone(), files: member.load })
            .collect()
    }

    /// Whether at least R Dstores have joined, without which nothing is served. (spec 1.5, 3.3)
    pub fn has_enough_dstores(&self) -> bool {
        self.members.len() >= self.replicas
    }

    /// How many files the index knows, whatever their state.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether the index knows no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// A client wants to store a new file: creates its entry and chooses the Dstores that are to get it: the R least
    /// loaded, files in progress counted. (spec 4.2, 7.2)
    pub fn begin_store(&mut self, name: &FileName, size: u64) -> Result<Vec<Address>, Refusal> {
        self.check_members()?;
        if self.files.contains_key(name) {
            return Err(Refusal::FileAlreadyExists);
        }
        let chosen = self.least_loaded(name);
        let mut addresses = Vec::with_capacity(chosen.len());
        for dstore in &chosen {
            let member = self.members.get_mut(dstore).expect("chosen from the members");
            member.load += 1;
            addresses.push(member.address.clone());
        }
        let state = State::Storing(Box::new(Storing { acknowledged: Vec::new(), awaited: chosen }));
        self.files.insert(name.clone(), File { size, state });
        self.in_progress.insert(name.clone());
        Ok(addresses)
    }

    /// Records that `dstore` has stored the file; true for the acknowledgement that completes the store.
    ///
    /// Late, repeated and unexpected ones complete nothing and return false; from a holder of a complete file they make
    /// its copy doubtful (spec 4.2, 7.5, 7.6, 7.25). Nor does that of a Dstore count that may yet come to an old order to
    /// remove a file of this name (spec 7.20).
    pub fn acknowledge_store(&mut self, name: &str, dstore: DstoreId) -> bool {
        let Some(member) = self.members.get_mut(&dstore) else { return false };
        member.is_suspect = false;
        if member.pending_removes.contains(name) {
            return false;
        }
        let file = match self.files.get_mut(name) {
            Some(file) if file.state.is_store_waiting_for(dstore) => file,
            _ => {
                self.distrust(name, dstore);
                return false;
            }
        };
        let State::Storing(storing) = &mut file.state else { unreachable!("it waits for an acknowledgement") };
        take(&mut storing.awaited, dstore);
        storing.acknowledged.push(dstore);
        if !storing.awaited.is_empty() {
            return false;
        }
        let replicas = storing.acknowledged.iter().copied().map(Replica::certain).collect();
        file.state = State::Stored { replicas };
        self.in_progress.remove(name);
        self.version += 1;
        true
    }

    /// A Dstore says that it has stored a file that it was not asked to store: other content may be in the place of a
    /// complete file's copy. That no longer counts, unless it is the only one; the next rebalance replaces it. (spec 7.6)
    fn distrust(&mut self, name: &str, dstore: DstoreId) {
        let Some(State::Stored { replicas }) = self.files.get_mut(name).map(|file| &mut file.state) else { return };
        let is_other = |replica: &Replica| replica.dstore != dstore && replica.is_certain();
        let has_other = replicas.iter().any(|replica| is_other(replica) && self.members.contains_key(&replica.dstore));
        if let (true, Some(replica)) = (has_other, replicas.iter_mut().find(|replica| replica.dstore == dstore)) {
            replica.hear(Event::Overwritten);
        }
    }

    /// The acknowledgements did not all come in time: the entry goes. False if the store had ended before. (spec 4.2)
    pub fn abandon_store(&mut self, name: &str) -> bool {
        let Some(storing) = self.end_store(name) else { return false };
        // With no acknowledgement at all, it was the client that never sent anything. (spec 6.6)
        if !storing.acknowledged.is_empty() {
            for dstore in &storing.awaited {
                if let Some(member) = self.members.get_mut(dstore) {
                    member.is_suspect = true;
                }
            }
        }
        true
    }

    /// Chooses the Dstore that a client may load the file from: of those that certainly have it and are not in `tried`, the
    /// one that `turn` puts first; among equals, the one that is first in the index. (spec 4.3, 7.20, 7.22)
    ///
    /// Whose turn it is the caller remembers: a load does not change the index.
    pub fn offer<T: Ord>(
        &self,
        name: &str,
        tried: &[DstoreId],
        turn: impl Fn(DstoreId) -> T,
    ) -> Result<Offer, Refusal> {
        self.check_members()?;
        let Some(File { size, state: State::Stored { replicas } }) = self.files.get(name) else {
            return Err(Refusal::FileDoesNotExist);
        };
        replicas
            .iter()
            .filter(|replica| replica.is_certain() && !tried.contains(&replica.dstore))
            .filter_map(|replica| Some((replica.dstore, self.members.get(&replica.dstore)?)))
            .min_by_key(|(dstore, _)| turn(*dstore))
            .map(|(dstore, member)| Offer { dstore, address: member.address.clone(), size: *size })
            .ok_or(Refusal::AllTried)
    }

    /// A client wants a file removed: every member that has or may have it is to be told. With none, the remove is
    /// complete at once. (spec 4.4, 7.20, 7.24)
    pub fn begin_remove(&mut self, name: &FileName) -> Result<Vec<DstoreId>, Refusal> {
        self.check_members()?;
        let Some(file) = self.files.get_mut(name) else { return Err(Refusal::FileDoesNotExist) };
        let State::Stored { replicas } = &file.state else { return Err(Refusal::FileDoesNotExist) };
        let holders: Vec<_> =
            replicas.iter().map(|replica| replica.dstore).filter(|dstore| self.members.contains_key(dstore)).collect();
        self.version += 1;
        if holders.is_empty() {
            self.files.remove(name);
        } else {
            file.state = State::Removing(Box::new(Removing { awaited: holders.clone(), abandoned: false }));
            self.in_progress.insert(name.clone());
        }
        Ok(holders)
    }

    /// Records that `dstore` does not have the file any more; true for the acknowledgement that completes the remove.
    ///
    /// Late, repeated and unexpected ones change nothing and return false. (spec 4.4, 7.6)
    pub fn acknowledge_remove(&mut self, name: &str, dstore: DstoreId) -> bool {
        let Some(File { state: State::Removing(removing), .. }) = self.files.get_mut(name) else { return false };
        if removing.abandoned || !take(&mut removing.awaited, dstore) {
            return false;
        }
        let is_complete = removing.awaited.is_empty();
        self.reduce_load(dstore);
        if is_complete {
            self.files.remove(name);
            self.in_progress.remove(name);
        }
        is_complete
    }

    /// The acknowledgements did not all come in time: the entry stays *remove in progress* until a rebalance has made
    /// sure that no Dstore keeps the file. False if the remove had ended before. (spec 4.4)
    pub fn abandon_remove(&mut self, name: &str) -> bool {
        let Some(File { state: State::Removing(removing), .. }) = self.files.get_mut(name) else { return false };
        self.in_progress.remove(name);
        !std::mem::replace(&mut removing.abandoned, true)
    }

    /// The complete files, in order of name. (spec 4.5)
    pub fn list(&self) -> Result<Vec<FileName>, Refusal> {
        self.list_after(None, usize::MAX)
    }

    /// Those of the complete files that come after `last` in order of name, but not more than `most`.
    pub fn list_after(&self, last: Option<&FileName>, most: usize) -> Result<Vec<FileName>, Refusal> {
        self.check_members()?;
        let start = last.map_or(Bound::Unbounded, Bound::Excluded);
        let files = self.files.range::<FileName, _>((start, Bound::Unbounded));
        let complete = files.filter(|(_, file)| matches!(file.state, State::Stored { .. }));
        Ok(complete.map(|(name, _)| name.clone()).take(most).collect())
    }

    /// Changes whenever [`list`](Self::list) does, as long as enough Dstores have joined.
    pub fn version(&self) -> u64 {
        self.version
    }

    fn check_members(&self) -> Result<(), Refusal> {
        if self.has_enough_dstores() { Ok(()) } else { Err(Refusal::NotEnoughDstores) }
    }

    /// The R least loaded members for a file of this name, those that may fail it last; among equals, those that joined
    /// first.
    fn least_loaded(&self, name: &str) -> Vec<DstoreId> {
        let rank = |(&dstore, member): (&DstoreId, &Member)| {
            (member.is_suspect || member.pending_removes.contains(name), member.load, dstore)
        };
        let mut members: Vec<_> = self.members.iter().map(rank).collect();
        if self.replicas < members.len() {
            members.select_nth_unstable(self.replicas);
            members.truncate(self.replicas);
        }
        members.sort_unstable();
        members.into_iter().map(|(.., dstore)| dstore).collect()
    }

    /// Takes a store that is in progress out of the index.
    fn end_store(&mut self, name: &str) -> Option<Box<Storing>> {
        let Some(File { state: State::Storing(_), .. }) = self.files.get(name) else { return None };
        let (name, File { state: State::Storing(storing), .. }) = self.files.remove_entry(name)? else { return None };
        for dstore in storing.acknowledged.iter().chain(&storing.awaited) {
            self.reduce_load(*dstore);
        }
        self.in_progress.remove(&name);
        Some(storing)
    }

    fn reduce_load(&mut self, dstore: DstoreId) {
        if let Some(member) = self.members.get_mut(&dstore) {
            member.load = member.load.saturating_sub(1);
        }
    }
}

/// Removes `dstore` from `dstores`; false if it is not among them.
fn take(dstores: &mut Vec<DstoreId>, dstore: DstoreId) -> bool {
    let Some(at) = dstores.iter().position(|&other| other == dstore) else { return false };
    dstores.swap_remove(at);
    true
}

#[cfg(test)]
mod tests;
