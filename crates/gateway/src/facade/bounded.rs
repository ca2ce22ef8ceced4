//! A store, as far as one named user may have it: each path is moved into a directory, and each operation needs a right there.
//!
//! | operation | right that it needs |
//! |---|---|
//! | `get`, `copies` | read |
//! | `stat`, `list`, `find` | read; of a directory above something that may be read, what leads there |
//! | `watch` | read, for each path of a change; other changes are left out |
//! | `status`, `settings` | read, at the façade's directory: a façade needs them itself |
//! | `put`, `check_put`, `remove`, `make_directory`, `remove_directory`, `set_attributes` | write; also for each parent that is made |
//! | `rename` | write at both ends |
//! | `copy`, `compose` | read of the sources, or write if they are removed; write at the target |
//! | `check` | admin |
//! | all that is about the whole store: `set`, `repair`, `drain`, `format`, ... | admin, at the root of the store |
//!
//! The store's own directory, `/.stevedore/`, can be reached by no operation. Locks that a client of WebDAV has taken bind all
//! changes: they are looked at when a change begins, and for a put once more when its last byte has come, as over HTTP. What puts
//! keep in memory comes from the one budget for all uploads. Content that moves is counted for the gateway's metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use depot::client::{
    CheckSummary, CheckedObject, Content, CopyOptions, Digested, Error, Files, FindPage, ListOptions, MoveOptions,
    ObjectCopies, PutOptions, Source, Status, WatchPage,
};
use depot::identity::{ControllerId, DstoreId, Version};
use depot::namespace::change::{Condition, Details, Refusal, RemovalExtent, Settings};
use depot::namespace::listing::{Kind, Listed, Page, Stat};
use depot::path::Path;
use depot::wire::Address;
use hyper::HeaderMap;

use super::{Acting, Common};
use crate::access::{Access, Caller, Right};
use crate::console::Statistics;
use crate::http::{Budget, CHUNK, PATIENCE, Share, is_reserved};
use crate::locks::{Admission, Locks, Touched};

/// What a façade gets in place of the store. See the module.
pub(super) struct Bounded {
    store: Arc<dyn Files>,
    access: Arc<Access>,
    locks: Arc<Locks>,
    uploads: Arc<Budget>,
    statistics: Arc<Statistics>,
    acting: Acting,
}

impl Bounded {
    pub(super) fn new(store: Arc<dyn Files>, common: &Common, acting: Acting) -> Self {
        let Common { access, locks, uploads, journal } = common.clone();
        Self { store, access, locks, uploads, statistics: Arc::clone(journal.statistics()), acting }
    }

    /// The user as it is now.
    fn caller(&self) -> Result<Caller, Error> {
        self.access.acting_as(&self.acting.user, self.acting.is_open)
    }

    /// Where the façade's path is in the store.
    fn inside(&self, path: &Path) -> Path {
        let directory = &self.acting.directory;
        if directory.is_root() {
            return path.clone();
        }
        let below = if path.is_root() { "" } else { path.as_str() };
        format!("{directory}{below}").parse().expect("two paths, one behind the other")
    }

    /// The façade's path of what is there in the store; `None` if it is outside.
    fn outside(&self, path: &Path) -> Option<Path> {
        let directory = &self.acting.directory;
        if directory.is_root() {
            return Some(path.clone());
        }
        if !path.is_within(directory) {
            return None;
        }
        let below = &path.as_str()[directory.as_str().len()..];
        Some(if below.is_empty() { Path::root() } else { below.parse().expect("the end of a path") })
    }

    /// The path in the store, if the user has this right there.
    fn at(&self, right: Right, path: &Path) -> Result<Path, Error> {
        self.permit(right, path, self.inside(path))
    }

    /// Refuses unless the user has this right at `inside`, which is called `shown`.
    fn permit(&self, right: Right, shown: &Path, inside: Path) -> Result<Path, Error> {
        if !is_reserved(&inside) && self.caller()?.may(right, &inside) {
            return Ok(inside);
        }
        Err(self.lacks(right, shown))
    }

