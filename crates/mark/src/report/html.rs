//! The results as one web page that needs nothing else.

use std::fmt::Write;

use super::cause::{Group, groups};
use super::junit::escape;
use super::{IN_A_FILE, ON_THE_TERMINAL, diagram, minutes, seconds, transcript};
use crate::checks::Category;
use crate::run::{Outcome, Plan, Run, Trouble, Verdict};
use crate::scheme::{Mark, Scheme, not_judged, total};

/// The look of the page, also of a batch's index.
pub const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn text(plan: &Plan, run: &Run, scheme: &Scheme, marks: &[Mark]) -> String {
    let (got, out_of) = total(marks);
    let (marked, unmarked) = groups(&run.outcomes, scheme);
    let mut page = head(&format!("{}: {got:.1} of {out_of}", plan.name));
    page += &header(plan, run, got, out_of);
    page += "<main>\n";
    page += &notices(plan, run, not_judged(marks));
    page += &categories(marks);
    if !marked.is_empty() {
        page += &whats_next(plan, &marked);
        for (number, group) in marked.iter().enumerate() {
            page += &cause(plan, group, scheme, &run.outcomes, number == 0);
        }
    }
    if !unmarked.is_empty() {
        let _ = write!(
            page,
            "<h2 id=\"robustness\">Robustness: costs no marks</h2>\n<p>The coursework does not ask for these. A good program \
             survives them all the same.</p>\n"
        );
        unmarked.iter().for_each(|group| page += &cause(plan, group, scheme, &run.outcomes, false));
    }
    page += "<h2 id=\"all\">All checks</h2>\n";
    for category in Category::ALL {
        let checks: Vec<_> = run.outcomes.iter().filter(|outcome| outcome.check.category == category).collect();
        if !checks.is_empty() {
            let passed = checks.iter().filter(|outcome| outcome.passes()).count();
            let _ = writeln!(
                page,
                "<details><summary><b>{}</b>: {passed} of {} pass</summary>\n<table class=\"checks\">",
                category.title(),
                checks.len()
            );
            checks.iter().for_each(|outcome| page += &row(outcome));
            page += "</table></details>\n";
        }
    }
    page + "</main>\n" + SCRIPT + "</body>\n</html>\n"
}

/// A long diagram opens where it goes wrong; a link into a closed part opens that.
const SCRIPT: &str = "<script>\n\
    const toTheWrongArrow = (box) => {\n\
      const wrong = box.querySelector('.wrong');\n\
      if (!wrong) return;\n\
      const [arrow, frame] = [wrong.getBoundingClientRect(), box.getBoundingClientRect()];\n\
      box.scrollTop = arrow.top - frame.top - box.clientHeight + arrow.height + 60;\n\
      if (!wrong.classList.contains('band') && arrow.right + 12 > frame.right) {\n\
        box.scrollLeft = arrow.left + arrow.width / 2 - frame.left - box.clientWidth / 2;\n\
      }\n\
    };\n\
    document.querySelectorAll('.scroll').forEach(toTheWrongArrow);\n\
    const open = () => {\n\
      const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));\n\
      for (let part = target; part; part = part.parentElement) if (part.tagName === 'DETAILS') part.open = true;\n\
      if (target) target.scrollIntoView();\n\
    };\n\
    addEventListener('hashchange', open);\n\
    open();\n\
    </script>\n";

/// Everything up to the page's content.
pub fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n",
        escape(title)
    )
}

fn header(plan: &Plan, run: &Run, got: f64, out_of: f64) -> String {
    let mut header = format!(
        "<header><div class=\"total\"><b>{got:.1}</b><span>of {out_of} marks</span></div>\n<div class=\"what\">{}<h1>{}</h1>\n<dl>",
        plan.index.as_ref().map_or(String::new(), |index| {
            format!("<a class=\"back\" href=\"{}\">← all submissions</a>", escape(index))
        }),
        escape(&plan.name),
    );
    let mut row = |title: &str, text: String| _ = writeln!(header, "<dt>{title}</dt><dd>{text}</dd>");
    row("Edition", escape(&plan.submission.edition.to_string()));
    row("Controller", format!("<code>{}</code>", escape(&plan.submission.controller.to_string())));
    row("Dstore", format!("<code>{}</code>", escape(&plan.submission.dstore.to_string())));
    if let Some(output) = &plan.build_output {
        row("Build", format!("<a href=\"{}\">all that it printed</a>", escape(output)));
    }
    let passed = run.outcomes.iter().filter(|outcome| outcome.passes()).count();
    row("Checks", format!("{passed} of {} pass", run.outcomes.len()));
    row("Marked", format!("{}, in {}; seed {}", plan.date, minutes(run.took), plan.seed));
    header + "</dl></div></header>\n"
}

