//! A whole store in the memory of this process, for the tests of what is built on [`Files`].
//!
//! Changes go through the namespace that real stores have, so it accepts, refuses and orders them as those do. It has no
//! Dstore and no Controller: contents lie in a map, and nothing survives the process.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};

use super::{
    ChangeEvent, CheckSummary, CheckedObject, Content, CopyOptions, Error, Files, FindPage, ListOptions, MoveOptions,
    ObjectCopies, PlaceOfCopy, PutOptions, ReadAt, Source, Status, WatchPage,
};
use crate::checksum::{Checksum, Hasher};
use crate::disk::random;
use crate::glob::Pattern;
use crate::identity::{ClusterId, ControllerId, DstoreId, Epoch, History, Key, Version};
use crate::namespace::change::{
    Change, Command, Condition, Details, NewObject, NewObjects, RemovalExtent, Replicas, Settings,
};
use crate::namespace::listing::{Kind, Page, Query, Stat};
use crate::namespace::{Namespace, Object};
use crate::path::Path;
use crate::wire::Address;

/// A store in memory. See the module.
#[derive(Debug)]
pub struct Memory {
    state: Mutex<State>,
    /// Told of each change.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    namespace: Namespace,
    contents: HashMap<Key, Arc<[u8]>>,
    /// All changes so far, for `watch`.
    events: Vec<ChangeEvent>,
    next_key: u64,
}

/// The only leadership of a store in memory.
const TERM: u64 = 1;

/// Most entries or changes on a page.
const PAGE: usize = 1_000;

