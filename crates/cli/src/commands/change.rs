//! `rm`, `mkdir`, `rmdir`, `mv`, `cp`: changes that move no bytes.

use argh::FromArgs;
use depot::client::{CopyOptions, Error, MoveOptions};
use depot::namespace::change::{Condition, Details, Refusal, RemovalExtent};
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use stevedore::program::output::complain;
use stevedore::program::{self, Failure, exit_code};

use super::list::Amount;
use crate::failure::about;
use crate::session::{Session, below};

/// Remove files, and with -r directories with all that is in them.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "rm",
    note = "Each directory goes at once, however much is in it. Its space on the Dstores is free again some ten minutes\nlater: a client that reads a file meanwhile gets the rest of it.",
    example = "stevedore rm /docs/old.txt\nstevedore rm -r /docs/drafts"
)]
pub struct Rm {
    /// remove directories, too, with all that is in them
    #[argh(switch, short = 'r')]
    pub recursive: bool,
    /// do not ask
    #[argh(switch, short = 'y')]
    pub yes: bool,
    /// what to remove
    #[argh(positional, arg_name = "PATH")]
    pub paths: Vec<String>,
}

impl Rm {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        if self.paths.is_empty() {
            return Err(Failure::usage("rm what?"));
        }
        program::for_each(crate::PROGRAM, &self.paths, |path| {
            let path = session.path(path)?;
            match session.store.remove(&path, Condition::Any) {
                Ok(_) => Ok(()),
                Err(Error::Refused(Refusal::IsADirectory)) if self.recursive => remove_tree(session, &path, self.yes),
                Err(Error::Refused(Refusal::IsADirectory)) => Err(Failure::new(format!(
                    "{path} is a directory: rm -r removes it with all that is in it, rmdir only if it is empty"
                ))),
                Err(error) => Err(about(&path)(error)),
            }
        })
    }
}

/// Remove empty directories, and with -r directories with all that is in them.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "rmdir",
    example = "stevedore rmdir /docs/empty\nstevedore rmdir -r /docs/drafts"
)]
pub struct Rmdir {
    /// remove all that is in them, too
    #[argh(switch, short = 'r')]
    pub recursive: bool,
    /// do not ask
    #[argh(switch, short = 'y')]
    pub yes: bool,
    /// directories to remove
    #[argh(positional, arg_name = "PATH")]
    pub paths: Vec<String>,
}

impl Rmdir {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        if self.paths.is_empty() {
            return Err(Failure::usage("rmdir what?"));
        }
        program::for_each(crate::PROGRAM, &self.paths, |path| {
            let path = session.path(path)?;
            match session.store.remove_directory(&path, Condition::Any, RemovalExtent::Empty) {
                Ok(_) => Ok(()),
                Err(Error::Refused(Refusal::NotEmpty)) if self.recursive => remove_tree(session, &path, self.yes),
                Err(error) => Err(about(&path)(error)),
            }
        })
    }
}

/// Says what goes with a directory, asks, and removes it.
fn remove_tree(session: &Session<'_>, path: &Path, is_sure: bool) -> Result<(), Failure> {
    if path.is_root() {
        return Err(Failure::usage("the root cannot be removed; stevedore format empties the whole store"));
    }
    if !is_sure {
        session.confirm(false, &format!("{path} goes, with {}", Amount::below(session, path)?))?;
    }
    let removed = session.store.remove_directory(path, Condition::Any, RemovalExtent::Tree);
    removed.map(|_| ()).map_err(about(path))
}

/// Make directories.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "mkdir",
    note = "They stay when they are empty. A directory that only a put has made goes with its last entry.",
    example = "stevedore mkdir /docs\nstevedore mkdir -p /photos/2026/summer"
)]
pub struct Mkdir {
    /// make missing directories on the way, too; a directory that is there already is no failure
    #[argh(switch, short = 'p')]
    pub parents: bool,
    /// directories to make
    #[argh(positional, arg_name = "PATH")]
    pub paths: Vec<String>,
}

impl Mkdir {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        if self.paths.is_empty() {
            return Err(Failure::usage("mkdir what?"));
        }
        program::for_each(crate::PROGRAM, &self.paths, |path| {
            let path = session.path(path)?;
            match session.store.make_directory(&path, self.parents, &Details::default(), None) {
                Ok(_) => Ok(()),
                Err(Error::Refused(Refusal::AlreadyExists)) if self.parents && session.is_directory(&path)? => Ok(()),
                Err(Error::Refused(Refusal::NotFound)) => Err(Failure {
                    message: format!("{path}: a directory on the way to it is missing; mkdir -p makes it, too"),
                    code: exit_code::DOES_NOT_EXIST,
                }),
                Err(error) => Err(about(&path)(error)),
            }
        })
    }
}

/// Move files and directories, or give them another name.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "mv",
    note = "The last word is where: a directory if it is one or ends in /, else the new path. No byte moves,\nhowever much is in a directory. It asks before it replaces anything.",
    example = "stevedore mv /notes.txt /docs/\nstevedore mv /docs /papers\nstevedore mv --replace /docs.new /docs"
)]
pub struct Mv {
    /// put it in the place of a directory that is there, instead of into it: all that is in that one goes
    #[argh(switch)]
    pub replace: bool,
    /// do not ask
    #[argh(switch, short = 'y')]
    pub yes: bool,
    /// what to move, and where
    #[argh(positional, arg_name = "PATH... PATH")]
    pub words: Vec<String>,
}

