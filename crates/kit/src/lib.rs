//! What the tests, benches and tools of this workspace share. Nothing that people run to keep files depends on it, and it
//! knows nothing of Stevedore, so that any program can be tested with it.
//!
//! | module | is |
//! |---|---|
//! | [`rng`] | numbers that look random, and are the same for the same seed |
//! | [`hunt`] | which share of a search that takes too long for each run is this run's |
//! | [`folder`] | a temporary folder that removes itself |
//! | [`ports`] | ports for programs that have to be told theirs |
//! | [`program`] | a program that runs, with its log, until it is dropped |
//! | [`network`] | machines on a network of their own: namespaces, with cables that can be pulled |
//! | [`wait`] | waiting for a condition, with a deadline |

pub mod folder;
pub mod hunt;
pub mod network;
pub mod ports;
pub mod program;
pub mod rng;
pub mod wait;

pub use folder::TempFolder;
pub use network::{Machine, Network};
pub use ports::{free_port, free_ports};
pub use program::{Program, has_tools};
pub use rng::{Rng, bytes, hash};
pub use wait::{PATIENCE, comes_true, eventually};
