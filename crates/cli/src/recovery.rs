//! `backup`, `restore`, `recover`: the metadata outside of its Controller, and how a store comes back. (depot 4.9)
//!
//! What is at stake is the metadata: which files there are, and of which objects they consist. The objects are at the Dstores,
//! which never need to be restored: each has one or more copies elsewhere.
//!
//! | what is left | command |
//! |---|---|
//! | a log that is damaged, or an old copy that Dstores refuse | `recover --data DIR` |
//! | the Dstores, which were sent backups | `recover --data DIR --from DSTORE...` |
//! | a backup in a file | `restore --from FILE --data DIR` |
//!
//! All three end alike: the folder of a Controller that is not running goes on from the state that was found, in a history of its
//! own, which the Dstores then follow.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use argh::FromArgs;
use depot::client;
use depot::controller::{Refused, StartError};
use depot::disk::RealFolder;
use depot::identity::{ClusterId, History};
use depot::log::OpenError;
use depot::log::backup::verify;
use depot::log::recovery::Found;
use depot::namespace::snapshot::Contents;
use depot::pack::{BACKUPS, Identity};
use depot::wire::Secret;
use indicatif::{HumanBytes, HumanDuration};
use serde_json::json;
use stevedore::client::NewFile;
use stevedore::program::output::say;
use stevedore::program::{self, Failure, signals};

use crate::cluster::{self, CLIENT_FILE, CLUSTER_FILE, ClusterFile};
use crate::failure::of_store;
use crate::folder::DataFolder;
use crate::session::confirm;
use crate::show::{Time, cannot_print, count, say_json};
use crate::transfer::ToNewFile;
use crate::words::{STANDARD_STREAM, quote};

/// Write the metadata of a running store to a file.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "backup",
    note = "Which files there are, with their names, attributes and the list of their objects, at one instant. Their bytes\nstay at the Dstores, so a backup is small. It is verified before it gets its name. - writes it to stdout.\n\nFiles that are removed or replaced after the backup can be restored for as long as their bytes are kept: ten minutes.\nThe Dstores are sent a backup each hour as well; stevedore recover --from finds it.\n\nKeep it like the store itself: it has all names. Keep a copy of cluster.toml beside it.",
    example = "stevedore backup /mnt/elsewhere/store.backup\nstevedore backup - | gpg -e -r me > store.backup.gpg"
)]
pub struct Backup {
    /// print what it has as JSON
    #[argh(switch)]
    pub json: bool,
    /// where it is written
    #[argh(positional, arg_name = "FILE")]
    pub file: PathBuf,
}

/// Make a Controller's folder go on from a backup.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "restore",
    note = "The Controller must not be running. The folder may be its own, whose log is then kept beside the new one, or an\nempty one. In an empty one, cluster.toml has to be there, or --cluster names a copy of it.\n\nThe store goes back to what it was: what was changed since the backup is lost. A file whose bytes no Dstore has any\nmore is listed all the same; once the Dstores have reported, stevedore status counts such objects, and\nstevedore check names the files.",
    example = "stevedore restore --from store.backup --data ~/store\nstevedore --cluster old/cluster.toml restore --from store.backup --data /srv/controller"
)]
pub struct Restore {
    /// the backup
    #[argh(option, arg_name = "FILE")]
    pub from: PathBuf,
    /// the Controller's folder: that of stevedore controller, or the first one of stevedore serve
    #[argh(option, arg_name = "DIR")]
    pub data: PathBuf,
    /// a history that Dstores have followed and the backup knows nothing of: a Controller that they refuse names it
    #[argh(option, arg_name = "HISTORY", from_str_fn(history))]
    pub history: Vec<History>,
    /// draw a new secret, if no cluster.toml is left: every server and user then needs a new file
    #[argh(switch)]
    pub new_secret: bool,
    /// do not ask
    #[argh(switch, short = 'y')]
    pub yes: bool,
}

