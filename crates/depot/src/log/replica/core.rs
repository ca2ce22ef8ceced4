//! What the replica's lock guards: Raft's state, and the threads that wait for it.

use std::collections::{BTreeMap, VecDeque};
use std::thread::Thread;
use std::time::Instant;

use raft::{RawNode, StateRole, eraftpb};

use super::comparison::Comparison;
use super::drive::Told;
use super::reads::Reads;
use super::transfer::Received;
use super::{Election, Entered, MOST_CHANGE_BYTES, ProposeError};
use crate::disk::random;
use crate::identity::{ControllerId, Epoch, History};
use crate::log::frame::HardState;
use crate::log::segments::LogError;
use crate::log::store::Store;
use crate::namespace::Applied;
use crate::namespace::change::{Change, Command};
use crate::words::Words;

/// So many elections are remembered.
const MOST_ELECTIONS: usize = 8;

/// Raft, and what is known beside it.
pub(super) struct Core {
    pub(super) id: u64,
    pub(super) node: RawNode<Store>,
    /// The proposals whose outcomes are waited for.
    pub(super) waiting: BTreeMap<Entered, Waiting>,
    /// A thread is carrying out what the library has decided.
    pub(super) is_driven: bool,
    /// A snapshot of another member takes the place of the log: the library may neither tick nor step.
    pub(super) is_installing: bool,
    /// This member is about to end: no thread waits for others any more.
    pub(super) is_retiring: bool,
    /// The term in which this member leads, if it does.
    pub(super) leads_in: Option<u64>,
    /// The member that led last, and its term.
    pub(super) leader: (u64, u64),
    /// When this member led last, if it has.
    pub(super) led_at: Option<Instant>,
    pub(super) elections: VecDeque<Election>,
    /// The epoch that begins this leadership, once it is applied.
    pub(super) epoch: Option<Epoch>,
    /// The entry that proposes it: it is synced whatever else is.
    pub(super) epoch_index: u64,
    pub(super) histories: Histories,
    /// What must not be forgotten, as it was written last.
    pub(super) state: HardState,
    /// Term and vote that are on the disk. (depot 2.3)
    pub(super) promised: (u64, u64),
    /// The last entry that was applied.
    pub(super) applied: u64,
    /// Bytes of log since the last snapshot.
    pub(super) bytes: u64,
    /// Changes of the group that are applied here. Each is told once the entry behind it is committed that makes it known.
    pub(super) of_group: Vec<(Told, Option<u64>)>,
    pub(super) failure: Option<LogError>,
    pub(super) reads: Reads,
    /// The owner vouches for the leaderships here.
    pub(super) is_vouched_for: bool,
    /// The one that it has vouched for last.
    pub(super) vouched: Option<Epoch>,
    /// What other members ask of a leadership that it has not vouched for yet: at most one question each.
    pub(super) held: Vec<eraftpb::Message>,
    /// The snapshot that the library is about to decide about.
    pub(super) received: Option<Received>,
    pub(super) comparison: Comparison,
    pub(super) diverged: Option<Diverged>,
    /// When each other member was last heard of.
    pub(super) heard: BTreeMap<u64, Instant>,
    /// What the observer is still to be told.
    pub(super) news: Vec<News>,
}

/// A proposal whose outcome is waited for.
#[derive(Default)]
pub(super) struct Waiting {
    /// What became of it, once that is known.
    outcome: Option<Result<Applied, ProposeError>>,
    /// The thread that is parked until then. Only this one is woken: to wake all, as a condition variable does, would have most
    /// of them sleep again.
    pub(super) thread: Option<Thread>,
}

impl Waiting {
    fn tell(&mut self, outcome: Result<Applied, ProposeError>) {
        self.outcome = Some(outcome);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.unpark();
        }
    }
}

/// What an observer is told.
pub(super) enum News {
    Applied(u64, Box<Change>, Applied),
    Replaced(u64),
    Led(Option<Epoch>),
}

/// The namespace here differs from most others'.
pub(super) struct Diverged {
    /// Behind this change.
    pub(super) sequence: u64,
    /// When that was found, in ticks.
    pub(super) at: u64,
}

