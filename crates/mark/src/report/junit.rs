//! The results in the form that JUnit made common among pipelines.

use std::fmt::Write;

use super::{IN_A_FILE, transcript};
use crate::checks::Category;
use crate::run::{Outcome, Plan, Run, Verdict};

/// One suite for each category.
pub fn text(plan: &Plan, run: &Run) -> String {
    let outcomes = &run.outcomes;
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"mark {}\" time=\"{:.3}\">\n",
        escape(&plan.name),
        run.took.as_secs_f64(),
    );
    for category in Category::ALL {
        let checks: Vec<_> = outcomes.iter().filter(|outcome| outcome.check.category == category).collect();
        if checks.is_empty() {
            continue;
        }
        let failures = checks.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Fails(_))).count();
        let is_skipped = |outcome: &&&Outcome| matches!(outcome.verdict, Verdict::NotRun | Verdict::NotJudged { .. });
        let skipped = checks.iter().filter(is_skipped).count();
        let time: f64 = checks.iter().map(|outcome| outcome.took.as_secs_f64()).sum();
        let (name, tests) = (category.key(), checks.len());
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" skipped=\"{skipped}\" time=\"{time:.3}\">"
        );
        for outcome in checks {
            xml += &case(outcome);
        }
        xml += "  </testsuite>\n";
    }
    xml + "</testsuites>\n"
}

fn case(outcome: &Outcome) -> String {
    let check = &outcome.check;
    let (class, name) = check.id.rsplit_once('/').unwrap_or(("", &check.id));
    let (class, name, time) = (escape(class), escape(name), outcome.took.as_secs_f64());
    let head = format!("    <testcase classname=\"{class}\" name=\"{name}\" time=\"{time:.3}\"");
    let trouble = match &outcome.verdict {
        Verdict::Holds => return head + "/>\n",
        Verdict::NotRun => return head + "><skipped message=\"not run: the run's time was over\"/></testcase>\n",
        Verdict::NotJudged { .. } => {
            let reason = escape(&outcome.not_judged().unwrap_or_default());
            return format!("{head}><skipped message=\"{reason}\"/></testcase>\n");
        }
        Verdict::Fails(trouble) => trouble,
    };
    let failure = &trouble.failure;
    let message = format!("spec {}: expected {}; came {}", check.spec, failure.expected, failure.came);
    let body = format!("{}. (spec {})\n{}", check.claim, check.spec, transcript(&trouble.events, IN_A_FILE).join("\n"));
    format!("{head}>\n      <failure message=\"{}\">{}</failure>\n    </testcase>\n", escape(&message), escape(&body))
}

/// For attributes and text of XML and HTML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' => escaped.push('\n'),
            c if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    escaped
}
