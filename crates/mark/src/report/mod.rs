//! What becomes of the outcomes: a table on the terminal, and files for a pipeline.

pub mod diagram;
pub mod html;
pub mod json;
pub mod junit;
pub mod terminal;

use std::time::Duration;

use crate::stage::recorder::Event;

/// So many lines of a long transcript are shown in a file, and in a diagram.
pub const IN_A_FILE: usize = 240;

/// So many of them are shown on the terminal.
pub const ON_THE_TERMINAL: usize = 60;

/// The events worth showing: all, or the first, the last, and what is wrong.
pub fn shown(events: &[Event], most: usize) -> Vec<&Event> {
    let half = most / 2;
    let is_shown = |(at, event): &(usize, &Event)| *at < half || at + half >= events.len() || event.is_wrong;
    events.iter().enumerate().filter(is_shown).map(|(_, event)| event).collect()
}

/// The events as lines of text, with what is wrong marked.
pub fn transcript(events: &[Event], most: usize) -> Vec<String> {
    let shown = shown(events, most);
    let mut lines: Vec<String> = shown.iter().map(|event| line(event)).collect();
    if shown.len() < events.len() {
        lines
            .insert((most / 2).min(lines.len()), format!("     ... {} lines are left out", events.len() - shown.len()));
    }
    lines
}

fn line(event: &Event) -> String {
    let mark = if event.is_wrong { "=>" } else { "  " };
    let text = event.what.text();
    let who = if event.from == event.to { event.from.clone() } else { format!("{} -> {}", event.from, event.to) };
    format!("{mark} {:>8.3}  {who}: {text}", event.at.as_secs_f64())
}

/// In seconds, for people.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
