//! What a replica is given: what carries its messages, what is told of its changes, how patient it is.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::{Backup, Message};
use crate::identity::Epoch;
use crate::namespace::Applied;
use crate::namespace::change::Change;

/// Carries messages to other members: each says for which. No lock of the replica is held while it is called.
pub trait Post: Send + Sync {
    /// Sends messages; must not wait for the network. What cannot be sent is dropped: Raft repeats it.
    fn send(&self, messages: Vec<Message>);

    /// Sends the file of a snapshot, and then the message that announces it; must not wait for either. Its end, good or bad,
    /// is told by [`Replica::snapshot_sent`](super::Replica::snapshot_sent): until then the member is sent nothing else.
    fn send_snapshot(&self, message: Message, file: Backup);
}

/// Is told what becomes of the namespace here, of one thing after the other. No lock of the replica is held while it is
/// called, but nothing more is decided meanwhile: it must be quick, and may not wait for the replica.
pub trait Observer: Send + Sync {
    /// A change was applied, as every member does. The thread that proposed it, and reads that need it, learn so afterwards. At a start, the
    /// changes since the last snapshot are told again.
    fn applied(&self, sequence: u64, change: &Change, applied: &Applied);

    /// The namespace is another one: a snapshot of this sequence, of another member, has taken its place.
    fn replaced(&self, sequence: u64);

    /// This Controller leads, and its epoch is applied; with `None` it leads no more.
    fn led(&self, epoch: Option<Epoch>);
}

/// A place in a group of Controllers.
#[derive(Clone)]
pub struct Seat {
    /// Carries messages to the others.
    pub post: Arc<dyn Post>,
    /// Is told of changes.
    pub observer: Arc<dyn Observer>,
    /// After so many ticks without a word of the leader it stands for election; each time drawn anew.
    pub election_ticks: Range<usize>,
    /// As a leader it answers for reads through others only once the owner vouches for the leadership:
    /// [`Replica::vouch`](super::Replica::vouch).
    pub is_vouched_for: bool,
}

/// A Controller that has no others, and changes that are told to nothing.
impl Default for Seat {
    fn default() -> Self {
        Self { post: Arc::new(Alone), observer: Arc::new(Alone), election_ticks: 5..10, is_vouched_for: false }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("election_ticks", &self.election_ticks).finish_non_exhaustive()
    }
}

struct Alone;

impl Post for Alone {
    fn send(&self, _messages: Vec<Message>) {}

    fn send_snapshot(&self, _message: Message, _file: Backup) {}
}

impl Observer for Alone {
    fn applied(&self, _sequence: u64, _change: &Change, _applied: &Applied) {}

    fn replaced(&self, _sequence: u64) {}

    fn led(&self, _epoch: Option<Epoch>) {}
}
