//! A Dstore with a scripted Controller.

mod list;
mod load;
mod rebalance;
mod remove;
mod start;
mod store;
mod wire;

use super::Check;

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
    modules.into_iter().flatten().collect()
}
