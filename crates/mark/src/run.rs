//! Runs the checks, several at a time, and collects what they come to.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::checks::Check;
use crate::queue::{Next, Queue, refusal};
use crate::stage::failure::Failure;
use crate::stage::precedents::Precedents;
use crate::stage::recorder::Event;
use crate::stage::stall;
use crate::stage::submission::Submission;
use crate::stage::{NO_TIMEOUT, Stage, process};

/// How the checks are to be run, and what the reports are to say of it.
pub struct Plan {
    /// What the submission is called.
    pub name: String,
    /// When the run began, for the reports.
    pub date: String,
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
    /// When the run stops: checks that have not ended by then are not judged.
    pub limit: Duration,
    /// The patterns that have chosen the checks; none if all of them are run.
    pub only: Vec<String>,
    /// The page that the submission's page links back to.
    pub index: Option<String>,
    /// What the build has printed, as the page links to it.
    pub build_output: Option<String>,
}

/// What a run comes to.
pub struct Run {
    /// Of every check that was to be run, in the checks' order.
    pub outcomes: Vec<Outcome>,
    /// How long all of it took.
    pub took: Duration,
    /// Processes that had hidden from their checks.
    pub strays: Vec<String>,
}

/// What one check comes to.
pub struct Outcome {
    /// Which.
    pub check: Arc<Check>,
    /// How long it took.
    pub took: Duration,
    /// What the submission forced `mark` to do to it: limits, hidden processes.
    pub remarks: Vec<String>,
    /// Whether the programs got so far that the check could begin.
    pub was_set_up: bool,
    /// What it says of the submission.
    pub verdict: Verdict,
}

/// What a check says of a submission.
pub enum Verdict {
    /// The claim holds.
    Holds,
    /// It does not.
    Fails(Box<Trouble>),
    /// The situation of which the claim is was not brought about, because of this failure.
    NotJudged {
        /// What went wrong on the way.
        trouble: Box<Trouble>,
        /// What that is due to.
        because: Because,
    },
    /// The run was over before the check was. It counts as if it failed, and says so.
    NotRun,
}

/// Why a check is not judged.
#[derive(Clone, Copy)]
pub enum Because {
    /// A step that failed is the claim of this check, by its id, or builds on it; none if no check claims it.
    Step(Option<&'static str>),
    /// The machine stalled for so long, each time that the check was played.
    Stall(Duration),
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
        matches!(self.verdict, Verdict::Holds)
    }

    /// What is wrong, if something is: the failure of the check, or the one because of which it is not judged.
    pub fn trouble(&self) -> Option<&Trouble> {
        match &self.verdict {
            Verdict::Fails(trouble) | Verdict::NotJudged { trouble, .. } => Some(trouble),
            Verdict::Holds | Verdict::NotRun => None,
        }
    }

    /// In a word or two, for reports.
    pub fn result(&self) -> &'static str {
        match self.verdict {
            Verdict::Holds => "passed",
            Verdict::Fails(_) => "failed",
            Verdict::NotJudged { .. } => "not judged",
            Verdict::NotRun => "not run",
        }
    }

    /// Why it is not judged, if it is not, as a sentence for reports.
    pub fn not_judged(&self) -> Option<String> {
        let Verdict::NotJudged { because, .. } = &self.verdict else { return None };
        let reason = match because {
            Because::Step(None) => "its situation was not brought about".into(),
            Because::Step(Some(id)) => format!("it builds on what another check is about; see {id}"),
            Because::Stall(stall) => format!("this machine stalled for {} ms while it was played", stall.as_millis()),
        };
        Some(format!("Not judged: {reason}."))
    }

    /// Whether the run was over before the check was.
    pub fn is_not_run(&self) -> bool {
        matches!(self.verdict, Verdict::NotRun)
    }
}

