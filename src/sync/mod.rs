//! What the threads of a Controller or Dstore wait with: locks, conditions and channels.
//!
//! In every program these are std's locks and threads. In tests built with `--features shuttle` they are *scheduled*: shuttle
//! decides at each lock and wait which thread goes on, so that a test tries thousands of orders in which things can
//! happen, finds the one in which somebody waits for ever, and prints it. `controller::schedules` has those tests. Whoever
//! waits in the Controller must therefore wait with what is here, and with nothing else.
//!
//! Nobody here yields before it sleeps. With more threads than processors, whoever does takes the time of the thread that it
//! waits for: with libraries that do, one store in a hundred took eight times as long as most. (docs/performance.md)

mod channel;
pub mod group_commit;
mod locks;
pub mod one_shot;

#[cfg(all(test, shuttle))]
use shuttle as base;
#[cfg(not(all(test, shuttle)))]
use std as base;

pub use base::thread;
pub(crate) use channel::{Inbox, Next, Receiver, Sender, Stop, inbox, unbounded};
pub use locks::{Condvar, Mutex};
