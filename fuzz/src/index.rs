//! The index and the planner, in a small world of Dstores that are honest but may be slow, fail to send, or leave. Each byte
//! of the input is a choice of what happens next.
//!
//! Messages between the Controller and a Dstore stay in order, and may wait for as long as the input likes; a Dstore's
//! REMOVEs overtake its orders, as ours do. What is not modelled is what the protocol has no word for: a store does not
//! begin while content or an acknowledgement of an earlier one of the same name is still under way.
//!
//! - A request gets what spec 3.2 says.
//! - Until R Dstores have left since a rebalance found all copies there, a complete file is on some Dstore, and a Dstore that is
//!   offered has the very content that was stored last. (spec 4.6.2, 4.6.6, 7.16, 7.17, 7.20)
//! - Once all Dstores answer and every send succeeds, a few rebalances put each file on exactly R Dstores, evenly, with
//!   nothing left over, and offer each of its copies. (spec 4.3, 4.6.3)

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use stevedore::index::{Budget, DstoreId, Index, Lists, Refusal};
use stevedore::protocol::{Address, FileName, Order};

/// R.
const REPLICAS: usize = 2;

/// Few, so that they meet.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// At one time.
const MOST_DSTORES: usize = 4;

/// As many rebalances as may be needed to heal everything.
const HEALING: usize = 12;

/// Plays one input.
pub fn check(input: &[u8]) {
    let mut world = World {
        choices: input.iter(),
        index: Index::new(REPLICAS),
        dstores: BTreeMap::new(),
        files: BTreeMap::new(),
        uploads: Vec::new(),
        joins: 0,
        stores: 0,
        round: 0,
    };
    (0..REPLICAS).for_each(|_| world.join());
    while !world.choices.as_slice().is_empty() {
        world.step();
    }
    world.heal();
}

/// Tells one store of a name from another.
type Version = u64;

type Round = u64;

struct World<'a> {
    choices: std::slice::Iter<'a, u8>,
    index: Index,
    /// The members.
    dstores: BTreeMap<DstoreId, Dstore>,
    files: BTreeMap<FileName, File>,
    /// Content on its way from clients.
    uploads: Vec<(FileName, Version, DstoreId)>,
    joins: u16,
    stores: Version,
    round: Round,
}

/// A file that the index knows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum File {
    Storing {
        version: Version,
        departures: usize,
    },
    Complete {
        version: Version,
        /// How many Dstores have left since its store began, or all of its copies were there.
        departures: usize,
    },
    Removing,
    /// A remove that no thread waits for; the index forgets it at some time.
    Abandoned,
}

#[derive(Debug, Default)]
struct Dstore {
    folder: BTreeMap<FileName, Version>,
    /// What an order that it has read, and not carried out yet, tells it to remove.
    to_remove: BTreeSet<FileName>,
    unread: VecDeque<Instruction>,
    /// What has been read and waits for the rebalancer.
    tasks: VecDeque<Instruction>,
    reports: VecDeque<Report>,
}

#[derive(Debug)]
enum Instruction {
    Remove(FileName),
    List(Round),
    CarryOut(Round, Order),
}

#[derive(Debug)]
enum Report {
    Stored(FileName),
    /// Or not there to begin with.
    Removed(FileName),
    Listed(Round, Vec<FileName>),
    Done(Round),
}

/// What a round of a rebalance has heard so far.
#[derive(Default)]
struct Heard {
    lists: BTreeMap<DstoreId, Vec<FileName>>,
    reported: BTreeSet<DstoreId>,
}

impl File {
    /// As many Dstores have left as can have had all copies: nothing is promised any more.
    fn is_at_risk(&self) -> bool {
        matches!(self, Self::Complete { departures, .. } if *departures >= REPLICAS)
    }
}

