//! What the Controller wants of a Dstore. (spec 4.4, 4.6)

use std::io::{self, ErrorKind};
use std::iter;
use std::sync::Arc;

use crossbeam_channel::{Sender, unbounded};

use super::Dstore;
use super::rebalancer::{self, Task};
use crate::protocol::{Connection, FileName, Message};

/// Starts the thread that reads from the Controller and the one that rebalances. `going` gets the reason when
/// the Controller has gone.
pub(super) fn start(dstore: &Arc<Dstore>, connection: Connection, going: Sender<io::Error>) -> io::Result<()> {
    let socket = dstore.threads.track(connection.outgoing().socket());
    let (tasks, given) = unbounded();
    let removals = match dstore.folder.is_synced() {
        true => Some(answer_together(dstore)?),
        false => None,
    };
    dstore.threads.spawn({
        let dstore = Arc::clone(dstore);
        move || rebalancer::run(&dstore, &given)
    })?;
    dstore.threads.spawn({
        let dstore = Arc::clone(dstore);
        move || {
            let ended = || io::Error::new(ErrorKind::UnexpectedEof, "it has closed the connection");
            let reason = read(&dstore, connection, &tasks, removals.as_ref()).err().unwrap_or_else(ended);
            // Room for one, and this is the only one.
            let _ = going.send(reason);
            drop((socket, tasks, removals));
        }
    })
}

/// Reads until the Controller closes. Removes are carried out at once; whatever else is asked, in order by another
/// thread, so that a long rebalance does not hold up a REMOVE.
fn read(
    dstore: &Dstore,
    mut connection: Connection,
    tasks: &Sender<Task>,
    removals: Option<&Sender<Message>>,
) -> io::Result<()> {
    while let Some(line) = connection.receive()? {
        let task = match line {
            Ok(Message::Remove { name }) => {
                match (remove(dstore, name), removals) {
                    (Some(answer), None) => dstore.tell_controller(&answer)?,
                    // The other thread ends after this one, or when the Controller cannot be told.
                    (Some(answer), Some(removals)) => drop(removals.send(answer)),
                    (None, _) => {} // the Controller sees to it at the next rebalance
                }
                continue;
            }
            Ok(Message::List { names }) if names.is_empty() => Task::List,
            Ok(Message::Rebalance { order }) => {
                dstore.folder.order_removal(&order.removes);
                Task::CarryOut(order)
            }
            Ok(_) => {
                connection.ignore(&"not for a Dstore");
                continue;
            }
            Err(error) => {
                connection.ignore(&error); // spec 2.6
                continue;
            }
        };
        // The other thread ends after this one.
        let _ = tasks.send(task);
    }
    Ok(())
}

/// What to tell the Controller.
fn remove(dstore: &Dstore, name: FileName) -> Option<Message> {
    match dstore.folder.remove(&name) {
        Ok(true) => Some(Message::RemoveAck { name }),
        Ok(false) => Some(Message::FileDoesNotExist { name: Some(name) }),
        Err(error) => {
            log::error!("cannot remove {name}: {error}");
            None
        }
    }
}

/// Starts a thread that tells the Controller of removes once they are on the disk: those that come during a sync share
/// the next one, and nothing else waits for it. It ends when the channel does.
fn answer_together(dstore: &Arc<Dstore>) -> io::Result<Sender<Message>> {
    let (removals, answers) = unbounded();
    let dstore_of_thread = Arc::clone(dstore);
    dstore.threads.spawn(move || {
        let dstore = dstore_of_thread;
        for first in &answers {
            let waiting: Vec<_> = iter::once(first).chain(answers.try_iter()).collect();
            let told = match dstore.folder.sync() {
                Ok(()) => waiting.iter().try_for_each(|answer| dstore.tell_controller(answer)),
                Err(error) => {
                    log::error!("{} removes are not acknowledged: {error}", waiting.len());
                    Ok(())
                }
            };
            if told.is_err() {
                return; // the reader sees the end, and says so
            }
        }
    })?;
    Ok(removals)
}
