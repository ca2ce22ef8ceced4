//! `put`: local files into the store.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use argh::FromArgs;
use depot::client::{Error, PutOptions, SmallFile, Source, TOGETHER, TOGETHER_BYTES};
use depot::namespace::change::{Condition, Details, Refusal, Replicas};
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use depot::words::Words;
use indicatif::ProgressBar;
use stevedore::program::Failure;

use crate::failure::about;
use crate::session::{Session, below};
use crate::transfer::{self, Counted, Done, Summary, jobs, local};
use crate::words::STANDARD_STREAM;

/// The attribute that keeps a file's permissions, in octal.
pub const MODE: &str = "mode";

/// All jobs together have so many small files under way: more changes of one client at a time would need more sessions.
const MOST_UNDER_WAY: usize = 256;

/// Put local files into the store.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "put",
    note = "The last word is where: a directory of the store if it is one or ends in /, else the file's new\npath. Directories on the way are made. What is there already with the same size and checksum is not\nsent again, unless all copies of it are damaged or away: to resume, repeat the command.",
    note = "put -r DIR /docs makes /docs like DIR; put -r DIR /docs/ makes /docs/DIR. Permissions and\nmodification times are kept. Links and special files are left out, and reported. Nothing is removed\nfrom the store.",
    example = "stevedore put notes.txt /docs/\nstevedore put *.jpg /photos/\nstevedore put -r ~/Documents /docs",
    example = "tar c src | stevedore put - /backup/src.tar"
)]
pub struct Put {
    /// take directories, with all that is in them
    #[argh(switch, short = 'r')]
    pub recursive: bool,
    /// how many files at a time (default 4)
    #[argh(option, short = 'j', default = "4", from_str_fn(jobs))]
    pub jobs: usize,
    /// fail where there is a file already, instead of replacing it
    #[argh(switch)]
    pub no_replace: bool,
    /// keep these files on so many Dstores (a number, or all), whatever the store's setting
    #[argh(option, arg_name = "R", from_str_fn(replicas))]
    pub replicas: Option<Replicas>,
    /// content type, as in text/plain
    #[argh(option, arg_name = "TYPE", long = "type", default = "String::new()")]
    pub content_type: String,
    /// print the summary as JSON
    #[argh(switch)]
    pub json: bool,
    /// local files, or - for stdin; then the path in the store
    #[argh(positional, arg_name = "FILE... PATH")]
    pub words: Vec<String>,
}

/// A number of replicas, for argh.
pub fn replicas(word: &str) -> Result<Replicas, String> {
    Replicas::from_line(word).map_err(|_| "expected a number from 1 to 255, or all".into())
}

/// A file to be put.
pub(crate) struct Upload {
    pub(crate) from: PathBuf,
    pub(crate) to: Path,
    /// As it was when the command began.
    bytes: u64,
}

/// What a command is to do.
#[derive(Default)]
pub(crate) struct Plan {
    /// Where each word of the command line goes.
    targets: HashSet<String>,
    pub(crate) files: Vec<Upload>,
    pub(crate) bytes: u64,
    /// Each with its permissions and times; the deepest first.
    directories: Vec<(Path, Metadata)>,
    /// What is below the directories that are put to, as it was when the command began.
    there: HashMap<String, Stat>,
    /// The directories whose content `there` has.
    listed: Vec<Path>,
}