/// In which history the next epoch is. (depot 2.1)
pub(super) struct Histories {
    /// The one that the last leader led in.
    pub(super) last: Option<History>,
    /// Drawn for the next epoch, where time may have been taken back.
    pub(super) drawn: Option<History>,
}

impl Core {
    /// True if there is no other member, neither voter nor learner.
    pub(super) fn is_alone(&self) -> bool {
        let members = self.node.store().members();
        members.voters == [self.id] && members.learners.is_empty()
    }

    pub(super) fn is_member(&self, id: u64) -> bool {
        let members = self.node.store().members();
        members.voters.contains(&id) || members.learners.contains(&id)
    }

    /// True if no other member votes: then nothing can depose this one.
    pub(super) fn is_only_voter(&self) -> bool {
        self.node.store().members().voters == [self.id]
    }

    /// Whether the library may take note that time has passed, which may have it stand for election.
    pub(super) fn may_tick(&self) -> bool {
        let log = &self.node.raft.raft_log;
        // One that votes alone is elected at once, and has to have its whole log on the disk by then.
        let may_stand = self.leads() || !self.is_only_voter() || log.persisted == log.last_index();
        may_stand && !self.is_installing
    }

    /// Whether a leader counts on entries that are not here. It commits at a member only what that member has confirmed, and
    /// what is committed stays.
    pub(super) fn has_lost(&self, message: &eraftpb::Message) -> bool {
        let is_heartbeat = message.get_msg_type() == eraftpb::MessageType::MsgHeartbeat;
        is_heartbeat && message.commit > self.node.raft.raft_log.last_index()
    }

