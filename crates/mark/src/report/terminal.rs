//! The table on the terminal, and what is wrong in full.

use std::io::{IsTerminal, Write, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::cause::{Group, groups};
use super::{ON_THE_TERMINAL, minutes, seconds, transcript};
use crate::checks::Check;
use crate::run::{Outcome, Plan, Run, Verdict};
use crate::scheme::{Mark, Scheme, not_judged, total};

/// Tells of the run as it goes. Colour only on a terminal.
pub struct Terminal {
    is_terminal: bool,
    done: AtomicUsize,
    checks: usize,
}

impl Terminal {
    /// Says what is about to be marked.
    pub fn start(plan: &Plan, checks: usize) -> Self {
        let programs = match (plan.submission.marks_controller, plan.submission.marks_dstore) {
            (true, true) => "a Controller and a Dstore",
            (true, false) => "a Controller (Dstores in system checks: ours)",
            (false, _) => "a Dstore (Controller in system checks: ours)",
        };
        println!("{}: {checks} checks of {programs}, {} at a time, seed {}", plan.name, plan.jobs, plan.seed);
        println!("  controller: {}", plan.submission.controller);
        println!("  dstore:     {}\n", plan.submission.dstore);
        Self { is_terminal: stdout().is_terminal(), done: AtomicUsize::new(0), checks }
    }

    /// A check has ended.
    pub fn tell(&self, outcome: &Outcome) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let result = match outcome.verdict {
            Verdict::Holds => self.green("ok  "),
            Verdict::Fails(_) => self.red("FAIL"),
            Verdict::NotJudged { .. } => "n/j ".into(),
            Verdict::NotRun => "    ".into(),
        };
        let (check, took) = (&outcome.check, seconds(outcome.took));
        // A closed pipe is no reason to stop marking.
        let _ = writeln!(stdout(), "{done:>3}/{} {result} {took:>7}  spec {:<6} {}", self.checks, check.spec, check.id);
    }

    /// All have ended, or the limit has been reached.
    pub fn conclude(&self, plan: &Plan, run: &Run, scheme: &Scheme, marks: &[Mark]) {
        for outcome in &run.outcomes {
            for remark in &outcome.remarks {
                println!("\n{}: {remark}", outcome.check.id);
            }
        }
        let (marked, unmarked) = groups(&run.outcomes, scheme);
        // What costs most is read first if it stands last.
        unmarked.iter().chain(marked.iter().rev()).for_each(|group| self.explain(group));
        println!();
        println!("{:<36} {:>9}  {:>7}", "", "checks", "marks");
        for mark in marks {
            let checks = format!("{}/{}", mark.passed, mark.run);
            let is_full = mark.passed == mark.run;
            let title = format!("{:<36}", mark.category.title());
            let title = if is_full { self.green(&title) } else { self.red(&title) };
            match mark.category.is_marked() {
                true => println!("{title} {checks:>9}  {:>7}", format!("{:.1}/{}", mark.marks, mark.out_of)),
                false => println!("{title} {checks:>9}"),
            }
        }
        let (got, out_of) = total(marks);
        if out_of > 0.0 {
            println!("{:<36} {:>9}  {:>7}", self.bold(&format!("{:<36}", "Total")), "", format!("{got:.1}/{out_of}"));
            let open = not_judged(marks);
            if open > 0.0 {
                println!("{open:.1} marks could not be judged, because of failures that cost marks elsewhere");
            }
        }
        println!("in {}", minutes(run.took));
        if !plan.only.is_empty() {
            println!("This is a part: only the checks like {} were run.", plan.only.join(", "));
        }
        let not_run = run.outcomes.iter().filter(|outcome| outcome.is_not_run()).count();
        if not_run > 0 {
            println!("{}", self.red(&format!("{not_run} checks were not run: the {} were over.", minutes(plan.limit))));
        }
        for stray in &run.strays {
            println!("{stray}, and was killed");
        }
    }

    /// What many checks fail for is told once, by the one that shows it best.
    fn explain(&self, group: &Group) {
        let first = group.first();
        let (Some(trouble), check) = (first.trouble(), &first.check) else { return };
        let verdict = if first.not_judged().is_some() { "NOT JUDGED" } else { "FAIL" };
        println!("\n{} {}{}", self.red(verdict), self.bold(&check.id), in_marks(group));
        println!("  {}. (spec {})", check.claim, check.spec);
        match check.published {
            Some(published) => println!("  {published}"),
            None => println!("  No edition of the coursework asks for this; it is not marked."),
        }
        if let Some(reason) = first.not_judged() {
            println!("  {reason}");
        }
        println!("  expected: {}", trouble.failure.expected);
        println!("  came:     {}", trouble.failure.came);
        for line in transcript(&trouble.events, ON_THE_TERMINAL) {
            println!("  {}", if line.starts_with("=>") { self.red(&line) } else { line });
        }
        if let [_, others @ ..] = &group.outcomes[..]
            && !others.is_empty()
        {
            println!("  For the same cause {} more fail or are not judged:", others.len());
            others.iter().for_each(|other| println!("    {}", other.check.id));
        }
    }

    fn green(&self, text: &str) -> String {
        self.colour("32", text)
    }

    fn red(&self, text: &str) -> String {
        self.colour("31", text)
    }

    fn bold(&self, text: &str) -> String {
        self.colour("1", text)
    }

    fn colour(&self, code: &str, text: &str) -> String {
        if self.is_terminal { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }
}

fn in_marks(group: &Group) -> String {
    match (group.costs, group.open) {
        (0.0, 0.0) => String::new(),
        (costs, 0.0) => format!("  (costs {costs:.1} marks)"),
        (costs, open) => format!("  (costs {costs:.1} marks, and {open:.1} more cannot be judged)"),
    }
}

/// The checks and their claims.
pub fn list(checks: &[Arc<Check>]) {
    let mut out = stdout().lock();
    for check in checks {
        let (id, key) = (&check.id, check.category.key());
        let _ = writeln!(out, "{id}\n    {}. (spec {}; {key})", check.claim, check.spec);
        if let Some(published) = check.published {
            let _ = writeln!(out, "    {published}");
        }
    }
    let _ = writeln!(out, "{} checks", checks.len());
}
