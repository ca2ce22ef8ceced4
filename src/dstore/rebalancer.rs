//! A Dstore's part in a rebalance: says what it has, sends copies, removes what is to go. (spec 4.6)

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::thread;

use crossbeam_channel::{Receiver, unbounded};

use super::Dstore;
use crate::protocol::content::CopyError;
use crate::protocol::{Address, Connection, FileName, Message, Order};
use crate::sync::Mutex;

/// How many copies are sent at the same time.
const SENDERS: usize = 4;

/// What the Controller asks of a Dstore, to be done in order.
///
/// A list says what is there *between* orders. Given during one, it could show a copy that the order is about to
/// remove, and the next plan would count on it.
pub(super) enum Task {
    /// LIST.
    List,
    /// REBALANCE.
    CarryOut(Order),
}

/// Ends when the channel does, or when the Controller cannot be told.
pub(super) fn run(dstore: &Dstore, tasks: &Receiver<Task>) {
    for task in tasks {
        let answer = match task {
            // What is listed is counted on.
            Task::List => {
                let synced = dstore.folder.sync();
                synced.and_then(|()| dstore.folder.list()).map(|names| Message::List { names })
            }
            Task::CarryOut(order) => carry_out(dstore, &order).map(|()| Message::RebalanceComplete),
        };
        match answer {
            Ok(answer) => {
                if dstore.tell_controller(&answer).is_err() {
                    return; // the reader sees the end, and says so
                }
            }
            // No report: the Controller finds out by the next LIST what was done. (spec 4.6.6, 7.17)
            Err(error) => log::error!("rebalance: {error}"),
        }
    }
}

/// Fails if anything of the order could not be done; the rest is.
fn carry_out(dstore: &Dstore, order: &Order) -> io::Result<()> {
    let unsent = send_copies(dstore, order);
    let mut undone = unsent.len();
    for name in &order.removes {
        // A copy that could not be sent may be the last one. (spec 7.17)
        if unsent.contains(name) {
            dstore.folder.cancel_removal(name);
        } else if let Err(error) = dstore.folder.remove_as_ordered(name) {
            log::error!("rebalance: cannot remove {name}: {error}");
            undone += 1;
        }
    }
    dstore.folder.sync()?;
    if undone == 0 { Ok(()) } else { Err(io::Error::other(format!("{undone} parts of the order could not be done"))) }
}

/// Sends every copy of the order, a few at a time; returns the files of which one failed.
fn send_copies<'a>(dstore: &Dstore, order: &'a Order) -> BTreeSet<&'a FileName> {
    let (jobs, waiting) = unbounded::<(&FileName, &Address)>();
    for transfer in &order.sends {
        for address in &transfer.to {
            jobs.send((&transfer.name, address)).expect("the receiving end is right here");
        }
    }
    drop(jobs);
    let failed = Mutex::new(BTreeSet::new());
    // One that hangs costs the timeout once, not once for every copy: until the order is done no LIST is answered.
    let hanging = Mutex::new(BTreeSet::new());
    let work = || {
        for (name, address) in &waiting {
            let is_hanging = hanging.lock().contains(address);
            let sent = if is_hanging { Err(ErrorKind::TimedOut.into()) } else { send_copy(dstore, name, address) };
            if let Err(error) = sent {
                if error.kind() == ErrorKind::TimedOut {
                    hanging.lock().insert(address);
                }
                log::warn!("rebalance: {name} could not be sent to {address}: {error}");
                failed.lock().insert(name);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..SENDERS.min(waiting.len()) {
            // This thread works as well: with no helper it only takes longer.
            if thread::Builder::new().name("send".into()).spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    std::mem::take(&mut *failed.lock())
}

/// Sends one copy; succeeds only once the receiver has closed in order, which says that it is stored. One that turns out
/// to be bad is never sent to its end, and is as one that is missing. (spec 7.17, 7.18)
fn send_copy(dstore: &Dstore, name: &FileName, address: &Address) -> io::Result<()> {
    let mut file = dstore.folder.open(name)?;
    let track = |socket: &_| dstore.threads.track(socket);
    let (mut connection, tracked) = Connection::connect_announced(address.socket(), dstore.timeout, track)?;
    connection.send(&Message::RebalanceStore { name: name.clone(), size: file.size() })?;
    match connection.receive_within(dstore.timeout)? {
        Some(Ok(Message::Ack)) => {}
        Some(_) => return Err(io::Error::new(ErrorKind::InvalidData, "expected ACK")),
        None => return Err(ErrorKind::UnexpectedEof.into()),
    }
    match file.read(&mut |bytes| connection.send_content(bytes)) {
        Ok(()) => {}
        Err(CopyError::Sink(error)) => return Err(error),
        Err(CopyError::Source(defect)) => {
            // Not all of it was sent, and the receiver is not to take that for an end, nor to wait for one.
            connection.reset();
            drop(tracked);
            dstore.folder.examine(&file);
            return Err(defect.into());
        }
    }
    connection.finish_sending()?;
    connection.wait_for_end(dstore.timeout)
}
