//! Which check is played next, and which need not be played any more.
//!
//! A program that does not start fails every check, each after a long wait. When [`ENOUGH`] checks of a role have failed before
//! they could begin, and none has got further, one is asked once more, at a time when no other of the role is begun. If that
//! fails as well, the rest of the role is judged by it, and says so.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::checks::{Check, Role};
use crate::run::{Outcome, Verdict};
use crate::stage::failure::Failure;
use crate::stage::{CONTROLLER_STARTS, DSTORE_LISTENS, DSTORE_STARTS, SERVES};

/// So many checks of a role fail before they can begin, until the role is doubted.
const ENOUGH: usize = 3;

/// The checks of the steps that come first in every set-up, by id.
const SET_UP: [&str; 4] = [CONTROLLER_STARTS, SERVES, DSTORE_STARTS, DSTORE_LISTENS];

/// What a worker is to do.
pub enum Next {
    /// Play the check at this place.
    Play(usize),
    /// The check at this place fails for this cause, which so many checks before it have shown.
    Judge(usize, Failure, usize),
    /// Nothing is left.
    Done,
}

/// The checks that are still to be played, shared by the workers.
pub struct Queue {
    checks: Vec<Arc<Check>>,
    state: Mutex<State>,
    /// A check has ended.
    news: Condvar,
}

#[derive(Default)]
struct State {
    /// Places, in the checks' order.
    pending: Vec<usize>,
    /// Of the Controller, the Dstore, and both together.
    roles: [Standing; 3],
}

/// What is known of a role's set-up.
#[derive(Default)]
struct Standing {
    /// A check has got beyond it.
    works: bool,
    /// How many have not.
    refusals: usize,
    /// The check that is asked once more.
    asked: Option<usize>,
    /// Why no further check is played.
    cause: Option<Failure>,
}

impl Queue {
    /// All of them, in this order.
    pub fn new(checks: Vec<Arc<Check>>) -> Self {
        let pending = (0..checks.len()).collect();
        Self { checks, state: Mutex::new(State { pending, ..State::default() }), news: Condvar::new() }
    }

    /// All checks, also those that have been played.
    pub fn checks(&self) -> &[Arc<Check>] {
        &self.checks
    }

    /// What to do next. Waits while everything depends on a check that is asked once more.
    pub fn next(&self) -> Next {
        let mut state = self.state.lock();
        loop {
            let State { pending, roles } = &mut *state;
            let doubt = |place: &usize| match &roles[number(self.checks[*place].role)] {
                standing if standing.cause.is_some() || standing.works || standing.refusals < ENOUGH => false,
                standing => standing.asked.is_some(),
            };
            if let Some(at) = pending.iter().position(|place| !doubt(place)) {
                let place = pending.remove(at);
                let standing = &mut roles[number(self.checks[place].role)];
                if let Some(cause) = &standing.cause {
                    return Next::Judge(place, cause.clone(), standing.refusals);
                }
                if !standing.works && standing.refusals >= ENOUGH {
                    standing.asked = Some(place);
                }
                return Next::Play(place);
            }
            if pending.is_empty() {
                return Next::Done;
            }
            self.news.wait(&mut state);
        }
    }

    /// A check that was played has ended.
    pub fn ended(&self, place: usize, outcome: &Outcome) {
        let role = self.checks[place].role;
        let mut state = self.state.lock();
        let standing = &mut state.roles[number(role)];
        let was_asked = standing.asked == Some(place);
        if was_asked {
            standing.asked = None;
        }
        match refusal(outcome) {
            _ if outcome.was_set_up => standing.works = true,
            // It has no set-up, or one of its own.
            None => {}
            Some(failure) => {
                standing.refusals += 1;
                if was_asked && !standing.works {
                    standing.cause = Some(failure.clone());
                    // A whole system needs both; but a Controller that is only not content with our Dstores may be with others.
                    let (failure, refusals) = (failure.clone(), standing.refusals);
                    let system = &mut state.roles[number(Role::System)];
                    if !system.works && !failure.came.contains("ERROR") {
                        (system.cause, system.refusals) = (Some(failure), refusals);
                    }
                }
            }
        }
        self.news.notify_all();
    }

