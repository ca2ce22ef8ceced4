//! What a submission gets: marks by category. (docs/marking.md)

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;

use crate::checks::Category;
use crate::run::Outcome;

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
            let weight = |outcome: &Outcome| self.weight(outcome);
            // Not `sum`: of nothing it is -0.0.
            let all = checks().map(weight).fold(0.0, |sum, weight| sum + weight);
            let earned = checks().filter(|outcome| outcome.passes()).map(weight).fold(0.0, |sum, weight| sum + weight);
            let worth = self.marks.get(category.key()).copied().unwrap_or(0.0);
            let out_of = if all > 0.0 { worth } else { 0.0 };
            let marks = if all > 0.0 { worth * earned / all } else { 0.0 };
            let passed = checks().filter(|outcome| outcome.passes()).count();
            Mark { category, passed, run: checks().count(), marks, out_of }
        };
        Category::ALL.iter().map(mark).filter(|mark| mark.run > 0).collect()
    }

    /// The marks that each check has cost: 0 for one that passes, or is not marked.
    pub fn costs(&self, outcomes: &[Outcome]) -> Vec<f64> {
        let cost = |outcome: &Outcome| {
            let category = outcome.check.category;
            let all = outcomes.iter().filter(|other| other.check.category == category).map(|other| self.weight(other));
            let (all, worth) = (all.sum::<f64>(), self.marks.get(category.key()).copied().unwrap_or(0.0));
            if outcome.passes() || all <= 0.0 { 0.0 } else { worth * self.weight(outcome) / all }
        };
        outcomes.iter().map(cost).collect()
    }

    fn weight(&self, outcome: &Outcome) -> f64 {
        self.weights.get(&outcome.check.id).copied().unwrap_or(1.0).max(0.0)
    }

    /// Whether the check's failure costs marks.
    pub fn counts(&self, outcome: &Outcome) -> bool {
        outcome.check.category.is_marked() && self.weights.get(&outcome.check.id).is_none_or(|&weight| weight > 0.0)
    }
}

/// The sum of what it gets, and of what it could.
pub fn total(marks: &[Mark]) -> (f64, f64) {
    marks.iter().fold((0.0, 0.0), |(got, out_of), mark| (got + mark.marks, out_of + mark.out_of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_scheme_is_worth_a_hundred() {
        let scheme = Scheme::read(None).unwrap();
        assert_eq!(scheme.marks.values().sum::<f64>(), 100.0);
        let marked = Category::ALL.iter().filter(|category| category.is_marked());
        assert!(marked.into_iter().all(|category| scheme.marks.contains_key(category.key())));
    }
}