impl Memory {
    /// An empty store of this name.
    pub fn new(name: &str) -> io::Result<Self> {
        let cluster = ClusterId(u128::from_le_bytes(random()?).max(1));
        let history = History(u64::from_le_bytes(random()?).max(1));
        let settings = Settings { replicas: Replicas::Number(1), ..Settings::default() };
        let mut state =
            State { namespace: Namespace::new(), contents: HashMap::new(), events: Vec::new(), next_key: 1 };
        let epoch = Epoch { history, term: TERM, nonce: 0 };
        for command in [Command::Create { cluster, name: name.to_owned(), settings }, Command::Lead { epoch }] {
            state.apply(command).expect("the first changes of a store");
        }
        Ok(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    fn change(&self, command: Command) -> Result<Version, Error> {
        let outcome = self.state.lock().apply(command);
        self.changed.notify_all();
        outcome
    }
}

impl State {
    fn apply(&mut self, command: Command) -> Result<Version, Error> {
        let outcome = self.apply_one(command);
        while self.namespace.has_to_reap() {
            self.apply_one(Command::Reap)?;
        }
        outcome
    }

    fn apply_one(&mut self, command: Command) -> Result<Version, Error> {
        let sequence = self.namespace.sequence() + 1;
        let change = Change { now_ms: now_ms(), stamp: None, command };
        let applied = self.namespace.apply(sequence, &change);
        for released in applied.released {
            self.contents.remove(&released.key);
        }
        let version = self.namespace.version(applied.outcome?);
        self.events.extend(ChangeEvent::of(version, &change));
        Ok(version)
    }
}

impl Files for Memory {
    fn put(&self, path: &Path, source: Source<'_>, options: &PutOptions) -> Result<Version, Error> {
        self.check_put(path, options)?;
        let chunk_bytes = self.state.lock().namespace.settings().chunk_bytes;
        let mut details = options.details.clone();
        let (chunks, checksum) = match source {
            Source::Once(reader) => read_chunks(reader, chunk_bytes)?,
            Source::Digested(reader) => {
                let read = read_chunks(reader, chunk_bytes)?;
                details.digests.extend(reader.digests());
                read
            }
            Source::File(file) => read_chunks(&mut FromStart { file, offset: 0 }, chunk_bytes)?,
        };
        let mut state = self.state.lock();
        let first = state.next_key;
        state.next_key += chunks.len() as u64;
        let mut objects = NewObjects { history: state.namespace.history(), objects: Vec::new() };
        for (number, chunk) in (first..).zip(&chunks) {
            let (length, checksum) = (chunk.len() as u64, Checksum::of(chunk));
            objects.objects.push(NewObject { term: TERM, number, length, checksum, holders: Vec::new() });
        }
        let keys: Vec<Key> = objects.objects.iter().map(|object| objects.key(object)).collect();
        let version = state.apply(Command::Put {
            path: path.clone(),
            condition: options.condition,
            parents: options.parents,
            objects,
            checksum,
            modified_ms: options.modified_ms,
            details,
        })?;
        state.contents.extend(keys.into_iter().zip(chunks.into_iter().map(Arc::from)));
        drop(state);
        self.changed.notify_all();
        Ok(version)
    }

    fn check_put(&self, path: &Path, options: &PutOptions) -> Result<(), Error> {
        Ok(self.state.lock().namespace.check_put(path, options.condition, options.parents)?)
    }

    fn get(&self, path: &Path, condition: Condition) -> Result<Box<dyn Content + Send + '_>, Error> {
        let state = self.state.lock();
        let (stat, objects) = state.namespace.open(path)?;
        stat.check(condition)?;
        let chunks = objects.iter().map(|object| Arc::clone(&state.contents[&object.key])).collect();
        Ok(Box::new(Opened { stat, chunks }))
    }

    fn stat(&self, path: &Path) -> Result<Stat, Error> {
        Ok(self.state.lock().namespace.stat(path)?)
    }

    fn list(&self, path: &Path, options: &ListOptions) -> Result<Page, Error> {
        let ListOptions { prefix, after, is_recursive, limit } = options;
        let query = Query { prefix, after, is_recursive: *is_recursive };
        Ok(self.state.lock().namespace.list(path, query, (*limit).min(PAGE), |_| true)?)
    }

    fn find(&self, path: &Path, pattern: &str, after: &str) -> Result<FindPage, Error> {
        let pattern = Pattern::new(pattern);
        let query = Query { prefix: "", after, is_recursive: true };
        let page =
            self.state.lock().namespace.list(path, query, PAGE, |entry| pattern.matches_last_component(entry))?;
        Ok(FindPage { entries: page.entries, after: page.after })
    }

    fn rename(&self, from: &Path, to: &Path, options: &MoveOptions) -> Result<Version, Error> {
        let (from, to) = (from.clone(), to.clone());
        let MoveOptions { from_condition, to_condition, replace, parents } = *options;
        self.change(Command::Move { from, from_condition, to, to_condition, replace, parents })
    }

    fn copy(&self, from: &Path, to: &Path, options: &CopyOptions) -> Result<Version, Error> {
        let (from, to) = (from.clone(), to.clone());
        let MoveOptions { from_condition, to_condition, replace, parents } = options.placing;
        let details = options.details.clone();
        self.change(Command::Copy { from, from_condition, to, to_condition, replace, parents, details })
    }

    fn remove(&self, path: &Path, condition: Condition) -> Result<Version, Error> {
        self.change(Command::Remove { path: path.clone(), condition })
    }

    fn make_directory(
        &self,
        path: &Path,
        parents: bool,
        details: &Details,
        modified_ms: Option<u64>,
    ) -> Result<Version, Error> {
        self.change(Command::MakeDirectory { path: path.clone(), parents, details: details.clone(), modified_ms })
    }

    fn remove_directory(&self, path: &Path, condition: Condition, extent: RemovalExtent) -> Result<Version, Error> {
        self.change(Command::RemoveDirectory { path: path.clone(), condition, extent })
    }

    fn set_attributes(
        &self,
        path: &Path,
        condition: Condition,
        attributes: &BTreeMap<String, Option<String>>,
        content_type: Option<&str>,
        modified_ms: Option<u64>,
    ) -> Result<Version, Error> {
        self.change(Command::SetAttributes {
            path: path.clone(),
            condition,
            attributes: attributes.clone(),
            content_type: content_type.map(str::to_owned),
            owner: None,
            modified_ms,
        })
    }

    fn compose(
        &self,
        path: &Path,
        sources: &[(Path, Version)],
        remove_sources: bool,
        options: &PutOptions,
    ) -> Result<Version, Error> {
        self.change(Command::Compose {
            path: path.clone(),
            condition: options.condition,
            parents: options.parents,
            sources: sources.to_vec(),
            remove_sources,
            modified_ms: options.modified_ms,
            details: options.details.clone(),
        })
    }

    fn watch(&self, after: Option<Version>, wait: Duration) -> Result<WatchPage, Error> {
        let mut state = self.state.lock();
        let Some(after) = after else {
            let next = state.namespace.version(state.namespace.sequence());
            return Ok(WatchPage { events: Vec::new(), next });
        };
        let deadline = Instant::now() + wait;
        loop {
            let seen = state.events.partition_point(|event| event.version.sequence <= after.sequence);
            let events: Vec<_> = state.events[seen..].iter().take(PAGE).cloned().collect();
            if let Some(last) = events.last() {
                return Ok(WatchPage { next: last.version, events });
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return Ok(WatchPage { events, next: after });
            }
        }
    }

    fn status(&self) -> Result<Status, Error> {
        let State { namespace, .. } = &*self.state.lock();
        Ok(Status { limits: vec!["the end of this process: all of it is in memory".into()], ..Status::of(namespace) })
    }

    fn settings(&self) -> Result<Settings, Error> {
        Ok(self.state.lock().namespace.settings().clone())
    }

    fn set(&self, settings: &Settings) -> Result<Version, Error> {
        self.change(Command::Set { settings: settings.clone() })
    }

    fn copies(&self, path: &Path) -> Result<Vec<ObjectCopies>, Error> {
        let State { namespace, .. } = &*self.state.lock();
        let (stat, objects) = namespace.open(path)?;
        let wanted = stat.details.replicas.unwrap_or(namespace.settings().replicas);
        let in_memory = PlaceOfCopy {
            dstore: DstoreId(0),
            address: String::new(),
            is_present: true,
            is_certain: true,
            is_damaged: false,
            location: None,
        };
        let copies = |object: &Object| {
            let (key, length, checksum) = (object.key, object.length, object.checksum);
            ObjectCopies { key, length, checksum, wanted, copies: vec![in_memory.clone()] }
        };
        Ok(objects.iter().map(copies).collect())
    }

    fn check(&self, path: &Path, _deep: bool, _found: &mut dyn FnMut(&CheckedObject)) -> Result<CheckSummary, Error> {
        self.stat(path)?;
        Ok(CheckSummary::default()) // memory does not decay
    }

    fn repair(&self, _all: bool) -> Result<(), Error> {
        Ok(())
    }

    fn drain(&self, dstore: DstoreId, _drains: bool) -> Result<(), Error> {
        Err(Error::NotPermitted(format!("there is no Dstore {dstore}")))
    }

    fn discharge(&self, dstore: DstoreId, _is_lost: bool) -> Result<(), Error> {
        Err(Error::NotPermitted(format!("there is no Dstore {dstore}")))
    }

    fn collect_unclaimed(&self) -> Result<(), Error> {
        Ok(()) // memory has one history
    }

    fn add_controller(&self, address: &Address) -> Result<(), Error> {
        Err(Error::NotPermitted(format!("a store in memory has no Controller, so none at {address}")))
    }

    fn remove_controller(&self, controller: ControllerId) -> Result<(), Error> {
        Err(Error::NotPermitted(format!("there is no Controller {controller}")))
    }

    fn hand_over(&self, _to: Option<ControllerId>) -> Result<(), Error> {
        Err(Error::NotPermitted("a store in memory has no Controller".into()))
    }

    fn format(&self, name: &str) -> Result<Version, Error> {
        self.change(Command::Format { name: name.to_owned() })
    }
}

/// A file that is being read. Its chunks stay, whatever happens to the path.
struct Opened {
    stat: Stat,
    chunks: Vec<Arc<[u8]>>,
}

impl Content for Opened {
    fn stat(&self) -> &Stat {
        &self.stat
    }

