//! A prompt for the commands of the command line, with a directory that it is in, completion and a history.

use std::fs;

use argh::{EarlyExit, FromArgs};
use depot::client::ListOptions;
use depot::path::Path;
use stevedore::program::output::say;
use stevedore::program::prompt::{self, Lines};
use stevedore::program::{Failure, exit_code, misread};

use crate::commands::Command;
use crate::failure::{about, of_store};
use crate::session::Session;
use crate::words;

/// Open a prompt with the same commands, and with cd and pwd.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "shell",
    note = "Paths may be relative to the directory it is in. Tab completes commands and paths. Commands can be\npiped in.",
    example = "stevedore shell\necho 'ls -l /docs' | stevedore shell"
)]
pub struct Shell {}

impl Shell {
    /// Takes commands until `quit` or the end of the input.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        if session.here.is_some() {
            return Err(Failure::usage("this is the shell already"));
        }
        let name = session.store.status().map_err(of_store)?.name;
        prompt::run_lines(&mut Prompt { name, session: Session { store: session.store, here: Some(Path::root()) } })
    }
}

/// A prompt at a store.
struct Prompt<'a> {
    name: String,
    session: Session<'a>,
}

/// What only a prompt has.
const OWN: [&str; 5] = ["cd", "pwd", "help", "quit", "exit"];

/// The commands that take paths in the store, and those that do not.
const OTHERS: [&str; 17] = [
    "put", "get", "cat", "ls", "tree", "find", "du", "stat", "rm", "mv", "cp", "mkdir", "rmdir", "watch", "status",
    "set", "format",
];

const HELP: &str = "\
put FILE... PATH     put local files into the store         get PATH... FILE   get files out of it
ls, tree, find, du   look at directories                    stat, cat PATH     look at files
mv, cp, rm           move, copy, remove                     mkdir, rmdir       directories
cd PATH, pwd         change and show the directory          watch              changes, until Ctrl-C ends it all
status, set, format  the store                              quit               leave (so do exit and the end of input)

COMMAND --help says more. Tab completes commands and paths. A blank in a name is written \"like this\" or like\\ this.";

/// A line at the prompt.
#[derive(FromArgs)]
/// A command.
struct Line {
    #[argh(subcommand)]
    command: Command,
}

impl Prompt<'_> {
    fn here(&self) -> &Path {
        self.session.here.as_ref().expect("a prompt is somewhere")
    }

    fn change_directory(&mut self, to: &str) -> Result<(), Failure> {
        let path = self.session.path(to)?;
        if !self.session.is_directory(&path)? {
            self.session.store.stat(&path).map_err(about(&path))?;
            return Err(Failure::new(format!("{path} is not a directory")));
        }
        self.session.here = Some(path);
        Ok(())
    }
}

impl Lines for Prompt<'_> {
    fn prompt(&self) -> String {
        format!("{}:{}> ", self.name, stevedore::protocol::Printable(self.here().as_str()))
    }

    fn take(&mut self, line: &str) -> Result<bool, Failure> {
        let words: Vec<String> = words::split(line).into_iter().map(|word| word.text).collect();
        let words = words::prepare(words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            [] => {}
            ["quit" | "exit"] => return Ok(false),
            ["help" | "--help"] => say(format_args!("{HELP}"))?,
            ["pwd"] => say(format_args!("{}", self.here()))?,
            ["cd"] => self.change_directory("/")?,
            ["cd", to] => self.change_directory(to)?,
            ["cd", ..] => return Err(Failure::usage("cd takes one directory")),
            [command, ..] if !OTHERS.contains(&command) => {
                return Err(Failure::usage(format!("there is no command {command:?} here; try help")));
            }
            [command, ..] => match Line::from_args(&[], &words) {
                Ok(line) => line.command.run_in(&self.session)?,
                Err(EarlyExit { output, status: Ok(()) }) => say(format_args!("{}", output.trim_end()))?,
                Err(EarlyExit { output, status: Err(()) }) => return Err(misread(&output, command)),
            },
        }
        Ok(true)
    }

    fn completions(&self, before_cursor: &str) -> (usize, Vec<String>) {
        let words = words::split(before_cursor);
        let word = words::last(before_cursor);
        if word.start == words.first().map_or(0, |first| first.start) {
            let commands = OWN.iter().chain(&OTHERS).filter(|command| command.starts_with(&word.text));
            return (word.start, commands.map(|command| format!("{command} ")).collect());
        }
        // How many words that are no options come before this one, the command among them.
        let before = words.iter().filter(|other| other.start < word.start && !other.text.starts_with('-')).count();
        let (takes_local, takes_remote) = match words.first().map(|command| command.text.as_str()) {
            Some("put") => (true, before > 1),
            Some("get") => (before > 1, true),
            Some("find") => (false, before > 1),
            Some("pwd" | "help" | "quit" | "exit" | "status" | "set" | "format" | "shell") => (false, false),
            _ => (false, true),
        };
        let mut candidates = Vec::new();
        if takes_remote {
            candidates.extend(self.remote_paths(&word.text).unwrap_or_default());
        }
        if takes_local {
            candidates.extend(local_paths(&word.text));
        }
        candidates.sort();
        candidates.dedup();
        (word.start, candidates.iter().map(|path| words::quote(path)).collect())
    }
}

/// As many candidates as a person looks at.
const MOST_CANDIDATES: usize = 200;

