//! What threads wait with: locks, conditions and channels, and two tools made of them, [`one_shot`] and [`group_commit`].
//!
//! In every program the channels are crossbeam's, and the locks and conditions are std's with the interface of
//! parking_lot's. In tests built with `--features shuttle` they are *scheduled*: shuttle decides at each lock and wait which
//! thread goes on. So a test tries thousands of orders in which things can happen, finds the one in which a thread waits
//! for ever, and prints it. `controller::schedules` has those tests. Every thread of the Controller must therefore wait
//! with what is here, and with nothing else.
//!
//! Why not parking_lot's locks? A thread that finds one of them taken yields the processor several times before it sleeps,
//! and so does one that finds a crossbeam channel empty. With more threads than processors, each yield costs the thread up
//! to a whole time slice. A thread that finds a lock of std's taken sleeps at once. With 8 clients, the slowest store in a
//! hundred took 6.4 times as long as the median with parking_lot's mutex around the Controller's state, and 2.3 times with
//! this one. (docs/performance.md)

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
