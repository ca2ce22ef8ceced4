//! One Dstore's connection, from its JOIN on: a thread that reads, and one that writes. (spec 2.4, 4.1)

use std::io;
use std::sync::Arc;

use crate::complaint::complain;
use crate::controller::link::{DstoreLink, Outbox};
use crate::controller::shared::Controller;
use crate::index::DstoreId;
use crate::protocol::connection::MESSAGE_LOG;
use crate::protocol::{Address, Connection, Outgoing, ParseError};

/// Serves a Dstore until its connection drops.
pub(super) fn serve(controller: &Arc<Controller>, mut connection: Connection, address: Address) -> io::Result<()> {
    let outgoing = connection.outgoing().clone();
    let outbox = Arc::new(Outbox::new());
    let hang_up = {
        let outgoing = outgoing.clone();
        move |reason: &str| {
            complain(format_args!("{}: disconnected: {reason}", outgoing.peer()));
            outgoing.shut_down();
        }
    };
    connection.extend_lines(&controller.allowance);
    let link = Arc::new(DstoreLink::new(&outbox, hang_up, connection.line_limit().clone()));
    let (dstore, pass) = controller.admit(&address, &link)?;
    let (local, remote) = (outgoing.local_port(), outgoing.peer().port());
    log::info!(target: MESSAGE_LOG, "[New Dstore {address} {local}<-{remote}]"); // spec 5.4
    drop(pass);
    let writer = controller.threads.spawn(move || write(&outgoing, &outbox));
    let outcome = writer.and_then(|()| read(controller, &mut connection, dstore, &link));
    controller.leave(dstore, &link);
    connection.shut_down();
    log::info!("Dstore {address} has left");
    outcome
}

/// Writes what is put into the outbox. Ends with the outbox, or with the connection.
fn write(outgoing: &Outgoing, outbox: &Outbox) {
    while let Some(message) = outbox.next() {
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
                let share = connection.take_share();
                if !controller.hear(dstore, link, message, share) {
                    connection.ignore(&"not asked for"); // spec 2.6, 7.6
                }
            }
            Err(error) => {
                // Only a list is as long. It answers its question, but the Dstore takes no part in the rebalance. (spec 7.21)
                if matches!(error, ParseError::TooLong { .. } | ParseError::TooManyWords { .. }) {
                    link.take_list();
                }
                connection.ignore(&error); // spec 2.6
            }
        }
    }
    Ok(())
}