    fn size(&self) -> u64 {
        match self.stat.kind {
            Kind::File { size, .. } => size,
            Kind::Directory { .. } => 0,
        }
    }

    fn copy_to(&mut self, range: Range<u64>, sink: &mut dyn Write) -> Result<(), Error> {
        let mut begin = 0;
        for chunk in &self.chunks {
            let length = chunk.len() as u64;
            let within = |place: u64| place.saturating_sub(begin).min(length) as usize;
            let (from, to) = (within(range.start), within(range.end));
            if from < to {
                sink.write_all(&chunk[from..to]).map_err(Error::Sink)?;
            }
            begin += length;
        }
        Ok(())
    }
}

/// Content in chunks, and the checksum of all of it.
fn read_chunks(reader: &mut dyn Read, chunk_bytes: u64) -> Result<(Vec<Vec<u8>>, Checksum), Error> {
    let mut chunks = Vec::new();
    let mut whole = Hasher::default();
    loop {
        let mut chunk = Vec::new();
        reader.take(chunk_bytes).read_to_end(&mut chunk).map_err(Error::Source)?;
        if chunk.is_empty() {
            return Ok((chunks, whole.checksum()));
        }
        whole.update(&chunk);
        chunks.push(chunk);
    }
}

/// A file from its start, whatever has been read from it.
struct FromStart<'a> {
    file: &'a dyn ReadAt,
    offset: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::change::Refusal;