impl Put {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let [sources @ .., to] = &self.words[..] else { return Err(Failure::usage("put what, and where?")) };
        let target = session.target(to)?;
        let mut summary = Summary::default();
        match sources {
            [] => return Err(Failure::usage(format!("put what to {to}? The path in the store comes last"))),
            [only] if only == STANDARD_STREAM => {
                if target.is_directory {
                    return Err(Failure::usage(format!("{to}: what comes from stdin needs a name")));
                }
                self.put_stdin(session, &target.path, &mut summary)?;
            }
            _ if sources.iter().any(|source| source == STANDARD_STREAM) => {
                return Err(Failure::usage("- goes alone: put - PATH"));
            }
            _ => {
                let plan = self.plan(session, sources, &target.path, target.is_directory, &mut summary)?;
                let batches = plan.batches(self.jobs);
                transfer::run(&batches, plan.bytes, self.jobs, &mut summary, |batch, bar, ended| {
                    self.put_batch(session, &plan, batch, bar, ended);
                })?;
                for (path, metadata) in &plan.directories {
                    if let Err(failure) = keep_directory(session, path, metadata) {
                        summary.fail(&failure);
                    }
                }
            }
        }
        summary.finish("put", self.json)
    }

    fn plan(
        &self,
        session: &Session<'_>,
        sources: &[String],
        to: &Path,
        is_named_directory: bool,
        summary: &mut Summary,
    ) -> Result<Plan, Failure> {
        let mut plan = Plan::default();
        let is_into = is_named_directory || sources.len() > 1;
        for source in sources {
            let from = PathBuf::from(source);
            let metadata = match fs::metadata(&from) {
                Ok(metadata) => metadata,
                Err(error) => {
                    summary.fail(&local("read", &from)(error));
                    continue;
                }
            };
            let is_tree = metadata.is_dir();
            if is_tree && !self.recursive {
                summary.fail(&Failure::new(format!("{source} is a directory: put -r takes it with all that is in it")));
                continue;
            }
            if !is_tree && !metadata.is_file() {
                summary.fail(&Failure::new(format!(
                    "{source} is neither a file nor a directory; what it gives can be put through a pipe: cat {source} | \
                     stevedore put - PATH"
                )));
                continue;
            }
            let path = if is_into || (!is_tree && session.is_directory(to)?) {
                to.join(&own_name(&from)?)
            } else {
                Ok(to.clone())
            };
            let path = path.map_err(|error| Failure::new(format!("{source}: {error}")))?;
            if !plan.targets.insert(path.to_string()) {
                summary.fail(&Failure::usage(format!("{source}: another one goes to {path} already")));
                continue;
            }
            if is_tree {
                plan.list(session, &path)?;
                plan.add_tree(&from, &path, metadata, summary);
            } else {
                plan.add_file(from, path, &metadata);
            }
        }
        // A directory's own times come last: what happens in it changes them.
        plan.directories.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        Ok(plan)
    }

    fn options(&self, metadata: Option<&Metadata>) -> PutOptions {
        let mut details =
            Details { content_type: self.content_type.clone(), replicas: self.replicas, ..Details::default() };
        if let Some(metadata) = metadata {
            details.attributes.insert(MODE.to_owned(), mode(metadata));
        }
        let condition = if self.no_replace { Condition::Absent } else { Condition::Any };
        PutOptions { condition, parents: true, modified_ms: metadata.map(modified_ms), details }
    }

    /// Puts files, the small ones together.
    fn put_batch(
        &self,
        session: &Session<'_>,
        plan: &Plan,
        batch: &[Upload],
        bar: &ProgressBar,
        ended: &mut dyn FnMut(Result<Done, Failure>),
    ) {
        let mut small = Vec::new();
        for upload in batch {
            match if batch.len() > 1 { self.read_small(session, plan, upload) } else { Ok(None) } {
                Ok(Some(file)) => small.push(file),
                Ok(None) => ended(self.put_file(session, plan, upload, bar)),
                Err(failure) => ended(Err(failure)),
            }
        }
        for (file, outcome) in small.iter().zip(session.store.put_many(&small)) {
            let bytes = file.content.len() as u64;
            bar.inc(bytes);
            ended(outcome.map(|_| Done::Moved(bytes)).map_err(about(&file.path)));
        }
    }

    /// A file with its content, if that is small and nothing is there yet.
    fn read_small(&self, session: &Session<'_>, plan: &Plan, upload: &Upload) -> Result<Option<SmallFile>, Failure> {
        let Upload { from, to, .. } = upload;
        if plan.there(session, to)?.is_some() {
            return Ok(None);
        }
        let cannot_read = local("read", from);
        let file = File::open(from).map_err(&cannot_read)?;
        let metadata = file.metadata().map_err(&cannot_read)?;
        let mut content = Vec::with_capacity(metadata.len().min(TOGETHER_BYTES) as usize + 1);
        file.take(TOGETHER_BYTES + 1).read_to_end(&mut content).map_err(&cannot_read)?;
        // What has grown, or changes just now, is not put together with others.
        let is_whole = content.len() as u64 == metadata.len() && metadata.len() <= TOGETHER_BYTES;
        let options = self.options(Some(&metadata));
        Ok(is_whole.then(|| SmallFile { path: to.clone(), content, options }))
    }

    fn put_file(
        &self,
        session: &Session<'_>,
        plan: &Plan,
        upload: &Upload,
        bar: &ProgressBar,
    ) -> Result<Done, Failure> {
        let Upload { from, to, .. } = upload;
        let cannot_read = local("read", from);
        let file = File::open(from).map_err(&cannot_read)?;
        let metadata = file.metadata().map_err(&cannot_read)?;
        if let Some(stat) = plan.there(session, to)?
            && let Kind::File { size, checksum } = stat.kind
            && size == metadata.len()
            && (size, checksum) == transfer::checksum(&file).map_err(&cannot_read)?
            && can_be_read(session, to)?
        {
            bar.inc(size);
            keep_attributes(session, to, &stat, &metadata)?;
            return Ok(Done::Skipped);
        }
        let source = Counted::new(&file, bar);
        session.store.put(to, Source::File(&source), &self.options(Some(&metadata))).map_err(|error| match error {
            Error::Source(error) => cannot_read(error),
            error => about(to)(error),
        })?;
        Ok(Done::Moved(metadata.len()))
    }

    fn put_stdin(&self, session: &Session<'_>, to: &Path, summary: &mut Summary) -> Result<(), Failure> {
        let begun = std::time::Instant::now();
        let mut stdin = CountedRead { reader: io::stdin(), bytes: 0 };
        session.store.put(to, Source::Once(&mut stdin), &self.options(None)).map_err(about(to))?;
        (summary.files, summary.bytes, summary.took) = (1, stdin.bytes, begun.elapsed());
        Ok(())
    }
}

