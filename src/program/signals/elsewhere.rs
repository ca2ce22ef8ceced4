//! Where there are no signals, a process ends without a chance to tidy up.

use std::time::Duration;

use super::Signal;
use crate::program::Failure;

/// Nothing will come.
pub fn on_first(_grace: Duration, _tidy: impl FnOnce(Signal) + Send + 'static) -> Result<(), Failure> {
    // If the sender were dropped, the receiver would take it for a request to end.
    std::mem::forget(_tidy);
    Ok(())
}

/// Ends the process.
pub fn die_of(signal: Signal) {
    std::process::exit(128 + signal);
}

/// The terminal on stdin, which needs no restoring.
pub struct Terminal;

impl Terminal {
    /// Nothing to remember.
    pub fn remember() {}

    /// Nothing to restore.
    pub fn restore() {}
}
