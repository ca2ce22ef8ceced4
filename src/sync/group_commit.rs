//! One sync for all threads that wait for one: what many threads have written is brought to the disk at the price of one.
//!
//! Knows nothing of files: the caller says what a sync is.

use std::io::{self, ErrorKind};

use super::{Condvar, Mutex, MutexGuard};

/// Lets the threads that come while a sync is running share the next one.
///
/// The running one would not do: it may have begun before they wrote. Once a sync has failed, all that follow fail untried:
/// the system may have dropped what it could not write, and would report the next sync as good.
#[derive(Default)]
pub struct GroupCommit {
    state: Mutex<State>,
    has_ended: Condvar,
}

#[derive(Default)]
struct State {
    begun: u64,
    /// Those that have ended well; one less than `begun` while one is running.
    ended: u64,
    is_running: bool,
    failure: Option<(ErrorKind, String)>,
}

impl GroupCommit {
    /// Returns once a sync has ended that began after this was called. It is this caller's `sync`, or another's: either brings
    /// to the disk what all threads had written before it began.
    pub fn commit(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock();
        let awaited = state.begun + 1;
        loop {
            if let Some((kind, reason)) = &state.failure {
                return Err(io::Error::new(*kind, format!("a sync has failed, and nothing is sure since: {reason}")));
            }
            if state.ended >= awaited {
                return Ok(());
            }
            if !state.is_running {
                break;
            }
            self.has_ended.wait(&mut state);
        }
        state.begun += 1;
        state.is_running = true;
        let outcome = MutexGuard::unlocked(&mut state, sync);
        state.is_running = false;
        match &outcome {
            Ok(()) => state.ended += 1,
            Err(error) => state.failure = Some((error.kind(), error.to_string())),
        }
        drop(state);
        self.has_ended.notify_all();
        outcome
    }
}

#[cfg(test)]
mod tests;
