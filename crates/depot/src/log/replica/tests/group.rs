//! Members of a group: single cases, where the simulation draws its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use fastrand::Rng;
use parking_lot::Mutex;
use raft::eraftpb::MessageType;

use super::{SMALL, path, put};
use crate::disk::Folder;
use crate::disk::simulated::{Fault, SimulatedFolder};
use crate::identity::{ControllerId, Epoch};
use crate::log::recovery::Found;
use crate::log::replica::{
    Backup, MemberChange, MemberError, Message, Observer, Post, ProposeError, Replica, ReplicaOptions, Seat, SyncMode,
};
use crate::log::{LogError, OpenError};
use crate::namespace::Applied;
use crate::namespace::change::{Change, Command};

/// Messages that have been sent, snapshots with their bytes.
#[derive(Clone, Default)]
struct Outbox(Arc<Mutex<Vec<Sent>>>);

type Sent = (Message, Option<Vec<u8>>);

impl Post for Outbox {
    fn send(&self, messages: Vec<Message>) {
        self.0.lock().extend(messages.into_iter().map(|message| (message, None)));
    }

    fn send_snapshot(&self, message: Message, file: Backup) {
        let mut bytes = vec![0; file.length as usize];
        file.file.read_at(&mut bytes, 0).expect("it stays readable");
        self.0.lock().push((message, Some(bytes)));
    }
}

impl Outbox {
    fn has(&self, kind: MessageType) -> bool {
        let is_it = |message: &Message| matches!(message, Message::Raft(message) if message.get_msg_type() == kind);
        self.0.lock().iter().any(|(message, _)| is_it(message))
    }
}

struct Member {
    folder: SimulatedFolder,
    outbox: Outbox,
    replica: Arc<Replica>,
}

/// A group whose messages are carried by the test, and whose time is the test's.
struct Group {
    members: Vec<Member>,
    /// Those that no message reaches or leaves, and for which no time passes.
    cut: BTreeSet<usize>,
}

fn member(folder: &SimulatedFolder, joins: bool) -> Member {
    member_with(SMALL, folder, joins)
}

fn member_with(options: ReplicaOptions, folder: &SimulatedFolder, joins: bool) -> Member {
    member_that_stands(10..11, options, folder, joins)
}

/// One that stands for election after so many ticks.
fn member_that_stands(
    election_ticks: Range<usize>,
    options: ReplicaOptions,
    folder: &SimulatedFolder,
    joins: bool,
) -> Member {
    let outbox = Outbox::default();
    let seat = Seat { post: Arc::new(outbox.clone()), election_ticks, ..Seat::default() };
    let disk = Arc::new(folder.clone());
    let opened = if joins { Replica::open_to_join(disk, options, seat) } else { Replica::open(disk, options, seat) };
    let replica = opened.unwrap_or_else(|error| panic!("{error}"));
    Member { folder: folder.clone(), outbox, replica: Arc::new(replica) }
}

fn install(replica: &Replica, message: Message, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = replica.incoming_snapshot()?;
    bytes.chunks(100).try_for_each(|piece| file.append(piece))?;
    replica.install_snapshot(message, file)
}

impl Group {
    fn new(count: usize) -> Self {
        Self::with(SMALL, count)
    }

    fn add(&mut self, joiner: Member) {
        let id = joiner.replica.id();
        self.members.push(joiner);
        self.change(0, MemberChange::AddLearner(id));
        self.change(0, MemberChange::Promote(id));
    }

    fn with(options: ReplicaOptions, count: usize) -> Self {
        let first = member_with(options, &SimulatedFolder::default(), false);
        let mut group = Self { members: vec![first], cut: BTreeSet::new() };
        group.put(0, "/first");
        for _ in 1..count {
            group.add(member_with(options, &SimulatedFolder::default(), true));
        }
        group
    }

    fn at(&self, id: ControllerId) -> Option<usize> {
        self.members.iter().position(|member| member.replica.id() == id)
    }

    fn replica(&self, at: usize) -> &Replica {
        &self.members[at].replica
    }

