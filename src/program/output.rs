//! What a program prints: text as it is for a script, and safe to look at for a person.
//!
//! Names come from peers and from file systems, and may hold characters that rewrite a terminal's screen or change the
//! direction of writing. On a terminal these are escaped; a pipe or a file gets the text as it is.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, IsTerminal, Write};

use super::{Failure, logging};
use crate::protocol::Printable;

/// Prints a line, or several, on stdout.
pub fn say(text: fmt::Arguments<'_>) -> Result<(), Failure> {
    let text = text.to_string();
    let mut stdout = io::stdout();
    let text = if stdout.is_terminal() { for_terminal(&text) } else { text.into() };
    writeln!(stdout, "{text}").map_err(cannot_print)
}

/// Prints many lines on stdout: one for each item.
pub fn say_each(items: impl IntoIterator<Item: fmt::Display>) -> Result<(), Failure> {
    let is_terminal = io::stdout().is_terminal();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut print = |item: &dyn fmt::Display| {
        if is_terminal { writeln!(out, "{}", Printable(&item.to_string())) } else { writeln!(out, "{item}") }
    };
    items.into_iter().try_for_each(|item| print(&item)).and_then(|()| out.flush()).map_err(cannot_print)
}

/// Prints a line, or several, on stderr, after what has been logged so far. Where stderr is closed or not read, they are
/// lost.
pub fn complain(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let text = if io::stderr().is_terminal() { for_terminal(&text) } else { text.into() };
    logging::write_to_stderr(&text);
}

/// Only the ends of lines stay as they are.
fn for_terminal(text: &str) -> Cow<'_, str> {
    let lines: Vec<String> = text.split('\n').map(|line| Printable(line).to_string()).collect();
    lines.join("\n").into()
}

/// A reader that has seen enough (`| head`) is no reason to complain, but one to stop.
fn cannot_print(error: io::Error) -> Failure {
    let is_closed = error.kind() == io::ErrorKind::BrokenPipe;
    Failure::new(if is_closed { String::new() } else { format!("cannot write to stdout: {error}") })
}
