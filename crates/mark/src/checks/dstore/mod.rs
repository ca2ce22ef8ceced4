//! A Dstore with a scripted Controller.

use super::Check;

/// All of them.
pub fn checks() -> Vec<Check> {
    Vec::new()
}