impl Plan {
    /// The files in groups: small ones that follow each other are put together, but not so many that a job has none.
    fn batches(&self, jobs: usize) -> Vec<&[Upload]> {
        let most = (self.files.len() / jobs).min(MOST_UNDER_WAY / jobs).clamp(1, TOGETHER);
        let mut batches = Vec::new();
        let mut rest = &self.files[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |upload: &&Upload| {
                bytes += upload.bytes;
                bytes <= TOGETHER_BYTES
            };
            let length = rest.iter().take(most).take_while(fits).count().max(1);
            let batch;
            (batch, rest) = rest.split_at(length);
            batches.push(batch);
        }
        batches
    }

    /// Looks at what is below a directory of the store already.
    fn list(&mut self, session: &Session<'_>, directory: &Path) -> Result<(), Failure> {
        match session.look(directory)?.map(|stat| stat.kind) {
            None => {}
            Some(Kind::File { .. }) => return Err(about(directory)(Error::Refused(Refusal::NotADirectory))),
            Some(Kind::Directory { .. }) => {
                for listed in session.entries(directory, true) {
                    let listed = listed?;
                    self.there.insert(below(directory, &listed.name)?.to_string(), listed.stat);
                }
            }
        }
        self.listed.push(directory.clone());
        Ok(())
    }

    fn there(&self, session: &Session<'_>, path: &Path) -> Result<Option<Stat>, Failure> {
        if self.listed.iter().any(|directory| path.is_within(directory)) {
            return Ok(self.there.get(path.as_str()).cloned());
        }
        session.look(path)
    }

    pub(crate) fn add_file(&mut self, from: PathBuf, to: Path, metadata: &Metadata) {
        let bytes = metadata.len();
        self.bytes += bytes;
        self.files.push(Upload { from, to, bytes });
    }

