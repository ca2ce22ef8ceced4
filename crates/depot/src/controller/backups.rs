//! Backups of the metadata: for clients that ask, and for the Dstores now and then. (depot 4.9)
//!
//! A backup is the newest snapshot, made anew if something has changed since. It is sent as a file, so that a slow reader
//! holds up nothing: neither the next snapshot nor any change.
//!
//! Every Dstore keeps the last two that it was sent. A store whose Controller's disk is lost comes back from them. A backup goes
//! out each hour if something has changed, to Dstores that join later as they come, and at a clean end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use stevedore::server::{ThreadGroup, Tracked};
use stevedore::socket::Wait;

use super::Shared;
use crate::identity::{DstoreId, Epoch};
use crate::log::Backup;
use crate::wire::message::{Answer, Failure, ObjectAnswer, ObjectRequest};
use crate::wire::{Access, Address, Connection, ReceiveError, Role, connect};

/// So much is read and sent at a time.
const PIECE: usize = 256 << 10;

/// After its start a Controller ships the first backup so soon: what changed before is in none.
const FIRST: Duration = Duration::from_secs(60);

/// A Dstore that takes nothing, or answers nothing, for so long is tried again with the next backup.
const PATIENCE: Duration = Duration::from_secs(30);

/// The last backup may take so long, half of it to be made: a process that is asked to end has two seconds for everything.
const LAST: Duration = Duration::from_secs(1);

/// So often it is looked for Dstores that have come.
const LOOK: Duration = Duration::from_secs(1);

/// Sends a client a backup that has all that was acknowledged before it asked.
pub(super) fn send(shared: &Shared, connection: &Connection) -> Result<(), ReceiveError> {
    let made = shared.wait_until_followed().and_then(|()| {
        shared.replica.read(|_| ()).map_err(|error| shared.failed(error))?; // it is to have all that was acknowledged
        let unavailable = |error| Failure::Unavailable { what: format!("no backup can be made: {error}") };
        shared.replica.backup(None).map_err(unavailable)
    });
    let backup = match made {
        Ok(backup) => backup,
        Err(failure) => return Ok(connection.send(&Answer::Error { failure })?),
    };
    let Backup { sequence, length, .. } = backup;
    let keep_removed_ms = shared.state.lock().healing.keep_removed().as_millis() as u64;
    connection.send(&Answer::Backup { sequence, length, keep_removed_ms })?;
    Ok(read(&backup, |piece| connection.send_content(piece))?)
}

/// Reads a backup to its end, piece by piece.
fn read(backup: &Backup, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; PIECE.min(backup.length as usize)];
    let mut at = 0;
    while at < backup.length {
        let piece = &mut buffer[..PIECE.min((backup.length - at) as usize)];
        backup.file.read_at(piece, at)?;
        take(piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// What Dstores were sent.
#[derive(Default)]
pub(super) struct Shipping {
    newest: Option<Backup>,
    /// Dstores that were sent it, each with the connection that it was there with then.
    sent: BTreeMap<DstoreId, u64>,
}

/// The last backup that a Dstore has taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shipped {
    /// When it did; before the first one, when the Controller was started.
    at: Instant,
    /// The last change that it has.
    sequence: u64,
}

impl Shipped {
    /// None yet.
    pub(super) fn none() -> Self {
        Self { at: Instant::now(), sequence: 0 }
    }

    /// A backup is due, and nothing has changed since the last one: it is as good as new.
    fn nothing_to_ship(&mut self, last: u64) {
        if self.sequence >= last {
            self.at = Instant::now();
        }
    }

    /// Since when changes up to `sequence` should be in a backup and are not, if that is longer than it should be.
    pub(super) fn overdue(&self, sequence: u64, period: Duration) -> Option<Duration> {
        let since = self.at.elapsed();
        (sequence > self.sequence && since > 2 * period).then_some(since)
    }
}

/// Sends backups to Dstores until the Controller stops.
pub(super) fn keep_shipping(shared: &Shared, threads: &Arc<ThreadGroup>) {
    let mut due = Instant::now() + FIRST.min(shared.backup_period);
    loop {
        let next = Instant::now() + LOOK.min(shared.backup_period);
        let mut times = shared.news.times();
        while !shared.is_stopping() && shared.news.wait_beyond(times, next) {
            times = shared.news.times();
        }
        if shared.is_stopping() {
            return;
        }
        let is_due = Instant::now() >= due;
        if is_due {
            due = Instant::now() + shared.backup_period;
        }
        // As long again as a piece has taken is left to requests.
        let rest = |since: Instant| {
            thread::sleep(since.elapsed().min(LOOK));
            Ok(())
        };
        shared.shipping.lock().ship(shared, threads, is_due, None, rest);
    }
}

/// Sends a backup with the last changes, as far as time allows.
pub(super) fn ship_last(shared: &Shared, threads: &Arc<ThreadGroup>) {
    let deadline = Instant::now() + LAST;
    let Some(mut shipping) = shared.shipping.try_lock_until(deadline) else { return };
    let hurry = |_| if Instant::now() < deadline { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) };
    // The second time there is news only if a change was being made at the first.
    for _ in 0..2 {
        shipping.ship(shared, threads, true, Some(deadline), hurry);
    }
}

