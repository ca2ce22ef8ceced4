//! A Controller and Dstores together, as clients see them.

mod concurrency;
mod failures;
mod sequential;
mod spread;

use super::Check;

/// All of them.
pub fn checks() -> Vec<Check> {
    [sequential::checks(), concurrency::checks(), failures::checks(), spread::checks()].into_iter().flatten().collect()
}
