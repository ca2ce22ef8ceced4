//! How SIGINT and SIGTERM end a program: cleanly, and soon.
//!
//! The first lets it tidy up, for so long at most ([`GRACE`] unless it needs longer); a second ends it at once. A server that is asked to end has done
//! its job, and its exit code is 0. A client that is interrupted has not: it dies of the signal, so that a shell sees
//! 130 or 143 and knows why.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::{Terminal, die_of, on_first};

#[cfg(not(unix))]
mod elsewhere;
#[cfg(not(unix))]
pub use elsewhere::{Terminal, die_of, on_first};

use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::Failure;
use crate::client::NewFile;

/// How long a program may take to tidy up before the signal ends it all the same.
pub const GRACE: Duration = Duration::from_secs(2);

/// The same for a server that keeps data: where others use its disk as well, each sync of its end may take seconds. Container
/// engines wait for ten.
pub const GRACE_FOR_DISKS: Duration = Duration::from_secs(8);

/// Which signal has come, by its number.
pub type Signal = i32;

/// For a server's main, which waits for a signal to arrive here and then drops what it runs, in `grace` at most.
pub fn requests_to_end(grace: Duration) -> Result<Receiver<Signal>, Failure> {
    let (ask, asked) = bounded(1);
    on_first(grace, move |signal| {
        // Room for one, and this is the only one.
        let _ = ask.send(signal);
    })?;
    Ok(asked)
}

/// For a client: a signal takes its unfinished downloads along.
pub fn end_clients_tidily() -> Result<(), Failure> {
    on_first(GRACE, |signal| {
        NewFile::discard_all(|| {
            log::logger().flush();
            die_of(signal);
        })
    })
}