/// Runs all of them, or as many as the limit allows; `tell` hears of each as it ends.
pub fn run(plan: &Arc<Plan>, checks: Vec<Arc<Check>>, mut tell: impl FnMut(&Outcome)) -> Run {
    let start = Instant::now();
    let queue = Arc::new(Queue::new(checks));
    let precedents = Arc::<Precedents>::default();
    let (ended, outcomes) = mpsc::channel();
    for number in 0..plan.jobs.max(1) {
        let (plan, queue, precedents, ended) =
            (Arc::clone(plan), Arc::clone(&queue), Arc::clone(&precedents), ended.clone());
        let worker = thread::Builder::new().name(format!("checks-{number}"));
        worker.spawn(move || work(&plan, &queue, &precedents, &ended)).expect("a thread can be started");
    }
    drop(ended);
    let mut known: Vec<Option<Outcome>> = queue.checks().iter().map(|_| None).collect();
    let is_complete = loop {
        match outcomes.recv_timeout(plan.limit.saturating_sub(start.elapsed())) {
            Ok((at, outcome)) => {
                tell(&outcome);
                known[at] = Some(outcome);
            }
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    // Checks that still play end with this process.
    queue.close();
    let strays = if is_complete { process::sweep_orphans() } else { Vec::new() };
    let not_run = |check| Outcome {
        check,
        took: Duration::ZERO,
        remarks: Vec::new(),
        was_set_up: false,
        verdict: Verdict::NotRun,
    };
    let outcomes = queue.checks().iter().zip(known);
    let outcomes = outcomes.map(|(check, known)| known.unwrap_or_else(|| not_run(Arc::clone(check))));
    let mut outcomes: Vec<Outcome> = outcomes.collect();
    leave_to_others(&mut outcomes);
    Run { outcomes, took: start.elapsed(), strays }
}

/// Takes one check after another until none is left. Each outcome is sent with its check's place.
fn work(plan: &Plan, queue: &Queue, precedents: &Arc<Precedents>, ended: &Sender<(usize, Outcome)>) {
    loop {
        let (place, outcome) = match queue.next() {
            Next::Play(place) => {
                let outcome = run_one(plan, &queue.checks()[place], precedents);
                queue.ended(place, &outcome);
                (place, outcome)
            }
            Next::Judge(place, failure, before) => (place, judged_by(&queue.checks()[place], failure, before)),
            Next::Done => return,
        };
        if ended.send((place, outcome)).is_err() {
            return; // the limit has been reached
        }
    }
}

/// What a check comes to that is not played, because of what so many others have shown.
fn judged_by(check: &Arc<Check>, failure: Failure, before: usize) -> Outcome {
    let remark = format!("was not played: {before} checks before could not begin either, all for this cause");
    let verdict = verdict(check, Trouble { failure, events: Vec::new(), printed: Vec::new() });
    Outcome { check: Arc::clone(check), took: Duration::ZERO, remarks: vec![remark], was_set_up: false, verdict }
}

/// A failure, unless it came before the check's situation was there. But the step that failed may be what the check is about.
fn verdict(check: &Check, trouble: Trouble) -> Verdict {
    let (judge, trouble) = (trouble.failure.judged_by, Box::new(trouble));
    match trouble.failure.is_in_preparation && judge.is_none_or(|id| id != check.id) {
        true => Verdict::NotJudged { trouble, because: Because::Step(judge) },
        false => Verdict::Fails(trouble),
    }
}

/// What goes wrong in many checks is told by one, and costs marks in its category only: a check is not judged if it failed at a step that
/// is the claim of another, or builds on another of another category, and that one fails as well.
fn leave_to_others(outcomes: &mut [Outcome]) {
    let causes: Vec<_> = (0..outcomes.len()).map(|at| cause(outcomes, &mut vec![at])).collect();
    for (outcome, cause) in outcomes.iter_mut().zip(causes) {
        let Some(cause) = cause else { continue };
        outcome.verdict = match std::mem::replace(&mut outcome.verdict, Verdict::NotRun) {
            Verdict::Fails(trouble) | Verdict::NotJudged { trouble, .. } => {
                Verdict::NotJudged { trouble, because: Because::Step(Some(cause)) }
            }
            verdict => verdict,
        };
    }
}

/// The check that tells what went wrong in the one at the end of this chain, each of which builds on the next: the first found that fails
/// and builds on none that does. One that builds on the chain's beginning tells nothing of that.
fn cause(outcomes: &[Outcome], chain: &mut Vec<usize>) -> Option<&'static str> {
    let last = &outcomes[*chain.last()?];
    judges(last).find_map(|(id, is_step)| {
        let place = outcomes.iter().position(|other| other.check.id == id && other.trouble().is_some())?;
        let judge = &outcomes[place];
        let is_other = is_step || judge.check.category != last.check.category;
        if !is_other || chain.contains(&place) || judges(judge).any(|(id, _)| id == outcomes[chain[0]].check.id) {
            return None;
        }
        chain.push(place);
        cause(outcomes, chain).or_else(|| matches!(judge.verdict, Verdict::Fails(_)).then_some(id))
    })
}

/// The checks that may tell what went wrong in this one, by id: first the one whose claim the step is that failed.
fn judges(outcome: &Outcome) -> impl Iterator<Item = (&'static str, bool)> {
    let step = match &outcome.verdict {
        Verdict::Fails(trouble) => trouble.failure.judged_by,
        Verdict::NotJudged { because: Because::Step(judge), .. } => *judge,
        _ => None,
    };
    let builds_on = outcome.trouble().map_or(&[][..], |_| &outcome.check.after);
    step.map(|id| (id, true)).into_iter().chain(builds_on.iter().map(|id| (*id, false)))
}

/// What is said in a check that is played with our own programs.
pub fn rehearse(check: &Arc<Check>, folder: &Path) -> Vec<Event> {
    let home = folder.to_owned();
    let submission = Arc::new(Submission::new(None, None, home).expect("our own programs have all places"));
    let stage_folder = folder.join("rehearsal");
    let precedents = Arc::default();
    let mut stage = Stage::new(&submission, stage_folder, false, 1, Duration::from_secs(10), &precedents);
    // What comes of it is not the question.
    let _ = catch_unwind(AssertUnwindSafe(|| (check.play)(&mut stage)));
    let events = stage.recorder.events();
    stage.take_down();
    events
}

/// How often a check is played again because the machine stalled while it failed.
const REPEATS: usize = 3;

/// A failure that a stall of the machine may explain says nothing: the check is played again, in a fresh set-up. If the machine
/// stalls each time, the check is not judged. A program that did not even start had half a minute.
fn run_one(plan: &Plan, check: &Arc<Check>, precedents: &Arc<Precedents>) -> Outcome {
    let begun = Instant::now();
    let mut repeats = 0;
    loop {
        let start = Instant::now();
        let (outcome, shortest) = play(plan, check, precedents);
        // What did not come for the whole of the patience is not explained by a stall that is short beside it, unless a program
        // was told a short timeout.
        let is_patient = shortest >= NO_TIMEOUT && start.elapsed() >= plan.patience;
        let counted_on = if is_patient { plan.patience } else { shortest };
        let stall = stall::longest_since(start).filter(|&stall| stall >= counted_on / 10);
        let stall = stall.filter(|_| refusal(&outcome).is_none());
        let outcome = Outcome { took: begun.elapsed(), ..outcome };
        match (stall, outcome.verdict) {
            (Some(stall), Verdict::Fails(trouble)) if repeats == REPEATS => {
                return Outcome { verdict: Verdict::NotJudged { trouble, because: Because::Stall(stall) }, ..outcome };
            }
            (Some(_), Verdict::Fails(_) | Verdict::NotJudged { .. }) if repeats < REPEATS => repeats += 1,
            (_, verdict) => return Outcome { verdict, ..outcome },
        }
    }
}

/// Plays a check once. With the outcome comes the shortest time that the check counts on.
fn play(plan: &Plan, check: &Arc<Check>, precedents: &Arc<Precedents>) -> (Outcome, Duration) {
    let start = Instant::now();
    let folder = plan.folder.join(check.id.replace('/', "."));
    let mut stage = Stage::new(&plan.submission, folder, plan.keeps_folders, plan.seed, plan.patience, precedents);
    let played = catch_unwind(AssertUnwindSafe(|| (check.play)(&mut stage)));
    let played = played.unwrap_or_else(|_| Err(Failure::new("mark itself does not fail", "it panicked; see above")));
    let verdict = match played {
        Ok(()) => Verdict::Holds,
        Err(failure) => {
            let events = events(&stage, &failure);
            verdict(check, Trouble { failure, events, printed: stage.printed() })
        }
    };
    let (remarks, was_set_up) = (stage.take_down(), stage.recorder.is_set_up());
    let outcome = Outcome { check: Arc::clone(check), took: start.elapsed(), remarks, was_set_up, verdict };
    (outcome, stage.shortest_timeout)
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::checks::Category;
    use crate::checks::published::Edition;

    const STORES: &str = "controller/store/completes-on-the-last-acknowledgement";
    const SAME: &str = "controller/store/sizes-are-remembered";
    const EVEN: &str = "controller/store/two-copies-evenly";

    /// What becomes of checks of which these fail, some at a step that is the claim of another.
    fn left(fails: &[(&str, Option<&'static str>)]) -> BTreeMap<String, &'static str> {
        let outcome = |check: Check| {
            let failure = |judge: Option<&'static str>| {
                let failure = Failure { judged_by: judge, ..Failure::new("this", "that") };
                Verdict::Fails(Box::new(Trouble { failure, events: Vec::new(), printed: Vec::new() }))
            };
            let fails = fails.iter().find(|(id, _)| *id == check.id);
            let verdict = fails.map_or(Verdict::Holds, |(_, judge)| failure(*judge));
            Outcome { check: Arc::new(check), took: Duration::ZERO, remarks: Vec::new(), was_set_up: true, verdict }
        };
        let mut outcomes: Vec<Outcome> = crate::checks::all(Edition::LAST).into_iter().map(outcome).collect();
        leave_to_others(&mut outcomes);
        let left = outcomes.iter().filter_map(|outcome| match outcome.verdict {
            Verdict::NotJudged { because: Because::Step(cause), .. } => Some((outcome.check.id.clone(), cause?)),
            _ => None,
        });
        left.collect()
    }

    #[test]
    fn a_failure_at_a_step_is_left_to_its_check_if_that_fails() {
        assert_eq!(left(&[(SAME, Some(STORES)), (STORES, None)]), BTreeMap::from([(SAME.into(), STORES)]));
        assert_eq!(left(&[(SAME, Some(STORES))]), BTreeMap::new());
    }

    #[test]
    fn a_failure_is_left_to_what_it_builds_on_elsewhere() {
        let even = crate::checks::all(Edition::LAST).into_iter().find(|check| check.id == EVEN).unwrap();
        assert!(even.category == Category::Replication && even.after.contains(&STORES));
        assert_eq!(left(&[(EVEN, None), (STORES, None)]), BTreeMap::from([(EVEN.into(), STORES)]));
        // The last of a chain tells of it.
        let chain = left(&[
            (EVEN, None),
            (STORES, Some("controller/list/complete-files")),
            ("controller/list/complete-files", None),
        ]);
        assert_eq!(chain[EVEN], "controller/list/complete-files");
    }

    #[test]
    fn two_that_blame_each_other_both_fail() {
        assert_eq!(
            left(&[(SAME, Some(STORES)), (STORES, Some("controller/store/sizes-are-remembered"))]),
            BTreeMap::new()
        );
    }
}
