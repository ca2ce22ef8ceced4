//! The Controller's connections to the Dstores that have joined. (spec 2.4, 4.1)

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use super::Controller;
use super::coordinator::{Event, Round};
use super::gate::{Pass, Request, Shut};
use crate::complaint::complain;
use crate::index::DstoreId;
use crate::protocol::connection::{LineLimit, MESSAGE_LOG};
use crate::protocol::{Address, Connection, Message, Outgoing};
use crate::sync::{Mutex, Receiver, Sender, unbounded};

/// A Dstore that leaves this many messages unread is taken for dead and disconnected.
const MOST_UNSENT: usize = 100_000;

/// The links to all members.
#[derive(Default)]
pub(super) struct Links(Mutex<BTreeMap<DstoreId, Arc<DstoreLink>>>);

impl Links {
    /// Sends to one member, or to nobody if it has left.
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
        self.0.lock().clear();
    }

    fn insert(&self, dstore: DstoreId, link: Arc<DstoreLink>) {
        self.0.lock().insert(dstore, link);
    }

    fn remove(&self, dstore: DstoreId) -> Option<Arc<DstoreLink>> {
        self.0.lock().remove(&dstore)
    }
}

/// The sending half of a joined Dstore. Any thread may send; only the writer touches the socket.
pub(super) struct DstoreLink {
    /// Dropping it ends the writer.
    outbox: Sender<Message>,
    /// Ends the connection, for the reason given; the reader sees the end.
    hang_up: Box<dyn Fn(&str) + Send + Sync>,
    unanswered: Mutex<Unanswered>,
    /// Only a list that was asked for may be long.
    line_limit: LineLimit,
    line_limits: LineLimits,
}

/// The longest line in bytes that a Dstore may say.
struct LineLimits {
    usual: usize,
    while_a_list_is_owed: usize,
}

/// What a Dstore still owes. LIST and REBALANCE_COMPLETE do not say what they answer: it is the oldest question, so that
/// a late answer is never taken for a newer one's. (spec 7.21)
#[derive(Default)]
struct Unanswered {
    lists: Questions,
    reports: Questions,
}

/// The rounds of the questions of one kind that are not answered yet, oldest first.
///
/// A question that a Dstore has swallowed (an order that it could not carry out it never reports, spec 7.17) must not
/// make all later answers look late for ever. After some in a row that were, what is still owed is written off.
#[derive(Default)]
struct Questions {
    rounds: VecDeque<Round>,
    /// How many answers may still come, those to what has been written off included.
    possible: u32,
    late_in_a_row: u32,
}

impl Questions {
    const MOST_LATE: u32 = 3;

    fn ask(&mut self, round: Round) {
        self.rounds.push_back(round);
        self.possible += 1;
    }

    /// The round that an answer which has just come belongs to; `None` if nothing was asked.
    fn answer(&mut self) -> Option<Round> {
        self.possible = self.possible.saturating_sub(1);
        let round = self.rounds.pop_front()?;
        self.late_in_a_row = if self.rounds.is_empty() { 0 } else { self.late_in_a_row + 1 };
        if self.late_in_a_row == Self::MOST_LATE {
            self.rounds.clear();
            self.late_in_a_row = 0;
        }
        Some(round)
    }
}

impl DstoreLink {
    /// What is put into `outbox` gets to the Dstore, until `hang_up` is called. While it owes a list it may say a line
    /// of `longest_list` bytes; `line_limit` says what it may usually.
    pub(super) fn new(
        outbox: Sender<Message>,
        hang_up: impl Fn(&str) + Send + Sync + 'static,
        line_limit: LineLimit,
        longest_list: usize,
    ) -> Self {
        let line_limits = LineLimits { usual: line_limit.get(), while_a_list_is_owed: longest_list };
        Self { outbox, hang_up: Box::new(hang_up), unanswered: Mutex::default(), line_limit, line_limits }
    }

    pub(super) fn send(&self, message: Message) {
        if self.outbox.len() >= MOST_UNSENT {
            (self.hang_up)("it reads nothing that it is sent");
        }
        // With the writer gone the connection has ended, and the reader is about to say so.
        self.outbox.send(message);
    }

    /// Asks for the list of files, for this round.
    pub(super) fn ask_for_list(&self, round: Round) {
        let mut unanswered = self.unanswered.lock();
        unanswered.lists.ask(round);
        self.line_limit.set(self.line_limits.while_a_list_is_owed);
        drop(unanswered);
        self.send(Message::List { names: Vec::new() });
    }

    /// Gives an order, to be reported done in this round.
    pub(super) fn order(&self, round: Round, order: crate::protocol::Order) {
        self.unanswered.lock().reports.ask(round);
        self.send(Message::Rebalance { order });
    }