    /// Carries messages until there are none.
    fn carry(&self) {
        loop {
            let outboxes = self.members.iter().map(|member| std::mem::take(&mut *member.outbox.0.lock()));
            let sent: Vec<_> =
                outboxes.enumerate().flat_map(|(from, sent)| sent.into_iter().map(move |it| (from, it))).collect();
            if sent.is_empty() {
                return;
            }
            for (from, (message, bytes)) in sent {
                let to = self.at(message.to()).filter(|to| !self.cut.contains(to) && !self.cut.contains(&from));
                match (to, bytes) {
                    (Some(to), None) => self.replica(to).step(message),
                    (Some(to), Some(bytes)) => {
                        let id = message.to();
                        let is_installed = install(self.replica(to), message, &bytes).is_ok();
                        self.replica(from).snapshot_sent(id, is_installed);
                    }
                    (None, Some(_)) => self.replica(from).snapshot_sent(message.to(), false),
                    (None, None) => {}
                }
            }
        }
    }

    fn tick(&self) {
        for (_, member) in self.members.iter().enumerate().filter(|(at, _)| !self.cut.contains(at)) {
            member.replica.tick();
            let _ = member.replica.snapshot_if_due();
            self.carry();
        }
    }

    /// Goes on until the condition holds.
    fn wait(&self, mut condition: impl FnMut(&Self) -> bool) {
        let holds = (0..1000).any(|_| {
            self.tick();
            condition(self)
        });
        assert!(holds, "it does not come to that in 1000 ticks");
    }

    fn put(&mut self, at: usize, name: &str) -> u64 {
        let entered = self.replica(at).enter(&put(name)).expect("it leads");
        self.carry();
        let applied = self.replica(at).outcome(&entered).expect("a majority has it").expect("it leads");
        applied.outcome.expect("accepted")
    }

    fn change(&self, at: usize, change: MemberChange) {
        let mut entered = self.replica(at).enter_member_change(change);
        while matches!(entered, Err(MemberError::Lags | MemberError::Busy)) {
            self.tick();
            entered = self.replica(at).enter_member_change(change);
        }
        let entered = entered.expect("it leads");
        self.wait(|group| match group.replica(at).outcome(&entered) {
            None => false,
            Some(outcome) => outcome.map(|_| true).expect("it is applied"),
        });
    }

    /// Another than this one leads.
    fn elect_without(&mut self, old: usize) -> usize {
        self.cut.insert(old);
        let leader = |group: &Self| {
            (0..group.members.len()).find(|at| !group.cut.contains(at) && group.replica(*at).epoch().is_some())
        };
        self.wait(|group| leader(group).is_some());
        leader(self).expect("just found")
    }
}

#[test]
fn no_caller_is_given_the_outcome_of_another_change() {
    let mut group = Group::new(3);
    group.cut.insert(0);
    let lost = |number: u32| format!("/lost-{number}");
    let enter = |number: u32| group.replica(0).enter(&put(&lost(number))).expect("it does not know yet");
    let entered = [0, 1, 2, 3].map(enter);
    let second = group.elect_without(0);
    let sequence = group.put(second, "/kept");
    assert!(entered.iter().any(|entered| entered.index == sequence), "it has come to the place of one of them");
    group.cut.clear();
    let first = group.replica(0).id();
    group.wait(|group| group.replica(0).look(|namespace| namespace.sequence()) >= sequence);
    group.replica(second).transfer_leader(first);
    group.wait(|group| group.replica(0).epoch().is_some());
    group.put(0, "/more");
    for (entered, number) in entered.iter().zip(0..) {
        let outcome = group.replica(0).outcome(entered).expect("it is known");
        assert!(matches!(outcome, Err(ProposeError::Replaced | ProposeError::Deposed)), "{outcome:?}");
        assert!(group.replica(0).look(|namespace| namespace.stat(&path(&lost(number)))).is_err());
    }
}

// A leader stands still while another is elected. When it wakes, there are answers to what a follower asked before, and the same
// question once more: together they must not confirm what the leader asks for itself in between.
#[test]
fn an_answer_to_an_earlier_question_confirms_no_read() {
    let mut group = Group::new(3);
    group.put(0, "/a");
    let take = |group: &Group, at: usize| -> Vec<Message> {
        std::mem::take(&mut *group.members[at].outbox.0.lock()).into_iter().map(|(message, _)| message).collect()
    };
    group.replica(1).ask();
    let question = take(&group, 1).pop().expect("it asks the leader");
    group.replica(0).step(question.clone());
    let answers: Vec<Message> = take(&group, 0)
        .into_iter()
        .flat_map(|beat| {
            let at = group.at(beat.to()).expect("it is there");
            group.replica(at).step(beat);
            take(&group, at)
        })
        .collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    let second = group.elect_without(0);
    group.put(second, "/b");
    let round = group.replica(0).ask();
    group.replica(0).step(answers[0].clone());
    group.replica(0).step(question);
    group.replica(0).step(answers[1].clone());
    assert!(!group.replica(0).is_confirmed(round), "it would be read without /b");
}

