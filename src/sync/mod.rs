//! What threads wait with: locks, conditions and channels, and two tools made of them, [`one_shot`] and [`group_commit`].
//!
//! In every program the locks and conditions are parking_lot's and the channels crossbeam's. In tests built with
//! `--features shuttle` they are *scheduled*: shuttle decides at each lock and wait which thread goes on. So a test tries
//! thousands of orders in which things can happen, finds the one in which a thread waits for ever, and prints it.
//! `controller::schedules` has those tests. Every thread of the Controller must therefore wait with what is here, and
//! with nothing else.

pub mod group_commit;
pub mod one_shot;
#[cfg(all(test, shuttle))]
mod scheduled;

#[cfg(not(all(test, shuttle)))]
mod base {
    pub(crate) use crossbeam_channel::{Receiver, Sender, at, never, select, unbounded};
    pub use parking_lot::{Condvar, Mutex, MutexGuard};
    pub use std::thread;
}
#[cfg(all(test, shuttle))]
use scheduled as base;

pub use base::{Condvar, Mutex, MutexGuard, thread};
pub(crate) use base::{Receiver, Sender, at, never, select, unbounded};
#[cfg(all(test, shuttle))]
pub(crate) use scheduled::ready;