/// Make a store start again whose log is damaged, refused or lost.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "recover",
    note = "The Controller must not be running. There are two ways:\n\n--data DIR alone makes what can be read of the log in DIR start again: up to the damage, if there is some; all of it,\nif Dstores refuse it as an old copy. It says what is lost, and asks.\n\n--data DIR --from DSTORE... makes a new log in DIR of the newest backup that these folders of Dstores have. They are\nsent one each hour and when the Controller ends. Name as many as there are: what no backup has is lost.\n\nNothing is deleted: a log that was there is kept beside the new one.",
    example = "stevedore recover --data ~/store\nstevedore recover --data /new/store --from /disk2/store /disk3/store\nstevedore serve /new/store /disk2/store /disk3/store"
)]
pub struct Recover {
    /// the Controller's folder: that of stevedore controller, or the first one of stevedore serve
    #[argh(option, arg_name = "DIR")]
    pub data: PathBuf,
    /// a folder of a Dstore; may be given again for more of them
    #[argh(option, arg_name = "DSTORE")]
    pub from: Vec<PathBuf>,
    /// a history that Dstores have followed and the log knows nothing of: a Controller that they refuse names it
    #[argh(option, arg_name = "HISTORY", from_str_fn(history))]
    pub history: Vec<History>,
    /// draw a new secret, if no cluster.toml is left: every server and user then needs a new file
    #[argh(switch)]
    pub new_secret: bool,
    /// do not ask
    #[argh(switch, short = 'y')]
    pub yes: bool,
    /// more folders of Dstores, behind --from
    #[argh(positional, arg_name = "DSTORE")]
    pub more: Vec<PathBuf>,
}

/// For argh.
fn history(word: &str) -> Result<History, String> {
    u64::from_str_radix(word, 16).map(History).map_err(|_| "expected a history, as in 8f31a0".to_owned())
}

/// What a person can do about a Controller that does not start; empty if nothing here helps.
pub fn advice(folder: &Path, error: &StartError) -> String {
    let folder = quoted(folder);
    match error {
        StartError::Log(OpenError::Damaged { .. }) => {
            format!(". Go on with what can be read, and lose the rest: stevedore recover --data {folder}")
        }
        StartError::Log(OpenError::Format { .. }) => format!(
            ". Start it with the release that wrote it, or go back to a backup: stevedore restore --from FILE --data {folder}"
        ),
        _ => String::new(),
    }
}

/// What a person can do about a Controller that Dstores do not follow.
pub fn advice_when_refused(folder: &Path, refused: &Refused) -> String {
    let history = refused.unknown_history.map(|history| format!(" --history {history}")).unwrap_or_default();
    format!("If there is no newer copy, go on from this one: stevedore recover --data {}{history}", quoted(folder))
}

/// What to type to make a Controller's folder of what Dstores have.
pub fn words_to_recover_from<'a>(folder: &Path, dstores: impl Iterator<Item = &'a Path>) -> String {
    let dstores: Vec<String> = dstores.map(quoted).collect();
    format!("stevedore recover --data {} --from {}", quoted(folder), dstores.join(" "))
}

/// What to type where the log is there, and no `cluster.toml` is left.
pub fn words_to_draw_a_secret(folder: &Path) -> String {
    format!("stevedore recover --data {} --new-secret", quoted(folder))
}

fn quoted(path: &Path) -> String {
    quote(&path.display().to_string())
}

impl Backup {
    /// Does it.
    pub fn run(&self, cluster: Option<&Path>) -> Result<(), Failure> {
        let _log = program::start_log("error")?;
        signals::end_clients_tidily()?;
        let store = cluster::connect(cluster)?;
        let of = |error| match error {
            client::Error::Sink(error) => Failure::new(format!("cannot write {}: {error}", self.file.display())),
            error => of_store(error),
        };
        if self.file.as_os_str() == STANDARD_STREAM {
            let mut stdout = io::stdout();
            store.backup(&mut stdout).map_err(of)?;
            return stdout.flush().map_err(cannot_print);
        }
        let cannot_write = |error| of(client::Error::Sink(error));
        let mut file = NewFile::create(&self.file).map_err(cannot_write)?;
        // All names are in it.
        file.file().set_permissions(Permissions::from_mode(0o600)).map_err(cannot_write)?;
        // What is removed from here on may be what the backup does not see.
        let begun = now_ms();
        let made = store.backup(&mut ToNewFile(&mut file)).map_err(of)?;
        file.file().sync_all().map_err(cannot_write)?;
        file.keep().map_err(cannot_write)?;
        let folder = self.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(cannot_write)?;
        self.say(&made, begun)
    }

