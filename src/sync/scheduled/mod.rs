//! As much of crossbeam as this crate uses, with shuttle's scheduler underneath.

mod channel;

pub(crate) use channel::{Receiver, Sender, at, never, ready, select, unbounded};
