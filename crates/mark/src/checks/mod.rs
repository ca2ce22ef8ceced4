//! What is checked: each check is one claim of the spec, played out. Read them beside docs/spec.md.

pub mod controller;
pub mod dstore;
pub mod system;

use crate::stage::Stage;
use crate::stage::failure::Verdict;

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
    /// Whom it is about.
    pub role: Role,
    /// What it counts towards.
    pub category: Category,
    /// The clause of the spec, or several: `4.2, 7.5`.
    pub spec: &'static str,
    /// The claim, as a sentence.
    pub claim: String,
    /// Plays it out.
    pub play: Box<dyn Fn(&mut Stage) -> Verdict + Send + Sync>,
}

impl Check {
    fn new(
        role: Role,
        area: &str,
        category: Category,
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
        Self { id, role, category, spec, claim: claim.into(), play: Box::new(play) }
    }
}

/// A module's checks: category, clause, function, claim.
macro_rules! checks {
    ($role:ident $area:literal: $($check:tt)*) => { $crate::checks::checks! { $role $area as checks: $($check)* } };
    ($role:ident $area:literal as $name:ident: $([$category:ident $spec:literal] $function:ident $claim:literal)*) => {
        /// The checks of this module.
        pub fn $name() -> Vec<$crate::checks::Check> {
            vec![$($crate::checks::Check::new(
                $crate::checks::Role::$role,
                $area,
                $crate::checks::Category::$category,
                $spec,
                stringify!($function),
                $claim,
                $function,
            )),*]
        }
    };
}
use checks;

/// All checks, in the order of the spec.
pub fn all() -> Vec<Check> {
    [controller::checks(), dstore::checks(), system::checks()].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique_and_clauses_exist() {
        let spec = include_str!("../../../../docs/spec.md");
        let checks = super::all();
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
}