    fn say(&self, made: &client::Backup, begun_ms: u64) -> Result<(), Failure> {
        let client::Backup { contents, bytes, keep_removed } = made;
        let until = begun_ms.saturating_add(u64::try_from(keep_removed.as_millis()).unwrap_or(u64::MAX));
        if self.json {
            return say_json(&json!({
                "name": contents.name,
                "cluster": contents.cluster.to_string(),
                "entries": contents.entries,
                "sequence": contents.sequence,
                "bytes": bytes,
                "whole_until": Time(until).to_string(),
                "whole_until_ms": until,
            }));
        }
        say(format_args!(
            "wrote {}: {} of the store {:?} at change {}, {}",
            self.file.display(),
            count(contents.entries, "entry", "entries"),
            contents.name,
            contents.sequence,
            HumanBytes(*bytes)
        ))?;
        say(format_args!(
            "Until {} all of it can be restored. Later, a file that was removed or replaced since the backup comes back without \
             its bytes: they are kept for {}.",
            Time(until),
            HumanDuration(*keep_removed)
        ))
    }
}

impl Restore {
    /// Does it. `cluster` is the store's `cluster.toml`, or its folder.
    pub fn run(&self, cluster: Option<&Path>) -> Result<(), Failure> {
        let _log = program::start_log("warn")?;
        let found = read_backup(&self.from)?;
        let folder = DataFolder::claim(&self.data)?;
        let beginning = Beginning { folder: &folder, cluster, dstores: &[], draws_secret: self.new_secret };
        let file = beginning.cluster_file(&found)?;
        let mut others = self.history.clone();
        let log = beginning.log()?;
        match Found::in_log(&log) {
            Ok(Some(there)) => {
                same_cluster(&there, file.cluster, &folder.log())?;
                others.extend(there.namespace().lineage());
                let what = format!(
                    "the store goes back to change {}: its log has changes up to {}, and what they did is lost",
                    found.namespace().sequence(),
                    there.namespace().sequence()
                );
                confirm(self.yes, &what)?;
            }
            Ok(None) => {}
            Err(error @ (OpenError::Io(_) | OpenError::Format { .. })) => {
                return Err(Failure::new(format!("{}: {error}", folder.log().display())));
            }
            Err(_) => {
                confirm(self.yes, &format!("nothing can be read in {}: the backup takes its place", log_name(&folder)))?
            }
        }
        beginning.carry_out(found, &others, &file)
    }
}

