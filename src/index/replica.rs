//! One Dstore's copy of a complete file, and how sure the index is of it. (spec 4.6.6, 7.6, 7.20)
//!
//! The Controller sees no folder. It knows of a copy only by messages: an acknowledgement, a report, a list. Between an order
//! and its report it knows less. If the report does not come (the Dstore hangs, or one of the order's sends failed), it does
//! not know which parts of the order were carried out, or will be. A copy that such an order concerns is *doubtful*: no
//! client is sent there, but a REMOVE is, and the file is not given up.
//!
//! ```text
//!     acknowledged, or its sending reported,             a STORE_ACK that was not asked for,
//!     or shown by a list ───────┐                        while another copy is certain
//!                               ▼                                     │
//!   (none) ──────────────▶ Certain ───────────────────────────────────┼──▶ Overwritten
//!      │                    ▲   │                                     │       │
//!      │ a send was         │   │ a removal was                       │       │ a list shows it, and
//!      │ not reported       │   │ not reported                        │       │ another certain one: unwanted;
//!      ▼                    │   ▼                                     │       │ no other is left: Certain
//!    Coming ──shown by ─────┴─ Going ─────────────────────────────────┘       ▼
//!      │       a list           │                                          (none)
//!      └──────────┬─────────────┘
//!                 │ a list does not show it
//!                 ▼
//!             Settling ──shown by a list──▶ Certain
//!                 │ the next list does not show it either
//!                 ▼
//!              (none)
//! ```
//!
//! *Why two lists?* An order concerns two Dstores, and their lists are not made at the same instant. The receiver may have
//! listed before a late copy arrived, and the sender after it had removed its own: neither shows the file, and it is there.
//! A Dstore answers LIST only between orders. So the order is over once both have answered, and the next list decides. If one
//! of the two is silent, nothing is decided.
//!
//! *Why does a list not clear a copy that was overwritten?* A list shows names. The name is there; which content it has is the
//! question.

use super::DstoreId;

/// A Dstore that has a file, or, where that is not certain, may have it.
///
/// The Dstore may have left since: replicas of former members do not count, and are dropped at the next rebalance.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub(super) dstore: DstoreId,
    certainty: Certainty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    /// It is there, as far as any message has said: it may be offered.
    Certain,
    /// An order that would make this copy was given and not reported.
    Coming,
    /// Likewise for an order that would remove it.
    Going,
    /// A list has not shown it, but may have been made before a late order was carried out: the next one decides.
    Settling,
    /// Its Dstore has acknowledged a STORE that it was not asked for. (spec 7.6)
    Overwritten,
}

/// What the index hears of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The Dstore that was to send it reports that it has.
    Sent,
    /// The Dstore that was to send it has not reported.
    SendUnreported,
    /// The Dstore that was to remove it has not reported.
    RemovalUnreported,
    /// Its Dstore has acknowledged a STORE that it was not asked for.
    Overwritten,
    /// Its Dstore's list shows it.
    Listed,
    /// Its Dstore's list does not show it. `is_order_over` if every Dstore that a doubtful replica of the file is on has
    /// been heard.
    NotListed { is_order_over: bool },
}

impl Replica {
    /// One that is certainly there.
    pub(super) fn certain(dstore: DstoreId) -> Self {
        Self { dstore, certainty: Certainty::Certain }
    }

    /// One that an order may have made.
    pub(super) fn coming(dstore: DstoreId) -> Self {
        Self { dstore, certainty: Certainty::Coming }
    }

    /// Whether a client may be sent there. (spec 7.20)
    pub(super) fn is_certain(&self) -> bool {
        self.certainty == Certainty::Certain
    }

    /// Whether a list has yet to show it for the first time.
    pub(super) fn is_coming(&self) -> bool {
        self.certainty == Certainty::Coming
    }

    /// Whether an order that was not reported may still make or remove it.
    pub(super) fn is_under_order(&self) -> bool {
        matches!(self.certainty, Certainty::Coming | Certainty::Going | Certainty::Settling)
    }

    /// Takes in what is heard; false if the replica is certainly gone.
    pub(super) fn hear(&mut self, event: Event) -> bool {
        let next = self.certainty.after(event);
        self.certainty = next.unwrap_or(self.certainty);
        next.is_some()
    }
}

impl Certainty {
    /// `None` if the replica is gone.
    fn after(self, event: Event) -> Option<Self> {
        use Certainty::{Certain, Coming, Going, Overwritten, Settling};
        match (self, event) {
            (_, Event::Sent) => Some(Certain),
            (_, Event::Overwritten) => Some(Overwritten),

            (Certain | Overwritten, Event::SendUnreported) => Some(self), // it was there before
            (_, Event::SendUnreported) => Some(Coming),

            (Overwritten, Event::RemovalUnreported | Event::Listed) => Some(Overwritten),
            (_, Event::RemovalUnreported) => Some(Going),
            (_, Event::Listed) => Some(Certain),

            (Certain | Overwritten, Event::NotListed { .. }) => None,
            (_, Event::NotListed { is_order_over: false }) => Some(self),
            (Coming | Going, Event::NotListed { is_order_over: true }) => Some(Settling),
            (Settling, Event::NotListed { is_order_over: true }) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Certainty::{Certain, Coming, Going, Overwritten, Settling};
    use super::Event::{Listed, NotListed, RemovalUnreported, SendUnreported, Sent};
    use super::*;

    #[test]
    fn every_state_goes_where_the_table_says() {
        // spec 4.6.6, 7.6, 7.20
        let events = [
            Sent,
            SendUnreported,
            RemovalUnreported,
            Event::Overwritten,
            Listed,
            NotListed { is_order_over: false },
            NotListed { is_order_over: true },
        ];
        #[rustfmt::skip]
        let table = [
            // in         Sent     SendUnreported RemovalUnr...  Overwritten  Listed
            (Certain,     [Certain, Certain,       Going,         Overwritten, Certain]),
            (Coming,      [Certain, Coming,        Going,         Overwritten, Certain]),
            (Going,       [Certain, Coming,        Going,         Overwritten, Certain]),
            (Settling,    [Certain, Coming,        Going,         Overwritten, Certain]),
            (Overwritten, [Certain, Overwritten,   Overwritten,   Overwritten, Overwritten]),
        ];
        for (state, expected) in table {
            for (event, expected) in events.into_iter().zip(expected) {
                assert_eq!(state.after(event), Some(expected), "{state:?} {event:?}");
            }
        }
        #[rustfmt::skip]
        let not_listed = [
            (Certain,     [None,           None]),
            (Coming,      [Some(Coming),   Some(Settling)]),
            (Going,       [Some(Going),    Some(Settling)]),
            (Settling,    [Some(Settling), None]),
            (Overwritten, [None,           None]),
        ];
        for (state, expected) in not_listed {
            for (event, expected) in events[5..].iter().zip(expected) {
                assert_eq!(state.after(*event), expected, "{state:?} {event:?}");
            }
        }
    }
}
