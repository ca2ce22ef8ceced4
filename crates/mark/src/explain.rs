//! All that is known of one check: for a student in doubt about it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use argh::FromArgs;
use stevedore::program::Failure;

use crate::checks::published::Edition;
use crate::checks::{self, Check, Role};
use crate::report::{ON_THE_TERMINAL, transcript};
use crate::run::rehearse;
use crate::stage::recorder::{Event, What};
use crate::{batch, guard};

/// Tells all about a check: what it claims, what it rests on, what is played, what commonly fails it, and how to try it by hand.
#[derive(FromArgs)]
#[argh(subcommand, name = "explain", example = "mark explain store/completes-on-the-last")]
pub struct Arguments {
    /// the check's id, or a part of it
    #[argh(positional, arg_name = "CHECK")]
    check: String,
}

const SPEC: &str = include_str!("../../../docs/spec.md");
const FAULTS: &str = include_str!("../../../docs/marking-faults.md");

/// So much of a clause is shown.
const CLAUSE_LINES: usize = 16;

/// So many mistakes are named.
const NAMED_FAULTS: usize = 6;

/// Explains it. What is played is a rehearsal with our own programs.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let check = find(&arguments.check, checks::all(Edition::LAST))?;
    guard::guarded(false, |folder| {
        let events = rehearse(&check, folder);
        println!("{}", text(&check, &events, folder));
        Ok(())
    })
}

fn find(pattern: &str, checks: Vec<Check>) -> Result<Arc<Check>, Failure> {
    let is_named = |check: &Check| check.id == pattern;
    let mut like: Vec<Check> = match checks.iter().any(is_named) {
        true => checks.into_iter().filter(is_named).collect(),
        false => checks.into_iter().filter(|check| crate::matches(pattern, &check.id)).collect(),
    };
    match like.len() {
        0 => Err(Failure::usage(format!("no check is called like {pattern:?}; mark --list names them"))),
        1 => Ok(Arc::new(like.remove(0))),
        _ => {
            let ids: Vec<&str> = like.iter().map(|check| check.id.as_str()).collect();
            Err(Failure::usage(format!("several checks are called like {pattern:?}: {}", ids.join(", "))))
        }
    }
}

fn text(check: &Check, events: &[Event], folder: &Path) -> String {
    let mut text = format!("{}\n\nCLAIM\n  {}.\n", check.id, check.claim);
    let _ = writeln!(text, "  It counts towards: {}.", check.category.title());
    text += "\nAUTHORITY\n";
    match check.published {
        Some(published) => {
            let _ = writeln!(text, "  {published}");
            if !Edition::Any.asks(published) {
                text += "  Not all editions say so: it is marked by --edition with one that does, and by others it costs nothing.\n";
            }
        }
        None => text += "  No edition of the coursework asks for this. It costs no marks.\n",
    }
    if !check.after.is_empty() {
        let _ = writeln!(text, "  It costs nothing more where one of these fails, on which it builds:");
        check.after.iter().for_each(|id| _ = writeln!(text, "    {id}"));
    }
    for clause in check.spec.split(", ") {
        let _ = writeln!(text, "  Spec {clause}, in docs/spec.md:");
        clause_text(SPEC, clause).iter().for_each(|line| _ = writeln!(text, "    {line}"));
    }
    let _ = write!(text, "\nWHAT IS PLAYED\n  {}\n", players(check.role));
    text += "  This was said just now, between a right program and mark (seconds, sender and receiver):\n\n";
    transcript(events, ON_THE_TERMINAL).iter().for_each(|line| _ = writeln!(text, "  {line}"));
    let faults = faults(check);
    if !faults.is_empty() {
        text += "\nWHAT COMMONLY FAILS IT\n";
        faults.iter().for_each(|fault| _ = writeln!(text, "  - A program that {fault}."));
    }
    text += "\nBY HAND\n";
    text += &by_hand(events, folder);
    text
}

fn players(role: Role) -> &'static str {
    match role {
        Role::Controller => "Your Controller is started. mark plays the Dstores and the clients.",
        Role::Dstore => "Your Dstore is started. mark plays the Controller, the clients, and the other Dstores.",
        Role::System => {
            "Your Controller and your Dstores are started. mark plays the clients, and writes down what your programs say."
        }
    }
}

