//! Stevedore, a distributed file store.
pub mod client;
pub mod controller;
pub mod dstore;
pub mod index;
pub mod protocol;
pub mod server;
