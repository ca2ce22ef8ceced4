//! The client's prompt: a command in a line, from a person or from a pipe.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::signals::Terminal;
use super::{Failure, commands};
use crate::client::Client;

const HELP: &str = "\
store PATH [NAME]   store a file under its own name, or under NAME
load NAME [FOLDER]  load a file into this folder, or into FOLDER, in place of any it has there
list                the names of all files
remove NAME         remove a file
help                this text
quit                leave (so do exit and the end of input)

A word with spaces goes in double quotes.";

/// Commands that a prompt has besides the client's.
pub trait Extra {
    /// Lines for `help`.
    fn help(&self) -> &str;

    /// Runs the command if it is one of these; `None` if not.
    fn run(&mut self, words: &[&str]) -> Option<Result<(), Failure>>;
}

/// No further commands.
pub struct NoExtra;

impl Extra for NoExtra {
    fn help(&self) -> &str {
        ""
    }

    fn run(&mut self, _: &[&str]) -> Option<Result<(), Failure>> {
        None
    }
}

/// Takes commands until `quit` or the end of input. With commands piped in, the last failure is the program's.
pub fn run(client: &mut Client, extra: &mut dyn Extra) -> Result<(), Failure> {
    let is_interactive = io::stdin().is_terminal();
    let mut last_failure = None;
    let outcome = for_each_line(is_interactive, |line| {
        let words = split(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if matches!(words[..], ["quit" | "exit"]) {
            return false;
        }
        if let Err(failure) = command(client, extra, &words) {
            // With stderr closed there is nobody to tell.
            let _ = writeln!(io::stderr(), "{}", failure.message);
            last_failure = Some(failure);
        }
        true
    });
    outcome.map_err(Failure::new)?;
    match last_failure {
        // Told when it happened.
        Some(failure) if !is_interactive => Err(Failure { message: String::new(), ..failure }),
        _ => Ok(()),
    }
}

fn command(client: &mut Client, extra: &mut dyn Extra, words: &[&str]) -> Result<(), Failure> {
    match words {
        [] => Ok(()),
        ["store", path] => commands::store(client, Path::new(path), None),
        ["store", path, name] => commands::store(client, Path::new(path), Some(name)),
        ["load", name] => commands::load(client, name, &commands::current_folder()),
        ["load", name, folder] => commands::load(client, name, &PathBuf::from(folder)),
        ["list"] => commands::list(client),
        ["remove", name] => commands::remove(client, name),
        ["help"] => commands::say(format_args!("{HELP}{}", extra.help())),
        other => match extra.run(other) {
            Some(outcome) => outcome,
            None if is_known(other[0]) => Err(Failure::usage(format!("that is not how to say {}; try help", other[0]))),
            None => Err(Failure::usage(format!("there is no command {:?}; try help", other[0]))),
        },
    }
}

fn is_known(word: &str) -> bool {
    let commands = HELP.lines().take_while(|line| !line.is_empty());
    commands.filter_map(|line| line.split(' ').next()).any(|command| command == word)
}

/// Calls `take` with each line until it returns false. A person gets line editing and a history.
fn for_each_line(is_interactive: bool, mut take: impl FnMut(&str) -> bool) -> io::Result<()> {
    if !is_interactive {
        for line in io::stdin().lines() {
            if !take(&line?) {
                break;
            }
        }
        return Ok(());
    }
    Terminal::remember();
    let mut editor = DefaultEditor::new().map_err(io::Error::other)?;
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                // A line that cannot be remembered is still a command.
                let _ = editor.add_history_entry(&line);
                if !take(&line) {
                    return Ok(());
                }
            }
            Err(ReadlineError::Interrupted) => {} // Ctrl-C drops the line, not the program
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

/// Words between white space; double quotes keep white space in a word.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for character in line.chars() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            space if space.is_whitespace() && !is_quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_a_path_with_spaces_together() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  list  ", &["list"]),
            ("store a.txt b", &["store", "a.txt", "b"]),
            ("store \"my file.txt\" name", &["store", "my file.txt", "name"]),
            ("store my\" \"file", &["store", "my file"]),
            ("store \"\"", &["store", ""]),
            ("store \"open end", &["store", "open end"]),
        ];
        for (line, words) in table {
            assert_eq!(split(line), *words, "{line:?}");
        }
    }
}