    fn lacks(&self, right: Right, shown: &Path) -> Error {
        Error::NotPermitted(format!("{} lacks the right to {} {shown}", self.acting.user, verb(right)))
    }

    /// Refuses unless the user is an admin of the whole store.
    fn administrate(&self) -> Result<(), Error> {
        match self.caller()?.may(Right::Admin, &Path::root()) {
            true => Ok(()),
            false => Err(Error::NotPermitted(format!("{} is no admin of the store", self.acting.user))),
        }
    }

    /// The path in the store of what is to be changed; with `parents`, also if directories come to be on the way to it.
    fn change(&self, path: &Path, parents: bool, touched: fn(Path) -> Touched) -> Result<Path, Error> {
        self.admitted(path, parents, touched).map(|(inside, _)| inside)
    }

    /// The same, and what looks once more whether locks forbid it.
    fn admitted(
        &self,
        path: &Path,
        parents: bool,
        touched: fn(Path) -> Touched,
    ) -> Result<(Path, Admission<'_>), Error> {
        let inside = self.at(Right::Write, path)?;
        if parents {
            self.permit_parents(&inside, path)?;
        }
        let touched = vec![touched(inside.clone())];
        let admitted = self.locks.admit(&HeaderMap::new(), &self.caller()?, &inside, touched);
        let admission = admitted.map_err(|problem| Error::NotPermitted(problem.message))?;
        Ok((inside, admission))
    }

    /// Refuses if a directory would come to be where the user may not write.
    fn permit_parents(&self, inside: &Path, shown: &Path) -> Result<(), Error> {
        let caller = self.caller()?;
        let mut path = inside.clone();
        while let Some((parent, _)) = path.split_last() {
            if !caller.may(Right::Write, &parent) {
                return match self.store.stat(&parent) {
                    Err(Error::Refused(Refusal::NotFound)) => Err(self.lacks(Right::Write, shown)),
                    found => found.map(drop),
                };
            }
            path = parent;
        }
        Ok(())
    }

    /// Whether the user may see an entry of a listing of `directory`, a path of the store.
    fn may_see(caller: &Caller, directory: &Path, entry: &Listed) -> bool {
        let Ok(path) = directory.join(entry.name.trim_end_matches('/')) else { return false };
        let is_directory = matches!(entry.stat.kind, Kind::Directory { .. });
        !is_reserved(&path) && (caller.may(Right::Read, &path) || is_directory && caller.may_know(&path))
    }

    /// The path in the store of a directory that may be listed, at least in part.
    fn listed(&self, path: &Path) -> Result<(Path, Caller), Error> {
        let (inside, caller) = (self.inside(path), self.caller()?);
        if is_reserved(&inside) || !caller.may_know(&inside) {
            return Err(self.lacks(Right::Read, path));
        }
        Ok((inside, caller))
    }
}

fn verb(right: Right) -> &'static str {
    match right {
        Right::Read => "read",
        Right::Write => "write to",
        Right::Admin => "administrate",
    }
}

impl Files for Bounded {
    fn put(&self, path: &Path, source: Source<'_>, options: &PutOptions) -> Result<Version, Error> {
        let (inside, admission) = self.admitted(path, options.parents, Touched::Entry)?;
        let (share, statistics) = (self.uploads.share(), &*self.statistics);
        let mut metering = Metering { share, kept: 0, statistics, admission, forbidden: None };
        let metered = &mut metering;
        let put = match source {
            Source::Once(reader) => {
                self.store.put(&inside, Source::Once(&mut Metered { reader, metering: metered }), options)
            }
            Source::Digested(reader) => {
                self.store.put(&inside, Source::Digested(&mut Metered { reader, metering: metered }), options)
            }
            // It can be read again, so nothing of it is kept.
            source @ Source::File(_) => self.store.put(&inside, source, options),
        };
        match metering.forbidden.take() {
            Some(why) if matches!(put, Err(Error::Source(_))) => Err(Error::NotPermitted(why)),
            _ => put,
        }
    }

    fn check_put(&self, path: &Path, options: &PutOptions) -> Result<(), Error> {
        let inside = self.change(path, options.parents, Touched::Entry)?;
        self.store.check_put(&inside, options)
    }

