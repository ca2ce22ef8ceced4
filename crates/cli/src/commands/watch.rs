//! `watch`: changes as they come.

use std::time::Duration;

use argh::FromArgs;
use depot::client::ChangeEvent;
use depot::identity::{History, Version};
use serde_json::json;
use stevedore::program::{Failure, positive};

use crate::failure::about;
use crate::session::Session;
use crate::show::{Lines, Time};

/// Print changes as they come.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "watch",
    note = "A line has the change's time, its version, what it did, and to which paths. --after VERSION goes on\nbehind that change. It ends with Ctrl-C, or after --count.",
    example = "stevedore watch /docs\nstevedore watch --json | jq .paths"
)]
pub struct Watch {
    /// print all changes behind this version first, instead of only those to come
    #[argh(option, arg_name = "VERSION", from_str_fn(version))]
    pub after: Option<Version>,
    /// end after so many changes
    #[argh(option, arg_name = "CHANGES", from_str_fn(positive))]
    pub count: Option<usize>,
    /// print a JSON document in each line
    #[argh(switch)]
    pub json: bool,
    /// only what is at this path or below it (default: everything)
    #[argh(positional, arg_name = "PATH")]
    pub path: Option<String>,
}

/// A version as it is printed, for argh.
pub fn version(word: &str) -> Result<Version, String> {
    let read = || {
        let (history, sequence) = word.split_once('.')?;
        Some(Version { history: History(u64::from_str_radix(history, 16).ok()?), sequence: sequence.parse().ok()? })
    };
    read().ok_or_else(|| "expected a version, as stat and watch print it".into())
}

impl Watch {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        /// How long the store may hold an answer back; then the question is asked again.
        const ROUND: Duration = Duration::from_secs(20);
        let top = session.path_or_here(self.path.as_deref())?;
        let mut lines = Lines::default();
        let mut cursor = self.after;
        let mut left = self.count;
        loop {
            let page = session.store.watch(cursor, ROUND).map_err(about("watch"))?;
            for event in page.events {
                // What is about no path is about all of them.
                if !event.paths.is_empty() && !event.paths.iter().any(|path| path.is_within(&top)) {
                    continue;
                }
                self.say(&mut lines, &event)?;
                if let Some(left) = &mut left {
                    *left -= 1;
                    if *left == 0 {
                        return lines.flush();
                    }
                }
            }
            lines.flush()?;
            cursor = Some(page.next);
        }
    }

    fn say(&self, lines: &mut Lines, event: &ChangeEvent) -> Result<(), Failure> {
        let paths: Vec<&str> = event.paths.iter().map(|path| path.as_str()).collect();
        let (time, version, verb) = (Time(event.now_ms), event.version, &event.verb);
        if self.json {
            return lines.say(
                json!({ "time": time.to_string(), "version": version.to_string(), "verb": verb, "paths": paths }),
            );
        }
        lines.say(format_args!("{time}  {version}  {verb:<16} {}", paths.join("  ")).to_string().trim_end())
    }
}
