//! A group of Controllers in one thread: virtual time, a network that loses, repeats, delays and reorders messages and is
//! divided at times, disks that lose at a power cut what was not synced. A seed decides all of it. (depot 1.1, 1.2)
//!
//! Checked: a term has one leader; members at the same sequence have the same hash; what was acknowledged is there in the end,
//! where it was acknowledged; a change or a read that begins after an acknowledgement comes after it; and once all members
//! are back, the group serves. A run takes a few seeds, or as many as `SIMULATIONS` says.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use kit::hunt;
use parking_lot::Mutex;

use super::tests::{path, put};
use super::{Entered, Members, Message, Post, ProposeError, Replica, ReplicaOptions, Seat, SyncMode, create_with};
use crate::disk::simulated::{Fault, SimulatedFolder};
use crate::log::{OpenError, Options};

const OPTIONS: ReplicaOptions = ReplicaOptions {
    sync: SyncMode::Always,
    log: Options { segment_bytes: 4000, ballast_bytes: 0, first_index: 1 },
    snapshot_bytes: u64::MAX,
    kept_changes: u64::MAX,
};

/// A step of time is 10 ms; members tick every so many.
const TICK: u64 = 10;
/// How long faults go on, and how long the group then has to serve again.
const STORM: u64 = 3000;
const CALM: u64 = 1000;

/// What a member has sent and the network has not taken yet.
#[derive(Clone, Default)]
struct Outbox(Arc<Mutex<Vec<Message>>>);

impl Post for Outbox {
    fn send(&self, messages: Vec<Message>) {
        self.0.lock().extend(messages);
    }
}

struct Member {
    folder: SimulatedFolder,
    outbox: Outbox,
    /// `None` while it is down.
    replica: Option<Replica>,
    /// Changes and reads that a client waits for; what was acknowledged when they began.
    changes: Vec<(Entered, String, u64)>,
    reads: Vec<(u64, u64)>,
}

