//! A Controller and Dstores together.

use super::Check;

/// All of them.
pub fn checks() -> Vec<Check> {
    Vec::new()
}
