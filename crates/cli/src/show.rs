//! How entries, sizes and times are shown: for people and for programs.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use depot::namespace::change::Replicas;
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
pub use depot::time::Time;
use serde_json::{Value, json};
use stevedore::program::Failure;
use stevedore::program::output::say;

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
