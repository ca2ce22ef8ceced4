//! What a submission has never said in all the run, however patiently it was waited for.
//!
//! A program that never answers STORE would cost every later check its whole patience. When [`ENOUGH`] checks have waited in vain for
//! the same thing, and it has never come, it is waited for only briefly, and the check says so. If it comes after all, everything is
//! as before.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

/// So often a thing must fail to come: three times, and once more.
pub const ENOUGH: usize = 4;

/// How long is brief: so long, or this part of the patience.
const BRIEF: Duration = Duration::from_millis(1_500);
const BRIEF_PART: u32 = 8;

fn brief(patience: Duration) -> Duration {
    patience.min(BRIEF.max(patience / BRIEF_PART))
}

/// By what was awaited, shared by all checks of a run.
#[derive(Default)]
pub struct Precedents {
    known: Mutex<BTreeMap<String, Precedent>>,
}

#[derive(Default)]
struct Precedent {
    has_come: bool,
    in_vain: usize,
}

impl Precedents {
    /// How long to wait for this, where `patience` is the most.
    pub fn patience(&self, awaited: &str, patience: Duration) -> Duration {
        let known = self.known.lock();
        let is_hopeless = known.get(awaited).is_some_and(|known| !known.has_come && known.in_vain >= ENOUGH);
        if is_hopeless { brief(patience) } else { patience }
    }

    /// It has come.
    pub fn came(&self, awaited: &str) {
        self.known.lock().entry(awaited.to_owned()).or_default().has_come = true;
    }

    /// It has not come in the time that it had, where `patience` is the most. Brief waits prove nothing.
    pub fn in_vain(&self, awaited: &str, waited: Duration, patience: Duration) {
        if waited > brief(patience) {
            self.known.lock().entry(awaited.to_owned()).or_default().in_vain += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Duration = Duration::from_secs(7);

    #[test]
    fn only_what_has_never_come_is_waited_for_briefly() {
        let precedents = Precedents::default();
        for _ in 0..ENOUGH {
            assert_eq!(precedents.patience("ACK", FULL), FULL);
            precedents.in_vain("ACK", FULL, FULL);
        }
        assert_eq!(precedents.patience("ACK", FULL), BRIEF);
        assert_eq!(precedents.patience("ACK", 8 * FULL), FULL, "a longer patience is cut to a part of it");
        assert_eq!(precedents.patience("LIST", FULL), FULL);
        precedents.came("ACK");
        assert_eq!(precedents.patience("ACK", FULL), FULL);
    }

    #[test]
    fn brief_waits_in_vain_make_no_precedent() {
        let precedents = Precedents::default();
        (0..2 * ENOUGH).for_each(|_| precedents.in_vain("ACK", BRIEF, FULL));
        assert_eq!(precedents.patience("ACK", FULL), FULL);
    }
}
