//! What a connection's thread does, from the connection's first line to its end. (spec 2.4)

mod client;
mod dstore;

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use super::shared::Controller;
use crate::complaint::complain;
use crate::protocol::{Connection, Message};

use client::ClientSession;

/// Serves one connection until it closes, and says why it did if that was no ordinary end.
pub(super) fn serve(controller: &Arc<Controller>, stream: Arc<TcpStream>) {
    let Ok(mut connection) = Connection::new(stream) else { return }; // gone before it was looked at
    connection.limit_lines(controller.config.client_line_limit);
    // A client that is merely idle is never timed out; one whose machine is gone has gone. (spec 2.7)
    connection.outgoing().notice_death(controller.config.keepalive);
    let peer = connection.peer();
    if let Err(error) = serve_either(controller, connection) {
        complain(format_args!("{peer}: connection closed: {error}"));
    }
}

/// Serves a client, or a Dstore if the first message is a JOIN. (spec 2.4)
fn serve_either(controller: &Arc<Controller>, mut connection: Connection) -> io::Result<()> {
    while let Some(line) = connection.receive()? {
        match line {
            Ok(Message::Join { address }) => return dstore::serve(controller, connection, address),
            Ok(request) => return ClientSession::new(controller, connection)?.serve(request),
            Err(error) => connection.ignore(&error), // spec 2.6
        }
    }
    Ok(())
}