impl World<'_> {
    /// The next choice, among `count`; the first once the input has ended.
    fn choose(&mut self, count: usize) -> usize {
        usize::from(*self.choices.next().unwrap_or(&0)) % count
    }

    fn choose_name(&mut self) -> FileName {
        NAMES[self.choose(NAMES.len())].parse().expect("a name")
    }

    fn choose_dstore(&mut self) -> Option<DstoreId> {
        let members: Vec<_> = self.dstores.keys().copied().collect();
        if members.is_empty() { None } else { Some(members[self.choose(members.len())]) }
    }

    fn step(&mut self) {
        self.forget_lost();
        match self.choose(12) {
            0 if self.dstores.len() < MOST_DSTORES => self.join(),
            1 => self.leave(),
            2 => self.begin_store(),
            3 => self.upload(),
            4 | 5 => self.progress(&mut Heard::default()),
            6 => {
                let name = self.choose_name();
                self.give_up(&name);
            }
            7 => self.begin_remove(),
            8 => self.load(),
            9 => self.list(),
            _ => {
                let is_all_well = self.choose(2) == 0;
                self.rebalance(is_all_well);
            }
        }
        self.check_copies();
    }

    fn join(&mut self) {
        self.joins += 1;
        let dstore = self.index.join(Address::local(self.joins).expect("not port 0"));
        self.dstores.insert(dstore, Dstore::default());
    }

    fn leave(&mut self) {
        let Some(dstore) = self.choose_dstore() else { return };
        self.dstores.remove(&dstore);
        self.uploads.retain(|(_, _, to)| *to != dstore);
        let departure = self.index.leave(dstore);
        for name in departure.failed_stores {
            assert!(matches!(self.files.remove(&name), Some(File::Storing { .. })), "{name}");
        }
        for name in departure.completed_removes {
            assert_eq!(self.files.remove(&name), Some(File::Removing), "{name}");
        }
        for file in self.files.values_mut() {
            if let File::Storing { departures, .. } | File::Complete { departures, .. } = file {
                *departures += 1;
            }
        }
    }

    fn begin_store(&mut self) {
        let name = self.choose_name();
        let is_acknowledged = |report: &Report| matches!(report, Report::Stored(stored) if *stored == name);
        let is_under_way = self.uploads.iter().any(|(uploaded, ..)| *uploaded == name)
            || self.dstores.values().any(|dstore| dstore.reports.iter().any(is_acknowledged));
        if is_under_way {
            return;
        }
        let version = self.stores + 1;
        match (self.index.begin_store(&name, version), self.files.get(&name)) {
            (Ok(chosen), None | Some(File::Abandoned)) => {
                let chosen: BTreeSet<_> = chosen.iter().filter_map(|address| self.index.member_at(address)).collect();
                assert_eq!(chosen.len(), REPLICAS, "different members");
                self.uploads.extend(chosen.into_iter().map(|dstore| (name.clone(), version, dstore)));
                self.stores = version;
                self.files.insert(name, File::Storing { version, departures: 0 });
            }
            (Err(Refusal::FileAlreadyExists), Some(_)) => {}
            (answer, file) => self.check_refusal(answer.err(), &name, file),
        }
    }

    fn upload(&mut self) {
        if self.uploads.is_empty() {
            return;
        }
        let number = self.choose(self.uploads.len());
        let (name, version, to) = self.uploads.remove(number);
        if let Some(dstore) = self.dstores.get_mut(&to) {
            dstore.take_in(name.clone(), version);
            dstore.reports.push_back(Report::Stored(name));
        }
    }

    /// A Dstore reads a message or carries one out, or the Controller hears from one.
    fn progress(&mut self, heard: &mut Heard) {
        let Some(dstore) = self.choose_dstore() else { return };
        match self.choose(3) {
            0 => self.read(dstore),
            1 => {
                let fails = self.choose(4) == 1;
                self.carry_out(dstore, fails);
            }
            _ => self.hear(dstore, heard),
        }
    }

    fn read(&mut self, dstore: DstoreId) {
        let Some(dstore) = self.dstores.get_mut(&dstore) else { return };
        match dstore.unread.pop_front() {
            Some(Instruction::Remove(name)) => {
                dstore.folder.remove(&name);
                dstore.reports.push_back(Report::Removed(name));
            }
            Some(instruction) => {
                if let Instruction::CarryOut(_, order) = &instruction {
                    dstore.to_remove.extend(order.removes.iter().cloned());
                }
                dstore.tasks.push_back(instruction);
            }
            None => {}
        }
    }

    /// The next task; one that `fails` sends nothing.
    fn carry_out(&mut self, number: DstoreId, fails: bool) {
        let Some(dstore) = self.dstores.get_mut(&number) else { return };
        let (round, order) = match dstore.tasks.pop_front() {
            Some(Instruction::CarryOut(round, order)) => (round, order),
            Some(Instruction::List(round)) => {
                let names = dstore.folder.keys().cloned().collect();
                return dstore.reports.push_back(Report::Listed(round, names));
            }
            _ => return,
        };
        let mut unsent = BTreeSet::new();
        for transfer in &order.sends {
            let version = self.dstores[&number].folder.get(&transfer.name).copied();
            for to in &transfer.to {
                let receiver = self.index.member_at(to).and_then(|to| self.dstores.get_mut(&to));
                match (version, receiver) {
                    (Some(version), Some(receiver)) if !fails && !receiver.folder.contains_key(&transfer.name) => {
                        receiver.take_in(transfer.name.clone(), version);
                    }
                    _ => drop(unsent.insert(&transfer.name)), // spec 7.17, 7.30
                }
            }
        }
        let dstore = self.dstores.get_mut(&number).expect("looked up above");
        for name in &order.removes {
            // Sent or not, it is no longer to be removed. (spec 7.17)
            if dstore.to_remove.remove(name) && !unsent.contains(name) {
                dstore.folder.remove(name);
            }
        }
        if unsent.is_empty() {
            dstore.reports.push_back(Report::Done(round));
        }
    }

    fn hear(&mut self, number: DstoreId, heard: &mut Heard) {
        let Some(report) = self.dstores.get_mut(&number).and_then(|dstore| dstore.reports.pop_front()) else { return };
        match report {
            Report::Stored(name) => {
                if self.index.acknowledge_store(&name, number) {
                    let file = self.files.get_mut(&name).expect("it is being stored");
                    let File::Storing { version, departures } = *file else { panic!("{name}: {file:?}") };
                    *file = File::Complete { version, departures };
                }
            }
            Report::Removed(name) => {
                if self.index.acknowledge_remove(&name, number) {
                    assert_eq!(self.files.remove(&name), Some(File::Removing), "{name}");
                }
            }
            Report::Listed(round, names) if round == self.round => drop(heard.lists.insert(number, names)),
            Report::Done(round) if round == self.round => drop(heard.reported.insert(number)),
            Report::Listed(..) | Report::Done(_) => {} // too late (spec 7.21)
        }
    }

    /// The time of an operation is up.
    fn give_up(&mut self, name: &FileName) {
        match self.files.get(name) {
            Some(File::Storing { .. }) => {
                assert!(self.index.abandon_store(name));
                self.files.remove(name);
            }
            Some(File::Removing) => {
                assert!(self.index.abandon_remove(name));
                self.files.insert(name.clone(), File::Abandoned);
            }
            _ => assert!(!self.index.abandon_store(name) && !self.index.abandon_remove(name)),
        }
    }

    fn begin_remove(&mut self) {
        let name = self.choose_name();
        match (self.index.begin_remove(&name), self.files.get(&name)) {
            (Ok(holders), Some(File::Complete { .. })) => {
                if holders.is_empty() {
                    self.files.remove(&name);
                } else {
                    self.files.insert(name.clone(), File::Removing);
                }
                for holder in holders {
                    let dstore = self.dstores.get_mut(&holder).expect("members are told");
                    dstore.unread.push_back(Instruction::Remove(name.clone()));
                }
            }
            (answer, file) => self.check_refusal(answer.err(), &name, file),
        }
    }

    fn load(&mut self) {
        let name = self.choose_name();
        let mut tried = Vec::new();
        loop {
            match (self.index.offer(&name, &tried, |_| ()), self.files.get(&name)) {
                (Ok(offer), Some(file @ &File::Complete { version, .. })) => {
                    assert!(!tried.contains(&offer.dstore), "{name}: offered twice");
                    tried.push(offer.dstore);
                    let has = self.dstores[&offer.dstore].folder.get(&name);
                    assert!(
                        file.is_at_risk() || has == Some(&version),
                        "{name} {version}: {:?} has {has:?}",
                        offer.dstore
                    );
                    assert_eq!(offer.size, version, "sizes are told from versions");
                }
                (Err(Refusal::AllTried), Some(File::Complete { .. })) => return,
                (answer, file) => return self.check_refusal(answer.err(), &name, file),
            }
        }
    }

    fn list(&mut self) {
        let complete = self.files.iter().filter(|(_, file)| matches!(file, File::Complete { .. }));
        match self.index.list() {
            Ok(names) => assert!(names.iter().eq(complete.map(|(name, _)| name)), "{names:?} {:?}", self.files),
            Err(refusal) => assert!(refusal == Refusal::NotEnoughDstores && self.dstores.len() < REPLICAS),
        }
    }

    fn check_refusal(&self, refusal: Option<Refusal>, name: &str, file: Option<&File>) {
        let expected = match file {
            _ if self.dstores.len() < REPLICAS => Refusal::NotEnoughDstores,
            _ => Refusal::FileDoesNotExist,
        };
        let is_complete = matches!(file, Some(File::Complete { .. })) && expected == Refusal::FileDoesNotExist;
        assert!(refusal == Some(expected) && !is_complete, "{name}: {file:?}: {refusal:?}");
    }

    /// One round, of which the input chooses which Dstores take part, how much is done, and which leave meanwhile; or in which all
    /// goes well.
    fn rebalance(&mut self, is_all_well: bool) {
        for name in NAMES.map(|name| name.parse().expect("a name")) {
            self.give_up(&name);
        }
        if !self.index.has_enough_dstores() {
            return;
        }
        self.round += 1;
        let mut heard = Heard::default();
        for dstore in self.dstores.values_mut() {
            dstore.unread.push_back(Instruction::List(self.round));
        }
        self.pass_time(is_all_well, &mut heard);
        let inventory = self.index.reconcile(&Lists::new(std::mem::take(&mut heard.lists)));
        let mut plan = inventory.plan(REPLICAS);
        if plan.is_empty() {
            if (REPLICAS..=inventory.dstores.len()).contains(&self.dstores.len()) {
                self.note_all_copies_there();
            }
            return;
        }
        let steps = if is_all_well { usize::MAX } else { 1 + self.choose(4) };
        plan.cut(&inventory, Budget { copies: steps, bytes: u64::MAX, removes: steps });
        for ((number, _), order) in inventory.dstores.iter().zip(inventory.orders(&plan)) {
            if let Some(dstore) = self.dstores.get_mut(number) {
                dstore.unread.push_back(Instruction::CarryOut(self.round, order));
            }
        }
        self.pass_time(is_all_well, &mut heard);
        self.index.confirm(&inventory, &plan, &heard.reported);
    }

    /// The time that the Controller waits for answers.
    fn pass_time(&mut self, is_all_well: bool, heard: &mut Heard) {
        if is_all_well {
            let members: Vec<_> = self.dstores.keys().copied().collect();
            for &member in &members {
                while !self.dstores[&member].unread.is_empty() {
                    self.read(member);
                }
                while !self.dstores[&member].tasks.is_empty() {
                    self.carry_out(member, false);
                }
                while !self.dstores[&member].reports.is_empty() {
                    self.hear(member, heard);
                }
            }
            return;
        }
        while !self.choices.as_slice().is_empty() {
            match self.choose(8) {
                0 => return,
                1 => {
                    self.leave();
                }
                2 => self.upload(), // of a store that was given up
                3 => {
                    // One Dstore does all that it is to do.
                    let Some(dstore) = self.choose_dstore() else { return };
                    for _ in 0..4 {
                        self.read(dstore);
                        self.carry_out(dstore, false);
                        self.hear(dstore, heard);
                    }
                }
                _ => self.progress(heard),
            }
            self.check_copies();
        }
    }

    /// A rebalance that has heard all Dstores has found nothing to do.
    fn note_all_copies_there(&mut self) {
        for file in self.files.values_mut().filter(|file| !file.is_at_risk()) {
            if let File::Complete { departures, .. } = file {
                *departures = 0;
            }
        }
    }

    /// A complete file that no Dstore lists is dropped, by a rebalance. (spec 4.6.2)
    fn forget_lost(&mut self) {
        let Ok(known) = self.index.list() else { return };
        self.files.retain(|name, file| !file.is_at_risk() || known.contains(name));
    }

    /// The last copy has not gone.
    fn check_copies(&self) {
        for (name, file) in &self.files {
            if let File::Complete { version, .. } = file {
                let has = |dstore: &Dstore| dstore.folder.get(name) == Some(version);
                assert!(file.is_at_risk() || self.dstores.values().any(has), "{name} is lost: {file:?}");
            }
        }
    }

    /// All is well from now on: every file is on R Dstores, evenly, in the end.
    fn heal(&mut self) {
        while !self.uploads.is_empty() {
            self.upload();
        }
        while self.dstores.len() < REPLICAS {
            self.join();
        }
        for _ in 0..HEALING {
            self.rebalance(true);
        }
        self.forget_lost();
        self.list();
        if self.files.values().any(File::is_at_risk) {
            return; // what is left of those may be debris of an older file (spec 4.6.2)
        }
        let loads: Vec<_> = self.dstores.values().map(|dstore| dstore.folder.len()).collect();
        let copies: usize = loads.iter().sum();
        let complete = self.files.values().filter(|file| matches!(file, File::Complete { .. })).count();
        assert_eq!(copies, complete * REPLICAS, "{:?} {:?}", self.files, self.dstores);
        assert!(
            loads.iter().all(|load| (copies / loads.len()..=copies.div_ceil(loads.len())).contains(load)),
            "{loads:?}"
        );
        for name in NAMES {
            if let Some(File::Complete { .. }) = self.files.get(name) {
                let first = self.index.offer(name, &[], |_| ()).expect("it has copies").dstore;
                self.index.offer(name, &[first], |_| ()).expect("it has R copies");
            }
        }
    }
}

impl Dstore {
    /// A file arrives whole: one that is stored anew is no longer to be removed.
    fn take_in(&mut self, name: FileName, version: Version) {
        self.to_remove.remove(&name);
        self.folder.insert(name, version);
    }
}
