//! What Dstores that have just joined may take away from older ones. (spec 4.6.3)
//!
//! The problem: any process may JOIN, and a rebalance then moves copies to the newcomer, as the spec's balance asks. A process
//! that joins thirty times, takes what it is sent and drops it would have nearly all files of a small cluster within
//! seconds, although no older member has failed.
//!
//! What is done about it, as far as that balance allows:
//!
//! - *A newcomer is given, nothing is taken for it.* Where a file's copy moves to a newcomer, the older copies stay until a
//!   later LIST has shown the newcomer's. Only then does the planner find the file on more than R Dstores, and has one of them
//!   remove its copy. A newcomer that takes copies and leaves, or does not even store them, takes nothing away.
//! - *Of what the balance moves, each file's last copy on an older Dstore goes last.* That is the planner's part
//!   ([`Holdings::mark_newcomer`](super::Holdings::mark_newcomer)). Newcomers that lie in their lists get those files
//!   only for which the older Dstores have no room within their share.
//!
//! A *newcomer* has answered fewer than half as many LISTs as the member that has answered the most. In a cluster whose oldest
//! member has answered fewer than [`YOUNG`] there are none: its members have all just joined.

use super::Plan;
use crate::index::Inventory;

/// So many LISTs are answered before a cluster tells newcomers from others.
pub const YOUNG: u32 = 8;

/// Whether a Dstore that has answered so many LISTs is a newcomer among others, of which one has answered `most`.
pub fn is_newcomer(answered: u32, most: u32) -> bool {
    most >= YOUNG && answered < most / 2
}

impl Inventory {
    /// Puts off removals of files that are to be sent to newcomers.
    pub(super) fn wait_for_newcomers(&self, plan: &mut Plan) {
        let to_newcomers = plan.transfers.iter().filter(|transfer| self.holdings.is_newcomer(transfer.to));
        let mut awaited = to_newcomers.map(|transfer| transfer.file).peekable();
        if awaited.peek().is_none() {
            return;
        }
        let awaited: Vec<_> = awaited.collect(); // in order, as the transfers are
        let removals = plan.removals.len();
        plan.removals.retain(|removal| awaited.binary_search(&removal.file).is_err());
        plan.put_off += removals - plan.removals.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_is_less_than_half_as_old_as_the_oldest_dstore() {
        for (answered, most, expected) in
            [(0, 7, false), (3, 8, true), (4, 8, false), (499, 1_000, true), (500, 1_000, false), (1_000, 1_000, false)]
        {
            assert_eq!(is_newcomer(answered, most), expected, "{answered} of {most}");
        }
    }
}
