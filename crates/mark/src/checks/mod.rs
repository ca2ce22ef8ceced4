//! What is checked: each check is one claim of the spec, played out. Read them beside docs/spec.md.
//!
//! A check is marked only for what a published edition of the coursework asks, in a situation that the official client can bring
//! about. It names that sentence. All other checks are robustness: they are shown and explained, and cost nothing.

pub mod controller;
#[cfg(test)]
mod documentation;
pub mod dstore;
pub mod published;
pub mod system;

use crate::stage::Stage;
use crate::stage::failure::Verdict;
use published::{Edition, Published};

/// Which part of a submission a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A Controller among scripted Dstores.
    Controller,
    /// A Dstore with a scripted Controller.
    Dstore,
    /// Both together.
    System,
}

/// What a check counts towards: the published scheme's categories, and what is beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Store, load, remove and list, one client at a time.
    Sequential,
    /// R copies, evenly spread after stores.
    Replication,
    /// Many clients at once.
    Concurrent,
    /// One Dstore fails.
    OneFailure,
    /// N - R Dstores fail.
    NrFailures,
    /// Replication and spread after failures and joins: rebalancing.
    Spread,
    /// Beyond the scheme: reported, not marked.
    Robustness,
}

impl Category {
    /// In the order of the reports.
    pub const ALL: [Self; 7] = [
        Self::Sequential,
        Self::Replication,
        Self::Concurrent,
        Self::OneFailure,
        Self::NrFailures,
        Self::Spread,
        Self::Robustness,
    ];

    /// As the scheme's file names it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Replication => "replication",
            Self::Concurrent => "concurrent",
            Self::OneFailure => "one-failure",
            Self::NrFailures => "nr-failures",
            Self::Spread => "spread",
            Self::Robustness => "robustness",
        }
    }

    /// As the reports name it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sequential => "Sequential operations",
            Self::Replication => "Replication and even spread",
            Self::Concurrent => "Concurrent clients",
            Self::OneFailure => "One failure",
            Self::NrFailures => "N - R failures",
            Self::Spread => "Spread after failures and joins",
            Self::Robustness => "Robustness (not marked)",
        }
    }

    /// Whether the published scheme has marks for it.
    pub fn is_marked(self) -> bool {
        self != Self::Robustness
    }
}

/// One claim about the spec.
pub struct Check {
    /// Role, area and claim in a few words: `controller/store/completes-on-the-last-acknowledgement`.
    pub id: String,
    /// The program that it is about.
    pub role: Role,
    /// What it counts towards, by the edition that is marked.
    pub category: Category,
    /// What it rests on, if any edition asks for it. Such a check is robustness by the editions that do not.
    pub published: Option<&'static Published>,
    /// The clause of the spec, or several: `4.2, 7.5`.
    pub spec: &'static str,
    /// The claim, as a sentence.
    pub claim: String,
    /// The checks of other categories on whose claims it builds, by id. Where one of them fails, a failure of this one costs nothing
    /// more.
    pub after: Vec<&'static str>,
    /// Plays it out.
    pub play: Box<dyn Fn(&mut Stage) -> Verdict + Send + Sync>,
}

impl Check {
    fn new(
        role: Role,
        area: &str,
        (category, published): Basis,
        spec: &'static str,
        function: &str,
        claim: impl Into<String>,
        play: impl Fn(&mut Stage) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        let role_name = match role {
            Role::Controller => "controller",
            Role::Dstore => "dstore",
            Role::System => "system",
        };
        let id = format!("{role_name}/{area}/{}", function.replace('_', "-"));
        Self { id, role, category, published, spec, claim: claim.into(), after: Vec::new(), play: Box::new(play) }
    }

