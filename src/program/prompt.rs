//! A prompt: a command in a line, from a person or from a pipe.
//!
//! Lines that are typed while a command runs are kept until it has ended. Each line of a pasted block is a command.

use std::cell::RefCell;
use std::io::{self, IsTerminal};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Editor, Helper};

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

/// What a prompt does with the lines it reads.
pub trait Lines {
    /// What a person sees at the start of the line.
    fn prompt(&self) -> String {
        "> ".to_owned()
    }

    /// What the text before the cursor may go on with: where in it the completion begins, in bytes, and each text that may
    /// stand there.
    fn completions(&self, before_cursor: &str) -> (usize, Vec<String>) {
        (before_cursor.len(), Vec::new())
    }

    /// Does what a line says. `Ok(false)` ends the prompt.
    fn take(&mut self, line: &str) -> Result<bool, Failure>;
}

/// Takes commands until `quit` or the end of input. With commands piped in, the last failure is the program's.
pub fn run(commands: &mut [&mut dyn Commands]) -> Result<(), Failure> {
    run_lines(&mut Dispatch { commands })
}

/// Takes lines until `taker` ends it, or the input ends. With lines piped in, the last failure is the program's.
pub fn run_lines(taker: &mut dyn Lines) -> Result<(), Failure> {
    let is_interactive = io::stdin().is_terminal();
    let mut last_failure = None;
    let mut take = |taker: &mut dyn Lines, line: &str| {
        taker.take(line).unwrap_or_else(|failure| {
            if !failure.message.is_empty() {
                complain(format_args!("{}", failure.message));
            }
            last_failure = Some(failure);
            true
        })
    };
    let outcome = if is_interactive { edit_lines(taker, &mut take) } else { pipe_lines(taker, &mut take) };
    outcome.map_err(Failure::new)?;
    match last_failure {
        // Told when it happened.
        Some(failure) if !is_interactive => Err(Failure { message: String::new(), ..failure }),
        _ => Ok(()),
    }
}

/// A line is a command of one of these, in words.
struct Dispatch<'a, 'b> {
    commands: &'a mut [&'b mut dyn Commands],
}

impl Lines for Dispatch<'_, '_> {
    fn take(&mut self, line: &str) -> Result<bool, Failure> {
        let words = split(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if matches!(words[..], ["quit" | "exit"]) {
            return Ok(false);
        }
        run_one(self.commands, &words).map(|()| true)
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

/// Calls `take` with each line of stdin until it returns false.
fn pipe_lines(taker: &mut dyn Lines, take: &mut dyn FnMut(&mut dyn Lines, &str) -> bool) -> io::Result<()> {
    for line in io::stdin().lines() {
        if !take(taker, &line?) {
            break;
        }
    }
    Ok(())
}

/// Calls `take` with each line that a person enters, until it returns false. There is a history, and completion.
fn edit_lines(taker: &mut dyn Lines, take: &mut dyn FnMut(&mut dyn Lines, &str) -> bool) -> io::Result<()> {
    Terminal::remember();
    let config = Config::builder().completion_type(rustyline::CompletionType::List).build();
    let asked = RefCell::new(taker);
    let mut editor: Editor<Asked<'_, '_>, DefaultHistory> = Editor::with_config(config).map_err(io::Error::other)?;
    editor.set_helper(Some(Asked { taker: &asked }));
    loop {
        // What a command has logged comes before the next prompt.
        log::logger().flush();
        let prompt = asked.borrow().prompt();
        match editor.readline(&prompt) {
            // A pasted block arrives as one.
            Ok(block) => {
                for line in block.lines() {
                    // A line that cannot be remembered is still a command.
                    let _ = editor.add_history_entry(line);
                    if !take(&mut **asked.borrow_mut(), line) {
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

/// The taker of the lines is asked for completions while one is edited.
struct Asked<'a, 'b> {
    taker: &'a RefCell<&'b mut dyn Lines>,
}

impl Completer for Asked<'_, '_> {
    type Candidate = String;

    fn complete(&self, line: &str, cursor: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.taker.borrow().completions(&line[..cursor]))
    }
}

impl Hinter for Asked<'_, '_> {
    type Hint = String;
}

impl Highlighter for Asked<'_, '_> {}
impl Validator for Asked<'_, '_> {}
impl Helper for Asked<'_, '_> {}

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