impl Recover {
    /// Does it. `cluster` is the store's `cluster.toml`, or its folder.
    pub fn run(&self, cluster: Option<&Path>) -> Result<(), Failure> {
        let _log = program::start_log("warn")?;
        let dstores: Vec<PathBuf> = self.from.iter().chain(&self.more).cloned().collect();
        if dstores.is_empty() {
            return self.run_on_log(cluster);
        }
        let folder = DataFolder::claim(&self.data)?;
        let beginning = Beginning { folder: &folder, cluster, dstores: &dstores, draws_secret: self.new_secret };
        match Found::in_log(&beginning.log()?) {
            Ok(None) | Err(OpenError::Damaged { .. }) => {}
            // A recovery was interrupted before its end.
            Ok(Some(there)) if !folder.cluster_file().exists() => {
                let file = beginning.cluster_file(&there)?;
                return beginning.finish(&state(&there), &file);
            }
            Ok(Some(_)) => {
                return Err(Failure::new(format!(
                    "there is a log in {}, and it has more than any backup. Make it start again: stevedore recover --data {}; or \
                     name an empty folder",
                    log_name(&folder),
                    quoted(folder.path())
                )));
            }
            Err(error) => return Err(Failure::new(format!("{}: {error}", log_name(&folder)))),
        }
        let Kept { path, contents, modified, histories } = newest_backup(&dstores)?;
        let found = read_backup(&path)?;
        let file = beginning.cluster_file(&found)?;
        let when = modified.map(|modified| format!(", written at {}", Time(modified))).unwrap_or_default();
        say(format_args!(
            "The newest backup is {}{when}: {} of the store {:?} at change {}. Later changes are lost.",
            path.display(),
            count(contents.entries, "entry", "entries"),
            contents.name,
            contents.sequence
        ))?;
        let others: Vec<History> = self.history.iter().copied().chain(histories).collect();
        beginning.carry_out(found, &others, &file)
    }

    fn run_on_log(&self, cluster: Option<&Path>) -> Result<(), Failure> {
        let folder = DataFolder::claim(&self.data)?;
        let beginning = Beginning { folder: &folder, cluster, dstores: &[], draws_secret: self.new_secret };
        let backups = format!(
            "a backup can take its place: stevedore recover --data {0} --from DSTORE..., or stevedore restore --from FILE --data {0}",
            quoted(folder.path())
        );
        let found = match Found::in_log(&beginning.log()?) {
            Ok(Some(found)) => found,
            Ok(None) => return Err(Failure::new(format!("there is no log in {}; {backups}", log_name(&folder)))),
            Err(error) => {
                return Err(Failure::new(format!("nothing can be read in {}: {error}; {backups}", log_name(&folder))));
            }
        };
        let file = beginning.cluster_file(&found)?;
        let when = found.last_change_ms().map(|ms| format!(", made at {}", Time(ms))).unwrap_or_default();
        let last = format!("change {}{when}", found.namespace().sequence());
        let what = match found.damage() {
            None => {
                format!("all changes up to {last} can be read. If this is an old copy, what was changed later is lost")
            }
            Some(damage) => {
                let behind = damage.last_index.map_or("what follows is lost".to_owned(), |index| {
                    format!("later changes, up to {index} at least, are lost")
                });
                format!("the changes up to {last} can be read. The log is damaged at {}: {behind}", damage.place)
            }
        };
        confirm(self.yes, &what)?;
        beginning.carry_out(found, &self.history, &file)
    }
}

/// Where a store begins anew.
struct Beginning<'a> {
    folder: &'a DataFolder,
    /// The `cluster.toml` that the command line names.
    cluster: Option<&'a Path>,
    /// Folders that may have one.
    dstores: &'a [PathBuf],
    draws_secret: bool,
}

