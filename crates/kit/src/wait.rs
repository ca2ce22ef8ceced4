//! Waiting for a condition that sends no signal when it comes true: it is looked at again and again, until a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything takes on a loaded machine. Only what fails waits for all of it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` is true, and panics if it is not within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(PATIENCE, condition), "not within {PATIENCE:?}: {what}");
}

/// Waits until `condition` is true; false if it is not within `patience`. Looks at least once.
pub fn comes_true(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_looked_at_until_it_is_true() {
        let mut looks = 0;
        assert!(comes_true(PATIENCE, || {
            looks += 1;
            looks == 3
        }));
        assert_eq!(looks, 3);
        assert!(!comes_true(Duration::ZERO, || false));
        assert!(comes_true(Duration::ZERO, || true), "it looks before it gives up");
    }
}
