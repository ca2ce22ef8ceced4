//! The program `stevedore`: keeps files in a depot, looks at them, and runs its servers. (depot 10)
//!
//! All of it is a library, so that commands can be tested against a store in memory. The modules, in reading order:
//!
//! - [`commands`]: what can be said on the command line, and what each command does: a file for each
//! - [`session`]: where a command runs: which store, which directory, whom to ask
//! - [`transfer`]: many files at a time, with a bar and a summary
//! - [`show`]: how entries, sizes and times are shown, for people and for programs
//! - [`failure`]: what went wrong, and what to do next
//! - [`shell`], [`words`]: a prompt for the same commands
//! - [`cluster`]: the files that say where a store is, and prove that one may use it
//! - [`discover`]: how it is found in a network
//! - [`servers`], [`folder`]: the servers of a store, and the folders that they use
//! - [`settings`]: what a configuration file or the environment says of a server
//! - [`demo`]: a store of real processes, some of which are killed
//! - [`recovery`]: backups, and how a store comes back from one or from a damaged log

pub mod admin;
pub mod cluster;
pub mod commands;
pub mod demo;
pub mod discover;
pub mod failure;
pub mod folder;
pub mod recovery;
pub mod servers;
pub mod session;
pub mod settings;
pub mod shell;
pub mod show;
pub mod transfer;
pub mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use argh::FromArgs;
use commands::Command;
use discover::Discover;
use stevedore::program::{self, Failure};

/// The program's name, in messages.
const PROGRAM: &str = "stevedore";

/// Keeps files in a store of any number of disks and machines, and runs such a store.
#[derive(FromArgs)]
#[argh(
    note = "Paths in the store are written /like/this, local files plainly; - is stdin or stdout. Every command\nhas a --help with examples.",
    example = "stevedore serve ~/store\n  a whole store in one process; it says what to type next",
    example = "export STEVEDORE_CLUSTER=~/store/client.toml\nstevedore put -r ~/Documents /docs\nstevedore ls -l /docs\nstevedore get /docs/notes.txt\nstevedore shell",
    error_code(1, "it did not work, for a reason below none of these; of many files: some failed"),
    error_code(2, "the command line makes no sense"),
    error_code(3, "there is no such file or directory"),
    error_code(4, "there is one of that name already"),
    error_code(5, "fewer Dstores can take the content than must")
)]
pub struct Arguments {
    /// the store's client.toml, or the folder that has it; before or behind the command (default: $STEVEDORE_CLUSTER)
    #[argh(option, arg_name = "PATH")]
    pub cluster: Option<PathBuf>,
    /// look for the Controllers of the store of this name by a broadcast, for those who use the store and for its Dstores; what
    /// is answered is only a hint: the secret in the file of --cluster proves it
    #[argh(option, arg_name = "NAME[:PORT]")]
    pub discover: Option<Discover>,
    /// what to do
    #[argh(subcommand)]
    pub command: Command,
}

/// The whole of the program.
pub fn main() -> ExitCode {
    let prepare = |words| settings::complete(words::prepare(words), |variable| std::env::var(variable).ok());
    program::main_of_words(PROGRAM, prepare, run)
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Some(discover) = arguments.discover {
        discover.set();
    }
    arguments.command.run(arguments.cluster.as_deref())
}