impl Prompt<'_> {
    /// Paths in the store that begin with this text. Nothing if the store does not answer: a prompt does not fail over it.
    fn remote_paths(&self, text: &str) -> Result<Vec<String>, Failure> {
        let (directory, prefix) = split_for_completion(text);
        let path = self.session.path(if directory.is_empty() { "." } else { directory })?;
        let options = ListOptions { prefix: prefix.to_owned(), limit: MOST_CANDIDATES, ..ListOptions::default() };
        let page = self.session.store.list(&path, &options);
        let page = page.map_err(|error| Failure { message: error.to_string(), code: exit_code::FAILED })?;
        Ok(page.entries.into_iter().map(|listed| format!("{directory}{}", listed.name)).collect())
    }
}

/// Local files that begin with this text.
fn local_paths(text: &str) -> Vec<String> {
    let (directory, prefix) = split_for_completion(text);
    let Ok(entries) = fs::read_dir(if directory.is_empty() { "." } else { directory }) else { return Vec::new() };
    let entries = entries.filter_map(Result::ok).filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let is_hidden = name.starts_with('.') && !prefix.starts_with('.');
        let end = if entry.path().is_dir() { "/" } else { "" };
        (name.starts_with(prefix) && !is_hidden).then(|| format!("{directory}{name}{end}"))
    });
    entries.take(MOST_CANDIDATES).collect()
}

/// The directory, with its `/`, and what its entries have to begin with.
fn split_for_completion(text: &str) -> (&str, &str) {
    text.split_at(text.rfind('/').map_or(0, |slash| slash + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::client::memory::Memory;
    use depot::client::{Files, PutOptions, Source};

    fn store(paths: &[&str]) -> Memory {
        let store = Memory::new("test").unwrap();
        let options = PutOptions { parents: true, ..PutOptions::default() };
        for path in paths {
            store.put(&path.parse().unwrap(), Source::Once(&mut &b""[..]), &options).unwrap();
        }
        store
    }

    fn prompt(store: &Memory) -> Prompt<'_> {
        Prompt { name: "test".into(), session: Session { store, here: Some(Path::root()) } }
    }

    #[test]
    fn the_prompt_has_a_directory_that_paths_are_relative_to() {
        let store = store(&["/docs/a b/x", "/file"]);
        let mut prompt = prompt(&store);
        assert_eq!(prompt.prompt(), "test:/> ");
        assert!(prompt.take("cd docs").unwrap());
        assert!(prompt.take("cd \"a b\"").unwrap());
        assert_eq!(prompt.prompt(), "test:/docs/a b> ");
        prompt.take("mv x ../y").unwrap();
        assert!(store.stat(&"/docs/y".parse().unwrap()).is_ok());
        // The directory went with its last entry: the prompt is nowhere until it is told where to go.
        assert_eq!(prompt.take("ls").unwrap_err().code, exit_code::DOES_NOT_EXIST);
        assert_eq!(prompt.take("cd nowhere").unwrap_err().code, exit_code::DOES_NOT_EXIST);
        assert!(prompt.take("cd /file").unwrap_err().message.contains("not a directory"));
        prompt.take("cd").unwrap();
        assert_eq!(prompt.prompt(), "test:/> ");
        assert!(!prompt.take("quit").unwrap());
        assert_eq!(prompt.take("serve x").unwrap_err().code, exit_code::USAGE);
        assert_eq!(prompt.take("rm --colour x").unwrap_err().code, exit_code::USAGE);
    }

    #[test]
    fn tab_completes_commands_and_paths_in_the_store() {
        let store = store(&["/docs/my notes.txt", "/docs/more/x", "/dir2/y", "/zoo"]);
        let mut prompt = prompt(&store);
        let complete = |prompt: &Prompt<'_>, line: &str| prompt.completions(line);
        assert_eq!(complete(&prompt, "mk"), (0, vec!["mkdir ".to_owned()]));
        assert_eq!(complete(&prompt, "ls /d"), (3, vec!["/dir2/".to_owned(), "/docs/".to_owned()]));
        assert_eq!(complete(&prompt, "ls -l z"), (6, vec!["zoo".to_owned()]));
        assert_eq!(complete(&prompt, "cat docs/my"), (4, vec![r"docs/my\ notes.txt".to_owned()]));
        prompt.take("cd docs").unwrap();
        assert_eq!(complete(&prompt, r"cat my\ no"), (4, vec![r"my\ notes.txt".to_owned()]));
        assert_eq!(complete(&prompt, "cat m"), (4, vec!["more/".to_owned(), r"my\ notes.txt".to_owned()]));
        assert_eq!(complete(&prompt, "find m"), (5, vec![]), "a pattern is no path");
    }

    #[test]
    fn local_paths_are_completed_where_one_is_due() {
        let folder = kit::TempFolder::new();
        fs::write(folder.path().join("local.txt"), "").unwrap();
        fs::create_dir(folder.path().join("lower")).unwrap();
        let store = store(&["/lo", "/in the store"]);
        let prompt = prompt(&store);
        let base = folder.path().to_str().unwrap();
        let expected: Vec<_> = ["local.txt", "lower/"].map(|name| format!("{base}/{name}")).into();
        assert_eq!(prompt.completions(&format!("put {base}/lo")).1, expected);
        assert_eq!(prompt.completions(&format!("get /lo {base}/lo")).1, expected);
        assert_eq!(prompt.completions("put x /in").1, [r"/in\ the\ store"], "what follows the first may be the target");
    }
}
