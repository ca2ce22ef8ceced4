//! `get` and `cat`: files out of the store.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use argh::FromArgs;
use depot::client::Error;
use depot::namespace::change::{Condition, Refusal};
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use indicatif::ProgressBar;
use stevedore::client::NewFile;
use stevedore::program::{self, Failure};

use super::put::MODE;
use crate::failure::about;
use crate::session::{Session, below};
use crate::show::cannot_print;
use crate::transfer::{self, CountedSink, Done, Summary, ToNewFile, jobs, local};
use crate::words::STANDARD_STREAM;

/// Get files out of the store.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "get",
    note = "With two words or more, the last one is where: a local directory if it is one or ends in /, else the\nfile's new name. With one, the file comes into this directory. Directories on the way are made. What\nis there already with the same size and checksum is not fetched again: to resume, repeat the\ncommand.",
    note = "get -r /docs DIR makes DIR like /docs; get -r /docs DIR/ makes DIR/docs. A file appears once it is\nwhole, in place of any that is there. Nothing else is removed.",
    example = "stevedore get /docs/notes.txt\nstevedore get /photos/a.jpg /photos/b.jpg ~/Pictures\nstevedore get -r /docs ~/Documents",
    example = "stevedore get /backup/src.tar - | tar x"
)]
pub struct Get {
    /// take directories, with all that is in them
    #[argh(switch, short = 'r')]
    pub recursive: bool,
    /// how many files at a time (default 4)
    #[argh(option, short = 'j', default = "4", from_str_fn(jobs))]
    pub jobs: usize,
    /// print the summary as JSON
    #[argh(switch)]
    pub json: bool,
    /// paths in the store; then a local file or directory, or - for stdout
    #[argh(positional, arg_name = "PATH... FILE")]
    pub words: Vec<String>,
}

/// A file to be fetched.
struct Download {
    from: Path,
    to: PathBuf,
    stat: Stat,
}

/// What a command is to do.
#[derive(Default)]
struct Plan {
    /// Where each word of the command line goes.
    targets: BTreeSet<PathBuf>,
    files: Vec<Download>,
    bytes: u64,
    directories: Vec<(PathBuf, Stat)>,
}

impl Get {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let (sources, to) = match &self.words[..] {
            [] => return Err(Failure::usage("get what?")),
            [only] => (std::slice::from_ref(only), "."),
            [sources @ .., to] => (sources, to.as_str()),
        };
        if to == STANDARD_STREAM {
            return Cat { range: None, paths: sources.to_vec() }.run(session);
        }
        let mut summary = Summary::default();
        let mut plan = Plan::default();
        for source in sources {
            if let Err(failure) = self.plan(session, source, sources.len() > 1, to, &mut plan, &mut summary) {
                summary.fail(&failure);
            }
        }
        for (path, _) in &plan.directories {
            if let Err(error) = fs::create_dir_all(path) {
                summary.fail(&local("make", path)(error));
            }
        }
        let one_by_one: Vec<_> = plan.files.chunks(1).collect();
        transfer::run(&one_by_one, plan.bytes, self.jobs, &mut summary, |downloads, bar, ended| {
            downloads.iter().for_each(|download| ended(get_file(session, download, bar)));
        })?;
        // The deepest first: what happens in a directory changes its time.
        for (path, stat) in plan.directories.iter().rev() {
            if let Err(error) = File::open(path).and_then(|directory| take_attributes(&directory, stat)) {
                summary.fail(&local("set the time of", path)(error));
            }
        }
        summary.finish("got", self.json)
    }

    fn plan(
        &self,
        session: &Session<'_>,
        source: &str,
        is_one_of_many: bool,
        to: &str,
        plan: &mut Plan,
        summary: &mut Summary,
    ) -> Result<(), Failure> {
        let from = session.path(source)?;
        let stat = session.store.stat(&from).map_err(about(&from))?;
        let is_tree = matches!(stat.kind, Kind::Directory { .. });
        if is_tree && !self.recursive {
            return Err(Failure::new(format!("{from} is a directory: get -r takes it with all that is in it")));
        }
        let is_named_directory = to.ends_with('/') || matches!(to.rsplit('/').next(), Some("." | ".."));
        let target = PathBuf::from(to);
        let is_into = is_named_directory || is_one_of_many || (!is_tree && target.is_dir());
        let own_name = from.split_last().map(|(_, name)| name.to_owned());
        let target = match own_name {
            Some(name) if is_into => target.join(name),
            _ => target,
        };
        if !plan.targets.insert(target.clone()) {
            return Err(Failure::usage(format!("{from}: another one goes to {} already", target.display())));
        }
        if !is_tree {
            if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs::create_dir_all(parent).map_err(local("make", parent))?;
            }
            plan.add_file(from, target, stat);
            return Ok(());
        }
        plan.directories.push((target.clone(), stat));
        for listed in session.entries(&from, true) {
            let listed = listed?;
            let path = below(&from, &listed.name)?;
            // No component of a path is `..` or empty: it stays below the target.
            let to = target.join(listed.name.trim_end_matches('/'));
            match listed.stat.kind {
                Kind::Directory { .. } => plan.directories.push((to, listed.stat)),
                Kind::File { .. } if to.is_dir() => {
                    summary.fail(&Failure::new(format!("{} is a directory", to.display())))
                }
                Kind::File { .. } => plan.add_file(path, to, listed.stat),
            }
        }
        Ok(())
    }
}

