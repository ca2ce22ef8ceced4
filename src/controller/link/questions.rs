//! Which question an answer belongs to. (spec 7.21)
//!
//! LIST and REBALANCE_COMPLETE do not say what they answer. Each answers the oldest question that is open, so that a late
//! answer is never taken for a newer question's.

use std::collections::VecDeque;

use crate::controller::coordinator::Round;

/// The questions of one kind that a Dstore has not answered yet.
///
/// Some questions are never answered: a Dstore does not report an order that it could not carry out (spec 7.17). All later
/// answers would then look late for ever. So after some late answers in a row, the questions that are still open are
/// written off.
#[derive(Default)]
pub(super) struct Questions {
    /// What each was asked for, oldest first.
    purposes: VecDeque<Purpose>,
    /// How many answers may still come, those to what has been written off included.
    possible: u32,
    late_in_a_row: u32,
}

/// What a question was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// This round of a rebalance.
    Round(Round),
    /// To see whether the Dstore still answers. (spec 7.7)
    Liveness,
}

impl Questions {
    const MOST_LATE: u32 = 3;

    /// One more is asked.
    pub(super) fn ask(&mut self, purpose: Purpose) {
        self.purposes.push_back(purpose);
        self.possible += 1;
    }

    /// The newest, which has not been written yet, is asked for this now.
    pub(super) fn ask_newest_for(&mut self, purpose: Purpose) {
        match self.purposes.back_mut() {
            Some(newest) => *newest = purpose,
            None => self.purposes.push_back(purpose), // it was written off; its answer may still come
        }
    }

    /// What the answer that has just come was asked for; `None` if nothing was asked.
    pub(super) fn answer(&mut self) -> Option<Purpose> {
        self.possible = self.possible.saturating_sub(1);
        let purpose = self.purposes.pop_front()?;
        self.late_in_a_row = if self.purposes.is_empty() { 0 } else { self.late_in_a_row + 1 };
        if self.late_in_a_row == Self::MOST_LATE {
            self.purposes.clear();
            self.late_in_a_row = 0;
        }
        Some(purpose)
    }

    /// Writes off what was asked before this round.
    pub(super) fn write_off_before(&mut self, round: Round) {
        self.purposes.retain(|purpose| !matches!(purpose, Purpose::Round(asked) if *asked < round));
    }

    /// Whether an answer is due.
    pub(super) fn is_owed(&self) -> bool {
        !self.purposes.is_empty()
    }

    /// Whether any answer may still come, be it to what was written off.
    pub(super) fn may_come(&self) -> bool {
        self.possible > 0
    }
}
