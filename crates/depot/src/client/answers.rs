//! The answers of several Dstores that were asked at the same time, as they come.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stevedore::socket::Wait;

use super::Error;
use super::upload::STORING;
use crate::identity::DstoreId;
use crate::wire::message::ObjectAnswer;
use crate::wire::{Address, Connection, ReceiveError};

/// The Dstores are waited for one after another at first, each for so long. Most answer within that time, and not to ask which
/// one has answered saves a system call and a wake-up for each.
const IN_TURN: Duration = Duration::from_millis(50);

/// A Dstore that was sent a request.
pub(super) struct Asked {
    pub(super) dstore: DstoreId,
    pub(super) address: Address,
    pub(super) connection: Connection,
    /// It has had its turn.
    is_late: bool,
}

impl Asked {
    pub(super) fn new(dstore: DstoreId, address: Address, connection: Connection) -> Self {
        Self { dstore, address, connection, is_late: false }
    }
}

/// What came of a request: one answer, or why there is none.
pub(super) type Answer = Result<ObjectAnswer, ReceiveError>;

/// Waits for the answer of one of these Dstores, and takes it out of them; `None` if none answers within `limit`.
pub(super) fn next_answer(waiting: &mut Vec<Asked>, limit: Duration) -> Result<Option<(Asked, Answer)>, Error> {
    let deadline = Instant::now() + limit;
    while let Some(at) = waiting.iter().position(|asked| !asked.is_late) {
        let left = deadline.saturating_duration_since(Instant::now());
        match waiting[at].connection.receive(Wait::deadline(left.min(IN_TURN))) {
            // What has come of its line is kept.
            Err(ReceiveError::Io(error)) if error.kind() == std::io::ErrorKind::TimedOut => waiting[at].is_late = true,
            answer => return Ok(Some((waiting.remove(at), answer))),
        }
    }
    let Some(at) = readable(waiting, deadline)? else { return Ok(None) };
    let mut asked = waiting.remove(at);
    let answer = asked.connection.receive(Wait::deadline(STORING));
    Ok(Some((asked, answer)))
}

/// Which of these has something to read, before a deadline.
fn readable(waiting: &[Asked], deadline: Instant) -> Result<Option<usize>, Error> {
    let fds = waiting.iter().map(|asked| PollFd::from_borrowed_fd(asked.connection.stream().as_fd(), PollFlags::IN));
    let mut fds: Vec<PollFd<'_>> = fds.collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(fds.iter().position(|fd| !fd.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Error::Source(error.into())),
        }
    }
}
