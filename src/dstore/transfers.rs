//! Transfers with clients, which store and load, and with Dstores, which send copies.
//! (spec 2.5, 4.2, 4.3, 4.6.5, 8.2)

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::folder::Incoming;
use super::replacement::Verdict;
use super::{Defect, Dstore};
use crate::complaint::complain;
use crate::protocol::content::{CopyError, copy};
use crate::protocol::{Connection, FileName, Message};

/// How long a connection may stay without a transfer, and how long a client may take none of the content that it
/// asked for. Not the protocol's timeout, which bounds only what is due: this bounds what a peer can hoard.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// Serves one connection until it closes.
pub(super) fn serve(dstore: &Dstore, stream: Arc<TcpStream>) {
    let Ok(mut connection) = Connection::new(stream) else { return }; // gone before it was looked at
    let peer = connection.peer();
    match serve_transfers(dstore, &mut connection) {
        Ok(()) => {}
        Err(error) => complain(format_args!("{peer}: connection closed: {error}")),
    }
}

fn serve_transfers(dstore: &Dstore, connection: &mut Connection) -> io::Result<()> {
    connection.outgoing().limit_stalls(IDLE_LIMIT)?;
    let mut is_first = true;
    let mut keeps_alive = false;
    loop {
        let line = match connection.receive_within(IDLE_LIMIT) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(()),
            Err(error) => return Err(error),
        };
        match line {
            Ok(Message::KeepAlive) if is_first => {
                keeps_alive = true;
                is_first = false;
                continue;
            }
            Ok(Message::SendAhead) if keeps_alive => {
                connection.send(&Message::SendAhead)?;
                continue;
            }
            Ok(Message::Store { name, size }) => store(dstore, connection, &name, size)?,
            Ok(Message::LoadData { name }) => {
                if !load(dstore, connection, &name)? {
                    return Ok(()); // spec 4.3
                }
            }
            Ok(Message::RebalanceStore { name, size }) => {
                // Any orderly end would say that the copy is stored. (spec 7.18)
                connection.end_in_reset(true)?;
                if let Err(error) = rebalance_store(dstore, connection, &name, size) {
                    complain(format_args!("{}: REBALANCE_STORE {name}: not stored: {error}", connection.peer()));
                    return Ok(());
                }
                connection.end_in_reset(false)?;
            }
            unknown => {
                match unknown {
                    Ok(_) => connection.ignore(&"not a transfer"),
                    Err(error) => connection.ignore(&error),
                }
                is_first = false;
                continue; // spec 2.6
            }
        }
        if !keeps_alive {
            return Ok(());
        }
        is_first = false;
    }
}

/// A client's new file. One that is there already is replaced only if the Controller does not say that it is complete.
/// (spec 4.2, 8.4)
fn store(dstore: &Dstore, connection: &mut Connection, name: &FileName, size: u64) -> io::Result<()> {
    if dstore.folder.contains(name)
        && let Verdict::Keep { size } = dstore.replacements.ask(name)
    {
        size.inspect(|&size| dstore.folder.expect_size(name, size));
        return Err(io::Error::other(format!("STORE {name}: refused, as the Controller has that file")));
    }
    if receive(connection, size, dstore.timeout, dstore.folder.receive(name)?)? {
        dstore.tell_controller(&Message::StoreAck { name: name.clone() })?;
    } else {
        complain(format_args!("{}: STORE {name}: overtaken by a newer message about it; not kept", connection.peer()));
    }
    Ok(())
}

/// Another Dstore's copy. Only the sender learns of it, by the way the connection ends. It never replaces a file: no
/// rebalance sends one to a Dstore that has listed it. (spec 4.6.5, 7.18, 7.30)
fn rebalance_store(dstore: &Dstore, connection: &mut Connection, name: &FileName, size: u64) -> io::Result<()> {
    match receive(connection, size, dstore.timeout, dstore.folder.receive_missing(name)?)? {
        true => Ok(()),
        false => Err(io::Error::other("overtaken by a newer message about it")),
    }
}

/// Takes in a file; false if it was complete but overtaken. On any error nothing of it stays. (spec 7.11)
///
/// `incoming` is made before the ACK: a Dstore that has no room for a file does not ask for it.
fn receive(connection: &mut Connection, size: u64, timeout: Duration, mut incoming: Incoming<'_>) -> io::Result<bool> {
    connection.send(&Message::Ack)?;
    // Nothing is waited for where nothing is to come. (spec 6.4)
    let mut content = connection.content(size, timeout);
    copy(size, &mut content, &mut |bytes| incoming.write_all(bytes))?;
    incoming.keep()
}

/// Sends a file's content; false if it is not there, or not what was stored: all that is sent of that lacks its end, so
/// that the client takes it for what it is and asks elsewhere. (spec 4.3)
fn load(dstore: &Dstore, connection: &Connection, name: &FileName) -> io::Result<bool> {
    let unavailable = |defect: Defect| {
        complain(format_args!("{}: LOAD_DATA {name}: {defect}", connection.peer()));
        Ok(false)
    };
    let mut file = match dstore.folder.open(name) {
        Ok(file) => file,
        Err(defect) => return unavailable(defect),
    };
    match file.read(&mut |bytes| connection.send_content(bytes)) {
        Ok(()) => Ok(true),
        Err(CopyError::Sink(error)) => Err(error),
        Err(CopyError::Source(defect)) => {
            // The client need not wait until this is sure.
            connection.shut_down();
            dstore.folder.examine(&file);
            unavailable(defect)
        }
    }
}
