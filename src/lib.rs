//! Stevedore, a distributed file store: a Controller, N Dstores, clients; every file on R Dstores.
//!
//! With no options it is the protocol of `docs/spec.md`, which the code cites by clause: `spec 4.2`. The modules, in
//! the order in which to read them:
//!
//! 1. [`protocol`]: what can be said, and how it travels.
//! 2. [`index`]: which files exist, in what state, where; which Dstore should hold which file.
//! 3. [`server`]: a listener, a thread for each connection, and a way to end them all.
//! 4. [`controller`]: the Controller's threads around the index.
//! 5. [`dstore`]: a Dstore's threads around its folder.
//! 6. [`client`]: one blocking API over all of it.
//! 7. `program`: what the four programs share, and programs built on this one may use. It comes with the feature `programs`.
//!
//! Beside them, [`sync`]: what threads wait with, and how tests get to schedule them; [`socket`]: reads that have a limit; and [`complaint`]: what the log says
//! about peers that do not keep to the protocol, and how much of it.

pub mod client;
pub mod complaint;
pub mod controller;
pub mod dstore;
pub mod index;
#[cfg(feature = "programs")]
pub mod program;
pub mod protocol;
pub mod server;
pub mod socket;
pub mod sync;
