//! The results as JSON.

use serde_json::{Value, json};

use super::cause::cause;
use super::{IN_A_FILE, transcript};
use crate::run::{Because, Outcome, Plan, Run, Verdict};
use crate::scheme::{Mark, Scheme, not_judged, total};

/// So many messages are kept for `mark replay`. Of a submission that fails with more, the later checks lack them.
const MESSAGES: usize = 50_000;

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
    let head = json!({
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
    });
    let mut room = MESSAGES;
    let checks = run
        .outcomes
        .iter()
        .zip(costs)
        .map(|(outcome, costs)| check(outcome, &run.outcomes, costs, &mut room).to_string());
    // A line for each check: the messages would take thousands.
    let (head, checks) = (format!("{head:#}"), checks.collect::<Vec<_>>().join(",\n    "));
    let head = head.trim_end_matches('}').trim_end();
    format!("{head},\n  \"checks\": [\n    {checks}\n  ]\n}}\n")
}

fn check(outcome: &Outcome, all: &[Outcome], costs: f64, room: &mut usize) -> Value {
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
    if let Verdict::NotJudged { because: Because::Step(Some(judge)), .. } = outcome.verdict {
        value["prevented_by"] = judge.into();
    }
    if let Some(reason) = outcome.not_judged() {
        value["reason"] = reason.into();
    }
    if let Some(trouble) = outcome.trouble() {
        value["expected"] = trouble.failure.expected.clone().into();
        value["came"] = trouble.failure.came.clone().into();
        value["cause"] = cause(outcome, all).into();
        // Whatever is played again ends where it went wrong.
        let end = trouble.events.iter().position(|event| event.is_wrong).map_or(trouble.events.len(), |at| at + 1);
        if end <= *room {
            value["messages"] = json!(trouble.events[..end]);
            *room -= end;
        }
        value["transcript"] = transcript(&trouble.events, IN_A_FILE).into();
    }
    if !outcome.remarks.is_empty() {
        value["remarks"] = outcome.remarks.clone().into();
    }
    value
}
