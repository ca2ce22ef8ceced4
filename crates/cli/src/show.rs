//! How entries, sizes and times are shown: for people and for programs.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use depot::namespace::change::Replicas;
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use serde_json::{Value, json};
use stevedore::program::Failure;
use stevedore::program::output::say;

/// A time in milliseconds since 1970, shown as ISO 8601 in UTC.
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let (year, month, day) = civil(seconds / 86_400);
        let of_day = seconds % 86_400;
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
    }
}

/// Year, month and day of a number of days since 1970. (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms")
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // since 0000-03-01: a leap day is the last of its year
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// `1 file`, `2 files`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", indicatif::HumanCount(number), if number == 1 { one } else { many })
}

/// As the command line has it.
pub fn replicas(replicas: Replicas) -> String {
    match replicas {
        Replicas::Number(number) => number.to_string(),
        Replicas::All => "all".to_owned(),
    }
}

/// What a file or directory is, for programs.
pub fn entry_json(path: &Path, stat: &Stat) -> Value {
    let mut value = json!({
        "path": path.as_str(),
        "version": stat.version.to_string(),
        "changed": stat.changed.to_string(),
        "modified": Time(stat.modified_ms).to_string(),
        "modified_ms": stat.modified_ms,
        "content_type": stat.details.content_type,
        "owner": stat.details.owner,
        "replicas": stat.details.replicas.map(replicas),
        "digests": stat.details.digests,
        "attributes": stat.details.attributes,
    });
    let kind = match stat.kind {
        Kind::File { size, checksum } => {
            json!({ "kind": "file", "size": size, "checksum": format!("{:016x}", checksum.0) })
        }
        Kind::Directory { is_explicit, entries } => {
            json!({ "kind": "directory", "entries": entries, "is_explicit": is_explicit })
        }
    };
    if let (Value::Object(value), Value::Object(kind)) = (&mut value, kind) {
        value.extend(kind);
    }
    value
}

/// Prints a document for a program, on one line.
pub fn say_json(value: &Value) -> Result<(), Failure> {
    say(format_args!("{value}"))
}

/// Prints lines as they come: each is out before the next is looked for.
pub struct Lines {
    out: io::BufWriter<io::Stdout>,
    is_terminal: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self { out: io::BufWriter::new(io::stdout()), is_terminal: io::stdout().is_terminal() }
    }
}

impl Lines {
    /// Prints a line: escaped on a terminal where it could deceive.
    pub fn say(&mut self, line: impl fmt::Display) -> Result<(), Failure> {
        let line = line.to_string();
        let out = &mut self.out;
        let printed = if self.is_terminal {
            writeln!(out, "{}", stevedore::protocol::Printable(&line))
        } else {
            writeln!(out, "{line}")
        };
        printed.map_err(cannot_print)
    }

    /// Has everything so far shown.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(cannot_print)
    }
}

/// A reader that has seen enough (`| head`) is no reason to complain, but one to stop.
pub fn cannot_print(error: io::Error) -> Failure {
    let is_closed = error.kind() == io::ErrorKind::BrokenPipe;
    Failure::new(if is_closed { String::new() } else { format!("cannot write to stdout: {error}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_the_calendar_has_them() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_799_999, "2000-02-29T23:59:59Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ];
        for (ms, shown) in table {
            assert_eq!(Time(ms).to_string(), shown);
        }
    }
}
