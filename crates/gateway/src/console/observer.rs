//! One thread asks for the store's status, for all viewers.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use depot::client::Files;
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

use super::statistics::{Space, Statistics};
use super::status::status_json;
use crate::http::Problem;

/// So many pages may be told of changes at a time: each has a thread, and asks the store for changes.
pub(super) const MOST_VIEWERS: usize = 32;

/// How often the store is asked while there are viewers.
const WATCHED: Duration = Duration::from_secs(1);

/// How often it is asked while there are none: for the chart of space.
const UNWATCHED: Duration = Duration::from_secs(10);

/// What was found longer ago says nothing any more: the store has been asked since.
const STALE: Duration = Duration::from_secs(20);

/// Asks until it is dropped.
pub(super) struct Observer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a new observation, or a first viewer, or the end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    observation: Option<Observation>,
    viewers: usize,
    is_stopping: bool,
}

/// How the store was found.
#[derive(Clone)]
pub(super) struct Observation {
    /// Later ones have greater numbers.
    pub(super) number: u64,
    /// When the store was asked.
    begun: Instant,
    /// What `status` says, or why it says nothing.
    pub(super) found: Result<Arc<Value>, Arc<Value>>,
}

/// A page that is being looked at, until this is dropped.
pub(super) struct Viewer(Arc<Shared>);

impl Observer {
    pub(super) fn start(store: Arc<dyn Files>, statistics: Arc<Statistics>) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let of_thread = Arc::clone(&shared);
        // Not waited for in the end: the store may take long to say that it does not answer.
        thread::Builder::new()
            .name("console-observer".into())
            .spawn(move || of_thread.observe(&*store, &statistics))?;
        Ok(Self(shared))
    }

    /// Ends the thread, and has all viewers end.
    pub(super) fn stop(&self) {
        self.0.state.lock().is_stopping = true;
        self.0.changed.notify_all();
    }

    /// Why the store cannot be used now, as it was found last; also if it has not answered since long.
    pub(super) fn trouble(&self) -> Option<String> {
        match &self.0.state.lock().observation {
            None => Some("the store has not answered yet".to_owned()),
            Some(observation) if observation.begun.elapsed() > STALE => Some("the store does not answer".to_owned()),
            Some(Observation { found: Err(problem), .. }) => problem["message"].as_str().map(str::to_owned),
            Some(Observation { found: Ok(_), .. }) => None,
        }
    }

    /// Counts one more viewer, unless there are enough.
    pub(super) fn enter(&self) -> Option<Viewer> {
        let mut state = self.0.state.lock();
        if state.viewers >= MOST_VIEWERS || state.is_stopping {
            return None;
        }
        state.viewers += 1;
        self.0.changed.notify_all();
        Some(Viewer(Arc::clone(&self.0)))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Viewer {
    /// What was found last, unless that has this number.
    pub(super) fn newer_than(&self, number: u64) -> Option<Observation> {
        self.0.state.lock().observation.clone().filter(|observation| observation.number != number)
    }

    /// Waits until then; false if it is to end before.
    pub(super) fn rest_until(&self, then: Instant) -> bool {
        let mut state = self.0.state.lock();
        while !state.is_stopping && Instant::now() < then {
            self.0.changed.wait_until(&mut state, then);
        }
        !state.is_stopping
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.state.lock().viewers -= 1;
    }
}

impl Shared {
    fn observe(&self, store: &dyn Files, statistics: &Statistics) {
        for number in 1.. {
            let begun = Instant::now();
            let status = store.status();
            statistics.space(status.as_ref().ok().map(Space::of));
            let found = match status {
                Ok(status) => Ok(Arc::new(status_json(&status))),
                Err(error) => {
                    let problem = Problem::of("status", &error);
                    Err(Arc::new(json!({ "error": problem.code, "message": problem.message })))
                }
            };
            let mut state = self.state.lock();
            state.observation = Some(Observation { number, begun, found });
            self.changed.notify_all();
            loop {
                let period = if state.viewers > 0 { WATCHED } else { UNWATCHED };
                if state.is_stopping {
                    return;
                }
                if self.changed.wait_until(&mut state, begun + period).timed_out() && begun.elapsed() >= period {
                    break;
                }
            }
        }
    }
}
