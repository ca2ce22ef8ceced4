//! What becomes of the outcomes: a table on the terminal, and files for a pipeline.

pub mod cause;
pub mod diagram;
pub mod html;
pub mod json;
pub mod junit;
pub mod terminal;

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::stage::recorder::Event;

/// So many lines of a long transcript are shown in a file, and in a diagram.
pub const IN_A_FILE: usize = 240;

/// So many of them are shown on the terminal.
pub const ON_THE_TERMINAL: usize = 60;

/// The events worth showing: all, or the first, the last, and what is wrong.
pub fn shown(events: &[Event], most: usize) -> Vec<&Event> {
    let events: Vec<&Event> = events.iter().filter(|event| event.what.is_shown()).collect();
    let half = most / 2;
    let is_shown = |(at, event): &(usize, &Event)| *at < half || at + half >= events.len() || event.is_wrong;
    events.iter().copied().enumerate().filter(is_shown).map(|(_, event)| event).collect()
}

/// The events as lines of text, with what is wrong marked.
pub fn transcript(events: &[Event], most: usize) -> Vec<String> {
    let shown = shown(events, most);
    let mut lines: Vec<String> = shown.iter().map(|event| line(event)).collect();
    let all = events.iter().filter(|event| event.what.is_shown()).count();
    if shown.len() < all {
        lines.insert((most / 2).min(lines.len()), format!("     ... {} lines are left out", all - shown.len()));
    }
    lines
}

fn line(event: &Event) -> String {
    let mark = if event.is_wrong { "=>" } else { "  " };
    let text = event.what.text();
    let parties = if event.from == event.to { event.from.clone() } else { format!("{} -> {}", event.from, event.to) };
    format!("{mark} {:>8.3}  {parties}: {text}", event.at.as_secs_f64())
}

/// In seconds, for people.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// In minutes and seconds, for people.
pub fn minutes(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds / 60 {
        0 => format!("{seconds} s"),
        minutes => format!("{minutes} min {} s", seconds % 60),
    }
}

/// Writes a file whole or not at all.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}", std::process::id()));
    // A device or a pipe is written to as it is.
    if path.exists() && !path.is_file() {
        return fs::write(path, text);
    }
    fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, path)).inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })
}

/// A moment in UTC: `2025-03-01 14:05 UTC`.
pub fn date(moment: SystemTime) -> String {
    let seconds = moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // From days to a date: H. Hinnant, "chrono-compatible low-level date algorithms", civil_from_days. The year begins in March.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3_600 % 24, seconds / 60 % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_in_leap_years_too() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        assert_eq!(at(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(at(1_740_837_900), "2025-03-01 14:05 UTC");
        assert_eq!(at(1_735_689_599), "2024-12-31 23:59 UTC");
    }
}
