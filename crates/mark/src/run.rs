//! Runs the checks, several at a time, and collects what they come to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::checks::Check;
use crate::stage::Stage;
use crate::stage::failure::Failure;
use crate::stage::recorder::Event;
use crate::stage::submission::Submission;

/// How the checks are to be run.
pub struct Plan {
    /// What is marked.
    pub submission: Arc<Submission>,
    /// Where the runs' folders are made.
    pub folder: PathBuf,
    /// Whether they stay.
    pub keeps_folders: bool,
    /// How many at a time.
    pub jobs: usize,
    /// For everything random.
    pub seed: u64,
    /// How long to wait for an answer that is due.
    pub patience: Duration,
}

/// What one check comes to.
pub struct Outcome {
    /// Which.
    pub check: Arc<Check>,
    /// How long it took.
    pub took: Duration,
    /// What the submission forced `mark` to do to it: limits, hidden processes.
    pub remarks: Vec<String>,
    /// Only if it fails.
    pub trouble: Option<Trouble>,
}

/// All about a failed check.
pub struct Trouble {
    /// What was expected, and what came.
    pub failure: Failure,
    /// What was said until then; exactly one is wrong.
    pub events: Vec<Event>,
    /// The last of what each program has printed.
    pub printed: Vec<(String, String)>,
}

impl Outcome {
    /// Whether the claim holds.
    pub fn passes(&self) -> bool {
        self.trouble.is_none()
    }
}

/// Runs all of them; `tell` hears of each as it ends. The outcomes come in the checks' order.
pub fn run(plan: &Plan, checks: Vec<Arc<Check>>, tell: impl Fn(&Outcome) + Sync) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            scope.spawn(|| {
                while let Some(check) = checks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run_one(plan, check);
                    tell(&outcome);
                    outcomes.lock().push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner();
    outcomes.sort_by_key(|outcome| checks.iter().position(|check| check.id == outcome.check.id));
    outcomes
}

fn run_one(plan: &Plan, check: &Arc<Check>) -> Outcome {
    let start = Instant::now();
    let folder = plan.folder.join(check.id.replace('/', "."));
    let mut stage = Stage::new(&plan.submission, folder, plan.keeps_folders, plan.seed, plan.patience);
    let played = catch_unwind(AssertUnwindSafe(|| (check.play)(&mut stage)));
    let verdict = played.unwrap_or_else(|_| Err(Failure::new("mark itself does not fail", "it panicked; see above")));
    let trouble = verdict.err().map(|failure| {
        let events = events(&stage, &failure);
        Trouble { failure, events, printed: stage.printed() }
    });
    let remarks = stage.take_down();
    Outcome { check: Arc::clone(check), took: start.elapsed(), remarks, trouble }
}

/// What was said. Checks look again and again at what may take a while, and only the last look counts.
fn events(stage: &Stage, failure: &Failure) -> Vec<Event> {
    let mut events = stage.recorder.events();
    let wrong = events.iter().rposition(|event| event.is_wrong).filter(|_| failure.is_marked);
    for (at, event) in events.iter_mut().enumerate() {
        event.is_wrong = Some(at) == wrong;
    }
    if wrong.is_none() {
        stage.recorder.missing("mark", "mark", &format!("expected {}; came {}", failure.expected, failure.came));
        events.extend(stage.recorder.events().pop());
    }
    events
}