impl Beginning<'_> {
    fn log(&self) -> Result<RealFolder, Failure> {
        let log = self.folder.log();
        RealFolder::new(&log).map_err(|error| Failure::new(format!("cannot use {}: {error}", log.display())))
    }

    /// What the servers of this store know, from wherever it is left.
    fn cluster_file(&self, found: &Found) -> Result<ClusterFile, Failure> {
        let namespace = found.namespace();
        let places =
            [self.folder.path()].into_iter().chain(self.cluster).chain(self.dstores.iter().map(PathBuf::as_path));
        for place in places {
            if let Some(file) = ClusterFile::read(place)? {
                same_cluster(found, file.cluster, place)?;
                return Ok(file);
            }
            if Some(place) == self.cluster {
                return Err(Failure::new(format!("{}: there is no {CLUSTER_FILE}", place.display())));
            }
        }
        if !self.draws_secret {
            return Err(Failure::new(format!(
                "there is no {CLUSTER_FILE} in {}: name a copy with --cluster FILE, from any server of the store. If none is left, \
                 --new-secret draws a new secret; then every server and user needs the new files",
                self.folder.path().display()
            )));
        }
        let secret = Secret::draw().map_err(|error| Failure::new(format!("cannot draw a secret: {error}")))?;
        say(format_args!(
            "A new secret is drawn: every server needs the new {CLUSTER_FILE}, and every user the new {CLIENT_FILE}."
        ))?;
        Ok(ClusterFile {
            cluster: namespace.cluster(),
            name: namespace.name().to_owned(),
            controllers: Vec::new(),
            secret,
        })
    }

    fn carry_out(&self, found: Found, others: &[History], file: &ClusterFile) -> Result<(), Failure> {
        let state = state(&found);
        let log = self.log()?;
        let cannot_write = |error: io::Error| Failure::new(format!("cannot write {}: {error}", log_name(self.folder)));
        let history = found.restore_to(&log, others).map_err(cannot_write)?;
        self.finish(&state, file)?;
        let before = format!("before-{history}-");
        if fs::read_dir(self.folder.log())
            .is_ok_and(|names| names.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(&before)))
        {
            say(format_args!("The log that was there is kept in {}/{before}*", log_name(self.folder)))?;
        }
        Ok(())
    }

    /// Once there is a log: without one, a start would take `cluster.toml` for that of a store that is still to be made.
    fn finish(&self, state: &str, file: &ClusterFile) -> Result<(), Failure> {
        if !self.folder.cluster_file().exists() {
            file.write(&self.folder.cluster_file())?;
        }
        let folder = quoted(self.folder.path());
        say(format_args!(
            "{} has the store {:?} as it was at {state}. It goes on in a history of its own. Start it:",
            self.folder.path().display(),
            file.name
        ))?;
        match self.folder.has_objects()? || self.dstores.iter().any(|dstore| dstore.join("dstore").is_dir()) {
            true => {
                say(format_args!("  stevedore serve {folder} ...        with the other folders, in their old order"))?
            }
            false => say(format_args!("  stevedore controller --data {folder}"))?,
        }
        say(format_args!(
            "A file whose bytes no Dstore has is listed all the same: once all Dstores have reported, stevedore status counts such \
             objects, and stevedore check names the files."
        ))
    }
}

/// The last change, and how much there is.
fn state(found: &Found) -> String {
    let entries = count(found.namespace().entry_count(), "entry", "entries");
    format!("change {}: {entries}", found.namespace().sequence())
}

fn log_name(folder: &DataFolder) -> String {
    folder.log().display().to_string()
}

fn same_cluster(found: &Found, cluster: ClusterId, place: &Path) -> Result<(), Failure> {
    let theirs = found.namespace().cluster();
    if theirs == cluster {
        return Ok(());
    }
    Err(Failure::new(format!("{} is of another store: {cluster}, not {theirs}. Nothing was done", place.display())))
}

fn read_backup(path: &Path) -> Result<Found, Failure> {
    let bytes = fs::read(path).map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    Found::in_backup(&bytes, &path.display().to_string()).map_err(|error| match error {
        OpenError::Damaged { file, reason, .. } => Failure::new(format!("{file} cannot be restored: it is {reason}")),
        error => Failure::new(error),
    })
}

/// A backup that a Dstore has kept.
struct Kept {
    path: PathBuf,
    contents: Contents,
    modified: Option<u64>,
    /// The histories that the Dstores have followed, and those of other backups.
    histories: Vec<History>,
}

