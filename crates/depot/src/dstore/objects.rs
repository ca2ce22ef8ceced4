//! A client's connection, or another Dstore's: objects come and go.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stevedore::complaint::complain;
use stevedore::socket::Wait;

use super::Shared;
use super::link::copy_report;
use crate::checksum::Checksum;
use crate::identity::{Epoch, Key};
use crate::pack::{Announced, BLOCK_BYTES, GetError, KeepError, MOST_BYTES, Purpose, PutError};
use crate::wire::message::{CopyReport, Failure, ObjectAnswer, ObjectRequest};
use crate::wire::{Connection, ReceiveError, Role, accept};

/// So many objects are checked for a request.
const MOST_CHECKED: usize = 1_000;

/// So many objects are put with one request, of so many bytes together: all of them are in memory before the first is stored.
pub(crate) const MOST_PUT: usize = 256;
pub(crate) const MOST_PUT_BYTES: u64 = 1 << 20;

/// A peer that sends nothing of what it has announced, or takes nothing, for so long has gone.
const STALL: Duration = Duration::from_secs(30);

/// So much of an object is read, verified and sent at a time.
const PIECE_BLOCKS: usize = 4;

/// If more than this is left of an object that is refused, it is not read: the connection is closed.
const MOST_SKIPPED: u64 = MOST_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Serves a connection until it ends.
pub(super) fn serve(shared: &Shared, stream: Arc<TcpStream>) {
    let Ok(mut connection) = Connection::new(stream) else { return }; // it has ended already
    let peer = connection.peer();
    let role = match accept(&mut connection, Role::Dstore, shared.cluster, &shared.secret) {
        Ok(role) => role,
        Err(error) => return complain(format_args!("{peer}: not let in: {error}")),
    };
    let Some(_counted) = shared.count_connection() else {
        let failure = Failure::Unavailable { what: "this Dstore has too many connections".into() };
        let _ = connection.send(&ObjectAnswer::Error { failure }); // it may have gone already
        return complain(format_args!("{peer}: too many connections"));
    };
    let result =
        connection.limit_stalls(STALL).map_err(ReceiveError::Io).and_then(|()| answer(shared, role, &mut connection));
    match result {
        Ok(()) | Err(ReceiveError::Ended) => {}
        Err(error) => complain(format_args!("{peer}: closed: {error}")),
    }
}

fn answer(shared: &Shared, role: Role, connection: &mut Connection) -> Result<(), ReceiveError> {
    let mut buffer = Vec::new();
    loop {
        let request = connection.receive(Wait::Forever);
        // A copy to another Dstore is no request that others should yield to.
        let _counted = matches!(role, Role::Client { .. }).then(|| shared.count_request());
        shared.traffic.requests.fetch_add(u64::from(request.is_ok()), Ordering::Relaxed);
        match request {
            Ok(ObjectRequest::Put { key, length, checksum }) => put(shared, connection, key, length, checksum)?,
            Ok(ObjectRequest::PutMany { objects }) => put_many(shared, connection, &mut buffer, &objects)?,
            Ok(ObjectRequest::Get { key, from, length }) => get(shared, connection, &mut buffer, key, from, length)?,
            Ok(ObjectRequest::Check { keys, .. }) if keys.len() > MOST_CHECKED => {
                let why = format!("at most {MOST_CHECKED} objects are checked at a time");
                connection.send(&ObjectAnswer::Error { failure: Failure::BadRequest { why } })?;
            }
            Ok(ObjectRequest::Check { deep, keys }) => {
                let copies = keys.into_iter().take_while(|_| !shared.is_stopping());
                let copies = copies.map(|key| check(shared, deep, key)).collect();
                connection.send(&ObjectAnswer::Checked { copies })?;
            }
            Ok(ObjectRequest::Locate { keys }) => {
                let places = keys.iter().map(|key| shared.disk.locate(key)).collect();
                connection.send(&ObjectAnswer::Located { places })?;
            }
            Ok(ObjectRequest::Backup { .. }) if role != Role::Controller => {
                let failure = Failure::NotPermitted { why: "only a Controller sends backups".into() };
                return Ok(connection.send(&ObjectAnswer::Error { failure })?); // its bytes are not read
            }
            Ok(ObjectRequest::Backup { epoch, length }) => keep_backup(shared, connection, epoch, length)?,
            // Content may follow the line, which must not be taken for lines.
            Err(ReceiveError::Invalid(error)) => {
                let failure = Failure::BadRequest { why: format!("this line is no request: {error}") };
                connection.send(&ObjectAnswer::Error { failure })?;
                return Err(ReceiveError::Invalid(error));
            }
            Err(error) => return Err(error),
        }
    }
}

/// What the Dstore has of an object; if `deep`, after it was read.
fn check(shared: &Shared, deep: bool, key: Key) -> Option<CopyReport> {
    let verified = if deep { shared.disk.verify(&key) } else { Ok(()) };
    let copy = copy_report(key, shared.disk.look(&key)?)?;
    // What cannot be read now is no good copy now.
    Some(CopyReport { is_damaged: copy.is_damaged || verified.is_err(), ..copy })
}

