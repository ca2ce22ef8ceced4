//! A Controller among scripted Dstores.

mod concurrency;
mod join;
mod list;
mod load;
pub mod rebalance;
mod remove;
mod states;
mod store;
mod wire;

use super::{Check, built_on};

/// All of them.
pub fn checks() -> Vec<Check> {
    let modules = [
        join::checks(),
        states::checks(),
        store::checks(),
        load::checks(),
        remove::checks(),
        list::checks(),
        wire::checks(),
        concurrency::checks(),
        rebalance::checks(),
    ];
    // A Controller that does not serve clients does nothing else either.
    built_on(&["controller/join/enough-dstores"], modules.into_iter().flatten())
}