    fn get(&self, path: &Path, condition: Condition) -> Result<Box<dyn Content + Send + '_>, Error> {
        let content = self.store.get(&self.at(Right::Read, path)?, condition)?;
        Ok(Box::new(Counted { content, statistics: &self.statistics }))
    }

    fn stat(&self, path: &Path) -> Result<Stat, Error> {
        let (inside, caller) = self.listed(path)?;
        let may_read = caller.may(Right::Read, &inside);
        match self.store.stat(&inside) {
            Ok(Stat { kind: Kind::File { .. }, .. }) if !may_read => Err(self.lacks(Right::Read, path)),
            found => found,
        }
    }

    /// A page may be empty although others follow.
    fn list(&self, path: &Path, options: &ListOptions) -> Result<Page, Error> {
        let (inside, caller) = self.listed(path)?;
        let mut page = self.store.list(&inside, options)?;
        page.entries.retain(|entry| Self::may_see(&caller, &inside, entry));
        Ok(page)
    }

    fn find(&self, path: &Path, pattern: &str, after: &str) -> Result<FindPage, Error> {
        let (inside, caller) = self.listed(path)?;
        let mut page = self.store.find(&inside, pattern, after)?;
        page.entries.retain(|entry| Self::may_see(&caller, &inside, entry));
        Ok(page)
    }

    fn rename(&self, from: &Path, to: &Path, options: &MoveOptions) -> Result<Version, Error> {
        let from = self.change(from, false, Touched::Tree)?;
        let to = self.change(to, options.parents, Touched::Tree)?;
        self.store.rename(&from, &to, options)
    }

    fn copy(&self, from: &Path, to: &Path, options: &CopyOptions) -> Result<Version, Error> {
        let from = self.at(Right::Read, from)?;
        let to = self.change(to, options.placing.parents, Touched::Tree)?;
        self.store.copy(&from, &to, options)
    }

    fn remove(&self, path: &Path, condition: Condition) -> Result<Version, Error> {
        self.store.remove(&self.change(path, false, Touched::Entry)?, condition)
    }

    fn make_directory(
        &self,
        path: &Path,
        parents: bool,
        details: &Details,
        modified_ms: Option<u64>,
    ) -> Result<Version, Error> {
        let inside = self.change(path, parents, Touched::Entry)?;
        self.store.make_directory(&inside, parents, details, modified_ms)
    }

    fn remove_directory(&self, path: &Path, condition: Condition, extent: RemovalExtent) -> Result<Version, Error> {
        self.store.remove_directory(&self.change(path, false, Touched::Tree)?, condition, extent)
    }

    fn set_attributes(
        &self,
        path: &Path,
        condition: Condition,
        attributes: &BTreeMap<String, Option<String>>,
        content_type: Option<&str>,
        modified_ms: Option<u64>,
    ) -> Result<Version, Error> {
        let inside = self.change(path, false, Touched::Itself)?;
        self.store.set_attributes(&inside, condition, attributes, content_type, modified_ms)
    }

    fn compose(
        &self,
        path: &Path,
        sources: &[(Path, Version)],
        remove_sources: bool,
        options: &PutOptions,
    ) -> Result<Version, Error> {
        let of_source = |(source, version): &(Path, Version)| {
            let inside = match remove_sources {
                true => self.change(source, false, Touched::Entry),
                false => self.at(Right::Read, source),
            };
            inside.map(|inside| (inside, *version))
        };
        let sources: Vec<_> = sources.iter().map(of_source).collect::<Result<_, _>>()?;
        let inside = self.change(path, options.parents, Touched::Entry)?;
        self.store.compose(&inside, &sources, remove_sources, options)
    }

    fn watch(&self, after: Option<Version>, wait: Duration) -> Result<WatchPage, Error> {
        let mut page = self.store.watch(after, wait)?;
        let caller = self.caller()?;
        let may_read = |path: &Path| !is_reserved(path) && caller.may(Right::Read, path);
        page.events.retain_mut(|event| {
            // What is about no path is about all of them.
            if event.paths.is_empty() {
                return may_read(&Path::root());
            }
            let shown = event.paths.iter().filter(|path| may_read(path)).map(|path| self.outside(path));
            let shown: Vec<Path> = shown.flatten().collect();
            let is_seen = shown.len() == event.paths.len();
            event.paths = shown;
            is_seen
        });
        Ok(page)
    }

    fn status(&self) -> Result<Status, Error> {
        self.at(Right::Read, &Path::root())?;
        self.store.status()
    }

    fn settings(&self) -> Result<Settings, Error> {
        self.at(Right::Read, &Path::root())?;
        self.store.settings()
    }

    fn set(&self, settings: &Settings) -> Result<Version, Error> {
        self.administrate()?;
        self.store.set(settings)
    }

    fn copies(&self, path: &Path) -> Result<Vec<ObjectCopies>, Error> {
        self.store.copies(&self.at(Right::Read, path)?)
    }

    fn check(&self, path: &Path, deep: bool, found: &mut dyn FnMut(&CheckedObject)) -> Result<CheckSummary, Error> {
        let inside = self.at(Right::Admin, path)?;
        self.store.check(&inside, deep, &mut |object| {
            if let Some(path) = self.outside(&object.path) {
                found(&CheckedObject { path, ..object.clone() });
            }
        })
    }

    fn repair(&self, all: bool) -> Result<(), Error> {
        self.administrate()?;
        self.store.repair(all)
    }

    fn drain(&self, dstore: DstoreId, drains: bool) -> Result<(), Error> {
        self.administrate()?;
        self.store.drain(dstore, drains)
    }

    fn discharge(&self, dstore: DstoreId, is_lost: bool) -> Result<(), Error> {
        self.administrate()?;
        self.store.discharge(dstore, is_lost)
    }

    fn collect_unclaimed(&self) -> Result<(), Error> {
        self.administrate()?;
        self.store.collect_unclaimed()
    }

    fn add_controller(&self, address: &Address) -> Result<(), Error> {
        self.administrate()?;
        self.store.add_controller(address)
    }

    fn remove_controller(&self, controller: ControllerId) -> Result<(), Error> {
        self.administrate()?;
        self.store.remove_controller(controller)
    }

    fn hand_over(&self, to: Option<ControllerId>) -> Result<(), Error> {
        self.administrate()?;
        self.store.hand_over(to)
    }

    fn format(&self, name: &str) -> Result<Version, Error> {
        self.administrate()?;
        self.store.format(name)
    }
}