/// What a reader must know before the marks mean anything.
fn notices(plan: &Plan, run: &Run, open: f64) -> String {
    let mut notices = String::new();
    if !plan.only.is_empty() {
        let _ = writeln!(
            notices,
            "<p class=\"notice\"><b>This is a part.</b> Only the checks like <code>{}</code> were run, and the marks are of these.</p>",
            escape(&plan.only.join(", "))
        );
    }
    let not_run = run.outcomes.iter().filter(|outcome| outcome.is_not_run()).count();
    if not_run > 0 {
        let _ = writeln!(
            notices,
            "<p class=\"notice\"><b>{not_run} checks were not run</b>: {} were over. They earn nothing, and say nothing about the \
             programs. <code>--minutes</code> gives more time.</p>",
            minutes(plan.limit)
        );
    }
    if open > 0.05 {
        let _ = writeln!(
            notices,
            "<p class=\"notice\"><b>{open:.1} marks are open</b>: what they are for could not be tried, because something failed on \
             which it builds. They are not in the total. Mend what costs marks below, and mark again.</p>"
        );
    }
    notices
}

fn categories(marks: &[Mark]) -> String {
    let mut table = String::from(
        "<table class=\"marks\"><tr><th>Category</th><th class=\"number\">Checks</th><th class=\"wide\"></th>\
         <th class=\"number\">Marks</th></tr>\n",
    );
    for mark in marks {
        let share = 100 * mark.passed / mark.run.max(1);
        let open = match mark.not_judged > 0.05 {
            true => format!("<br><span class=\"open\">{:.1} open</span>", mark.not_judged),
            false => String::new(),
        };
        let worth = match mark.category.is_marked() {
            true => format!("{:.1} of {}{open}", mark.marks, mark.out_of),
            false => "not marked".into(),
        };
        let _ = writeln!(
            table,
            "<tr><td>{}</td><td class=\"number\">{} of {}</td>\
             <td class=\"wide\"><div class=\"bar\"><i style=\"width:{share}%\"></i></div></td><td class=\"number\">{worth}</td></tr>",
            mark.category.title(),
            mark.passed,
            mark.run,
        );
    }
    table + "</table>\n"
}

fn whats_next(plan: &Plan, marked: &[Group]) -> String {
    let (checks, causes): (usize, usize) = (marked.iter().map(|group| group.outcomes.len()).sum(), marked.len());
    let part = if plan.only.is_empty() { "" } else { " in this part" };
    format!(
        "<h2 id=\"costs\">What costs marks</h2>\n<p>{} for {}{part}. The first costs the most: begin there. Each says what was \
         expected and what came instead; in the diagram the red arrow is where it went wrong, and above it is all that was said \
         before.</p>\n",
        counted(checks, "check fails, or could not be judged,", "checks fail, or could not be judged,"),
        counted(causes, "cause", "different causes"),
    )
}

