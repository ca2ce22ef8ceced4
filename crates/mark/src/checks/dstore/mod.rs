//! A Dstore with a scripted Controller.

mod list;
mod load;
mod rebalance;
mod remove;
mod start;
mod store;
mod wire;

use super::{Check, built_on};

/// What the others build on: a Dstore keeps files whole until they are removed.
pub const FILES: [&str; 7] = [
    "dstore/start/empties-its-folder",
    "dstore/store/acknowledges-to-both",
    "dstore/store/no-acknowledgement-before-the-content",
    "dstore/store/every-byte-value",
    "dstore/store/sizes-around-buffers",
    "dstore/load/sends-the-content",
    "dstore/remove/then-it-is-gone",
];

/// All of them.
pub fn checks() -> Vec<Check> {
    let modules = [
        start::checks(),
        store::checks(),
        load::checks(),
        remove::checks(),
        list::checks(),
        rebalance::checks(),
        wire::checks(),
    ];
    built_on(&FILES, modules.into_iter().flatten())
}