/// A source that takes from the budget what is kept of it in memory, and fails at its end if what it is put to is locked by then.
struct Metered<'a, 'b, R: ?Sized> {
    reader: &'a mut R,
    metering: &'a mut Metering<'b>,
}

struct Metering<'a> {
    share: Share<'a>,
    kept: u64,
    statistics: &'a Statistics,
    admission: Admission<'a>,
    /// Why it has failed at its end.
    forbidden: Option<String>,
}

impl<R: Read + ?Sized> Read for Metered<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let metering = &mut self.metering;
        if read == 0
            && !buffer.is_empty()
            && let Err(problem) = metering.admission.renew()
        {
            metering.forbidden = Some(problem.message);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it was locked meanwhile"));
        }
        let more = (read as u64).min(CHUNK - metering.kept);
        if !metering.share.grow(more, PATIENCE) {
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, "too many uploads are under way"));
        }
        metering.kept += more;
        metering.statistics.received(read as u64);
        Ok(read)
    }
}

/// Content of which is counted what is handed over.
struct Counted<'a> {
    content: Box<dyn Content + Send + 'a>,
    statistics: &'a Statistics,
}

/// Where it is handed over.
struct Counting<'a> {
    sink: &'a mut dyn Write,
    statistics: &'a Statistics,
}

impl Content for Counted<'_> {
    fn stat(&self) -> &Stat {
        self.content.stat()
    }

    fn size(&self) -> u64 {
        self.content.size()
    }

    fn holders(&self) -> BTreeSet<DstoreId> {
        self.content.holders()
    }

    fn prefer(&mut self, dstore: DstoreId) {
        self.content.prefer(dstore);
    }

    fn copy_to(&mut self, range: Range<u64>, sink: &mut dyn Write) -> Result<(), Error> {
        self.content.copy_to(range, &mut Counting { sink, statistics: self.statistics })
    }
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.sink.write(bytes)?;
        self.statistics.sent(taken as u64);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

