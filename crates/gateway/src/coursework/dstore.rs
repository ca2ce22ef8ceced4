//! Transfers on the ports that pass for Dstores. (spec 4.2, 4.3, 8.2, 8.3)

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use depot::checksum::Hasher;
use depot::client::{Error, PutOptions, Source};
use depot::namespace::change::Condition;
use hyper::StatusCode;
use stevedore::complaint::complain;
use stevedore::protocol::{Connection, FileName, Message};

use super::stores::{Part, Store};
use super::{Shared, path};

/// How long a connection may stay without a transfer.
pub(super) const IDLE: Duration = Duration::from_secs(300);

/// How long content may stall, in either direction.
const STALL: Duration = Duration::from_secs(30);

/// Serves one connection until it closes. `number` says which of the Dstores it was made to.
pub(super) fn serve(shared: &Shared, number: usize, stream: Arc<TcpStream>) {
    let Some(_seat) = shared.transfers.take() else { return };
    let Ok(mut connection) = Connection::new(stream) else { return };
    let peer = connection.peer();
    if let Err(error) = serve_transfers(shared, number, &mut connection) {
        complain(format_args!("{peer}: connection closed: {error}"));
    }
}

fn serve_transfers(shared: &Shared, number: usize, connection: &mut Connection) -> io::Result<()> {
    connection.outgoing().limit_stalls(STALL)?;
    let (mut is_first, mut keeps_alive) = (true, false);
    loop {
        let line = match connection.receive_within(IDLE) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(()),
            Err(error) => return Err(error),
        };
        let was_first = std::mem::replace(&mut is_first, false);
        match line {
            Ok(Message::KeepAlive) if was_first => {
                keeps_alive = true;
                continue;
            }
            Ok(Message::SendAhead) if keeps_alive => {
                connection.send(&Message::SendAhead)?;
                continue;
            }
            Ok(Message::Store { name, size }) => {
                let came = Instant::now();
                let stored = store(shared, number, connection, &name, size);
                // A copy of a file, and no request of its own: the Controller's STORE is that.
                shared.note(connection.peer(), ("STORE_COPY", Some(&name)), status(&stored), 0, came.elapsed());
                stored?;
            }
            Ok(Message::LoadData { name }) => {
                let came = Instant::now();
                let sent = load(shared, connection, &name);
                let bytes = sent.as_ref().map_or(0, |bytes| *bytes);
                shared.note(connection.peer(), ("LOAD_DATA", Some(&name)), status(&sent), bytes, came.elapsed());
                sent?;
            }
            Ok(_) => {
                connection.ignore(&"not a transfer");
                continue; // spec 2.6
            }
            Err(error) => {
                connection.ignore(&error);
                continue;
            }
        }
        if !keeps_alive {
            return Ok(());
        }
    }
}

/// What HTTP would have said of a transfer.
fn status<T>(done: &io::Result<T>) -> StatusCode {
    if done.is_ok() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
}

/// Takes one copy of a new file.
fn store(shared: &Shared, number: usize, connection: &mut Connection, name: &FileName, size: u64) -> io::Result<()> {
    let Some((store, part)) = shared.stores.receive(name, size, number) else {
        return Err(io::Error::other(format!("STORE {name} {size}: refused, as no client has asked for it")));
    };
    connection.send(&Message::Ack)?;
    let content = connection.content(size, STALL);
    let mut copy = Copy { content, hasher: Hasher::default(), has_ended: false, store: &store };
    let taken = match part {
        Part::Put => {
            let options = PutOptions { condition: Condition::Absent, ..PutOptions::default() };
            let put = shared.files.put(&path(name), Source::Once(&mut Whole(&mut copy)), &options);
            put.map(drop).map_err(|error| match error {
                Error::Source(error) => error,
                error => io::Error::other(error.to_string()),
            })
        }
        Part::Compare => io::copy(&mut copy, &mut io::sink()).map(drop),
    };
    match (taken, part) {
        (Ok(()), Part::Put) => shared.stores.complete(&store),
        (Ok(()), Part::Compare) => {}
        (Err(error), _) => {
            shared.stores.abandon(&store);
            return Err(io::Error::new(error.kind(), format!("STORE {name}: {error}")));
        }
    }
    Ok(())
}

/// A copy that is read. Once it is, the store has come so far.
struct Copy<'a, C: Read> {
    content: C,
    hasher: Hasher,
    has_ended: bool,
    store: &'a Store,
}

impl<C: Read> Read for Copy<'_, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.content.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        if !self.store.hear() {
            return Err(io::Error::other("the client has given it up"));
        }
        if read == 0 && !std::mem::replace(&mut self.has_ended, true) {
            self.store.add_copy(self.hasher.checksum());
        }
        Ok(read)
    }
}

/// The copy that is put. It is whole once the others have come, too, and are the same.
struct Whole<'a, 'b, C: Read>(&'a mut Copy<'b, C>);

impl<C: Read> Read for Whole<'_, '_, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        if read == 0 && !buffer.is_empty() && !self.0.store.wait_for_copies() {
            return Err(io::Error::other("the copies did not all come, or are not the same"));
        }
        Ok(read)
    }
}

/// Sends a file's content; how much that was. What goes wrong ends the connection: the client then asks elsewhere. (spec 4.3)
fn load(shared: &Shared, connection: &Connection, name: &FileName) -> io::Result<u64> {
    let failed = |error: Error| io::Error::other(format!("LOAD_DATA {name}: {error}"));
    let mut content = shared.files.get(&path(name), Condition::Any).map_err(failed)?;
    let size = content.size();
    if !shared.offers.take(name, size) {
        return Err(io::Error::other(format!("LOAD_DATA {name}: it was replaced since a client was told its size")));
    }
    content.copy_to(0..size, &mut Sink(connection)).map_err(failed)?;
    Ok(size)
}

struct Sink<'a>(&'a Connection);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_content(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