#[test]
fn one_that_is_left_needs_no_other_after_a_power_cut() {
    let options = ReplicaOptions { sync: SyncMode::Never, ..SMALL };
    let group = Group::with(options, 2);
    group.change(0, MemberChange::Remove(group.replica(1).id()));
    for seed in 0..20 {
        let folder = group.members[0].folder.after_power_cut(&mut Rng::with_seed(seed));
        let alone = member_with(options, &folder, false).replica;
        (0..20).for_each(|_| alone.tick());
        assert!(alone.epoch().is_some(), "seed {seed}");
    }
}

#[test]
fn a_leader_that_is_removed_hands_over_first() {
    let mut group = Group::new(3);
    let id = group.replica(0).id();
    let refused = group.replica(0).enter_member_change(MemberChange::Remove(id));
    assert_eq!(refused, Err(MemberError::Propose(ProposeError::NotLeader)));
    group.wait(|group| (1..3).any(|at| group.replica(at).epoch().is_some()));
    let second = (1..3).find(|at| group.replica(*at).epoch().is_some()).expect("one leads");
    group.change(second, MemberChange::Remove(id));
    assert!(!group.replica(second).members().voters.contains(&id));
    group.cut.insert(0);
    group.put(second, "/without-it");
}

// Two have promoted a third. As soon as that is said, the leader's disk is lost, and with it all that it has just sent.
#[test]
fn a_group_that_has_grown_can_lose_its_leader() {
    let mut group = Group::new(2);
    let joiner = member(&SimulatedFolder::default(), true);
    let id = joiner.replica.id();
    group.members.push(joiner);
    group.change(0, MemberChange::AddLearner(id));
    group.wait(|group| group.replica(2).look(|namespace| namespace.stat(&path("/first")).is_ok()));
    let entered = group.replica(0).enter_member_change(MemberChange::Promote(id)).expect("it leads");
    let mut outcome = None;
    while outcome.is_none() {
        let outboxes = group.members.iter().map(|member| std::mem::take(&mut *member.outbox.0.lock()));
        for (message, _) in outboxes.flatten().collect::<Vec<_>>() {
            if outcome.is_none() {
                group.replica(group.at(message.to()).expect("it is there")).step(message);
                outcome = group.replica(0).outcome(&entered);
            }
        }
        assert!(outcome.is_some() || group.members.iter().any(|member| !member.outbox.0.lock().is_empty()));
    }
    assert!(outcome.is_some_and(|outcome| outcome.is_ok()));
    group.members.iter().for_each(|member| member.outbox.0.lock().clear());
    let second = group.elect_without(0);
    group.put(second, "/second");
}

// The same, where the leader asks whether it is known what it has applied.
#[test]
fn a_group_that_was_made_known_can_lose_its_leader() {
    let mut group = Group::new(2);
    let joiner = member(&SimulatedFolder::default(), true);
    let id = joiner.replica.id();
    group.members.push(joiner);
    group.change(0, MemberChange::AddLearner(id));
    group.wait(|group| group.replica(2).look(|namespace| namespace.stat(&path("/first")).is_ok()));
    group.replica(0).enter_member_change(MemberChange::Promote(id)).expect("it leads");
    let asked = Arc::clone(&group.members[0].replica);
    let mut asking = None;
    while asking.as_ref().is_none_or(|asking: &thread::JoinHandle<_>| !asking.is_finished()) {
        let outboxes = group.members.iter().map(|member| std::mem::take(&mut *member.outbox.0.lock()));
        for (message, _) in outboxes.flatten().collect::<Vec<_>>() {
            if asking.is_none() && group.replica(0).members().voters.contains(&id) {
                let asked = Arc::clone(&asked);
                asking = Some(thread::spawn(move || asked.make_known()));
            }
            if asking.as_ref().is_none_or(|asking| !asking.is_finished()) {
                group.replica(group.at(message.to()).expect("it is there")).step(message);
            }
        }
        thread::yield_now();
    }
    assert_eq!(asking.map(|asking| asking.join().expect("it ends")), Some(Ok(())));
    drop(asked);
    group.members.iter().for_each(|member| member.outbox.0.lock().clear());
    let second = group.elect_without(0);
    group.put(second, "/second");
}