    fn path(text: &str) -> Path {
        text.parse().expect("a path")
    }

    fn store() -> Memory {
        Memory::new("test").expect("random bytes")
    }

    fn put(store: &Memory, at: &str, content: &[u8]) -> Version {
        let options = PutOptions { parents: true, ..PutOptions::default() };
        store.put(&path(at), Source::Once(&mut &*content), &options).expect("a put")
    }

    fn read(content: &mut dyn Content, range: Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        content.copy_to(range, &mut bytes).expect("memory can be read");
        bytes
    }

    #[test]
    fn content_comes_back_whole_and_in_ranges_across_chunks() {
        let store = store();
        store.set(&Settings { chunk_bytes: 10, ..store.settings().unwrap() }).unwrap();
        let content: Vec<u8> = (0..95).collect();
        put(&store, "/a/b", &content);
        assert_eq!(store.copies(&path("/a/b")).unwrap().len(), 10);
        let mut file = store.get(&path("/a/b"), Condition::Any).unwrap();
        assert_eq!(file.size(), 95);
        for range in [0..95, 0..0, 9..11, 10..20, 19..61, 94..200, 95..96] {
            let expected = &content[range.start as usize..(range.end as usize).min(95).max(range.start as usize)];
            assert_eq!(read(&mut *file, range.clone()), expected, "{range:?}");
        }
        assert_eq!(file.stat().kind, Kind::File { size: 95, checksum: Checksum::of(&content) });
    }

    #[test]
    fn a_reader_finishes_the_version_it_began_with() {
        let store = store();
        let first = put(&store, "/a", b"old");
        let mut file = store.get(&path("/a"), Condition::Version { version: first }).unwrap();
        put(&store, "/a", b"new");
        assert_eq!(read(&mut *file, 0..3), b"old");
        drop(file);
        assert_eq!(store.state.lock().contents.len(), 1, "the old content is kept by its reader only");
        let refused = store.get(&path("/a"), Condition::Version { version: first }).map(|_| ());
        assert!(matches!(refused, Err(Error::Refused(Refusal::ConditionFailed))));
    }

    #[test]
    fn removed_trees_give_their_memory_back() {
        let store = store();
        for number in 0..2_500 {
            put(&store, &format!("/tree/{number}"), b"x");
        }
        store.remove_directory(&path("/tree"), Condition::Any, RemovalExtent::Tree).unwrap();
        assert_eq!(store.state.lock().contents.len(), 0);
        assert_eq!(store.status().unwrap().entries, 0);
    }

    #[test]
    fn a_watcher_is_told_of_each_change_in_order() {
        let store = store();
        let begin = store.watch(None, Duration::ZERO).unwrap().next;
        put(&store, "/a", b"1");
        store.rename(&path("/a"), &path("/b"), &MoveOptions::default()).unwrap();
        let page = store.watch(Some(begin), Duration::ZERO).unwrap();
        let told: Vec<_> = page.events.iter().map(|event| (event.verb.as_str(), &event.paths[..])).collect();
        assert_eq!(told, [("put", &[path("/a")][..]), ("move", &[path("/a"), path("/b")][..])]);
        assert_eq!(store.watch(Some(page.next), Duration::ZERO).unwrap().events, []);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| store.watch(Some(page.next), Duration::from_secs(60)));
            put(&store, "/c", b"2");
            assert_eq!(waiting.join().unwrap().unwrap().events[0].paths, [path("/c")]);
        });
    }

    #[test]
    fn a_search_finds_names_by_glob_or_by_substring() {
        let store = store();
        for name in ["/a/note.txt", "/a/notes/list.md", "/b.txt"] {
            put(&store, name, b"");
        }
        let found = |pattern| -> Vec<String> {
            let page = store.find(&Path::root(), pattern, "").unwrap();
            page.entries.into_iter().map(|entry| entry.name).collect()
        };
        assert_eq!(found("*.txt"), ["a/note.txt", "b.txt"]);
        assert_eq!(found("note"), ["a/note.txt", "a/notes/"]);
    }
}
