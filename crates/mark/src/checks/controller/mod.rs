//! A Controller among scripted Dstores.

mod store;

use super::Check;

/// All of them.
pub fn checks() -> Vec<Check> {
    [store::checks()].into_iter().flatten().collect()
}
