//! What a submission gets: marks by category. (docs/marking.md)

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;

use crate::checks::Category;
use crate::run::{Because, Outcome, Verdict};

/// The scheme that is built in, as text.
pub const PUBLISHED: &str = include_str!("scheme.toml");

/// How many marks there are for what.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scheme {
    marks: BTreeMap<String, f64>,
    #[serde(default)]
    weights: BTreeMap<String, f64>,
}

/// One category's result.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Which category.
    pub category: Category,
    /// How many of its checks pass.
    pub passed: usize,
    /// How many have been run.
    pub run: usize,
    /// What it gets.
    pub marks: f64,
    /// What could not be judged, because of a failure that costs marks elsewhere.
    pub not_judged: f64,
    /// What it could get.
    pub out_of: f64,
}

impl Scheme {
    /// From a file, or the published one.
    pub fn read(path: Option<&str>) -> Result<Self, String> {
        let text = match path {
            None => PUBLISHED.to_owned(),
            Some(path) => fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?,
        };
        let scheme: Self = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.unwrap_or("scheme")))?;
        let known = |name: &String| Category::ALL.iter().any(|category| category.is_marked() && category.key() == name);
        match scheme.marks.keys().find(|name| !known(name)) {
            Some(stranger) => Err(format!("the scheme names no category of mark: {stranger:?}")),
            None => Ok(scheme),
        }
    }

    /// What the checks come to, by category, those that are not marked last.
    pub fn mark(&self, outcomes: &[Outcome]) -> Vec<Mark> {
        let mark = |&category: &Category| {
            let checks = || outcomes.iter().filter(move |outcome| outcome.check.category == category);
            // Not `sum`: of nothing it is -0.0.
            let worth = |which: &dyn Fn(&Outcome) -> bool| {
                let checks = checks().filter(|outcome| which(outcome));
                checks.map(|outcome| self.worth(outcome, outcomes)).fold(0.0, |sum, worth| sum + worth)
            };
            Mark {
                category,
                passed: checks().filter(|outcome| outcome.passes()).count(),
                run: checks().count(),
                marks: worth(&Outcome::passes),
                not_judged: worth(&|outcome| !outcome.passes() && !is_lost(outcome, outcomes)),
                out_of: if worth(&|_| true) > 0.0 {
                    self.marks.get(category.key()).copied().unwrap_or(0.0)
                } else {
                    0.0
                },
            }
        };
        Category::ALL.iter().map(mark).filter(|mark| mark.run > 0).collect()
    }

    /// The marks that each check has cost: 0 for one that passes, is not marked, or is left open by a failure elsewhere.
    pub fn costs(&self, outcomes: &[Outcome]) -> Vec<f64> {
        let cost = |outcome| if is_lost(outcome, outcomes) { self.worth(outcome, outcomes) } else { 0.0 };
        outcomes.iter().map(cost).collect()
    }

    /// The marks that each check is worth.
    pub fn worths(&self, outcomes: &[Outcome]) -> Vec<f64> {
        outcomes.iter().map(|outcome| self.worth(outcome, outcomes)).collect()
    }

    /// A check's share of its category's marks.
    fn worth(&self, outcome: &Outcome, outcomes: &[Outcome]) -> f64 {
        let category = outcome.check.category;
        let all = outcomes.iter().filter(|other| other.check.category == category).map(|other| self.weight(other));
        let (all, marks) = (all.sum::<f64>(), self.marks.get(category.key()).copied().unwrap_or(0.0));
        if all > 0.0 { marks * self.weight(outcome) / all } else { 0.0 }
    }

    fn weight(&self, outcome: &Outcome) -> f64 {
        self.weights.get(&outcome.check.id).copied().unwrap_or(1.0).max(0.0)
    }

    /// Whether the check's failure costs marks.
    pub fn counts(&self, outcome: &Outcome) -> bool {
        outcome.check.category.is_marked() && self.weights.get(&outcome.check.id).is_none_or(|&weight| weight > 0.0)
    }
}

