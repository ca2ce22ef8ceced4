//! What threads wait with: locks, conditions and channels, and two tools made of them, [`one_shot`] and [`group_commit`].
//!
//! In every program the channels are crossbeam's, and the locks and conditions are std's with the interface of
//! parking_lot's. In tests built with `--features shuttle` they are *scheduled*: shuttle decides at each lock and wait which
//! thread goes on. So a test tries thousands of orders in which things can happen, finds the one in which a thread waits
//! for ever, and prints it. `controller::schedules` has those tests. Every thread of the Controller must therefore wait
//! with what is here, and with nothing else.
//!
//! A thread that finds a lock of std's taken sleeps at once; one that finds a lock of parking_lot's taken, or a channel of
//! crossbeam's empty, yields the processor first, several times. With more threads than processors that costs it up to a
//! whole time slice. With parking_lot's mutex around the Controller's state alone, 8 clients' slowest stores in a hundred
//! took 6.4 times as long as the median; with this one 2.3 times. (docs/performance.md)

pub mod group_commit;
mod locks;
pub mod one_shot;
#[cfg(all(test, shuttle))]
mod scheduled;

#[cfg(not(all(test, shuttle)))]
mod base {
    pub(crate) use crossbeam_channel::{Receiver, Sender, at, never, select, unbounded};
    pub(super) use std::sync;
    pub use std::thread;
}
#[cfg(all(test, shuttle))]
mod base {
    pub(crate) use super::scheduled::{Receiver, Sender, at, never, select, unbounded};
    pub(super) use shuttle::sync;
    pub use shuttle::thread;
}

pub use base::thread;
pub(crate) use base::{Receiver, Sender, at, never, select, unbounded};
pub use locks::{Condvar, Mutex, MutexGuard, WaitTimeoutResult};
#[cfg(all(test, shuttle))]
pub(crate) use scheduled::ready;