struct Simulation {
    seed: u64,
    rng: Rng,
    now: u64,
    members: Vec<Member>,
    /// What is on its way, by the time at which it arrives.
    network: Vec<(u64, Message)>,
    /// On which side of a divided network each member is.
    sides: Vec<u8>,
    is_calm: bool,
    leaders: BTreeMap<u64, u64>,
    hashes: BTreeMap<u64, u128>,
    acknowledged: BTreeMap<u64, String>,
    /// The highest sequence that a client has heard of.
    heard: u64,
    changes: u64,
    /// Reads that were answered.
    answers: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let count = if rng.bool() { 3 } else { 5 };
        let voters: Vec<u64> = (1..=count).collect();
        let member = |_: &u64| {
            let folder = SimulatedFolder::default();
            create_with(&folder, Members { voters: voters.clone(), learners: Vec::new() }).expect("a working disk");
            Member { folder, outbox: Outbox::default(), replica: None, changes: Vec::new(), reads: Vec::new() }
        };
        let members = voters.iter().map(member).collect();
        let sides = vec![0; voters.len()];
        Self {
            seed,
            rng,
            now: 0,
            members,
            network: Vec::new(),
            sides,
            is_calm: false,
            leaders: BTreeMap::new(),
            hashes: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            heard: 0,
            changes: 0,
            answers: 0,
        }
    }

    fn run(mut self) -> (u64, u64) {
        for _ in 0..STORM {
            self.step();
        }
        self.is_calm = true;
        self.sides.fill(0);
        self.members.iter().for_each(|member| member.folder.fail_at(u64::MAX / 2, Fault::Error));
        let before = self.acknowledged.len();
        for _ in 0..CALM {
            self.step();
        }
        let seed = self.seed;
        assert!(
            self.acknowledged.len() > before,
            "seed {seed}: nothing is acknowledged although all members are there"
        );
        for _ in 0..CALM / 2 {
            self.now += 1;
            self.carry(); // until all is everywhere
        }
        for (at, member) in self.members.iter().enumerate() {
            let replica = member.replica.as_ref().expect("all are up");
            for (sequence, name) in &self.acknowledged {
                let found = replica.look(|namespace| namespace.stat(&path(name)).map(|stat| stat.version.sequence));
                assert_eq!(found, Ok(*sequence), "seed {seed}: {name} on member {}", at + 1);
            }
        }
        (self.acknowledged.len() as u64, self.answers)
    }

    fn step(&mut self) {
        self.now += 1;
        if !self.is_calm {
            self.disturb();
        }
        for at in 0..self.members.len() {
            if self.members[at].replica.is_none() && (self.is_calm || self.rng.u32(..100) == 0) {
                self.start(at);
            }
            if self.rng.u32(..20) == 0 {
                self.ask(at);
            }
        }
        self.carry();
    }

    fn disturb(&mut self) {
        let at = self.rng.usize(..self.members.len());
        match self.rng.u32(..1000) {
            0..4 => self.members[at].folder.fail_at(self.rng.u64(1..20), Fault::End),
            4..8 => self.sides.iter_mut().for_each(|side| *side = self.rng.u8(..2)),
            8..14 => self.sides.fill(0),
            14..16 => {
                let to = self.rng.u64(1..=self.members.len() as u64);
                if let Some(replica) = &self.members[at].replica {
                    replica.transfer_leader(to);
                }
            }
            _ => {}
        }
    }

    fn start(&mut self, at: usize) {
        let member = &mut self.members[at];
        member.outbox = Outbox::default();
        let least = self.rng.usize(7..14);
        let seat = Seat { id: at as u64 + 1, post: Box::new(member.outbox.clone()), election_ticks: least..least + 1 };
        match Replica::open_in_group(Arc::new(member.folder.clone()), OPTIONS, seat) {
            Ok(replica) => member.replica = Some(replica),
            // Everything ended while it started.
            Err(OpenError::Io(_)) => member.folder = member.folder.after_power_cut(&mut self.rng),
            Err(error) => panic!("seed {}: member {}: {error}", self.seed, at + 1),
        }
    }

    /// A client begins a change, or a read.
    fn ask(&mut self, at: usize) {
        let member = &mut self.members[at];
        let Some(replica) = &member.replica else { return };
        if self.rng.bool() {
            member.reads.push((replica.ask(), self.heard));
        } else {
            self.changes += 1;
            let name = format!("/{}", self.changes);
            if let Ok(entered) = replica.enter(&put(&name)) {
                member.changes.push((entered, name, self.heard));
            }
        }
    }

    /// Messages arrive, clocks tick, clients hear, all is checked.
    fn carry(&mut self) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.network).into_iter().partition(|(at, _)| *at <= self.now);
        self.network = later;
        for (_, message) in due {
            if let Some(replica) = &self.members[message.to as usize - 1].replica {
                replica.step(message);
            }
        }
        for at in 0..self.members.len() {
            if let Some(replica) =
                self.members[at].replica.as_ref().filter(|_| (self.now + at as u64).is_multiple_of(TICK))
            {
                replica.tick();
            }
            self.hear(at);
            self.check(at);
            self.send(at);
        }
    }

    fn hear(&mut self, at: usize) {
        let (seed, member) = (self.seed, &mut self.members[at]);
        let Some(replica) = &member.replica else { return };
        let mut heard = self.heard;
        member.changes.retain(|(entered, name, before)| match replica.outcome(entered) {
            None => true,
            Some(Ok(applied)) => {
                let sequence = applied.outcome.expect("no name comes twice");
                assert!(sequence > *before, "seed {seed}: change {sequence} came after {before}");
                let other = self.acknowledged.insert(sequence, name.clone());
                assert_eq!(other, None, "seed {seed}: two changes at {sequence}");
                heard = heard.max(sequence);
                false
            }
            Some(Err(ProposeError::TooLarge)) => unreachable!("it is small"),
            Some(Err(_)) => false,
        });
        let sequence = replica.look(|namespace| namespace.sequence());
        member.reads.retain(|(round, before)| {
            let is_confirmed = replica.is_confirmed(*round);
            if is_confirmed {
                assert!(sequence >= *before, "seed {seed}: member {} reads {sequence} after {before}", at + 1);
                self.answers += 1;
                heard = heard.max(sequence);
            }
            !is_confirmed
        });
        self.heard = heard;
        if replica.failure().is_some() {
            // Everything ended there; what is left of its disk is drawn.
            member.folder = member.folder.after_power_cut(&mut self.rng);
            member.replica = None;
            member.changes.clear();
            member.reads.clear();
        }
    }

    fn check(&mut self, at: usize) {
        let (seed, id) = (self.seed, at as u64 + 1);
        let Some(replica) = &self.members[at].replica else { return };
        if let Some(epoch) = replica.epoch() {
            let leader = *self.leaders.entry(epoch.term).or_insert(id);
            assert_eq!(leader, id, "seed {seed}: two leaders in term {}", epoch.term);
        }
        let (sequence, hash) = replica.look(|namespace| (namespace.sequence(), namespace.hash()));
        let other = *self.hashes.entry(sequence).or_insert(hash);
        assert_eq!(other, hash, "seed {seed}: member {id} differs at {sequence}");
    }

    fn send(&mut self, at: usize) {
        let messages = std::mem::take(&mut *self.members[at].outbox.0.lock());
        for message in messages {
            let is_cut = self.sides[at] != self.sides[message.to as usize - 1];
            let is_lost = !self.is_calm && (is_cut || self.rng.u32(..20) == 0);
            let copies = if is_lost { 0 } else { 1 + usize::from(!self.is_calm && self.rng.u32(..20) == 0) };
            for _ in 0..copies {
                let most = if !self.is_calm && self.rng.u32(..10) == 0 { 100 } else { 3 };
                self.network.push((self.now + self.rng.u64(1..=most), message.clone()));
            }
        }
    }
}

#[test]
fn a_group_keeps_its_promises_in_any_storm() {
    let first = hunt::seed();
    let count = hunt::number("SIMULATIONS").unwrap_or(if hunt::is_long() { 1000 } else { 20 });
    let (mut changes, mut reads) = (0, 0);
    for seed in first..first + count {
        let (acknowledged, answered) = Simulation::new(seed).run();
        changes += acknowledged;
        reads += answered;
    }
    eprintln!("{count} seeds: {changes} changes acknowledged, {reads} reads answered");
    assert!(changes >= count * 20 && reads >= count * 20, "{changes} changes, {reads} reads: the storm is too strong");
}