#[test]
fn the_group_says_what_it_does_not_do() {
    let group = Group::new(2);
    let (first, second, other) = (group.replica(0).id(), group.replica(1).id(), ControllerId(77));
    let refused = |change| group.replica(0).enter_member_change(change).expect_err("refused");
    assert_eq!(refused(MemberChange::AddLearner(second)), MemberError::IsMember);
    assert_eq!(refused(MemberChange::Promote(second)), MemberError::IsMember);
    assert_eq!(refused(MemberChange::Promote(other)), MemberError::NoMember);
    assert_eq!(refused(MemberChange::Remove(other)), MemberError::NoMember);
    let follower = group.replica(1).enter_member_change(MemberChange::AddLearner(other));
    assert_eq!(follower, Err(MemberError::Propose(ProposeError::NotLeader)));
    group.replica(0).enter_member_change(MemberChange::AddLearner(other)).expect("it leads");
    assert_eq!(refused(MemberChange::AddLearner(ControllerId(78))), MemberError::Busy);
    group.wait(|group| group.replica(0).members().learners == [other]);
    assert_eq!(refused(MemberChange::Promote(other)), MemberError::Lags);
    group.change(0, MemberChange::Remove(second));
    assert_eq!(refused(MemberChange::Remove(first)), MemberError::OnlyVoter);
}

#[test]
fn a_controller_without_its_disk_is_another_one() {
    let folder = SimulatedFolder::default();
    let id = member(&folder, true).replica.id();
    assert_eq!(member(&folder.after_kill(), true).replica.id(), id);
    assert_ne!(member(&SimulatedFolder::default(), true).replica.id(), id);
    let cut = folder.after_power_cut(&mut Rng::with_seed(1));
    assert_eq!(member(&cut, true).replica.id(), id, "it is on the disk before the group can know it");
    folder.alter("controller-id", |bytes| bytes[23] ^= 1);
    let opened = Replica::open(Arc::new(folder.after_kill()), SMALL, Seat::default());
    assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{opened:?}");
}

#[test]
fn a_member_that_lacks_what_it_confirmed_stops() {
    // depot 2.2: its disk is an old copy.
    let mut group = Group::new(3);
    let old = group.members[1].folder.copy();
    group.put(0, "/a");
    group.wait(|group| group.replica(1).look(|namespace| namespace.stat(&path("/a")).is_ok()));
    group.members[1] = member(&old, true);
    group.wait(|group| group.replica(1).failure() == Some(LogError::OldCopy));
    group.put(0, "/b");
    assert!(group.replica(0).failure().is_none() && group.replica(2).failure().is_none());
}

#[test]
fn a_store_from_before_ids_keeps_its_voter() {
    let folder = SimulatedFolder::default();
    let first = member(&folder, false);
    let voters = first.replica.members().voters;
    folder.remove("controller-id").expect("removed");
    let again = member(&folder.after_kill(), false);
    assert_eq!((voters, again.replica.epoch().is_some()), (vec![again.replica.id()], true));
    let group = Group::new(2);
    let several = &group.members[0].folder;
    group.replica(0).backup(None).expect("a snapshot of two");
    several.remove("controller-id").expect("removed");
    assert!(Replica::open(Arc::new(several.after_kill()), SMALL, Seat::default()).is_err(), "which of the two?");
}