impl Mv {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        for_each_pair(session, "mv", &self.words, self.replace, self.yes, |from, to, placing| {
            session.store.rename(from, to, placing).map(|_| ()).map_err(about(format_args!("{from} to {to}")))
        })
    }
}

/// Copy files, and with -r directories, within the store.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "cp",
    note = "The last word is where: a directory if it is one or ends in /, else the new path. No byte moves:\ncopies share their content until one is replaced. It asks before it replaces anything.",
    note = "A directory of up to 10,000 entries is copied as a whole; a larger one entry by entry, so that\nothers may see a part of it meanwhile.",
    example = "stevedore cp /docs/plan.txt /docs/plan-old.txt\nstevedore cp -r /docs /backup/docs"
)]
pub struct Cp {
    /// copy directories, too, with all that is in them
    #[argh(switch, short = 'r')]
    pub recursive: bool,
    /// put it in the place of a directory that is there, instead of into it: all that is in that one goes
    #[argh(switch)]
    pub replace: bool,
    /// do not ask
    #[argh(switch, short = 'y')]
    pub yes: bool,
    /// what to copy, and where
    #[argh(positional, arg_name = "PATH... PATH")]
    pub words: Vec<String>,
}

impl Cp {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        for_each_pair(session, "cp", &self.words, self.replace, self.yes, |from, to, placing| {
            let stat = session.store.stat(from).map_err(about(from))?;
            let is_directory = matches!(stat.kind, Kind::Directory { .. });
            if is_directory && !self.recursive {
                return Err(Failure::new(format!("{from} is a directory: cp -r copies it with all that is in it")));
            }
            let options = CopyOptions { placing: placing.clone(), details: None };
            match session.store.copy(from, to, &options) {
                Ok(_) => Ok(()),
                Err(Error::Refused(Refusal::TooLarge)) if is_directory => {
                    copy_entries(session, from, &stat, to, placing.replace)
                }
                Err(error) => Err(about(format_args!("{from} to {to}"))(error)),
            }
        })
    }
}

/// Copies a directory that is too large for one change, entry by entry.
fn copy_entries(session: &Session<'_>, from: &Path, stat: &Stat, to: &Path, replace: bool) -> Result<(), Failure> {
    if to.is_within(from) {
        return Err(about(format_args!("{from} to {to}"))(Error::Refused(Refusal::InvalidPath)));
    }
    complain(format_args!(
        "{}: {from} is too large for one change: it is copied entry by entry, and others may see a part of it",
        crate::PROGRAM
    ));
    if replace {
        match session.store.remove_directory(to, Condition::Any, RemovalExtent::Tree) {
            Ok(_) | Err(Error::Refused(Refusal::NotFound)) => {}
            Err(error) => return Err(about(to)(error)),
        }
    }
    make_directory_like(session, to, stat)?;
    for listed in session.entries(from, true) {
        let listed = listed?;
        let (from, to) = (below(from, &listed.name)?, below(to, &listed.name)?);
        match listed.stat.kind {
            Kind::Directory { .. } => make_directory_like(session, &to, &listed.stat)?,
            Kind::File { .. } => {
                let placing = MoveOptions { parents: true, ..MoveOptions::default() };
                let copied = session.store.copy(&from, &to, &CopyOptions { placing, details: None });
                copied.map_err(about(format_args!("{from} to {to}")))?;
            }
        }
    }
    Ok(())
}

fn make_directory_like(session: &Session<'_>, path: &Path, stat: &Stat) -> Result<(), Failure> {
    session.store.make_directory(path, true, &stat.details, None).map(|_| ()).map_err(about(path))
}

/// Finds out what goes where, asks where something would be replaced, and calls `place` for each.
fn for_each_pair(
    session: &Session<'_>,
    command: &str,
    words: &[String],
    replaces_directories: bool,
    is_sure: bool,
    place: impl Fn(&Path, &Path, &MoveOptions) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let [sources @ .., to] = words else { return Err(Failure::usage(format!("{command} what, and where?"))) };
    if sources.is_empty() {
        return Err(Failure::usage(format!("{command} {to} where?")));
    }
    let target = session.target(to)?;
    let is_there = session.is_directory(&target.path)?;
    let is_into = target.is_directory || sources.len() > 1 || (is_there && !replaces_directories);
    if is_into && replaces_directories {
        return Err(Failure::usage("--replace takes one source, and a target without / at its end"));
    }
    program::for_each(crate::PROGRAM, sources, |source| {
        let from = session.path(source)?;
        let to = match from.split_last() {
            Some((_, name)) if is_into => {
                target.path.join(name).map_err(|error| Failure::usage(format!("{source}: {error}")))?
            }
            _ => target.path.clone(),
        };
        if from == to {
            return Err(Failure::usage(format!("{from}: to {command} it to itself changes nothing")));
        }
        let mut placing = MoveOptions { parents: target.is_directory, ..MoveOptions::default() };
        if let Some(there) = session.look(&to)? {
            // What the person was asked about is what is replaced.
            placing.to_condition = Condition::Changed { version: there.changed };
            placing.replace = true;
            let what = match there.kind {
                Kind::File { .. } => format!("{to} exists already: it is replaced"),
                Kind::Directory { .. } => {
                    format!("{to} exists already: it goes, with {}", Amount::below(session, &to)?)
                }
            };
            session
                .confirm(is_sure, &what)
                .map_err(|failure| Failure { code: exit_code::ALREADY_EXISTS, ..failure })?;
        }
        place(&from, &to, &placing)
    })
}