impl Digested for Metered<'_, '_, dyn Digested + '_> {
    fn digests(&mut self) -> BTreeMap<String, String> {
        self.reader.digests()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{User, Users};
    use crate::console::Console;
    use crate::locks::{Pauses, Wanted};
    use crate::monitoring::Journal;
    use depot::client::memory::Memory;

    const SOON: Duration = Duration::from_secs(30);

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    /// A store with users, some files, and what a façade sees of it.
    struct Bench {
        store: Arc<dyn Files>,
        common: Common,
    }

    impl Bench {
        fn new() -> Self {
            let store: Arc<dyn Files> = Arc::new(Memory::new("test").unwrap());
            for file in ["/box/a", "/box/sub/b", "/boxes/c", "/d"] {
                let options = PutOptions { parents: true, ..PutOptions::default() };
                store.put(&path(file), Source::Once(&mut &b"x"[..]), &options).unwrap();
            }
            let access = Arc::new(Access::new(Arc::clone(&store), false).unwrap());
            let pauses = Pauses { fresh: Duration::ZERO, notice: Duration::ZERO, unused: SOON };
            let locks = Arc::new(Locks::new(Arc::clone(&store), pauses));
            let console = Console::start(Arc::clone(&store), Arc::clone(&locks)).unwrap();
            let journal = Arc::new(Journal::new(console, None, None));
            Self { store, common: Common { access, locks, uploads: Arc::new(Budget::new(1 << 20)), journal } }
        }

        fn grant(&self, name: &str, rights: &[(&str, Right)]) {
            let mut user = User::new(name).unwrap();
            user.rights.extend(rights.iter().map(|(prefix, right)| (path(prefix), *right)));
            Users::of(&*self.store).insert(&user).unwrap();
        }

        fn as_user(&self, user: &str, directory: &str) -> Bounded {
            let acting = Acting { user: user.to_owned(), directory: path(directory), is_open: false };
            self.bounded(acting)
        }

        fn bounded(&self, acting: Acting) -> Bounded {
            Bounded::new(Arc::clone(&self.store), &self.common, acting)
        }
    }

    /// Each operation of [`Files`] on `/a` and its like, and the right that it needs. Whether it succeeds says nothing: a store in memory
    /// has no Dstores, for one.
    type Operation = (&'static str, Right, fn(&dyn Files) -> Result<(), Error>);

    const AT_THE_FILES: &[Operation] = &[
        ("put", Right::Write, |files| {
            files.put(&path("/a"), Source::Once(&mut &b"y"[..]), &PutOptions::default()).map(drop)
        }),
        ("check_put", Right::Write, |files| files.check_put(&path("/a"), &PutOptions::default())),
        ("get", Right::Read, |files| files.get(&path("/a"), Condition::Any).map(drop)),
        ("stat", Right::Read, |files| files.stat(&path("/a")).map(drop)),
        ("list", Right::Read, |files| files.list(&path("/sub"), &ListOptions::default()).map(drop)),
        ("find", Right::Read, |files| files.find(&path("/sub"), "b", "").map(drop)),
        ("rename", Right::Write, |files| {
            files.rename(&path("/a"), &path("/e"), &MoveOptions::default())?;
            files.rename(&path("/e"), &path("/a"), &MoveOptions::default()).map(drop)
        }),
        ("copy", Right::Write, |files| {
            files.copy(&path("/a"), &path("/f"), &CopyOptions::default())?;
            files.remove(&path("/f"), Condition::Any).map(drop)
        }),
        ("remove", Right::Write, |files| files.remove(&path("/none"), Condition::Any).map(drop)),
        ("make_directory", Right::Write, |files| {
            files.make_directory(&path("/sub"), false, &Details::default(), None).map(drop)
        }),
        ("remove_directory", Right::Write, |files| {
            files.remove_directory(&path("/sub"), Condition::Any, RemovalExtent::Empty).map(drop)
        }),
        ("set_attributes", Right::Write, |files| {
            files.set_attributes(&path("/a"), Condition::Any, &BTreeMap::new(), Some("x/y"), None).map(drop)
        }),
        ("compose", Right::Write, |files| {
            let sources = [(path("/a"), files.stat(&path("/a"))?.version)];
            files.compose(&path("/a"), &sources, false, &PutOptions::default()).map(drop)
        }),
        ("status", Right::Read, |files| files.status().map(drop)),
        ("settings", Right::Read, |files| files.settings().map(drop)),
        ("copies", Right::Read, |files| files.copies(&path("/a")).map(drop)),
        ("check", Right::Admin, |files| files.check(&path("/a"), false, &mut |_| ()).map(drop)),
    ];

    /// Those that are about the whole store.
    const OF_THE_STORE: &[Operation] = &[
        ("set", Right::Admin, |files| files.set(&Settings::default()).map(drop)),
        ("repair", Right::Admin, |files| files.repair(false)),
        ("drain", Right::Admin, |files| files.drain(DstoreId(7), true)),
        ("discharge", Right::Admin, |files| files.discharge(DstoreId(7), false)),
        ("collect_unclaimed", Right::Admin, |files| files.collect_unclaimed()),
        ("add_controller", Right::Admin, |files| files.add_controller(&"127.0.0.1:7".parse().unwrap())),
        ("remove_controller", Right::Admin, |files| files.remove_controller(ControllerId(7))),
        ("hand_over", Right::Admin, |files| files.hand_over(None)),
        ("format", Right::Admin, |files| files.format("wrong").map(drop)),
    ];

    fn is_denied(result: &Result<(), Error>) -> bool {
        matches!(result, Err(Error::NotPermitted(why)) if why.contains("lacks the right") || why.contains("is no admin"))
    }

    #[test]
    fn each_operation_needs_its_right() {
        let bench = Bench::new();
        let all = [None, Some(Right::Read), Some(Right::Write), Some(Right::Admin)];
        for (number, right) in all.into_iter().enumerate() {
            let rights: Vec<_> = right.map(|right| ("/box", right)).into_iter().collect();
            let name = format!("user{number}");
            bench.grant(&name, &rights);
            let files = bench.as_user(&name, "/box");
            for (operation, needed, run) in AT_THE_FILES {
                assert_eq!(is_denied(&run(&files)), right < Some(*needed), "{operation} with {right:?}");
            }
            for (operation, _, run) in OF_THE_STORE {
                assert!(is_denied(&run(&files)), "{operation} is not only about /box");
            }
            let everywhere = right.map(|right| ("/", right)).into_iter().collect::<Vec<_>>();
            let name = format!("all{number}");
            bench.grant(&name, &everywhere);
            let files = bench.as_user(&name, "/box");
            for (operation, needed, run) in OF_THE_STORE {
                assert_eq!(is_denied(&run(&files)), right < Some(*needed), "{operation} with {right:?} at the root");
            }
        }
    }

    #[test]
    fn paths_are_those_of_the_directory_in_both_directions() {
        let bench = Bench::new();
        bench.grant("admin", &[("/", Right::Admin)]);
        let files = bench.as_user("admin", "/box");
        let cursor = files.watch(None, Duration::ZERO).unwrap().next;
        files.put(&path("/new"), Source::Once(&mut &b"new"[..]), &PutOptions::default()).unwrap();
        assert!(bench.store.stat(&path("/box/new")).is_ok());
        bench.store.remove(&path("/d"), Condition::Any).unwrap();
        bench.store.rename(&path("/box/new"), &path("/new"), &MoveOptions::default()).unwrap();
        let names = |page: Page| page.entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>();
        assert_eq!(names(files.list(&Path::root(), &ListOptions::default()).unwrap()), ["a", "sub/"]);
        let found = files.find(&Path::root(), "*", "").unwrap();
        assert_eq!(found.entries.iter().map(|entry| &*entry.name).collect::<Vec<_>>(), ["a", "sub/", "sub/b"]);
        let told = files.watch(Some(cursor), Duration::ZERO).unwrap();
        let told: Vec<_> = told.events.into_iter().map(|event| (event.verb, event.paths)).collect();
        assert_eq!(told, [("put".to_owned(), vec![path("/new")])], "of what is partly outside, nothing is told");
        for gone in ["/d", "/boxes/c", "/box/a", "/new"] {
            assert!(matches!(files.stat(&path(gone)), Err(Error::Refused(Refusal::NotFound))), "{gone}");
        }
        assert!(files.stat(&path("/a")).is_ok() && files.stat(&Path::root()).is_ok());
    }

    #[test]
    fn no_operation_reaches_what_is_the_stores_own() {
        let bench = Bench::new();
        bench.grant("admin", &[("/", Right::Admin)]);
        for (directory, users) in [("/", "/.stevedore/users"), ("/.stevedore", "/users")] {
            let files = bench.as_user("admin", directory);
            let (users, admin) = (path(users), path(&format!("{users}/admin")));
            let all = [
                files.stat(&admin).map(drop),
                files.list(&users, &ListOptions::default()).map(drop),
                files.find(&users, "*", "").map(drop),
                files.remove_directory(&admin, Condition::Any, RemovalExtent::Tree).map(drop),
                files.make_directory(&admin, true, &Details::default(), None).map(drop),
                files.rename(&users, &path("/taken"), &MoveOptions::default()).map(drop),
                files.copy(&users, &path("/taken"), &CopyOptions::default()).map(drop),
            ];
            assert!(all.iter().all(is_denied), "{all:?}");
        }
        let found = bench.as_user("admin", "/").find(&Path::root(), "admin", "").unwrap();
        assert_eq!(found.entries, []);
    }

    #[test]
    fn a_user_sees_what_leads_to_its_files_and_no_other_files() {
        let bench = Bench::new();
        bench.grant("alice", &[("/box/sub", Right::Write)]);
        let files = bench.as_user("alice", "/");
        let names = |at: &str| -> Vec<String> {
            let page = files.list(&path(at), &ListOptions::default()).unwrap();
            page.entries.into_iter().map(|entry| entry.name).collect()
        };
        assert_eq!([names("/"), names("/box"), names("/box/sub")], [["box/"], ["sub/"], ["b"]]);
        let found = files.find(&Path::root(), "*", "").unwrap();
        assert_eq!(
            found.entries.iter().map(|entry| &*entry.name).collect::<Vec<_>>(),
            ["box/", "box/sub/", "box/sub/b"]
        );
        for hidden in ["/box/a", "/boxes", "/d", "/none"] {
            assert!(is_denied(&files.stat(&path(hidden)).map(drop)), "{hidden}");
        }
        let parents = PutOptions { parents: true, ..PutOptions::default() };
        let put = |at: &str| files.put(&path(at), Source::Once(&mut &b""[..]), &parents).map(drop);
        assert!(put("/box/sub/new/deep").is_ok());
        bench.store.remove_directory(&path("/box"), Condition::Any, RemovalExtent::Tree).unwrap();
        assert!(is_denied(&put("/box/sub/new/deep")), "/box would be made, where it may not write");
    }

    #[test]
    fn rights_that_change_hold_a_moment_later() {
        let bench = Bench::new();
        bench.grant("alice", &[("/", Right::Read)]);
        let files = bench.as_user("alice", "/");
        let reads = || files.stat(&path("/d")).is_ok();
        assert!(reads());
        Users::of(&*bench.store).change("alice", |user| user.rights.clear()).unwrap();
        kit::eventually("the right is gone", || !reads());
        Users::of(&*bench.store).change("alice", |user| user.rights.extend([(path("/d"), Right::Read)])).unwrap();
        kit::eventually("it is back", reads);
        Users::of(&*bench.store).remove("alice").unwrap();
        kit::eventually("a user who is removed may do nothing", || !reads());
    }

    #[test]
    fn anonymous_may_all_only_where_the_facade_is_open() {
        let bench = Bench::new();
        let may = |is_open, user: &str| {
            let files = bench.bounded(Acting { user: user.to_owned(), directory: Path::root(), is_open });
            (files.stat(&path("/d")).is_ok(), files.remove(&path("/none"), Condition::Any), files.repair(false).is_ok())
        };
        let (reads, removed, repairs) = may(true, "anonymous");
        assert!(reads && matches!(removed, Err(Error::Refused(Refusal::NotFound))) && !repairs);
        for (is_open, user) in [(false, "anonymous"), (true, "alice"), (false, "alice")] {
            let (reads, removed, repairs) = may(is_open, user);
            assert!(!reads && is_denied(&removed.map(drop)) && !repairs, "{is_open} {user}");
        }
    }

    #[test]
    fn what_is_locked_is_not_changed() {
        let bench = Bench::new();
        bench.grant("alice", &[("/", Right::Write)]);
        let files = bench.as_user("alice", "/box");
        let at = path("/box/a");
        let (user, owner) = ("alice".to_owned(), String::new());
        let wanted = Wanted { path: at, is_deep: false, is_shared: false, user, owner, timeout: SOON };
        let lock = bench.common.locks.grant(&wanted).unwrap();
        let put = || files.put(&path("/a"), Source::Once(&mut &b""[..]), &PutOptions::default());
        assert!(matches!(put(), Err(Error::NotPermitted(why)) if why.contains("locked")));
        assert!(files.remove_directory(&Path::root(), Condition::Any, RemovalExtent::Tree).is_err());
        bench.common.locks.release(&lock.token).unwrap();
        assert!(put().is_ok());
    }

    #[test]
    fn what_is_locked_while_a_put_is_under_way_is_not_replaced() {
        struct LockedAtItsEnd<'a>(&'a Bench, u8);
        impl Read for LockedAtItsEnd<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if self.1 > 0 {
                    self.1 -= 1;
                    buffer[0] = b'y';
                    return Ok(1);
                }
                let (user, owner) = ("alice".to_owned(), String::new());
                let at = path("/box/a");
                let wanted = Wanted { path: at, is_deep: false, is_shared: false, user, owner, timeout: SOON };
                self.0.common.locks.grant(&wanted).unwrap();
                Ok(0)
            }
        }
        let bench = Bench::new();
        bench.grant("alice", &[("/", Right::Write)]);
        let files = bench.as_user("alice", "/box");
        let before = files.stat(&path("/a")).unwrap().version;
        let put = files.put(&path("/a"), Source::Once(&mut LockedAtItsEnd(&bench, 3)), &PutOptions::default());
        assert!(matches!(&put, Err(Error::NotPermitted(why)) if why.contains("locked")), "{put:?}");
        assert_eq!(files.stat(&path("/a")).unwrap().version, before);
    }

    #[test]
    fn puts_share_the_memory_that_there_is_for_uploads() {
        let bench = Bench::new();
        bench.grant("alice", &[("/", Right::Write)]);
        let files = bench.as_user("alice", "/");
        let small = &mut &vec![0; 1 << 20][..];
        files.put(&path("/new"), Source::Once(small), &PutOptions::default()).unwrap();
        // What others have taken is waited for; this one alone takes more than there is.
        let large = &mut &vec![0; (1 << 20) + 1][..];
        let refused = files.put(&path("/new"), Source::Once(large), &PutOptions::default());
        assert!(matches!(refused, Err(Error::Source(error)) if error.kind() == io::ErrorKind::OutOfMemory));
    }

    #[test]
    fn a_path_goes_into_the_directory_and_out_again() {
        let bench = Bench::new();
        let table = [("/box", "/", "/box"), ("/box", "/sub/b", "/box/sub/b"), ("/", "/a", "/a"), ("/", "/", "/")];
        for (directory, outside, inside) in table {
            let files = bench.as_user("admin", directory);
            assert_eq!(files.inside(&path(outside)), path(inside), "{outside} in {directory}");
            assert_eq!(files.outside(&path(inside)), Some(path(outside)), "{inside} in {directory}");
        }
        for beside in ["/", "/boxes/c", "/a"] {
            assert_eq!(bench.as_user("admin", "/box").outside(&path(beside)), None, "{beside}");
        }
    }
}
