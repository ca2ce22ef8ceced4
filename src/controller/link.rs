//! The Controller's side of a joined Dstore's connection: what is sent to it, and what it owes. (spec 2.4, 7.7, 7.21)

mod outbox;
mod questions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::coordinator::Round;
use crate::index::DstoreId;
use crate::protocol::connection::LineLimit;
use crate::protocol::name::MAX_NAME_BYTES;
use crate::protocol::{Message, Order};
use crate::sync::{Condvar, Mutex};

pub(super) use outbox::Outbox;
use questions::{Purpose, Questions};

/// The links to all members.
#[derive(Default)]
pub(super) struct Links(Mutex<BTreeMap<DstoreId, Arc<DstoreLink>>>);

impl Links {
    /// Sends to one member; does nothing if it has left.
    pub(super) fn send(&self, dstore: DstoreId, message: Message) {
        if let Some(link) = self.get(dstore) {
            link.send(message);
        }
    }

    pub(super) fn get(&self, dstore: DstoreId) -> Option<Arc<DstoreLink>> {
        self.0.lock().get(&dstore).cloned()
    }

    pub(super) fn all(&self) -> Vec<(DstoreId, Arc<DstoreLink>)> {
        self.0.lock().iter().map(|(&dstore, link)| (dstore, Arc::clone(link))).collect()
    }

    /// Drops every link, which ends the writers.
    pub(super) fn clear(&self) {
        let links = std::mem::take(&mut *self.0.lock());
        links.values().for_each(|link| link.outbox.close());
    }

    pub(super) fn insert(&self, dstore: DstoreId, link: Arc<DstoreLink>) {
        self.0.lock().insert(dstore, link);
    }

    pub(super) fn remove(&self, dstore: DstoreId) -> Option<Arc<DstoreLink>> {
        self.0.lock().remove(&dstore)
    }
}

/// The sending half of a joined Dstore. Any thread may send; only the writer touches the socket.
///
/// `unanswered` may be held while the outbox is locked; `life` is taken alone.
pub(super) struct DstoreLink {
    outbox: Arc<Outbox>,
    /// Ends the connection, for the reason given; the reader sees the end.
    hang_up: Box<dyn Fn(&str) + Send + Sync>,
    unanswered: Mutex<Unanswered>,
    /// Only a list that was asked for may be long.
    line_limit: LineLimit,
    usual_line_limit: usize,
    life: Mutex<Life>,
    /// Signalled at each sign of life, and at the end of the connection.
    lives_on: Condvar,
}

/// How many bytes of a list are expected for each file that a Dstore holds: the longest name, and the space before it.
const BYTES_TO_A_FILE: usize = MAX_NAME_BYTES + 1;

/// What a Dstore still owes.
#[derive(Default)]
struct Unanswered {
    lists: Questions,
    reports: Questions,
}

#[derive(Default)]
struct Life {
    /// Messages received.
    signs: u64,
    has_ended: bool,
    /// Threads that wait for a sign, without which there is no need to wake any.
    waiting: usize,
}

/// Whether a member still answers. (spec 7.7)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    /// It has said something.
    Answers,
    /// It has said nothing within the timeout, and so many messages before.
    Silent {
        /// Compare with [`DstoreLink::signs_of_life`].
        signs: u64,
    },
    /// Its connection has ended.
    Ended,
}

impl DstoreLink {
    /// A writer sends what is put into `outbox`, until `hang_up` is called. `line_limit` is what the Dstore may usually say
    /// in a line; while it owes a list it may say more.
    pub(super) fn new(
        outbox: &Arc<Outbox>,
        hang_up: impl Fn(&str) + Send + Sync + 'static,
        line_limit: LineLimit,
    ) -> Self {
        let usual_line_limit = line_limit.get();
        Self {
            outbox: Arc::clone(outbox),
            hang_up: Box::new(hang_up),
            unanswered: Mutex::default(),
            line_limit,
            usual_line_limit,
            life: Mutex::default(),
            lives_on: Condvar::new(),
        }
    }

    /// Never waits for the Dstore: one that leaves too much unread is disconnected.
    pub(super) fn send(&self, message: Message) {
        if !self.outbox.add(message) {
            self.hang_up("it reads nothing that it is sent");
        }
    }