    /// Gives up what has not been begun.
    pub fn close(&self) {
        self.state.lock().pending.clear();
        self.news.notify_all();
    }
}

fn number(role: Role) -> usize {
    match role {
        Role::Controller => 0,
        Role::Dstore => 1,
        Role::System => 2,
    }
}

/// The failure of a check that could not begin.
pub fn refusal(outcome: &Outcome) -> Option<&Failure> {
    let (Verdict::Fails(trouble) | Verdict::NotJudged { trouble, .. }) = &outcome.verdict else { return None };
    Some(&trouble.failure).filter(|failure| failure.judged_by.is_some_and(|judge| SET_UP.contains(&judge)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::checks::published::Edition;
    use crate::run::Trouble;

    /// A queue of a few checks of each role, the Controller's first.
    fn queue() -> Queue {
        let mut checks = crate::checks::all(Edition::LAST);
        let mut taken = [0; 3];
        checks.retain(|check| {
            taken[number(check.role)] += 1;
            taken[number(check.role)] <= 6
        });
        Queue::new(checks.into_iter().map(Arc::new).collect())
    }

    fn refused(judge: &'static str) -> Option<Failure> {
        Some(Failure::new("the controller starts", "it does not, after 30 s").judged_by(judge))
    }

    fn end(queue: &Queue, place: usize, failure: Option<Failure>) {
        let was_set_up = failure.is_none();
        let verdict = match failure {
            None => Verdict::Holds,
            Some(failure) => Verdict::Fails(Box::new(Trouble { failure, events: Vec::new(), printed: Vec::new() })),
        };
        let check = Arc::clone(&queue.checks()[place]);
        queue.ended(place, &Outcome { check, took: Duration::ZERO, remarks: Vec::new(), was_set_up, verdict });
    }

    fn play(queue: &Queue) -> usize {
        match queue.next() {
            Next::Play(place) => place,
            _ => panic!("nothing to play"),
        }
    }

    #[test]
    fn after_three_refusals_and_one_more_the_rest_is_judged() {
        let queue = queue();
        let first: Vec<usize> = (0..3).map(|_| play(&queue)).collect();
        first.into_iter().for_each(|place| end(&queue, place, refused(CONTROLLER_STARTS)));
        let asked = play(&queue);
        assert_eq!(queue.checks()[asked].role, Role::Controller, "one more");
        let other = play(&queue);
        assert_eq!(queue.checks()[other].role, Role::Dstore, "and no other of its role beside it");
        end(&queue, other, None);
        end(&queue, asked, refused(CONTROLLER_STARTS));
        let mut judged = Vec::new();
        loop {
            match queue.next() {
                Next::Judge(place, _, refusals) => judged.push((queue.checks()[place].role, refusals)),
                Next::Play(place) => {
                    assert_eq!(queue.checks()[place].role, Role::Dstore, "which has shown nothing wrong");
                    end(&queue, place, None);
                }
                Next::Done => break,
            }
        }
        assert_eq!(judged.iter().filter(|judged| **judged == (Role::Controller, 4)).count(), 2);
        assert_eq!(judged.iter().filter(|judged| **judged == (Role::System, 4)).count(), 6);
    }

    #[test]
    fn a_check_that_could_begin_lets_all_others_be_played() {
        let queue = queue();
        let places: Vec<usize> = (0..3).map(|_| play(&queue)).collect();
        places.into_iter().for_each(|place| end(&queue, place, refused(CONTROLLER_STARTS)));
        let asked = play(&queue);
        end(&queue, asked, None);
        let mut played = 0;
        while let Next::Play(place) = queue.next() {
            let is_ours = queue.checks()[place].role == Role::Controller;
            end(&queue, place, refused(CONTROLLER_STARTS).filter(|_| is_ours));
            played += 1;
        }
        assert_eq!(played, queue.checks().len() - 4);
    }

    #[test]
    fn a_closed_queue_has_nothing_more_to_play() {
        let queue = queue();
        play(&queue);
        queue.close();
        assert!(matches!(queue.next(), Next::Done));
    }
}
