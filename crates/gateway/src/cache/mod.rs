//! Small objects that were read lately: in this process's memory, or in a Redis that gateways share.
//!
//! An object's bytes never change, and its key is never given to another one (depot 2). So what is kept under a key is never
//! stale, and nothing has to be invalidated: a file that is replaced has other objects. Which objects a file has is asked for
//! at each read, as ever. The reader verifies what a cache returns, so a cache that alters bytes costs time only.

mod memory;
mod redis;

use depot::client::ObjectCache;

pub use memory::Memory;
pub use redis::{InvalidServer, Redis};

/// Larger objects are not kept: for them the way to a Dstore costs little.
const LARGEST: u64 = 1 << 20;

/// A cache of a gateway. Any thread may call anything.
pub trait Cache: ObjectCache {
    /// What it has done so far.
    fn figures(&self) -> Figures;
}

/// What a cache has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many objects were found in it.
    pub hits: u64,
    /// How many were looked for in vain, whatever the reason.
    pub misses: u64,
    /// How many bytes of this process's memory it takes.
    pub bytes: u64,
    /// How often it could not be asked.
    pub failures: u64,
}