impl Shipping {
    /// Makes a new backup if one is due and something has changed, and sends the newest to each Dstore that lacks it. `rest`
    /// gets the time at which a piece was begun, and ends the sending with an error.
    fn ship(
        &mut self,
        shared: &Shared,
        threads: &Arc<ThreadGroup>,
        is_due: bool,
        deadline: Option<Instant>,
        rest: impl Fn(Instant) -> io::Result<()>,
    ) {
        // One that a Dstore has refused is no source for anything.
        let Some(epoch) = shared.epoch().ok().filter(|_| shared.fatal.lock().is_none()) else { return };
        let dstores: Vec<(DstoreId, u64, Address)> = {
            let state = shared.state.lock();
            let fenced = state.links.iter().filter(|(_, link)| link.is_fenced);
            fenced.map(|(id, link)| (*id, link.connection, link.address.clone())).collect()
        };
        if dstores.is_empty() {
            return;
        }
        let last = shared.replica.read(|namespace| namespace.sequence()).unwrap_or_default();
        if is_due && self.newest.as_ref().is_none_or(|newest| newest.sequence < last) {
            match shared.replica.backup(deadline.map(|deadline| deadline - LAST / 2)) {
                Ok(backup) => *self = Self { newest: Some(backup), sent: BTreeMap::new() },
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return log::info!("no last backup: {error}"),
                Err(error) => return log::error!("cannot make a backup for the Dstores: {error}"),
            }
        }
        let Self { newest: Some(backup), sent } = self else { return };
        if is_due && backup.sequence >= last {
            shared.shipped.lock().nothing_to_ship(last);
        }
        for (id, connection, address) in dstores {
            if sent.get(&id) == Some(&connection) {
                continue;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return;
            }
            let patience = left.unwrap_or(PATIENCE);
            sent.insert(id, connection);
            let connected = connect_to(shared, threads, &address, patience);
            match connected.and_then(|(connection, _tracked)| hand_over(backup, epoch, connection, patience, &rest)) {
                Ok(()) => {
                    log::info!("Dstore {id} has a backup with all up to change {}", backup.sequence);
                    *shared.shipped.lock() = Shipped { at: Instant::now(), sequence: backup.sequence };
                }
                Err(_) if shared.is_stopping() => return,
                Err(error) => log::warn!("Dstore {id} at {address} does not take a backup: {error}"),
            }
        }
    }
}

/// A connection to a Dstore, which is shut down when the Controller stops.
fn connect_to(
    shared: &Shared,
    threads: &Arc<ThreadGroup>,
    address: &Address,
    patience: Duration,
) -> io::Result<(Connection, Option<Tracked>)> {
    let access = Access::Server { role: Role::Controller, secret: shared.secret.clone() };
    let tracked = RefCell::new(None);
    let announce = |stream: &_| drop(tracked.replace(Some(threads.track(stream))));
    let connected = connect(address, &access, shared.cluster, Role::Dstore, patience, announce);
    let connection = connected.map_err(|error| io::Error::other(error.to_string()))?;
    Ok((connection, tracked.into_inner()))
}

fn hand_over(
    backup: &Backup,
    epoch: Epoch,
    mut connection: Connection,
    patience: Duration,
    rest: &impl Fn(Instant) -> io::Result<()>,
) -> io::Result<()> {
    connection.limit_stalls(patience)?;
    connection.send(&ObjectRequest::Backup { epoch, length: backup.length })?;
    read(backup, |piece| {
        let begun = Instant::now();
        connection.send_content(piece)?;
        rest(begun)
    })?;
    match connection.receive(Wait::deadline(patience))? {
        ObjectAnswer::Kept => Ok(()),
        ObjectAnswer::Error { failure } => Err(io::Error::other(failure)),
        other => Err(io::Error::other(format!("an answer to another request: {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_overdue_only_if_a_change_waits_for_it() {
        let period = Duration::from_millis(1);
        let long_ago = Instant::now() - Duration::from_secs(1);
        let mut shipped = Shipped { at: long_ago, sequence: 5 };
        assert_eq!(shipped.overdue(5, period), None, "nothing has changed since");
        assert!(shipped.overdue(6, period).is_some());
        // Nothing was due for a second; then there is a change.
        shipped.nothing_to_ship(5);
        assert_eq!(shipped.overdue(6, Duration::from_secs(60)), None);
        assert!(shipped.at > long_ago, "the time before the change is no time that it waited");
        let at = shipped.at;
        shipped.nothing_to_ship(6);
        assert_eq!(shipped.at, at, "that change waits");
    }
}
