//! Repeats take effect once. (depot 3.5)
//!
//! A client whose Controller went silent cannot know whether its change was made. It asks again, of this Controller or the
//! next; so every change says which of its client's changes it is, and the namespace keeps the outcomes until the client
//! has acknowledged them. What is kept has limits, so a session may be forgotten. Then its repeats must be refused, and
//! not taken for new changes. How does one tell a forgotten session from a new one? By when it was born: a session that
//! was born after every session forgotten so far was last used cannot be one of them.
//!
//! ```text
//! sequence  ──10────20────30────40────50──▶
//! session A   born        last use           forgotten now: `evicted` = 30
//! session B               born at 28          unknown, born <= 30: it may be a forgotten one, refused
//! session C                     born at 41    unknown, born > 30: new
//! ```

use std::collections::BTreeMap;

use super::Namespace;
use super::change::{Outcome, Refusal, Stamp};
use super::records::RecordId;
use crate::identity::SessionId;

/// The outcomes that clients may still ask for.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) by_id: BTreeMap<SessionId, Session>,
    /// The least recently used first.
    pub(super) by_use: BTreeMap<u64, SessionId>,
    /// How many outcomes are kept in all.
    pub(super) open: usize,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    /// The sequence of its last change.
    pub(super) last_use: u64,
    /// Outcomes below were acknowledged, and are gone.
    pub(super) done_below: u64,
    pub(super) outcomes: BTreeMap<u64, Outcome>,
}

/// What the table says of a change that comes in.
pub(super) enum Standing {
    /// It was not made before.
    New,
    /// It was made before, with this outcome.
    Made(Outcome),
    /// It is not made, and no outcome is kept.
    Refused(Refusal),
}

impl Namespace {
    /// Whether this change of a client was made before, so that it needs nothing to be made again.
    pub fn was_made(&self, stamp: &Stamp) -> bool {
        matches!(self.standing(stamp), Standing::Made(_))
    }

    /// What is known of a client's change. Changes nothing.
    pub(super) fn standing(&self, stamp: &Stamp) -> Standing {
        if stamp.session == SessionId::default() {
            return Standing::Refused(Refusal::NotPermitted); // a client draws its session at random
        }
        let Some(session) = self.sessions.by_id.get(&stamp.session) else {
            let may_be_forgotten = stamp.born.history != self.history() || stamp.born.sequence <= self.head.evicted;
            return if may_be_forgotten { Standing::Refused(Refusal::UnknownOutcome) } else { Standing::New };
        };
        if let Some(outcome) = session.outcomes.get(&stamp.number) {
            return Standing::Made(*outcome);
        }
        if stamp.number < session.done_below {
            return Standing::Refused(Refusal::UnknownOutcome);
        }
        let kept = session.outcomes.range(stamp.done_below..).count();
        if kept >= self.limits.open_per_session {
            return Standing::Refused(Refusal::TooManyOpen);
        }
        Standing::New
    }

    /// Keeps the outcome of a client's change, lets those that the client has acknowledged go, and forgets the least
    /// recently used sessions where there are too many.
    pub(super) fn remember(&mut self, sequence: u64, stamp: &Stamp, outcome: Outcome) {
        let id = stamp.session;
        self.record(RecordId::Session(id), |namespace| {
            let session = namespace.sessions.by_id.entry(id).or_default();
            let last_use = std::mem::replace(&mut session.last_use, sequence);
            session.done_below = session.done_below.max(stamp.done_below);
            namespace.sessions.by_use.remove(&last_use);
            namespace.sessions.by_use.insert(sequence, id);
        });
        let session = &self.sessions.by_id[&id];
        let done: Vec<u64> = session.outcomes.range(..session.done_below).map(|(number, _)| *number).collect();
        done.into_iter().for_each(|number| self.set_outcome(id, number, None));
        self.set_outcome(id, stamp.number, Some(outcome));
        while self.sessions.by_id.len() > self.limits.sessions || self.sessions.open > self.limits.open_in_all {
            let Some((&last_use, &oldest)) = self.sessions.by_use.first_key_value() else { break };
            if oldest == id {
                break; // the one that is being used stays
            }
            self.forget(last_use, oldest);
        }
    }

    fn forget(&mut self, last_use: u64, id: SessionId) {
        let numbers: Vec<u64> = self.sessions.by_id[&id].outcomes.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.set_outcome(id, number, None));
        self.record(RecordId::Session(id), |namespace| {
            namespace.sessions.by_id.remove(&id);
            namespace.sessions.by_use.remove(&last_use);
        });
        self.record(RecordId::Head, |namespace| {
            namespace.head.evicted = namespace.head.evicted.max(last_use);
        });
    }

    fn set_outcome(&mut self, id: SessionId, number: u64, outcome: Option<Outcome>) {
        self.record(RecordId::Outcome(id, number), |namespace| {
            let sessions = &mut namespace.sessions;
            let session = sessions.by_id.get_mut(&id).expect("its outcomes go before the session does");
            let before = match outcome {
                Some(outcome) => session.outcomes.insert(number, outcome),
                None => session.outcomes.remove(&number),
            };
            sessions.open = sessions.open + usize::from(outcome.is_some()) - usize::from(before.is_some());
        });
    }
}