    /// The round that a list which has just come belongs to.
    ///
    /// A report that is still missing when a list of the round after next comes is written off as well: rounds without
    /// orders give it time.
    fn take_list(&self) -> Option<Round> {
        let mut unanswered = self.unanswered.lock();
        let round = unanswered.lists.answer();
        if unanswered.lists.possible == 0 {
            self.line_limit.set(self.line_limits.usual);
        }
        let round = round?;
        unanswered.reports.rounds.retain(|&owed| owed + 2 > round);
        Some(round)
    }

    fn take_report(&self) -> Option<Round> {
        self.unanswered.lock().reports.answer()
    }
}

/// Serves a Dstore from its JOIN until its connection drops.
pub(super) fn serve(controller: &Arc<Controller>, mut connection: Connection, address: Address) -> io::Result<()> {
    let outgoing = connection.outgoing().clone();
    let (outbox, messages) = unbounded();
    controller.threads.spawn({
        let outgoing = outgoing.clone();
        move || write(&outgoing, &messages)
    })?;
    let hang_up = move |reason: &str| {
        complain(format_args!("{}: disconnected: {reason}", outgoing.peer()));
        outgoing.shut_down();
    };
    let link = DstoreLink::new(outbox, hang_up, connection.line_limit().clone(), controller.config.dstore_line_limit);
    let link = Arc::new(link);
    let (dstore, pass) = controller.admit(&address, &link)?;
    let (local, remote) = (connection.outgoing().local_port(), connection.peer().port());
    log::info!(target: MESSAGE_LOG, "[New Dstore {address} {local}<-{remote}]"); // spec 5.4
    drop(pass);
    let outcome = read(controller, &mut connection, dstore, &link);
    controller.leave(dstore);
    connection.shut_down();
    log::info!("Dstore {address} has left");
    outcome
}

/// Writes what is put into the outbox. Ends with the outbox, or with the connection.
fn write(outgoing: &Outgoing, messages: &Receiver<Message>) {
    while let Some(message) = messages.recv() {
        if outgoing.send(&message).is_err() {
            return outgoing.shut_down(); // the reader sees the end, and says why
        }
    }
}

/// Reads a Dstore's reports until its connection drops.
fn read(controller: &Controller, connection: &mut Connection, dstore: DstoreId, link: &DstoreLink) -> io::Result<()> {
    while let Some(line) = connection.receive()? {
        match line {
            Ok(message) => {
                if !controller.hear(dstore, link, message) {
                    connection.ignore(&"not asked for"); // spec 2.6, 7.6
                }
            }
            Err(error) => connection.ignore(&error), // spec 2.6
        }
    }
    Ok(())
}

impl Controller {
    /// A Dstore becomes a member; an older one of the same address cannot be there any more. Joins wait for a rebalance
    /// that is running, like any change. (spec 4.1, 4.6, 7.7)
    pub(super) fn admit(
        &self,
        address: &Address,
        link: &Arc<DstoreLink>,
    ) -> Result<(DstoreId, Option<Pass<'_>>), Shut> {
        self.gate.enter(Request::Change, || self.join(address, link))
    }

    fn join(&self, address: &Address, link: &Arc<DstoreLink>) -> DstoreId {
        let mut state = self.state.lock();
        let older = state.index.member_at(address).and_then(|older| {
            state.leave(older);
            self.links.remove(older)
        });
        let dstore = state.index.join(address.clone());
        state.is_unsettled = true;
        self.links.insert(dstore, Arc::clone(link));
        self.changed.notify_all();
        drop(state);
        if let Some(older) = older {
            (older.hang_up)(&format!("another Dstore joins with port {address}"));
        }
        self.tell_coordinator(Event::Joined);
        dstore
    }

    /// Takes in what a member says; false if it was not asked for.
    pub(super) fn hear(&self, dstore: DstoreId, link: &DstoreLink, message: Message) -> bool {
        let event = match message {
            Message::StoreAck { name } => {
                self.state.lock().acknowledge_store(&name, dstore);
                return true;
            }
            Message::RemoveAck { name } | Message::FileDoesNotExist { name: Some(name) } => {
                self.state.lock().acknowledge_remove(&name, dstore);
                return true;
            }
            Message::List { names } => link.take_list().map(|round| Event::Listed { dstore, round, names }),
            Message::RebalanceComplete => link.take_report().map(|round| Event::Reported { dstore, round }),
            _ => None,
        };
        let Some(event) = event else { return false };
        self.tell_coordinator(event);
        true
    }

    /// A Dstore's connection has ended: it is a member no longer, if it still was one. (spec 4.1)
    pub(super) fn leave(&self, dstore: DstoreId) {
        let mut state = self.state.lock();
        state.leave(dstore);
        self.links.remove(dstore);
        self.changed.notify_all();
        drop(state);
        self.tell_coordinator(Event::Left { dstore });
    }

    fn tell_coordinator(&self, event: Event) {
        // It has ended only when all of the Controller is about to.
        self.events.send(event);
    }
}