impl Plan {
    fn add_file(&mut self, from: Path, to: PathBuf, stat: Stat) {
        if let Kind::File { size, .. } = stat.kind {
            self.bytes += size;
        }
        self.files.push(Download { from, to, stat });
    }
}

fn get_file(session: &Session<'_>, download: &Download, bar: &ProgressBar) -> Result<Done, Failure> {
    let Download { from, to, stat } = download;
    // A link stays, and what it leads to is replaced.
    let to = &fs::canonicalize(to).unwrap_or_else(|_| to.clone());
    let there = fs::symlink_metadata(to).ok();
    if there.as_ref().is_some_and(|there| !there.is_file() && !there.is_dir()) {
        return Err(Failure::new(format!(
            "{} is no file, and is not replaced by one; a pipe or a device takes what is printed: stevedore cat {from} > {0}",
            to.display()
        )));
    }
    if let Kind::File { size, checksum } = stat.kind
        && there.is_some_and(|there| there.is_file() && there.len() == size)
        && let Ok(file) = File::open(to)
        && transfer::checksum(&file).is_ok_and(|there| there == (size, checksum))
    {
        bar.inc(size);
        take_attributes(&file, stat).map_err(local("set the time of", to))?;
        return Ok(Done::Skipped);
    }
    let cannot_write = local("write", to);
    let mut content = session.store.get(from, Condition::Any).map_err(about(from))?;
    let mut file = NewFile::create(to).map_err(&cannot_write)?;
    let mut sink = CountedSink { sink: ToNewFile(&mut file), bar };
    let size = content.size();
    content.copy_to(0..size, &mut sink).map_err(|error| match error {
        Error::Sink(error) => cannot_write(error),
        error => about(from)(error),
    })?;
    take_attributes(file.file(), content.stat()).map_err(&cannot_write)?;
    file.keep().map_err(&cannot_write)?;
    Ok(Done::Moved(size))
}

/// Gives a local file or directory the permissions and the time that the store has for it.
fn take_attributes(file: &File, stat: &Stat) -> io::Result<()> {
    let mode = stat.details.attributes.get(MODE).and_then(|mode| u32::from_str_radix(mode, 8).ok());
    if let Some(mode) = mode {
        // Not the bits that let others run it as its owner.
        file.set_permissions(Permissions::from_mode(mode & 0o777))?;
    }
    file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_millis(stat.modified_ms)))
}

/// Print files on stdout, one behind the other.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "cat",
    example = "stevedore cat /docs/notes.txt | wc\nstevedore cat --range 0-99 /big.bin | xxd"
)]
pub struct Cat {
    /// only these bytes of each file: FROM-TO, both included and counted from 0, or FROM- up to the end
    #[argh(option, arg_name = "FROM-TO", from_str_fn(range))]
    pub range: Option<Range<u64>>,
    /// files in the store
    #[argh(positional, arg_name = "PATH")]
    pub paths: Vec<String>,
}

fn range(word: &str) -> Result<Range<u64>, String> {
    let read = || {
        let (from, to) = word.split_once('-')?;
        let to = if to.is_empty() { u64::MAX } else { to.parse::<u64>().ok()?.checked_add(1)? };
        Some(from.parse().ok()?..to).filter(|range: &Range<u64>| range.start < range.end)
    };
    read().ok_or_else(|| "expected FROM-TO or FROM-, as in 0-99".into())
}

impl Cat {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        if self.paths.is_empty() {
            return Err(Failure::usage("cat what?"));
        }
        let mut stdout = io::stdout();
        program::for_each(crate::PROGRAM, &self.paths, |path| {
            let path = session.path(path)?;
            let mut content = session.store.get(&path, Condition::Any).map_err(about(&path))?;
            let size = content.size();
            let range = self.range.clone().unwrap_or(0..size);
            let outcome = content.copy_to(range.start.min(size)..range.end.min(size), &mut stdout);
            outcome.and_then(|()| stdout.flush().map_err(Error::Sink)).map_err(|error| match error {
                Error::Sink(error) => cannot_print(error),
                Error::Refused(Refusal::IsADirectory) => Failure::new(format!("{path} is a directory")),
                error => about(&path)(error),
            })
        })
    }
}
