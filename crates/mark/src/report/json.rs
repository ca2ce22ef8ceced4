//! The results as JSON.

use serde_json::{Value, json};

use super::cause::cause;
use super::{IN_A_FILE, transcript};
use crate::run::{Outcome, Plan, Run, Verdict};
use crate::scheme::{Mark, Scheme, not_judged, total};

/// The whole run.
pub fn text(plan: &Plan, run: &Run, scheme: &Scheme, marks: &[Mark]) -> String {
    let (got, out_of) = total(marks);
    let categories: Vec<Value> = marks
        .iter()
        .map(|mark| {
            json!({
                "category": mark.category.key(),
                "marked": mark.category.is_marked(),
                "passed": mark.passed,
                "checks": mark.run,
                "marks": mark.marks,
                "not_judged": mark.not_judged,
                "out_of": mark.out_of,
            })
        })
        .collect();
    let costs = scheme.costs(&run.outcomes);
    let checks: Vec<Value> = run.outcomes.iter().zip(costs).map(|(outcome, costs)| check(outcome, costs)).collect();
    let report = json!({
        "name": plan.name,
        "date": plan.date,
        "controller": plan.submission.controller.to_string(),
        "dstore": plan.submission.dstore.to_string(),
        "only": plan.only,
        "seed": plan.seed,
        "edition": plan.submission.edition.to_string(),
        "seconds": run.took.as_secs_f64(),
        "marks": got,
        "not_judged": not_judged(marks),
        "out_of": out_of,
        "categories": categories,
        "checks": checks,
    });
    format!("{report:#}\n")
}

fn check(outcome: &Outcome, costs: f64) -> Value {
    let check = &outcome.check;
    let mut value = json!({
        "id": check.id,
        "category": check.category.key(),
        "spec": check.spec,
        "claim": check.claim,
        "passed": outcome.passes(),
        "result": outcome.result(),
        "costs": costs,
        "seconds": outcome.took.as_secs_f64(),
    });
    if let Some(published) = check.published {
        value["published"] = json!({ "since": published.since, "sentence": published.sentence });
    }
    if let Verdict::NotJudged { judge: Some(judge), .. } = outcome.verdict {
        value["prevented_by"] = judge.into();
    }
    if let Some(trouble) = outcome.trouble() {
        value["expected"] = trouble.failure.expected.clone().into();
        value["came"] = trouble.failure.came.clone().into();
        value["cause"] = cause(trouble).into();
        value["transcript"] = transcript(&trouble.events, IN_A_FILE).into();
    }
    if !outcome.remarks.is_empty() {
        value["remarks"] = outcome.remarks.clone().into();
    }
    value
}
