//! Reads that see every change that was acknowledged before, through any member. (depot 4.5)
//!
//! A read must not be answered by a leader that was deposed and does not know it. So a majority is asked first whether this
//! leadership still stands, by the leader itself or on behalf of a follower, and the answer waits until as much is applied as
//! was committed when they were asked. All reads that come while one such round is under way share the next.
//!
//! A round is known to the library by its context: an answer of a follower repeats it, and confirms all rounds that were asked
//! for before. So no two requests may have the same, not even one that is sent again, or comes twice: an answer to the first
//! would confirm the second, and with it what was asked for in between. Each request is given a number where it is taken.

use std::time::{Duration, Instant};

use raft::{ReadState, eraftpb};

use super::core::Core;
use super::{ProposeError, Replica};
use crate::identity::Epoch;
use crate::namespace::Namespace;

/// A read waits at most so long for a majority to confirm the leader.
const READ_WAIT: Duration = Duration::from_secs(5);

/// The rounds in which a majority is asked whether the leader still leads. At most one is under way.
pub(super) struct Reads {
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
    /// Requests that the library was given here, this member's own and others'.
    requests: u64,
}

impl Reads {
    pub(super) fn new(nonce: u64) -> Self {
        Self { nonce, begun: 0, done: 0, index: None, is_wanted: false, requests: 0 }
    }
}

impl Replica {
    /// Looks at the namespace, which has every change that was acknowledged before, through any Controller. An error if this
    /// Controller is alone and does not lead, if it is in no group, or if a majority confirms no leader within 5 s.
    pub fn read<T>(&self, look: impl FnOnce(&Namespace) -> T) -> Result<T, ProposeError> {
        let mut core = self.core.lock();
        if core.is_only_voter() || !core.is_member(core.id) {
            if core.epoch.is_none() {
                return Err(ProposeError::NotLeader);
            }
        } else {
            let (round, deadline) = (core.join_round(), Instant::now() + READ_WAIT);
            while core.reads.done < round {
                if let Some(failure) = core.failure.clone() {
                    return Err(ProposeError::Log(failure));
                }
                if core.is_retiring {
                    return Err(ProposeError::NotLeader);
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
        self.carry_on(&mut core);
        round
    }

    /// Whether a round is confirmed: then [`look`](Self::look) sees every change that was acknowledged before it was asked for.
    pub fn is_confirmed(&self, round: u64) -> bool {
        self.core.lock().reads.done >= round
    }

    /// The owner vouches for a leadership of this member: reads through other members are confirmed from now on. Without effect if
    /// it has ended.
    pub fn vouch(&self, epoch: Epoch) {
        let mut core = self.core.lock();
        if core.epoch != Some(epoch) {
            return;
        }
        core.vouched = Some(epoch);
        for message in std::mem::take(&mut core.held) {
            self.step_library(&mut core, message);
        }
        self.carry_on(&mut core);
    }

    /// Looks at the namespace as it is here, which may be behind.
    pub fn look<T>(&self, look: impl FnOnce(&Namespace) -> T) -> T {
        look(&self.namespace.lock())
    }
}

impl Core {
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

    fn send_round(&mut self) {
        let context = self.own_request(self.round_context());
        self.node.read_index(context);
    }

    /// What the contexts of all requests for the round under way begin with.
    fn round_context(&self) -> Vec<u8> {
        [self.reads.nonce, self.reads.begun].map(u64::to_le_bytes).concat()
    }

    /// The context with a number that no other request has here.
    fn own_request(&mut self, mut context: Vec<u8>) -> Vec<u8> {
        self.reads.requests += 1;
        context.extend_from_slice(&self.reads.requests.to_le_bytes());
        context
    }

    /// A member asks this one whether it leads: as a request of its own, however often it comes.
    pub(super) fn number_request(&mut self, message: &mut eraftpb::Message) {
        if message.get_msg_type() == eraftpb::MessageType::MsgReadIndex
            && let Some(request) = message.entries.first_mut()
        {
            request.data = self.own_request(request.data.to_vec()).into();
        }
    }

    /// Holds a question of another member back while the owner does not vouch for this leadership.
    pub(super) fn hold(&mut self, message: eraftpb::Message) -> Option<eraftpb::Message> {
        let is_question = message.get_msg_type() == eraftpb::MessageType::MsgReadIndex;
        if !(is_question && self.is_vouched_for && self.leads()) || self.epoch.is_some() && self.vouched == self.epoch {
            return Some(message);
        }
        self.held.retain(|held| held.from != message.from);
        self.held.push(message);
        None
    }

    /// Asks again where no answer has come: the library forgets a round without a word when the leader changes.
    pub(super) fn repeat_round(&mut self) {
        if self.reads.begun > self.reads.done && self.reads.index.is_none() {
            self.send_round();
        }
    }

    pub(super) fn answer_round(&mut self, answers: &[ReadState]) {
        if self.reads.begun == self.reads.done {
            return; // a round that was asked for twice is answered twice: the second time says nothing of the next one
        }
        let context = self.round_context();
        if let Some(answer) = answers.iter().find(|answer| answer.request_ctx.starts_with(&context)) {
            self.reads.index = Some(answer.index);
        }
    }

    /// The round under way is confirmed once its index is applied; the next begins if reads wait for it.
    pub(super) fn finish_round(&mut self) {
        if self.reads.index.is_some_and(|index| index <= self.node.raft.raft_log.applied) {
            self.reads.index = None;
            self.reads.done = self.reads.begun;
            if std::mem::take(&mut self.reads.is_wanted) {
                self.join_round();
            }
        }
    }
}