    /// Adds a local directory, with all that is in it.
    pub(crate) fn add_tree(&mut self, from: &std::path::Path, to: &Path, metadata: Metadata, summary: &mut Summary) {
        if !to.is_root() {
            self.directories.push((to.clone(), metadata));
        }
        let entries = fs::read_dir(from).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return summary.fail(&local("read", from)(error)),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let from = entry.path();
            let planned = (|| {
                let metadata = entry.metadata().map_err(local("read", &from))?;
                let name = entry.file_name().into_string().map_err(|_| not_text(&from))?;
                let to = to.join(&name).map_err(|error| Failure::new(format!("{}: {error}", from.display())))?;
                Ok((metadata, to))
            })();
            match planned {
                Err(failure) => summary.fail(&failure),
                Ok((metadata, to)) if metadata.is_dir() => self.add_tree(&from, &to, metadata, summary),
                Ok((metadata, to)) if metadata.is_file() => self.add_file(from, to, &metadata),
                Ok((metadata, _)) if metadata.is_symlink() => summary.leave_out(&from, "a symbolic link"),
                Ok(_) => summary.leave_out(&from, "a special file"),
            }
        }
    }
}

/// Whether each object of a file has a copy that is there and not known to be damaged.
fn can_be_read(session: &Session<'_>, path: &Path) -> Result<bool, Failure> {
    let objects = session.store.copies(path).map_err(about(path))?;
    Ok(objects.iter().all(|object| object.copies.iter().any(|copy| copy.is_present && !copy.is_damaged)))
}

/// The name that a local file or directory has itself, also where it was written as `.` or `..`.
pub(crate) fn own_name(path: &std::path::Path) -> Result<String, Failure> {
    let whole;
    let name = match path.file_name() {
        Some(name) => name,
        None => {
            whole = fs::canonicalize(path).map_err(local("read", path))?;
            whole.file_name().ok_or_else(|| Failure::usage(format!("{} has no name of its own", path.display())))?
        }
    };
    name.to_str().map(str::to_owned).ok_or_else(|| not_text(path))
}

fn not_text(path: &std::path::Path) -> Failure {
    Failure::new(format!("{path:?}: the name is not UTF-8, which a path in the store is"))
}

/// Makes a directory explicit, with the permissions and the time of the local one.
fn keep_directory(session: &Session<'_>, path: &Path, metadata: &Metadata) -> Result<(), Failure> {
    let there = session.look(path)?;
    if let Some(stat) = there.filter(|stat| matches!(stat.kind, Kind::Directory { is_explicit: true, .. })) {
        return keep_attributes(session, path, &stat, metadata);
    }
    let mut details = Details::default();
    details.attributes.insert(MODE.to_owned(), mode(metadata));
    let made = session.store.make_directory(path, true, &details, Some(modified_ms(metadata)));
    made.map(|_| ()).map_err(about(path))
}

/// Gives what is in the store the permissions and the time of what is on the disk, if they differ.
fn keep_attributes(session: &Session<'_>, path: &Path, stat: &Stat, metadata: &Metadata) -> Result<(), Failure> {
    let (mode, modified_ms) = (mode(metadata), modified_ms(metadata));
    if stat.details.attributes.get(MODE) == Some(&mode) && stat.modified_ms == modified_ms {
        return Ok(());
    }
    let attributes = [(MODE.to_owned(), Some(mode))].into();
    session
        .store
        .set_attributes(path, Condition::Any, &attributes, None, Some(modified_ms))
        .map(|_| ())
        .map_err(about(path))
}

fn mode(metadata: &Metadata) -> String {
    format!("{:o}", metadata.mode() & 0o7777)
}

fn modified_ms(metadata: &Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_millis() as u64) // before 1970: the store has no such times
}

/// A reader that is asked at the end how much it had.
struct CountedRead<R> {
    reader: R,
    bytes: u64,
}

impl<R: io::Read> io::Read for CountedRead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}
