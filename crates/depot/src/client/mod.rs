//! How programs use a store. (depot 3.4, 5.1, 5.5)
//!
//! [`Files`] is what a store can do, as one interface: every layer above it, and the program `stevedore`, is written
//! against it. [`Cluster`] is a store that is reached over the network: `upload` is its put, `batch` that of many small files,
//! `download` its get, `parallel` that of large files; `pool` keeps its connections, and `answers` are of several at a time. [`memory`]
//! is a store without disks and sockets, for tests of such programs.

mod answers;
mod batch;
mod check;
mod cluster;
mod controllers;
mod download;
mod error;
mod files;
pub mod memory;
mod parallel;
mod pool;
mod upload;

pub use cluster::{Backup, Cluster, ClusterOptions, ObjectCache, SEARCH};
pub use error::Error;
pub use files::{
    ChangeEvent, CheckSummary, CheckedObject, Content, ControllerRole, ControllerStatus, CopyOptions, Digested,
    DstoreState, DstoreStatus, Election, Files, FindPage, HealingStatus, ListOptions, MoveOptions, ObjectCopies,
    PlaceOfCopy, PutOptions, ReadAt, SmallFile, Source, Status, TOGETHER, TOGETHER_BYTES, WatchPage,
};
pub use parallel::ParallelReads;