    /// Where this member would stand for election, asks the others anew whether they would vote for it. One that has heard of the
    /// leader a moment later does not answer yet, and the library asks again only after another election's time: by then that one
    /// stands as well, and neither wins.
    pub(super) fn ask_for_votes_again(&mut self) {
        if self.node.raft.state == StateRole::PreCandidate {
            // It is refused for good reasons only: then the library has it follow.
            let _ = self.node.campaign();
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub(super) fn enter(&mut self, change: &Change) -> Result<Entered, ProposeError> {
        let line = change.to_line().into_bytes();
        if line.len() > MOST_CHANGE_BYTES {
            return Err(ProposeError::TooLarge);
        }
        self.check_leads()?;
        let entered = self.propose(line)?;
        self.waiting.insert(entered, Waiting::default());
        Ok(entered)
    }

    /// An error unless this member leads, and has begun to serve.
    pub(super) fn check_leads(&self) -> Result<(), ProposeError> {
        match &self.failure {
            Some(failure) => Err(ProposeError::Log(failure.clone())),
            None if self.epoch.is_none() || !self.leads() => Err(ProposeError::NotLeader),
            None => Ok(()),
        }
    }

    pub(super) fn take_outcome(&mut self, entered: Entered) -> Option<Result<Applied, ProposeError>> {
        let known = self.waiting.get_mut(&entered).and_then(|waiting| waiting.outcome.take());
        let result = known.or_else(|| self.failure.clone().map(|failure| Err(ProposeError::Log(failure))))?;
        self.waiting.remove(&entered);
        Some(result)
    }

    /// A leadership that has begun or ended since this was asked last: what was proposed in an earlier one is given up, for a
    /// leader that is deposed cannot say what becomes of it.
    pub(super) fn notice_leadership(&mut self) {
        let leads_in = self.leads().then_some(self.node.raft.term);
        if self.leads_in.is_some() {
            self.led_at = Some(Instant::now());
        }
        self.notice_election();
        if leads_in == self.leads_in {
            return;
        }
        self.leads_in = leads_in;
        self.end_epoch();
        self.of_group.clear();
        for (entered, waiting) in &mut self.waiting {
            if Some(entered.term) != leads_in && waiting.outcome.is_none() {
                waiting.tell(Err(ProposeError::Deposed));
            }
        }
        if leads_in.is_some() {
            self.propose_epoch();
        }
    }

    /// Notes a leader that is new.
    fn notice_election(&mut self) {
        let now = (self.node.raft.leader_id, self.node.raft.term);
        if now.0 == 0 || now == self.leader {
            return;
        }
        let (before, _) = std::mem::replace(&mut self.leader, now);
        let last_heard = if before == self.id { self.led_at } else { self.heard.get(&before).copied() };
        let gap = last_heard.map(|at| at.elapsed());
        if self.elections.len() == MOST_ELECTIONS {
            self.elections.pop_front();
        }
        self.elections.push_back(Election { leader: ControllerId(now.0), term: now.1, at: Instant::now(), gap });
    }

    /// Serves nothing more.
    pub(super) fn end_epoch(&mut self) {
        self.held.clear();
        if self.epoch.take().is_some() {
            self.news.push(News::Led(None));
        }
    }

    /// Enters a line; none at all is an entry without effect.
    pub(super) fn propose(&mut self, line: Vec<u8>) -> Result<Entered, ProposeError> {
        if !self.leads() {
            return Err(ProposeError::NotLeader); // the library would send it on
        }
        self.node.propose(Vec::new(), line).map_err(|_| ProposeError::NotLeader)?;
        Ok(self.last_entered())
    }

    /// The entry that has just been proposed.
    pub(super) fn last_entered(&self) -> Entered {
        Entered { index: self.node.raft.raft_log.last_index(), term: self.node.raft.term }
    }

    pub(super) fn is_known(&self, entered: Entered) -> bool {
        self.waiting.get(&entered).is_some_and(|waiting| waiting.outcome.is_some())
    }

    /// No thread drives any more: one that waits goes on, if there is something to be carried out. All do if nothing more will be.
    pub(super) fn pass_on(&mut self) {
        if self.failure.is_some() {
            return self.wake_all();
        }
        if self.node.has_ready()
            && let Some(next) = self.waiting.values_mut().find(|next| next.outcome.is_none() && next.thread.is_some())
        {
            next.wake();
        }
    }

    pub(super) fn wake_all(&mut self) {
        self.waiting.values_mut().for_each(Waiting::wake);
    }

    fn propose_epoch(&mut self) {
        let number = || random().map(u64::from_le_bytes).unwrap_or_default();
        let history = self.histories.drawn.or(self.histories.last).unwrap_or_else(|| History(number().max(1)));
        let epoch = Epoch { history, term: self.node.raft.term, nonce: number() };
        let change = Change { now_ms: 0, stamp: None, command: Command::Lead { epoch } };
        // A leader that is deposed at once proposes in vain, and its successor proposes its own.
        if let Ok(entered) = self.propose(change.to_line().into_bytes()) {
            self.epoch_index = entered.index;
        }
    }

    /// A leader's epoch was applied; it is this member's own if it leads in that term.
    pub(super) fn note_epoch(&mut self, epoch: Epoch, term: u64) {
        self.histories.last = Some(epoch.history);
        if self.histories.drawn == Some(epoch.history) {
            self.histories.drawn = None;
        }
        if self.leads_in == Some(term) && self.leads() && self.node.raft.term == term {
            self.epoch = Some(epoch);
            self.news.push(News::Led(Some(epoch)));
        }
    }

    /// Threads may wait for what became of these entries, or of others that they took the place of.
    pub(super) fn tell(&mut self, told: &[Told]) {
        for Told { entered: entry, result, .. } in told {
            let at = |term| Entered { index: entry.index, term };
            for (entered, waiting) in self.waiting.range_mut(at(0)..=at(u64::MAX)) {
                waiting.tell(if entered == entry { result.clone() } else { Err(ProposeError::Replaced) });
            }
        }
    }

    /// What has to be said without delay and claims nothing about this disk: taken out of the library, as far as the term and
    /// the vote that it is said in are on the disk.
    pub(super) fn take_urgent(&mut self) -> Vec<eraftpb::Message> {
        use eraftpb::MessageType::{MsgHeartbeat, MsgHeartbeatResponse, MsgReadIndex, MsgReadIndexResp};
        if self.promised != (self.node.raft.term, self.node.raft.vote) {
            return Vec::new();
        }
        let is_urgent = |message: &eraftpb::Message| {
            matches!(message.get_msg_type(), MsgHeartbeat | MsgHeartbeatResponse | MsgReadIndex | MsgReadIndexResp)
        };
        let (urgent, others) = std::mem::take(&mut self.node.raft.msgs).into_iter().partition(is_urgent);
        self.node.raft.msgs = others;
        urgent
    }
}
