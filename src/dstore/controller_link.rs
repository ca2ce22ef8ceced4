//! What the Controller wants of a Dstore. (spec 4.4, 4.6)

use std::io::{self, ErrorKind};
use std::sync::Arc;

use crossbeam_channel::{Sender, unbounded};

use super::Dstore;
use super::rebalancer::{self, Task};
use crate::protocol::{Connection, FileName, Message};

/// Starts the thread that reads from the Controller and the one that rebalances. `going` gets the reason when
/// the Controller has gone.
pub(super) fn start(dstore: &Arc<Dstore>, connection: Connection, going: Sender<io::Error>) -> io::Result<()> {
    let socket = dstore.crew.adopt(connection.outgoing().socket());
    let (tasks, given) = unbounded();
    dstore.crew.run({
        let dstore = Arc::clone(dstore);
        move || rebalancer::run(&dstore, &given)
    })?;
    dstore.crew.run({
        let dstore = Arc::clone(dstore);
        move || {
            let ended = || io::Error::new(ErrorKind::UnexpectedEof, "it has closed the connection");
            let reason = read(&dstore, connection, &tasks).err().unwrap_or_else(ended);
            // Room for one, and this is the only one.
            let _ = going.send(reason);
            drop((socket, tasks));
        }
    })
}

/// Reads until the Controller closes. Removes are carried out at once; whatever else is asked, in order by another
/// thread, so that a long rebalance does not hold up a REMOVE.
fn read(dstore: &Dstore, mut connection: Connection, tasks: &Sender<Task>) -> io::Result<()> {
    while let Some(line) = connection.receive()? {
        let task = match line {
            Ok(Message::Remove { name }) => {
                remove(dstore, name)?;
                continue;
            }
            Ok(Message::List { names }) if names.is_empty() => Task::List,
            Ok(Message::Rebalance { order }) => {
                dstore.folder.condemn(&order.removes);
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

fn remove(dstore: &Dstore, name: FileName) -> io::Result<()> {
    match dstore.folder.remove(&name) {
        Ok(true) => dstore.tell_controller(&Message::RemoveAck { name }),
        Ok(false) => dstore.tell_controller(&Message::FileDoesNotExist { name: Some(name) }),
        Err(error) => {
            log::error!("cannot remove {name}: {error}");
            Ok(()) // the Controller sees to it at the next rebalance
        }
    }
}