    /// Ends the connection; the reader sees the end, and says that the Dstore has left.
    pub(super) fn hang_up(&self, reason: &str) {
        (self.hang_up)(reason);
    }

    /// Asks for the list of files, for this round. The Dstore is expected to hold so many.
    pub(super) fn ask_for_list(&self, round: Round, files: usize) {
        self.ask_for_list_to(&mut self.unanswered.lock(), Purpose::Round(round), files);
    }

    fn ask_for_list_to(&self, unanswered: &mut Unanswered, purpose: Purpose, files: usize) {
        self.line_limit.set_extensible(self.usual_line_limit + files * BYTES_TO_A_FILE);
        if self.outbox.add_list() {
            unanswered.lists.ask(purpose);
        } else {
            unanswered.lists.ask_newest_for(purpose);
        }
    }

    /// Gives an order, to be reported done in this round; false, and it is not given, if the Dstore has not even read the
    /// one before.
    pub(super) fn order(&self, round: Round, order: Order) -> bool {
        let mut unanswered = self.unanswered.lock();
        let is_given = self.outbox.add_order(order);
        if is_given {
            unanswered.reports.ask(Purpose::Round(round));
        }
        is_given
    }

    /// The round that a list which has just come belongs to: `Some(None)` if it belongs to none, `None` if it was not asked
    /// for.
    ///
    /// A report that is still missing when a list of the round after next comes is written off: rounds without orders give
    /// it time.
    pub(super) fn take_list(&self) -> Option<Option<Round>> {
        let mut unanswered = self.unanswered.lock();
        let purpose = unanswered.lists.answer();
        if !unanswered.lists.may_come() {
            self.line_limit.set(self.usual_line_limit);
        }
        match purpose? {
            Purpose::Round(round) => {
                unanswered.reports.write_off_before(round.saturating_sub(1));
                Some(Some(round))
            }
            Purpose::Liveness => Some(None),
        }
    }

    /// The round that a report which has just come belongs to; `None` if there was no order.
    pub(super) fn take_report(&self) -> Option<Round> {
        match self.unanswered.lock().reports.answer()? {
            Purpose::Round(round) => Some(round),
            Purpose::Liveness => None,
        }
    }

    /// The Dstore has said something.
    pub(super) fn note_sign_of_life(&self) {
        let mut life = self.life.lock();
        life.signs += 1;
        if life.waiting > 0 {
            self.lives_on.notify_all();
        }
    }

    /// How many messages it has said.
    pub(super) fn signs_of_life(&self) -> u64 {
        self.life.lock().signs
    }

    /// Its connection has ended, and it is a member no longer.
    pub(super) fn end(&self) {
        self.outbox.close();
        self.life.lock().has_ended = true;
        self.lives_on.notify_all();
    }

    /// Whether the Dstore still answers: asks it for its list, if it does not owe one already, and takes anything that it
    /// says for an answer. It is expected to hold so many `files`.
    ///
    /// Waits for `timeout`, and for another if it has an order to carry out: until that is done, it answers no LIST.
    pub(super) fn liveness(&self, files: usize, timeout: Duration) -> Liveness {
        let before = self.signs_of_life();
        let patience = {
            let mut unanswered = self.unanswered.lock();
            if !unanswered.lists.is_owed() {
                self.ask_for_list_to(&mut unanswered, Purpose::Liveness, files);
            }
            if unanswered.reports.is_owed() { timeout.saturating_mul(2) } else { timeout }
        };
        let deadline = Instant::now().checked_add(patience); // one that cannot be reached is none
        let mut life = self.life.lock();
        life.waiting += 1;
        let liveness = loop {
            if life.has_ended {
                break Liveness::Ended;
            }
            if life.signs > before {
                break Liveness::Answers;
            }
            let is_over = match deadline {
                None => {
                    self.lives_on.wait(&mut life);
                    false
                }
                Some(deadline) => self.lives_on.wait_until(&mut life, deadline).timed_out(),
            };
            if is_over && !life.has_ended && life.signs == before {
                break Liveness::Silent { signs: before };
            }
        };
        life.waiting -= 1;
        liveness
    }
}
