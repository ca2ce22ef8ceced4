//! The depot: the roles of the coursework grown into a store that engineers keep data in. (docs/depot.md)
//!
//! Objects never change: replacing, moving and copying a file is one change to the namespace, and moves no bytes. The
//! modules, in reading order:
//!
//! - [`identity`]: the names of things, and why none is ever used twice
//! - [`words`]: how everything is written down: lines of words, on the wire, in the log and in snapshots
//! - [`path`], [`checksum`]: what a file is called, and how its bytes are known to be the right ones
//! - [`glob`]: what a search looks for
//! - [`time`]: how times are shown
//! - [`namespace`]: which files exist, with which objects: a pure state machine that the log drives
//! - [`disk`], [`log`]: the sequence of changes, kept so that a crash at any instant loses nothing acknowledged
//! - [`pack`]: the objects on one disk, of which each byte is verified before a peer sees it
//! - [`placement`]: which Dstore has which objects, and where new ones go
//! - [`wire`]: what Controllers, Dstores and clients say to each other
//! - [`controller`]: the threads that decide and remember
//! - [`dstore`]: the threads that store objects and give them back
//! - [`client`]: how programs use all of it
//! - [`datagrams`], [`discovery`]: how they find a store in a network

pub mod checksum;
pub mod client;
pub mod controller;
pub mod datagrams;
pub mod discovery;
pub mod disk;
pub mod dstore;
pub mod glob;
pub mod identity;
pub mod log;
pub mod namespace;
pub mod pack;
pub mod path;
pub mod placement;
pub mod time;
pub mod wire;
pub mod words;