#[test]
fn a_crash_while_a_snapshot_is_taken_leaves_old_or_new() {
    let mut group = Group::new(3);
    group.cut.insert(2);
    for number in 0..100 {
        group.put(0, &format!("/{number}"));
    }
    group.replica(0).backup(None).expect("a snapshot");
    group.put(0, "/last");
    let lagging = Arc::clone(&group.members[2].replica);
    let old = lagging.look(|namespace| namespace.sequence());
    let mut announced = None;
    for _ in 0..100 {
        group.replica(0).tick();
        let outboxes = group.members.iter().map(|member| std::mem::take(&mut *member.outbox.0.lock()));
        for (message, bytes) in outboxes.flatten().collect::<Vec<_>>() {
            match bytes {
                Some(bytes) => announced = Some((message, bytes)),
                None => group.replica(group.at(message.to()).expect("it is there")).step(message),
            }
        }
    }
    let (message, bytes) = announced.expect("it lags behind all that is kept");
    let new = message.snapshot().expect("it announces one");
    let state = lagging.disk.lock().state();
    let (mut olds, mut news) = (0, 0);
    for operation in 1.. {
        let folder = group.members[2].folder.copy();
        let copy = member(&folder, true);
        folder.fail_at(operation, Fault::End);
        let is_installed = install(&copy.replica, message.clone(), &bytes).is_ok();
        let has_ended = folder.has_ended();
        for seed in 0..8 {
            let cut = folder.after_power_cut(&mut Rng::with_seed(seed));
            let after = member(&cut, true);
            let sequence = after.replica.look(|namespace| namespace.sequence());
            assert!(sequence == old || sequence >= new, "operation {operation}, seed {seed}: {sequence}");
            assert!(!is_installed || has_ended || sequence >= new, "operation {operation}: it was installed");
            (olds, news) = (olds + u32::from(sequence == old), news + u32::from(sequence >= new));
            let kept = after.replica.disk.lock().state();
            assert!(kept.term > state.term || (kept.term, kept.vote) == (state.term, state.vote), "{kept:?} {state:?}");
            let left =
                cut.names().expect("a list").into_iter().filter(|name| name.contains("ing-") || name.contains("ed-"));
            assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new(), "nothing is left behind");
        }
        if !has_ended {
            assert!(is_installed, "without a fault");
            break;
        }
    }
    assert!(olds > 20 && news > 20, "{olds} old, {news} new");
}

#[test]
fn a_group_of_several_syncs_and_goes_on_in_its_history() {
    let options = ReplicaOptions { sync: SyncMode::Never, ..SMALL };
    let mut group = Group::with(options, 3);
    let sequence = group.put(0, "/a");
    let history = group.replica(0).epoch().expect("it leads").history;
    for at in 0..3 {
        let folder = group.members[at].folder.after_power_cut(&mut Rng::with_seed(at as u64));
        group.members[at] = member_with(options, &folder, true);
    }
    group.wait(|group| (0..3).any(|at| group.replica(at).epoch().is_some()));
    let epochs = (0..3).filter_map(|at| group.replica(at).epoch());
    assert!(epochs.into_iter().all(|epoch| epoch.history == history), "no time was taken back");
    group.wait(|group| (0..3).all(|at| group.replica(at).look(|namespace| namespace.sequence()) > sequence));
    assert!((0..3).all(|at| group.replica(at).look(|namespace| namespace.stat(&path("/a")).is_ok())));
}

#[test]
fn one_that_is_left_goes_on_alone() {
    let mut group = Group::new(3);
    let sequence = group.put(0, "/a");
    let address = "a:7000".parse().expect("an address");
    let enter = Command::EnterController { id: group.replica(1).id(), address };
    group.replica(0).enter(&Change { now_ms: 0, stamp: None, command: enter }).expect("it leads");
    group.wait(|group| group.replica(2).look(|namespace| namespace.controllers().count()) == 1);
    let folder = group.members[2].folder.after_kill();
    let found = Found::in_log(&folder).expect("readable").expect("there is a log");
    found.restore_to(&folder, &[]).expect("a working disk");
    let left = member(&folder, false);
    assert_ne!(left.replica.id(), group.replica(2).id(), "the others may still be somewhere");
    assert_eq!(left.replica.members().voters, [left.replica.id()]);
    assert!(left.replica.epoch().is_some());
    let found = left.replica.read(|namespace| (namespace.stat(&path("/a")), namespace.controllers().count()));
    let (stat, controllers) = found.expect("it leads");
    assert_eq!((stat.expect("it is there").version.sequence, controllers), (sequence, 0));
}

#[test]
fn a_member_that_differs_from_most_stops() {
    for wrong in [0, 1] {
        let mut group = Group::new(3);
        group.put(0, "/a");
        group.wait(|group| {
            let sequence = |at| group.replica(at).look(|namespace| namespace.sequence());
            sequence(1) == sequence(0) && sequence(2) == sequence(0)
        });
        group.replica(wrong).namespace.lock().damage();
        group.wait(|group| group.replica(wrong).failure().is_some());
        assert!(matches!(group.replica(wrong).failure(), Some(LogError::Diverged { .. })));
        assert_eq!(group.replica(wrong).epoch(), None);
        let leads = |group: &Group| (0..3).find(|at| *at != wrong && group.replica(*at).epoch().is_some());
        group.wait(|group| leads(group).is_some());
        let leader = leads(&group).expect("just found");
        group.put(leader, "/b");
        assert!((0..3).all(|at| group.replica(at).failure().is_some() == (at == wrong)));
    }
}

