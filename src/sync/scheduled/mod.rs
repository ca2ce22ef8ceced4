//! As much of parking_lot and crossbeam as this crate uses, with shuttle's scheduler underneath.

mod channel;
mod locks;

pub(crate) use channel::{Receiver, Sender, at, never, ready, select, unbounded};
pub use locks::{Condvar, Mutex, MutexGuard};
pub use shuttle::thread;