/// The newest backup among the folders of Dstores, all of one store.
fn newest_backup(dstores: &[PathBuf]) -> Result<Kept, Failure> {
    let mut histories = Vec::new();
    let mut newest: Option<Kept> = None;
    let mut store: Option<(ClusterId, &Path)> = None;
    let mut is_of = |cluster: ClusterId, dstore| match *store.get_or_insert((cluster, dstore)) {
        (first, _) if first == cluster => Ok(()),
        (first, other) => Err(Failure::new(format!(
            "{} and {} are of two stores: {first} and {cluster}. Nothing was done",
            other.display(),
            Path::display(dstore)
        ))),
    };
    for dstore in dstores {
        let folder = Some(dstore.join("dstore")).filter(|folder| folder.is_dir()).unwrap_or_else(|| dstore.clone());
        if !folder.is_dir() {
            return Err(Failure::new(format!("{}: there is no such folder", folder.display())));
        }
        let identity =
            RealFolder::new(&folder).map_err(depot::pack::OpenError::Io).and_then(|folder| Identity::peek(&folder));
        match identity {
            Ok(Some(identity)) => {
                identity.cluster.map_or(Ok(()), |cluster| is_of(cluster, dstore))?;
                histories.extend(identity.epoch.map(|epoch| epoch.history));
            }
            Ok(None) => log::warn!("{}: no Dstore has used this folder", folder.display()),
            Err(error) => log::warn!("{}: {error}", folder.display()),
        }
        for path in BACKUPS.iter().map(|name| folder.join(name)) {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Failure::new(format!("cannot read {}: {error}", path.display()))),
            };
            let modified = file.metadata().and_then(|metadata| metadata.modified()).ok().map(ms_since_1970);
            let contents = match verify(io::BufReader::new(file)) {
                Ok(contents) => contents,
                Err(error) => {
                    log::warn!("{} is not used: {error}", path.display());
                    continue;
                }
            };
            is_of(contents.cluster, dstore)?;
            histories.extend(&contents.lineage);
            if newest.as_ref().is_none_or(|newest| is_newer(&contents, &newest.contents)) {
                newest = Some(Kept { path, contents, modified, histories: Vec::new() });
            }
        }
    }
    let newest = newest.ok_or_else(|| {
        Failure::new(
            "none of these folders has a backup that can be read. A store sends its Dstores the first one a minute after it has \
             started. With a backup of your own: stevedore restore --from FILE --data DIR",
        )
    })?;
    Ok(Kept { histories, ..newest })
}

/// A backup is newer if its history descends from the other's; in the same history, if it has more changes.
fn is_newer(one: &Contents, other: &Contents) -> bool {
    let descends =
        |one: &Contents, other: &Contents| other.lineage.last().is_some_and(|last| one.lineage.contains(last));
    match (descends(one, other), descends(other, one)) {
        (true, false) => true,
        (false, true) => false,
        _ => one.sequence > other.sequence,
    }
}

fn now_ms() -> u64 {
    ms_since_1970(SystemTime::now())
}

fn ms_since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_backup_is_that_of_the_last_history() {
        let of = |lineage: &[u64], sequence| Contents {
            sequence,
            cluster: ClusterId(1),
            name: String::new(),
            entries: 0,
            lineage: lineage.iter().map(|history| History(*history)).collect(),
        };
        let ascending = [of(&[1], 5), of(&[1], 900), of(&[1, 2], 7), of(&[1, 2, 3], 8), of(&[1, 2, 3], 9)];
        for (at, one) in ascending.iter().enumerate() {
            for (other_at, other) in ascending.iter().enumerate() {
                assert_eq!(is_newer(one, other), at > other_at, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_controller_that_does_not_start_says_what_to_type() {
        let folder = Path::new("/srv/my store");
        let damaged = OpenError::Damaged { file: "log-1".into(), offset: 7, reason: "zeros" };
        assert!(
            advice(folder, &StartError::Log(damaged)).ends_with("stevedore recover --data /srv/my\\ store"),
            "it is quoted as a shell needs it"
        );
        let later = StartError::Log(OpenError::Format { file: "log-1".into() });
        assert!(advice(folder, &later).contains("stevedore restore --from FILE --data /srv/my\\ store"));
        let refused = |unknown_history| advice_when_refused(Path::new("/c"), &Refused { unknown_history });
        assert!(refused(None).ends_with("stevedore recover --data /c"));
        assert!(refused(Some(History(0x8f))).ends_with("stevedore recover --data /c --history 8f"));
    }
}
