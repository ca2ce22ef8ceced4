//! A prompt: a command in a line, from a person or from a pipe.
//!
//! Lines that are typed while a command runs are kept until it has ended. Each line of a pasted block is a command.

use std::io::{self, IsTerminal};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::Failure;
use super::output::{complain, say};
use super::signals::Terminal;

/// The help for what every prompt has.
const OWN_HELP: &str = "\
help                this text
quit                leave (so do exit and the end of input)

A word with spaces goes in double quotes.";

/// Commands that a prompt offers.
pub trait Commands {
    /// Lines for `help`: each begins with the command's word, which a blank follows.
    fn help(&self) -> &str;

    /// Runs the command if it is one of these, with as many words as it takes; `None` if not.
    fn run(&mut self, words: &[&str]) -> Option<Result<(), Failure>>;
}

/// Takes commands until `quit` or the end of input. With commands piped in, the last failure is the program's.
pub fn run(commands: &mut [&mut dyn Commands]) -> Result<(), Failure> {
    let is_interactive = io::stdin().is_terminal();
    let mut last_failure = None;
    let outcome = for_each_line(is_interactive, |line| {
        let words = split(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if matches!(words[..], ["quit" | "exit"]) {
            return false;
        }
        if let Err(failure) = run_one(commands, &words) {
            complain(format_args!("{}", failure.message));
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

fn run_one(commands: &mut [&mut dyn Commands], words: &[&str]) -> Result<(), Failure> {
    let Some(&command) = words.first() else { return Ok(()) };
    if let Some(outcome) = commands.iter_mut().find_map(|commands| commands.run(words)) {
        return outcome;
    }
    let mut help: Vec<&str> = commands.iter().map(|commands| commands.help()).collect();
    help.push(OWN_HELP);
    let help = help.join("\n");
    if words == ["help"] {
        return say(format_args!("{help}"));
    }
    let mut known = help.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split(' ').next());
    Err(Failure::usage(if known.any(|known| known == command) {
        format!("that is not how to say {command}; try help")
    } else {
        format!("there is no command {command:?}; try help")
    }))
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
        // What a command has logged comes before the next prompt.
        log::logger().flush();
        match editor.readline("> ") {
            // A pasted block arrives as one.
            Ok(block) => {
                for line in block.lines() {
                    // A line that cannot be remembered is still a command.
                    let _ = editor.add_history_entry(line);
                    if !take(line) {
                        return Ok(());
                    }
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
