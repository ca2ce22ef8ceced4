//! What the Controller's threads wait with.
//!
//! In every program these are parking_lot's locks, crossbeam's channels and std's threads, with nothing in between. In
//! tests built with `--cfg shuttle` they are *scheduled*: shuttle decides at each lock, wait and message which thread
//! goes on, so that a test tries thousands of orders in which things can happen, finds the one in which somebody waits
//! for ever, and prints it. `controller::schedules` has those tests. Whoever waits must therefore wait with what is
//! here, and with nothing else.

#[cfg(not(all(test, shuttle)))]
mod real;
#[cfg(all(test, shuttle))]
mod scheduled;

#[cfg(not(all(test, shuttle)))]
pub use real::*;
#[cfg(all(test, shuttle))]
pub use scheduled::*;

/// What an [`Inbox`] has for its thread.
pub enum Next<T> {
    /// A message.
    Message(T),
    /// There was none before the deadline.
    TimedOut,
    /// The thread is to end.
    Stopped,
}