#[test]
fn two_that_differ_are_reported_and_go_on() {
    let mut group = Group::new(2);
    group.replica(1).namespace.lock().damage();
    group.wait(|group| (0..2).all(|at| group.replica(at).doubt().is_some()));
    group.put(0, "/b");
    assert!((0..2).all(|at| group.replica(at).failure().is_none()));
    group.replica(0).namespace.lock().damage(); // as the other
    group.put(0, "/c");
    group.wait(|group| (0..2).all(|at| group.replica(at).doubt().is_none()));
}

#[test]
fn a_member_that_would_lead_is_elected_once_the_other_gives_the_leader_up() {
    // The other one does not answer before: it has heard of the leader as lately. It does not stand for long.
    let mut group = Group::new(2);
    group.add(member_that_stands(10..1_000_000, SMALL, &SimulatedFolder::default(), true));
    group.tick();
    group.cut.insert(0);
    let mut ticks = 0;
    group.wait(|group| {
        ticks += 1;
        group.replica(1).epoch().is_some()
    });
    assert!(ticks <= 12, "{ticks} ticks: it has asked once, and then waited for another election's time");
}

#[test]
fn a_member_that_ends_waits_for_no_other() {
    let group = Group::new(3); // messages wait until they are carried
    let leader = group.replica(0);
    let before = leader.last_index();
    thread::scope(|scope| {
        let change = scope.spawn(|| leader.propose(&put("/a")));
        let read = scope.spawn(|| leader.read(|_| ()));
        while leader.last_index() == before {
            thread::yield_now();
        }
        leader.retire();
        assert_eq!(change.join().expect("no panic"), Err(ProposeError::Deposed));
        assert_eq!(read.join().expect("no panic"), Err(ProposeError::NotLeader));
    });
}

#[test]
fn a_heartbeat_is_answered_while_the_disk_works() {
    let mut group = Group::new(3);
    group.put(0, "/a");
    let (leader, follower) = (&group.members[0], &group.members[1]);
    let is_busy = |member: &Member| member.replica.core.lock().is_driven;
    let wait_for = |member: &Member| {
        while !is_busy(member) {
            thread::yield_now();
        }
    };
    // A follower that writes an entry.
    follower.folder.hold_syncs(true);
    thread::scope(|scope| {
        leader.replica.enter(&put("/b")).expect("it leads");
        let sent = std::mem::take(&mut *leader.outbox.0.lock());
        scope.spawn(move || {
            let to_it = sent.into_iter().filter(|(message, _)| message.to() == follower.replica.id());
            to_it.for_each(|(message, _)| follower.replica.step(message));
        });
        wait_for(follower);
        leader.replica.tick();
        let beats = std::mem::take(&mut *leader.outbox.0.lock());
        let to_it = beats.into_iter().filter(|(message, _)| message.to() == follower.replica.id());
        to_it.for_each(|(message, _)| follower.replica.step(message));
        assert!(follower.outbox.has(MessageType::MsgHeartbeatResponse), "its answer waits for the disk");
        assert!(is_busy(follower) && !follower.outbox.has(MessageType::MsgAppendResponse), "it is not on the disk");
        follower.folder.hold_syncs(false);
    });
    assert!(follower.outbox.has(MessageType::MsgAppendResponse));
    group.carry();
    // A leader that does.
    leader.folder.hold_syncs(true);
    thread::scope(|scope| {
        scope.spawn(|| leader.replica.enter(&put("/c")).expect("it leads"));
        wait_for(leader);
        leader.outbox.0.lock().clear();
        leader.replica.tick();
        assert!(leader.outbox.has(MessageType::MsgHeartbeat), "the others would think that it is gone");
        assert!(is_busy(leader));
        leader.folder.hold_syncs(false);
    });
}

/// Carries messages between real threads: one for each member.
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<BTreeMap<ControllerId, Sender<OnWire>>>>);

type OnWire = (Message, Option<Backup>);

impl Post for Wires {
    fn send(&self, messages: Vec<Message>) {
        let wires = self.0.lock();
        for message in messages {
            if let Some(wire) = wires.get(&message.to()) {
                let _ = wire.send((message, None)); // it has ended
            }
        }
    }

