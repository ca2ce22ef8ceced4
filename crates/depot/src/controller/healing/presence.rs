//! Which Dstores are there, and for how long one may be away before its copies are made elsewhere. (depot 6.2)

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::identity::DstoreId;
use crate::placement::Presence;

/// A Dstore that has returned so often within an hour is given twice the grace.
const RETURNS: usize = 2;
const HOUR: Duration = Duration::from_secs(3600);

/// Since when Dstores are away.
#[derive(Debug)]
pub(super) struct Presences {
    /// Grace counts from then on: the start of the leadership, and a moment for Dstores to come.
    from: Instant,
    grace: Duration,
    seen: BTreeMap<DstoreId, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// It has told all that it has, in this leadership.
    has_reported: bool,
    /// When its link ended, until it has reported over another one.
    away_since: Option<Instant>,
    /// It has come back since then, and its link ended before it had reported.
    has_failed_to_return: bool,
    /// It has a link, over which it has not reported all.
    is_returning: bool,
    returns: Vec<Instant>,
}

impl Presences {
    pub(super) fn new(from: Instant, grace: Duration) -> Self {
        Self { from, grace, seen: BTreeMap::new() }
    }

    /// One may be away for so long from now on.
    pub(super) fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// How it is now. `link` says whether it has reported all over the link that is open; `None` if there is no link.
    pub(super) fn look(&mut self, id: DstoreId, link: Option<bool>, now: Instant) -> Presence {
        let seen = self.seen.entry(id).or_default();
        let was_returning = std::mem::replace(&mut seen.is_returning, link == Some(false));
        match link {
            // It has returned only now: one that ends during each of its inventories has been away all the time.
            Some(true) => {
                if seen.away_since.take().is_some() && seen.has_reported {
                    seen.returns.retain(|at| now.saturating_duration_since(*at) < HOUR);
                    seen.returns.push(now);
                }
                seen.has_reported = true;
                seen.has_failed_to_return = false;
                return Presence::Known;
            }
            // While it reports, nothing is copied in its place, even if the grace is over or none is given. One that has ended
            // during a report may do so for ever: then its copies are made elsewhere meanwhile.
            Some(false) if !seen.has_failed_to_return => {}
            _ => {
                seen.has_failed_to_return |= was_returning && link.is_none();
                let since = *seen.away_since.get_or_insert(now);
                let returns = seen.returns.iter().filter(|at| now.saturating_duration_since(**at) < HOUR).count();
                let grace = if returns >= RETURNS { self.grace * 2 } else { self.grace };
                if now.saturating_duration_since(since.max(self.from)) >= grace && now >= self.from {
                    return Presence::Gone;
                }
            }
        }
        if seen.has_reported { Presence::Resting } else { Presence::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: DstoreId = DstoreId(1);
    const GRACE: Duration = Duration::from_secs(60);

    #[test]
    fn a_dstore_is_gone_after_the_grace_and_not_before() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut presences = Presences::new(at(10), GRACE);
        assert_eq!(presences.look(ID, None, at(0)), Presence::Unknown);
        assert_eq!(presences.look(ID, None, at(69)), Presence::Unknown, "it counts from the start, and 10 s");
        assert_eq!(presences.look(ID, None, at(70)), Presence::Gone);
        assert_eq!(presences.look(ID, Some(false), at(71)), Presence::Unknown, "it has not said what it has");
        assert_eq!(presences.look(ID, Some(true), at(72)), Presence::Known);
        assert_eq!(presences.look(ID, None, at(80)), Presence::Resting);
        assert_eq!(presences.look(ID, Some(false), at(100)), Presence::Resting);
        assert_eq!(presences.look(ID, Some(true), at(101)), Presence::Known);
        assert_eq!(presences.look(ID, None, at(110)), Presence::Resting);
        assert_eq!(presences.look(ID, None, at(169)), Presence::Resting, "each absence counts by itself");
        assert_eq!(presences.look(ID, None, at(170)), Presence::Gone);
    }

    #[test]
    fn one_that_keeps_returning_is_given_twice_the_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut presences = Presences::new(start, GRACE);
        presences.look(ID, Some(true), at(0));
        for seconds in [10, 20] {
            assert_eq!(presences.look(ID, None, at(seconds)), Presence::Resting);
            assert_eq!(presences.look(ID, Some(true), at(seconds + 1)), Presence::Known);
        }
        presences.look(ID, None, at(30));
        assert_eq!(presences.look(ID, None, at(149)), Presence::Resting);
        assert_eq!(presences.look(ID, None, at(150)), Presence::Gone);
        presences.look(ID, Some(true), at(160));
        presences.look(ID, None, at(5_000));
        assert_eq!(presences.look(ID, None, at(5_060)), Presence::Gone, "that was more than an hour ago");
    }

    #[test]
    fn one_that_never_ends_its_report_is_gone_after_the_grace() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut presences = Presences::new(start, GRACE);
        presences.look(ID, Some(true), at(0));
        for seconds in (10..70).step_by(10) {
            assert_eq!(presences.look(ID, None, at(seconds)), Presence::Resting);
            assert_eq!(presences.look(ID, Some(false), at(seconds + 5)), Presence::Resting);
        }
        assert_eq!(presences.look(ID, None, at(70)), Presence::Gone);
        assert_eq!(presences.look(ID, Some(false), at(75)), Presence::Gone, "repair goes on while it tries again");
        assert_eq!(presences.look(ID, Some(true), at(80)), Presence::Known);
        assert_eq!(presences.look(ID, None, at(90)), Presence::Resting, "that was one return, and a new absence");
        assert_eq!(presences.look(ID, None, at(150)), Presence::Gone);
        assert_eq!(presences.look(ID, Some(false), at(160)), Presence::Resting, "it may be about to say what it has");
    }

    #[test]
    fn another_grace_holds_for_one_that_is_away_already() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut presences = Presences::new(start, GRACE);
        presences.look(ID, Some(true), at(0));
        assert_eq!(presences.look(ID, None, at(10)), Presence::Resting);
        presences.set_grace(Duration::from_secs(600));
        assert_eq!(presences.look(ID, None, at(100)), Presence::Resting);
        presences.set_grace(Duration::from_secs(5));
        assert_eq!(presences.look(ID, None, at(100)), Presence::Gone);
    }

    #[test]
    fn a_grace_of_nothing_is_over_at_once() {
        let start = Instant::now();
        let mut presences = Presences::new(start, Duration::ZERO);
        presences.look(ID, Some(true), start);
        assert_eq!(presences.look(ID, None, start), Presence::Gone);
    }
}