fn put(
    shared: &Shared,
    connection: &mut Connection,
    key: Key,
    length: u64,
    checksum: Checksum,
) -> Result<(), ReceiveError> {
    let mut content = connection.content(length, STALL);
    let result = if length == 0 {
        Err(Failure::BadRequest { why: "an object has at least one byte".into() })
    } else {
        match shared.disk.put(key, length, checksum, &mut content, Purpose::Put) {
            Ok(stored) if stored.was_there => Ok(ObjectAnswer::Have { position: stored.position }),
            Ok(stored) => Ok(ObjectAnswer::Stored { position: stored.position }),
            Err(PutError::Source(error)) => return Err(error.into()),
            Err(error) => Err(not_stored(error)),
        }
    };
    let left = content.left();
    shared.traffic.received_bytes.fetch_add(length - left, Ordering::Relaxed);
    // Said before the rest is read: a client that looks can stop sending.
    connection.send(&result.unwrap_or_else(|failure| ObjectAnswer::Error { failure }))?;
    if left > MOST_SKIPPED {
        return Err(ReceiveError::Ended);
    }
    Ok(connection.content(left, STALL).skip()?)
}

/// Why an object was not stored, though its bytes came.
fn not_stored(error: PutError) -> Failure {
    match error {
        PutError::Conflict => Failure::Conflict,
        PutError::Mismatch { .. } => Failure::Mismatch,
        PutError::Full => Failure::NoSpace,
        PutError::TooLarge => Failure::BadRequest { why: error.to_string() },
        PutError::Source(_) | PutError::Disk(_) => Failure::Unavailable { what: error.to_string() },
    }
}

fn put_many(
    shared: &Shared,
    connection: &mut Connection,
    buffer: &mut Vec<u8>,
    objects: &[Announced],
) -> Result<(), ReceiveError> {
    let lengths = || objects.iter().map(|object| object.length);
    let sum = lengths().fold(0, u64::saturating_add);
    if objects.len() > MOST_PUT || sum > MOST_PUT_BYTES || lengths().any(|length| length == 0) {
        let why = format!("at most {MOST_PUT} objects of 1 to {MOST_PUT_BYTES} bytes together are put at a time");
        connection.send(&ObjectAnswer::Error { failure: Failure::BadRequest { why } })?;
        return Err(ReceiveError::Ended); // the bytes that follow are not read
    }
    buffer.resize(sum as usize, 0);
    connection.content(sum, STALL).read_exact(buffer)?;
    shared.traffic.received_bytes.fetch_add(sum, Ordering::Relaxed);
    let answer = match shared.disk.put_many(objects, buffer, Purpose::Put) {
        Ok(position) => ObjectAnswer::Stored { position },
        Err(error) => ObjectAnswer::Error { failure: not_stored(error) },
    };
    buffer.clear();
    Ok(connection.send(&answer)?)
}

fn keep_backup(shared: &Shared, connection: &mut Connection, epoch: Epoch, length: u64) -> Result<(), ReceiveError> {
    let mut content = connection.content(length, STALL);
    let failure = match shared.disk.keep_backup(epoch, &mut content) {
        Ok(()) => return Ok(connection.send(&ObjectAnswer::Kept)?),
        Err(KeepError::Source(error)) => return Err(error.into()),
        Err(KeepError::Full) => Failure::NoSpace,
        Err(error @ KeepError::NotFollowed) => Failure::NotPermitted { why: error.to_string() },
        Err(KeepError::Damaged) => Failure::Mismatch,
        Err(KeepError::Disk(error)) => Failure::Unavailable { what: error.to_string() },
    };
    connection.send(&ObjectAnswer::Error { failure })?;
    Err(ReceiveError::Ended) // some of its bytes may not have been read
}

fn get(
    shared: &Shared,
    connection: &Connection,
    buffer: &mut Vec<u8>,
    key: Key,
    from: u64,
    length: u64,
) -> Result<(), ReceiveError> {
    let failed = |failure| Ok(connection.send(&ObjectAnswer::Error { failure })?);
    let failure = |error: GetError| match error {
        GetError::Missing => Failure::NotHere,
        GetError::Damaged => Failure::Damaged { what: format!("this copy of object {key} is damaged") },
        GetError::Io(error) => Failure::Unavailable { what: format!("object {key} cannot be read now: {error}") },
    };
    let mut object = match shared.disk.open_object(&key) {
        Ok(object) => object,
        Err(error) => return failed(failure(error)),
    };
    let end = from.saturating_add(length);
    let ends_well = end.is_multiple_of(BLOCK) && end <= object.length() || end == object.length();
    if !from.is_multiple_of(BLOCK) || length == 0 || !ends_well {
        let why = format!("a get is of whole blocks of {BLOCK} bytes, and the object has {} bytes", object.length());
        return failed(Failure::BadRequest { why });
    }
    // The first bytes go with the line in front of them: most objects are small.
    let mut lines = vec![ObjectAnswer::Object { length: object.length(), sums: object.block_sums().to_vec() }];
    let blocks = (from / BLOCK) as usize..end.div_ceil(BLOCK) as usize;
    for first in blocks.clone().step_by(PIECE_BLOCKS) {
        let result = object.read(first..(first + PIECE_BLOCKS).min(blocks.end), buffer);
        if !buffer.is_empty() {
            lines.push(ObjectAnswer::Data { length: buffer.len() as u64 });
            connection.send_all(&lines, buffer)?;
            lines.clear();
            shared.traffic.sent_bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        }
        if let Err(error) = result {
            lines.push(ObjectAnswer::Error { failure: failure(error) });
            return Ok(connection.send_all(&lines, &[])?);
        }
    }
    Ok(())
}
