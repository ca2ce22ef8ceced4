//! What can be said on the command line, and what each command does.
//!
//! A command is the words it takes, as [`argh`] reads them, and a method `run`. The same commands serve the prompt.

pub mod change;
pub mod get;
pub mod list;
pub mod put;
pub mod store;
pub mod watch;

use argh::FromArgs;
use stevedore::program::Failure;

use crate::session::Session;
use crate::shell::Shell;

/// A command.
#[derive(FromArgs)]
#[argh(subcommand)]
#[expect(missing_docs, reason = "each command says what it does")]
pub enum Command {
    Put(put::Put),
    Get(get::Get),
    Cat(get::Cat),
    Ls(list::Ls),
    Tree(list::Tree),
    Find(list::Find),
    Du(list::Du),
    Stat(list::StatFile),
    Rm(change::Rm),
    Mv(change::Mv),
    Cp(change::Cp),
    Mkdir(change::Mkdir),
    Rmdir(change::Rmdir),
    Watch(watch::Watch),
    Shell(Shell),
    Status(store::ShowStatus),
    Set(store::Set),
    Format(store::Format),
}

impl Command {
    /// Does it in a session.
    pub fn run_in(&self, session: &Session<'_>) -> Result<(), Failure> {
        match self {
            Self::Put(put) => put.run(session),
            Self::Get(get) => get.run(session),
            Self::Cat(cat) => cat.run(session),
            Self::Ls(ls) => ls.run(session),
            Self::Tree(tree) => tree.run(session),
            Self::Find(find) => find.run(session),
            Self::Du(du) => du.run(session),
            Self::Stat(stat) => stat.run(session),
            Self::Rm(rm) => rm.run(session),
            Self::Mv(mv) => mv.run(session),
            Self::Cp(cp) => cp.run(session),
            Self::Mkdir(mkdir) => mkdir.run(session),
            Self::Rmdir(rmdir) => rmdir.run(session),
            Self::Watch(watch) => watch.run(session),
            Self::Shell(shell) => shell.run(session),
            Self::Status(status) => status.run(session),
            Self::Set(set) => set.run(session),
            Self::Format(format) => format.run(session),
        }
    }
}