    fn send_snapshot(&self, message: Message, file: Backup) {
        if let Some(wire) = self.0.lock().get(&message.to()) {
            let _ = wire.send((message, Some(file)));
        }
    }
}

/// Counts what it is told.
#[derive(Default)]
struct Counter(AtomicU64);

impl Observer for Counter {
    fn applied(&self, sequence: u64, _change: &Change, _applied: &Applied) {
        assert!(self.0.swap(sequence, Ordering::AcqRel) < sequence);
    }

    fn replaced(&self, sequence: u64) {
        assert!(self.0.swap(sequence, Ordering::AcqRel) < sequence);
    }

    fn led(&self, _epoch: Option<Epoch>) {}
}

fn receive(replicas: &[Arc<Replica>], at: usize, wire: &Receiver<OnWire>) {
    for (message, file) in wire {
        let Some(file) = file else {
            replicas[at].step(message);
            continue;
        };
        let (from, to) = (message.from(), message.to());
        let mut bytes = vec![0; file.length as usize];
        file.file.read_at(&mut bytes, 0).expect("it stays readable");
        let is_installed = install(&replicas[at], message, &bytes).is_ok();
        let sender = replicas.iter().find(|replica| replica.id() == from).expect("it is there");
        sender.snapshot_sent(to, is_installed);
    }
}

#[test]
fn threads_of_three_members_propose_and_read() {
    const CHANGES: usize = 40;
    let wires = Wires::default();
    let replicas: Vec<Arc<Replica>> = (0..3)
        .map(|at| {
            let observer = Arc::new(Counter::default());
            let (post, election_ticks) = (Arc::new(wires.clone()), 10 + 3 * at..12 + 3 * at);
            let seat = Seat { post, observer, election_ticks, ..Seat::default() };
            let folder = Arc::new(SimulatedFolder::default());
            let opened =
                if at == 0 { Replica::open(folder, SMALL, seat) } else { Replica::open_to_join(folder, SMALL, seat) };
            Arc::new(opened.unwrap_or_else(|error| panic!("{error}")))
        })
        .collect();
    let is_over = AtomicBool::new(false);
    let deadline = Instant::now() + Duration::from_secs(60); // only a test that hangs takes so long
    let retry = |what: &dyn Fn() -> bool| {
        while !what() {
            assert!(Instant::now() < deadline, "it does not come to that");
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        for at in 0..3 {
            let (sender, receiver) = unbounded();
            wires.0.lock().insert(replicas[at].id(), sender);
            let (replicas, is_over) = (&replicas, &is_over);
            scope.spawn(move || receive(replicas, at, &receiver));
            scope.spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    thread::sleep(Duration::from_millis(5)); // the clock of this group
                    replicas[at].tick();
                    replicas[at].snapshot_if_due().expect("the disk works");
                }
            });
        }
        for joiner in &replicas[1..] {
            for change in [MemberChange::AddLearner(joiner.id()), MemberChange::Promote(joiner.id())] {
                retry(&|| {
                    let result = replicas.iter().map(|replica| replica.change_members(change)).find(|result| {
                        !matches!(result, Err(MemberError::Propose(_) | MemberError::Lags | MemberError::Busy))
                    });
                    matches!(result, Some(Ok(()) | Err(MemberError::IsMember)))
                });
            }
        }
        let writers: Vec<_> = (0..4)
            .map(|thread| {
                let (replicas, retry) = (&replicas, &retry);
                scope.spawn(move || {
                    for number in 0..CHANGES {
                        let name = format!("/{thread}-{number}");
                        retry(&|| {
                            let leader = replicas.iter().find(|replica| replica.epoch().is_some());
                            leader.is_some_and(|leader| leader.propose(&put(&name)).is_ok())
                        });
                        let reader = &replicas[(thread + number) % 3];
                        retry(&|| {
                            let found = reader.read(|namespace| namespace.stat(&path(&name)).is_ok());
                            assert_ne!(found, Ok(false), "{name} was acknowledged before");
                            found.is_ok()
                        });
                        if number % 10 == 5 && thread == 0 {
                            let _ = replicas.iter().find_map(|replica| replica.hand_over());
                        }
                    }
                })
            })
            .collect();
        let ends: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Release);
        wires.0.lock().clear();
        assert!(ends.iter().all(Result::is_ok), "a thread has failed");
    });
    let entries = replicas.iter().map(|replica| replica.look(|namespace| namespace.entry_count())).max();
    assert_eq!(entries, Some(4 * CHANGES as u64));
}
