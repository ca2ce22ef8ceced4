//! The results as one web page that needs nothing else.

use std::fmt::Write;

use super::junit::escape;
use super::{IN_A_FILE, diagram, seconds, transcript};
use crate::checks::Category;
use crate::run::{Outcome, Plan};
use crate::scheme::{Mark, total};

/// The look of the page, also of a batch's index.
pub const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn text(plan: &Plan, outcomes: &[Outcome], marks: &[Mark]) -> String {
    let (got, out_of) = total(marks);
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passes()).collect();
    let mut page = head(&format!("{got:.1} of {out_of}"));
    let (controller, dstore) = (plan.submission.controller.to_string(), plan.submission.dstore.to_string());
    let _ = write!(
        page,
        "<header><div class=\"total\"><b>{got:.1}</b><span>of {out_of} marks</span></div>\
         <div><h1>{}</h1><dl><dt>Controller</dt><dd><code>{}</code></dd><dt>Dstore</dt><dd><code>{}</code></dd>\
         <dt>Checks</dt><dd>{} of {} hold; seed {}</dd></dl></div></header>\n<main>\n",
        if failed.is_empty() { "Everything holds" } else { "What works, what does not, and why" },
        escape(&controller),
        escape(&dstore),
        outcomes.len() - failed.len(),
        outcomes.len(),
        plan.seed,
    );
    page += &categories(marks);
    if !failed.is_empty() {
        page += "<h2>What does not work</h2>\n";
    }
    for outcome in &failed {
        page += &trouble(outcome);
    }
    page += "<h2>All checks</h2>\n";
    for category in Category::ALL {
        let checks: Vec<_> = outcomes.iter().filter(|outcome| outcome.check.category == category).collect();
        if !checks.is_empty() {
            let _ = writeln!(page, "<h3>{}</h3>\n<table class=\"checks\">", category.title());
            checks.iter().for_each(|outcome| page += &row(outcome));
            page += "</table>\n";
        }
    }
    page + "</main>\n" + TO_THE_WRONG_ARROW + "</body>\n</html>\n"
}

/// A long diagram opens where it goes wrong.
const TO_THE_WRONG_ARROW: &str = "<script>\n\
    for (const box of document.querySelectorAll('.scroll')) {\n\
      const wrong = box.querySelector('.wrong');\n\
      if (wrong) box.scrollTop = wrong.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight + 70;\n\
    }\n</script>\n";

/// Everything up to the page's content.
pub fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>mark: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        escape(title)
    )
}

fn categories(marks: &[Mark]) -> String {
    let mut table = String::from("<table class=\"marks\"><tr><th></th><th>checks</th><th></th><th>marks</th></tr>\n");
    for mark in marks {
        let share = 100 * mark.passed / mark.run.max(1);
        let worth = match mark.category.is_marked() {
            true => format!("{:.1} / {}", mark.marks, mark.out_of),
            false => "not marked".into(),
        };
        let _ = writeln!(
            table,
            "<tr><td>{}</td><td class=\"number\">{} / {}</td><td><div class=\"bar\"><i style=\"width:{share}%\"></i></div></td>\
             <td class=\"number\">{worth}</td></tr>",
            mark.category.title(),
            mark.passed,
            mark.run,
        );
    }
    table + "</table>\n"
}

fn trouble(outcome: &Outcome) -> String {
    let Some(trouble) = &outcome.trouble else { return String::new() };
    let check = &outcome.check;
    let mut card = format!(
        "<article id=\"{}\">\n<h3>{}</h3>\n<p class=\"about\"><code>{}</code> · spec {} · {} · {}</p>\n\
         <div class=\"verdict\"><div><b>Expected</b>{}</div><div class=\"came\"><b>Came</b>{}</div></div>\n",
        escape(&check.id),
        escape(&check.claim),
        escape(&check.id),
        check.spec,
        check.category.title(),
        seconds(outcome.took),
        words(&trouble.failure.expected),
        words(&trouble.failure.came),
    );
    for remark in &outcome.remarks {
        let _ = writeln!(card, "<p class=\"remark\">{}</p>", escape(remark));
    }
    let _ = write!(card, "<div class=\"scroll\">\n{}</div>\n", diagram::svg(&trouble.events));
    let lines = escape(&transcript(&trouble.events, IN_A_FILE).join("\n"));
    let _ = writeln!(card, "<details><summary>Transcript</summary><pre>{lines}</pre></details>");
    for (name, printed) in &trouble.printed {
        if !printed.trim().is_empty() {
            let (name, printed) = (escape(name), escape(last(printed)));
            let _ =
                writeln!(card, "<details><summary>What {name} printed last</summary><pre>{printed}</pre></details>");
        }
    }
    card + "</article>\n"
}

/// Text in which what the protocol says stands between backticks.
fn words(text: &str) -> String {
    let pieces = text.split('`').enumerate();
    pieces
        .map(|(at, piece)| if at % 2 == 1 { format!("<code>{}</code>", escape(piece)) } else { escape(piece) })
        .collect()
}

/// The last few thousand bytes of what was printed, from the start of a line.
fn last(printed: &str) -> &str {
    let start = printed.floor_char_boundary(printed.len().saturating_sub(4_000));
    let tail = &printed[start..];
    if start == 0 { tail } else { tail.split_once('\n').map_or(tail, |(_, rest)| rest) }
}

fn row(outcome: &Outcome) -> String {
    let check = &outcome.check;
    let (class, sign) = if outcome.passes() { ("good", "✓") } else { ("bad", "✗") };
    let id = escape(&check.id);
    let name = if outcome.passes() { id.clone() } else { format!("<a href=\"#{id}\">{id}</a>") };
    format!(
        "<tr class=\"{class}\"><td>{sign}</td><td>{}<br><code>{name}</code></td><td>{}</td><td class=\"number\">{}</td></tr>\n",
        escape(&check.claim),
        check.spec,
        seconds(outcome.took),
    )
}