fn counted(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// One cause: the check that shows it best, and the others that fail for it. What to do next stands open in the first.
fn cause(plan: &Plan, group: &Group, scheme: &Scheme, all: &[Outcome], is_first: bool) -> String {
    let first = group.first();
    let (Some(trouble), check) = (first.trouble(), &first.check) else { return String::new() };
    let (id, others) = (escape(&check.id), &group.outcomes[1..]);
    let mut costs = match group.costs > 0.0 {
        true => format!("<span class=\"costs\">costs {}</span>", in_marks(group.costs)),
        false => String::new(),
    };
    if group.open > 0.0 {
        let _ = write!(costs, "<span class=\"open\">leaves {} open</span>", in_marks(group.open));
    }
    let title = match others.len() {
        0 => escape(&check.claim),
        more => format!("{} checks, one cause", more + 1),
    };
    let class = if check.category.is_marked() { "" } else { " class=\"unmarked\"" };
    let mut card = format!("<article{class} id=\"{id}\">\n<h3>{title}{costs}</h3>\n");
    card += &verdict(trouble);
    if !others.is_empty() {
        let _ = writeln!(card, "<p>For example: {}.</p>", escape(&check.claim));
    }
    card += &about(first);
    if !trouble.events.is_empty() {
        card += &picture(trouble);
        card += &evidence(trouble);
    }
    card += &try_again(plan, first, is_first);
    if !others.is_empty() {
        let costs = scheme.costs(all);
        let cost = |outcome: &Outcome| {
            let at = all.iter().position(|other| other.check.id == outcome.check.id);
            at.and_then(|at| costs.get(at)).copied().unwrap_or(0.0)
        };
        let _ = writeln!(
            card,
            "<details><summary>{} for the same cause</summary>",
            counted(others.len(), "other check fails, or is not judged,", "other checks fail, or are not judged,")
        );
        others.iter().for_each(|outcome| card += &other(outcome, cost(outcome)));
        card += "</details>\n";
    }
    card + "</article>\n"
}

fn in_marks(costs: f64) -> String {
    match format!("{costs:.1}").as_str() {
        "0.0" => "less than 0.1 marks".into(),
        "1.0" => "1 mark".into(),
        costs => format!("{costs} marks"),
    }
}

fn verdict(trouble: &Trouble) -> String {
    format!(
        "<div class=\"verdict\"><div><b>Expected</b>{}</div><div class=\"came\"><b>Came</b>{}</div></div>\n",
        words(&trouble.failure.expected),
        words(&trouble.failure.came),
    )
}

fn about(outcome: &Outcome) -> String {
    let check = &outcome.check;
    let mut about = format!(
        "<p class=\"about\"><code>{}</code> · spec {} · {} · took {}</p>\n",
        escape(&check.id),
        check.spec,
        check.category.title(),
        seconds(outcome.took),
    );
    if let Some(published) = check.published {
        let _ = writeln!(about, "<p class=\"about\">{}</p>", escape(&published.to_string()));
    }
    if let Some(reason) = outcome.not_judged() {
        let _ = writeln!(about, "<p class=\"remark\">{}</p>", escape(&reason));
    }
    for remark in &outcome.remarks {
        let _ = writeln!(about, "<p class=\"remark\">{}</p>", escape(remark));
    }
    about
}

fn picture(trouble: &Trouble) -> String {
    format!("<div class=\"scroll\">\n{}</div>\n", diagram::svg(&trouble.events))
}

fn evidence(trouble: &Trouble) -> String {
    let lines = escape(&transcript(&trouble.events, IN_A_FILE).join("\n"));
    let mut evidence = format!("<details><summary>The same as text</summary><pre>{lines}</pre></details>\n");
    for (name, printed) in &trouble.printed {
        let name = escape(name);
        if printed.trim().is_empty() {
            let _ = writeln!(evidence, "<p class=\"about\">The {name} printed nothing.</p>");
        } else {
            let printed = escape(last(printed));
            let _ = writeln!(
                evidence,
                "<details><summary>What the {name} printed last</summary><pre>{printed}</pre></details>"
            );
        }
    }
    evidence
}

/// What to do next, as commands.
fn try_again(plan: &Plan, outcome: &Outcome, is_open: bool) -> String {
    let open = if is_open { " open" } else { "" };
    let id = escape(&outcome.check.id);
    let report = if plan.index.is_some() { escape(&format!("{}.json", plan.name)) } else { "results.json".into() };
    format!(
        "<details{open}><summary>What to do next</summary>\n<dl class=\"next\">\
         <dt><code>mark explain {id}</code></dt><dd>says what is played, step by step, and how to try it by hand</dd>\
         <dt><code>mark ... --only {id}</code></dt><dd>runs this check alone, after a change</dd>\
         <dt><code>mark replay {report} {id}</code></dt><dd>sends your program the same messages again, and shows what it \
         says now beside what it said then; the file is what <code>--json</code> writes</dd></dl></details>\n"
    )
}

/// A check that fails for a cause that another has shown.
fn other(outcome: &Outcome, cost: f64) -> String {
    let (Some(trouble), check) = (outcome.trouble(), &outcome.check) else { return String::new() };
    let mut costs = if cost > 0.0 { format!(" · costs {}", in_marks(cost)) } else { String::new() };
    if outcome.not_judged().is_some() {
        costs += " · not judged";
    }
    let lines = escape(&transcript(&trouble.events, ON_THE_TERMINAL).join("\n"));
    let mut evidence = if lines.is_empty() { String::new() } else { format!("<pre>{lines}</pre>") };
    outcome.remarks.iter().for_each(|remark| _ = write!(evidence, "<p class=\"remark\">{}</p>", escape(remark)));
    let id = escape(&check.id);
    format!(
        "<details class=\"other\" id=\"{id}\"><summary>{}<br><span class=\"about\"><code>{id}</code> · spec {}{costs}</span></summary>\n\
         {}{evidence}</details>\n",
        escape(&check.claim),
        check.spec,
        verdict(trouble),
    )
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
    let id = escape(&check.id);
    let (class, sign, name) = match outcome.verdict {
        Verdict::Holds => ("good", "✓", id),
        Verdict::Fails(_) => ("bad", "✗", format!("<a href=\"#{id}\">{id}</a>")),
        Verdict::NotJudged { .. } => ("unknown", "–", format!("<a href=\"#{id}\">{id}</a> (not judged)")),
        Verdict::NotRun => ("unknown", "–", format!("{id} (not run)")),
    };
    format!(
        "<tr class=\"{class}\"><td>{sign}</td><td>{}<br><code>{name}</code></td><td class=\"wide\">{}</td>\
         <td class=\"number wide\">{}</td></tr>\n",
        escape(&check.claim),
        check.spec,
        seconds(outcome.took),
    )
}