/// Whether a check costs its share. It does if it fails, and if it is not judged because of a failure in its own category. A failure
/// costs nothing in another category: what it prevents there is left open, as not judged.
fn is_lost(outcome: &Outcome, outcomes: &[Outcome]) -> bool {
    match outcome.verdict {
        Verdict::Holds => false,
        Verdict::Fails(_) | Verdict::NotRun => true,
        Verdict::NotJudged { because: Because::Stall(_), .. } => false,
        Verdict::NotJudged { because: Because::Step(judge), .. } => outcomes.iter().any(|other| {
            judge.is_some_and(|id| id == other.check.id)
                && other.check.category == outcome.check.category
                && !other.passes()
        }),
    }
}

/// The sum of what it gets, and of what it could.
pub fn total(marks: &[Mark]) -> (f64, f64) {
    marks.iter().fold((0.0, 0.0), |(got, out_of), mark| (got + mark.marks, out_of + mark.out_of))
}

/// What of the total could not be judged.
pub fn not_judged(marks: &[Mark]) -> f64 {
    marks.iter().fold(0.0, |sum, mark| sum + mark.not_judged)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::checks::published::Edition;
    use crate::run::Trouble;
    use crate::stage::failure::Failure;

    /// All checks as if they held, except that some fail, or are prevented by another.
    fn outcomes(fails: &[&str], prevented: &[(&str, &'static str)]) -> Vec<Outcome> {
        let outcome = |check: crate::checks::Check| {
            let failure = Failure::new("this", "that");
            let trouble = Box::new(Trouble { failure, events: Vec::new(), printed: Vec::new() });
            let judge = prevented.iter().find(|(id, _)| *id == check.id).map(|(_, cause)| *cause);
            let verdict = match judge {
                Some(_) => Verdict::NotJudged { trouble, because: Because::Step(judge) },
                None if fails.contains(&check.id.as_str()) => Verdict::Fails(trouble),
                None => Verdict::Holds,
            };
            Outcome { check: Arc::new(check), took: Duration::ZERO, remarks: Vec::new(), was_set_up: true, verdict }
        };
        crate::checks::all(Edition::Any).into_iter().map(outcome).collect()
    }

    #[test]
    fn a_failure_costs_marks_in_its_own_category_only() {
        let scheme = Scheme::read(None).unwrap();
        let (cause, same, other) = (
            "controller/store/completes-on-the-last-acknowledgement",
            "controller/load/names-a-holder-and-the-size",
            "system/failures/one-failure-loses-nothing",
        );
        let marks = scheme.mark(&outcomes(&[cause], &[(same, cause), (other, cause)]));
        let find = |category| marks.iter().find(|mark| mark.category == category).unwrap();
        let lost = |mark: &Mark| mark.out_of - mark.marks - mark.not_judged;
        let (sequential, one_failure) = (find(Category::Sequential), find(Category::OneFailure));
        assert!((lost(sequential) - 2.0 * 50.0 / sequential.run as f64).abs() < 1e-9 && sequential.not_judged == 0.0);
        assert!(lost(one_failure).abs() < 1e-9 && one_failure.not_judged > 0.0);
    }

    #[test]
    fn what_no_failed_check_explains_costs_nothing() {
        let scheme = Scheme::read(None).unwrap();
        let (cause, same) =
            ("controller/store/completes-on-the-last-acknowledgement", "controller/load/names-a-holder-and-the-size");
        let marks = scheme.mark(&outcomes(&[], &[(same, cause)]));
        assert!(not_judged(&marks) > 0.0 && (total(&marks).0 + not_judged(&marks) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn the_published_scheme_is_worth_a_hundred() {
        let scheme = Scheme::read(None).unwrap();
        assert_eq!(scheme.marks.values().sum::<f64>(), 100.0);
        let marked = Category::ALL.iter().filter(|category| category.is_marked());
        assert!(marked.into_iter().all(|category| scheme.marks.contains_key(category.key())));
    }
}
