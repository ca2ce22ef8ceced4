//! The gate between requests and rebalances: a rebalance waits for what is in progress, and requests wait in line
//! while it runs. (spec 4.6)
//!
//! Knows neither the index nor the network; all that waits in the Controller for a rebalance waits here.

use std::collections::VecDeque;
use std::io;

use crate::sync::one_shot::{self, one_shot};
use crate::sync::{Condvar, Mutex};

/// What a request asks of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// It only reads the index: kept out while a rebalance runs, but not while one waits to begin, so that no
    /// client's LOAD waits for another client's STORE.
    Look,
    /// It changes the index, and a rebalance waits until the [`Pass`] that it gets is dropped.
    Change,
}

/// Lets requests through one after another while open, and keeps them in line while closed.
pub struct Gate {
    state: Mutex<State>,
    /// Signalled when a closing gate may have become empty, and when it is shut for good.
    emptied: Condvar,
}

struct State {
    door: Door,
    /// Passes given out and not yet dropped.
    inside: usize,
    /// The requests that wait, first come first. Each is told when its turn comes, or, when the gate is shut, that it will
    /// not come.
    line: VecDeque<Waiting>,
    /// How many of the line may go in: those that were there when the gate opened, or came while it was open.
    admitted: usize,
    /// One of them is deciding just now: the next has to wait until it has.
    is_deciding: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// A rebalance waits for `inside` to become 0.
    Closing,
    Closed,
    /// For good: the Controller stops.
    Shut,
}

struct Waiting {
    request: Request,
    turn: one_shot::Sender<()>,
}

/// An open gate.
impl Default for Gate {
    fn default() -> Self {
        let state = State { door: Door::Open, inside: 0, line: VecDeque::new(), admitted: 0, is_deciding: false };
        Self { state: Mutex::new(state), emptied: Condvar::new() }
    }
}

impl Gate {
    /// Runs `decide` when the gate lets the request in: at once, or in its turn, each after the one before it in line
    /// has decided. A change also gets a pass, to be dropped when the operation has ended.
    pub fn enter<T>(&self, request: Request, decide: impl FnOnce() -> T) -> Result<(T, Option<Pass<'_>>), Shut> {
        let turn = {
            let mut state = self.state.lock();
            let is_next = match state.door {
                Door::Open => state.line.is_empty() && !state.is_deciding,
                Door::Closing => request == Request::Look,
                Door::Closed => false,
                Door::Shut => return Err(Shut),
            };
            if is_next {
                state.inside += usize::from(request == Request::Change);
                None
            } else {
                let (turn, wait) = one_shot();
                state.line.push_back(Waiting { request, turn });
                state.admitted += usize::from(state.door == Door::Open);
                Some(wait)
            }
        };
        let turn = match turn {
            None => None,
            Some(wait) => {
                wait.recv().map_err(|_| Shut)?;
                Some(Turn(self))
            }
        };
        let pass = (request == Request::Change).then(|| Pass(self));
        let decision = decide();
        drop(turn);
        Ok((decision, pass))
    }

    /// Keeps new changes out, waits for those inside to end, and then keeps all requests out. False once shut.
    pub fn close(&self) -> bool {
        let mut state = self.state.lock();
        if state.door != Door::Shut {
            state.door = Door::Closing;
        }
        while state.door == Door::Closing && !state.is_empty() {
            self.emptied.wait(&mut state);
        }
        if state.door == Door::Shut {
            return false;
        }
        state.door = Door::Closed;
        true
    }

    /// Lets those in line in, in order, and then all others.
    pub fn open(&self) {
        let mut state = self.state.lock();
        if state.door == Door::Shut {
            return;
        }
        state.door = Door::Open;
        state.admitted = state.line.len();
        state.admit_next();
    }

    /// Sends all requests away, now and in future.
    pub fn shut(&self) {
        let mut state = self.state.lock();
        state.door = Door::Shut;
        state.admitted = 0;
        state.line.clear();
        self.emptied.notify_all();
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.inside == 0 && self.admitted == 0 && !self.is_deciding
    }

    /// The pass and the turn are counted for the thread that is woken, so that no other slips in between.
    fn admit_next(&mut self) {
        if self.admitted == 0 || self.is_deciding {
            return;
        }
        let next = self.line.pop_front().expect("those admitted are in line");
        self.admitted -= 1;
        self.inside += usize::from(next.request == Request::Change);
        self.is_deciding = true;
        next.turn.send(());
    }
}

/// The gate is shut for good: the Controller is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shut;

impl From<Shut> for io::Error {
    fn from(Shut: Shut) -> Self {
        io::Error::other("the Controller is stopping")
    }
}

/// A change that is in progress; no rebalance begins before it is dropped.
pub struct Pass<'a>(&'a Gate);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.inside -= 1;
        if state.is_empty() {
            self.0.emptied.notify_all();
        }
    }
}

/// The turn of a request that was in line. The next one's comes when it is dropped.
struct Turn<'a>(&'a Gate);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_deciding = false;
        state.admit_next();
        if state.is_empty() {
            self.0.emptied.notify_all();
        }
    }
}

#[cfg(all(test, shuttle))]
impl Gate {
    pub(super) fn in_line(&self) -> usize {
        self.state.lock().line.len()
    }

    /// True if no change is inside and no request is in line.
    pub(super) fn is_left(&self) -> bool {
        let state = self.state.lock();
        state.is_empty() && state.line.is_empty()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
