//! Stevedore, a distributed file store: a Controller, N Dstores, clients; every file on R Dstores.
//!
//! With no options it is the protocol of `docs/spec.md`, which the code cites by clause: `spec 4.2`. The modules, in
//! the order in which to read them:

pub mod client; // one blocking API over all of it
pub mod controller; // the Controller's threads around the index
pub mod dstore; // a Dstore's threads around its folder
pub mod index; // which files exist, in what state, where; who should hold what
pub mod program;
pub mod protocol; // what can be said, and how it travels
pub mod server; // a listener and its threads // what the programs share