    /// The same, which also builds on these.
    fn after(mut self, others: &[&'static str]) -> Self {
        self.after.extend(others);
        self
    }

    /// As this edition has it.
    fn by(self, edition: Edition) -> Self {
        match self.published {
            Some(published) if edition.asks(published) => self,
            _ => Self { category: Category::Robustness, ..self },
        }
    }
}

/// What a check counts towards, and the published sentence that it rests on.
type Basis = (Category, Option<&'static Published>);

/// A module's checks: category, published sentence, clause, function, claim, and the ids of checks that it builds on. Robustness has no
/// sentence.
macro_rules! checks {
    ($role:ident $area:literal: $($check:tt)*) => { $crate::checks::checks! { $role $area as checks: $($check)* } };
    ($role:ident $area:literal as $name:ident:
        $([$category:ident $($published:ident)? $spec:literal] $function:ident $claim:literal $(after ($after:expr))?)*
    ) => {
        /// The checks of this module.
        pub fn $name() -> Vec<$crate::checks::Check> {
            vec![$($crate::checks::Check::new(
                $crate::checks::Role::$role,
                $area,
                $crate::checks::basis!($category $($published)?),
                $spec,
                stringify!($function),
                $claim,
                $function,
            )$(.after($after))?),*]
        }
    };
}
use checks;

/// `Robustness`, or a marked category and the sentence that the check rests on.
macro_rules! basis {
    (Robustness) => {
        ($crate::checks::Category::Robustness, None)
    };
    ($category:ident $published:ident) => {
        ($crate::checks::Category::$category, Some(&$crate::checks::published::$published))
    };
}
use basis;

/// All but the sequential checks build on these, which are sequential.
fn built_on(sequential: &[&'static str], checks: impl IntoIterator<Item = Check>) -> Vec<Check> {
    let build = |check: Check| match check.category {
        Category::Sequential => check,
        _ => check.after(sequential),
    };
    checks.into_iter().map(build).collect()
}

/// All checks, in the order of the spec, as an edition has them.
pub fn all(edition: Edition) -> Vec<Check> {
    let all = [controller::checks(), dstore::checks(), system::checks()].into_iter().flatten();
    all.map(|check| check.by(edition)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Category, Edition};

    #[test]
    fn ids_are_unique_and_clauses_exist() {
        let spec = include_str!("../../../../docs/spec.md");
        let checks = super::all(Edition::Any);
        let ids: BTreeSet<_> = checks.iter().map(|check| &check.id).collect();
        assert_eq!(ids.len(), checks.len());
        for check in &checks {
            for cited in check.spec.split(", ") {
                let clause = cited.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
                // A whole section is a clause, too.
                let starts = ["**", "### ", "| ", "## "].map(|start| format!("\n{start}{clause} "));
                assert!(starts.iter().any(|start| spec.contains(start)), "{}: spec {cited}", check.id);
            }
        }
        assert!(checks.len() >= 60, "{}", checks.len());
    }

    #[test]
    fn a_check_builds_on_checks_of_other_categories() {
        let checks = super::all(Edition::Year(2025));
        for check in &checks {
            for id in &check.after {
                let other =
                    checks.iter().find(|other| other.id == **id).unwrap_or_else(|| panic!("{}: {id}", check.id));
                assert!(other.category.is_marked() && other.category != check.category, "{}: {id}", check.id);
            }
        }
    }

    #[test]
    fn a_marked_check_cites_more_than_our_own_clauses() {
        for check in super::all(Edition::Year(2025)).iter().filter(|check| check.category.is_marked()) {
            assert!(check.published.is_some(), "{}", check.id);
            let is_ours = |clause: &str| clause.starts_with("7.") || clause.starts_with("8.");
            assert!(!check.spec.split(", ").all(is_ours), "{}: spec {}", check.id, check.spec);
        }
    }

    #[test]
    fn an_edition_that_does_not_ask_does_not_mark() {
        let marked = |edition| super::all(edition).iter().filter(|check| check.category.is_marked()).count();
        assert!(marked(Edition::Any) < marked(Edition::Year(2025)));
        let later =
            super::all(Edition::Any).into_iter().filter(|check| check.published.is_some_and(|p| p.since > 2021));
        assert!(later.into_iter().all(|check| check.category == Category::Robustness));
    }

    #[test]
    fn each_published_sentence_has_a_check_that_rests_on_it() {
        let checks = super::all(Edition::Year(2025));
        for published in super::published::ALL {
            assert!(checks.iter().any(|check| check.published == Some(published)), "{published}");
        }
    }
}