/// A clause's own words: its paragraph, its row of a table, or the beginning of its section.
fn clause_text(spec: &str, clause: &str) -> Vec<String> {
    let lines: Vec<&str> = spec.lines().collect();
    let step = format!("({clause}).");
    let starts = [format!("### {clause} "), format!("## {clause} "), format!("**{clause} "), format!("| {clause} |")];
    let is_start = |line: &&str| {
        starts.iter().any(|start| line.starts_with(start.as_str())) || line.contains("** (") && line.contains(&step)
    };
    let Some(at) = lines.iter().position(is_start) else { return Vec::new() };
    if let Some(row) = lines[at].strip_prefix('|') {
        return row.split('|').skip(1).map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect();
    }
    let is_section = lines[at].starts_with('#');
    let is_step = lines[at].contains(&step);
    let is_end = |line: &str| match (is_section, is_step) {
        (true, _) => line.starts_with(['#', '`']),
        (_, true) => line.is_empty() || line.starts_with(|c: char| c.is_ascii_digit()),
        _ => line.is_empty(),
    };
    let first = if is_section { at + 1 } else { at };
    let rest = lines[first + usize::from(!is_section)..].iter().take_while(|line| !is_end(line));
    let all: Vec<&str> = (!is_section).then_some(lines[at]).into_iter().chain(rest.copied()).collect();
    let mut shown: Vec<String> = all.iter().take(CLAUSE_LINES).map(|line| line.trim_end().to_owned()).collect();
    if shown.len() < all.len() {
        shown.push("...".into());
    }
    shown.into_iter().skip_while(String::is_empty).collect()
}

/// What deliberate faults that fail this check do; if none is known, those about the same clause.
fn faults(check: &Check) -> Vec<String> {
    let cells = |line: &'static str| line.split(" | ").collect::<Vec<_>>();
    let rows: Vec<_> = FAULTS.lines().filter(|line| line.starts_with("| `")).map(|line| (line, cells(line))).collect();
    let quoted = format!("`{}`", check.id);
    let clauses: BTreeSet<&str> = check.spec.split(", ").collect();
    let described = |is_wanted: &dyn Fn(&str, &[&str]) -> bool| -> Vec<String> {
        let wanted = rows.iter().filter(|(line, cells)| cells.len() > 2 && is_wanted(line, cells));
        wanted.map(|(_, cells)| cells[2].trim().to_owned()).take(NAMED_FAULTS).collect()
    };
    match described(&|line, _| line.contains(&quoted)) {
        none if none.is_empty() => described(&|line, cells| {
            let role = check.id.split('/').next().unwrap_or_default();
            clauses.contains(cells[1].trim()) && (role == "system" || line.contains(&format!("`{role}/")))
        }),
        some => some,
    }
}

/// A terminal for each program and each connection, and what to do in them.
fn by_hand(events: &[Event], folder: &Path) -> String {
    let mut terminals: Vec<(String, String)> = Vec::new();
    let mut ports: Vec<(String, String)> = Vec::new();
    for event in events {
        match &event.what {
            What::Starts(values) => {
                let is_controller = event.from == "controller";
                let command = if is_controller { batch::JAVA_CONTROLLER } else { batch::JAVA_DSTORE };
                let fill = |command: String, (place, value): &(String, String)| command.replace(place.as_str(), value);
                terminals.push((event.from.clone(), values.iter().fold(command.to_owned(), fill)));
                let place = if is_controller { "{cport}" } else { "{port}" };
                let value =
                    |wanted: &str| values.iter().find(|(place, _)| place == wanted).map(|(_, value)| value.clone());
                ports.extend(value(place).map(|port| (event.from.clone(), port)));
                ports.extend(value("{cport}").map(|port| ("controller".into(), port)));
            }
            What::Connects => {
                let is_program =
                    |name: &str| terminals.iter().any(|(known, command)| known == name && command.starts_with("java"));
                let port = |name: &str| {
                    let known = ports.iter().find(|(known, _)| known == name).map(|(_, port)| port.clone());
                    known.or_else(|| name.strip_prefix("dstore ").map(str::to_owned)).unwrap_or_default()
                };
                let terminal = match is_program(&event.from) {
                    true => (
                        event.to.clone(),
                        format!("nc -l {}   (before the program starts to connect)", port(&event.to)),
                    ),
                    false => (event.from.clone(), format!("nc 127.0.0.1 {}", port(&event.to))),
                };
                terminals.push(terminal);
            }
            _ => {}
        }
    }
    let mut text = String::from(
        "  Open a terminal for each of these, in this order. nc is netcat: what you type is sent, what comes is shown.\n\n",
    );
    let most = 12;
    for (program, command) in terminals.iter().take(most) {
        let _ = writeln!(text, "    {program:<16} {command}");
    }
    if terminals.len() > most {
        let _ = writeln!(text, "    ... and {} more", terminals.len() - most);
    }
    text += "\n  Then type each line of the transcript that is said by one of the nc terminals, in its turn, and compare what the \
             others\n  show with the transcript. Content, shown as (5 bytes), is any text of that length without a line end: \
             printf 12345 | nc ...\n  The program of a failed run can be sent its very messages again: mark replay FILE CHECK.";
    text.replace(&folder.display().to_string(), ".")
}
