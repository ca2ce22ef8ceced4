//! The depot's clients: what they ask for, one thing after another, until told to stop.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use depot::client::{Cluster, CopyOptions, Error, Files, ListOptions, MoveOptions, PutOptions, SmallFile, Source};
use depot::identity::{History, Version};
use depot::namespace::change::{Condition, Refusal};
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use kit::Rng;
use parking_lot::RwLock;

use super::history::{
    Change, Content, Look, Name, Outcome, Recorder, Sequence, Sight, Wanted, bytes_of, name_of, path_of,
    several_objects,
};

/// A file that is composed has at most so many pieces.
const MOST_PIECES: usize = 6;

/// So many files are put together.
const MOST_TOGETHER: usize = 5;

/// Now and then the source of a put pauses for up to so long.
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// What all clients share.
pub struct Stage {
    /// Where they write down what happens.
    pub recorder: Recorder,
    /// How many names there are.
    pub names: usize,
    /// The history that the store is in, and stays in.
    pub history: History,
    /// Held for reading during each operation: the thread that holds it for writing has the store for itself.
    pub turn: RwLock<()>,
    /// Ends the clients.
    pub is_over: AtomicBool,
}

/// Starts a client.
pub fn start(stage: &Arc<Stage>, number: usize, store: Cluster, rng: Rng) -> std::io::Result<()> {
    let mut client = Client { stage: Arc::clone(stage), store: Arc::new(store), rng, looks: BTreeMap::new() };
    let run = move || {
        while !client.stage.is_over.load(Ordering::Relaxed) {
            thread::sleep(client.rng.duration(Duration::ZERO, Duration::from_millis(20)));
            let stage = Arc::clone(&client.stage);
            let _turn = stage.turn.read();
            // A client that panics is a bug of the client's library, whatever the store has done.
            if catch_unwind(AssertUnwindSafe(|| client.operate())).is_err() {
                return stage.recorder.wrong(format_args!("client {number} has panicked"));
            }
        }
    };
    thread::Builder::new().name(format!("client-{number}")).spawn(run).map(drop)
}

struct Client {
    stage: Arc<Stage>,
    store: Arc<Cluster>,
    rng: Rng,
    /// How files were when they were seen last.
    looks: BTreeMap<Name, Look>,
}

impl Client {
    fn operate(&mut self) {
        let (name, other) = (self.rng.below(self.stage.names), self.rng.below(self.stage.names));
        match self.rng.below(100) {
            0..24 => self.put(name),
            24..30 => self.put_together(),
            30..55 => self.get(name),
            55..62 => self.stat(name),
            62..68 => {
                let begin = self.stage.recorder.now();
                if let Some(looks) = list(&self.store, &self.stage) {
                    self.looks.clone_from(&looks);
                    self.stage.recorder.seen(begin, Sight::All(looks));
                }
            }
            68..78 if name != other => {
                let options = MoveOptions { replace: true, parents: true, ..MoveOptions::default() };
                let change = Change::Move(name, other);
                self.change("move", change, name, |store| store.rename(&path_of(name), &path_of(other), &options));
            }
            78..86 if name != other => {
                let placing = MoveOptions { replace: true, parents: true, ..MoveOptions::default() };
                let options = CopyOptions { placing, details: None };
                let change = Change::Copy(name, other);
                self.change("copy", change, name, |store| store.copy(&path_of(name), &path_of(other), &options));
            }
            86..94 => {
                self.change("remove", Change::Remove(name), name, |store| store.remove(&path_of(name), Condition::Any));
            }
            94.. => self.compose(name),
            _ => {} // a file onto itself
        }
    }

    fn put(&mut self, name: Name) {
        let (put, bytes) = self.prepare(name);
        let (left, pause) = (self.rng.below(bytes.len() + 1), self.rng.duration(Duration::ZERO, LONGEST_PAUSE));
        let pauses = if self.rng.percent(20) { vec![(left, pause)] } else { Vec::new() };
        let mut source = Slow { bytes: &bytes, pauses };
        let begin = self.stage.recorder.now();
        let result = self.store.put(&path_of(name), Source::Once(&mut source), &put.options);
        self.was_put("put", begin, &put, result);
    }

    /// Puts several files with one call. Two of them may have the same name.
    fn put_together(&mut self) {
        let (mut puts, mut files) = (Vec::new(), Vec::new());
        for _ in 0..2 + self.rng.below(MOST_TOGETHER - 1) {
            let name = self.rng.below(self.stage.names);
            let (put, content) = self.prepare(name);
            files.push(SmallFile { path: path_of(name), content, options: put.options.clone() });
            puts.push(put);
        }
        let begin = self.stage.recorder.now();
        let results = self.store.put_many(&files);
        for (put, result) in puts.iter().zip(results) {
            self.was_put("put together", begin, put, result);
        }
    }

    /// A put that may be made, and the bytes for it.
    fn prepare(&mut self, name: Name) -> (Put, Vec<u8>) {
        let (content, bytes) = self.stage.recorder.register(vec![self.rng.next()]);
        let wanted = match (self.rng.below(100), self.looks.get(&name)) {
            (0..15, _) => Wanted::Absent,
            (15..35, Some(look)) => Wanted::Version(look.version),
            _ => Wanted::Anything,
        };
        let condition = match wanted {
            Wanted::Anything => Condition::Any,
            Wanted::Absent => Condition::Absent,
            Wanted::Version(sequence) => Condition::Version { version: self.version(sequence) },
        };
        let options = PutOptions { condition, parents: true, ..PutOptions::default() };
        (Put { name, content, wanted, options }, bytes)
    }

    /// Notes what became of a put.
    fn was_put(&mut self, kind: &'static str, begin: Duration, put: &Put, result: Result<Version, Error>) {
        let Put { name, content, wanted, .. } = *put;
        let result = self.settle(kind, begin, Change::Put(name, content, wanted), result);
        let Err(refusal) = result else { return };
        let sight = match (wanted, refusal) {
            (Wanted::Absent, Refusal::AlreadyExists | Refusal::ConditionFailed) => Sight::Taken(name),
            (Wanted::Version(version), Refusal::NotFound | Refusal::ConditionFailed) => {
                Sight::NotVersion(name, version)
            }
            (_, refusal) => return self.stage.recorder.wrong(format!("a put is refused: {refusal}")),
        };
        self.stage.recorder.seen(begin, sight);
    }

    /// A change that is refused only if `needed` is not there.
    fn change(
        &mut self,
        kind: &'static str,
        change: Change,
        needed: Name,
        make: impl FnOnce(&Cluster) -> Result<Version, Error>,
    ) {
        let begin = self.stage.recorder.now();
        let result = make(&self.store);
        match self.settle(kind, begin, change, result) {
            Ok(()) => {}
            Err(Refusal::NotFound) => self.stage.recorder.seen(begin, Sight::File(needed, None)),
            Err(refusal) => self.stage.recorder.wrong(format!("a {kind} is refused: {refusal}")),
        }
    }

    fn compose(&mut self, target: Name) {
        let mut sources: Vec<(Name, Sequence)> = Vec::new();
        let mut numbers = Vec::new();
        for _ in 0..1 + self.rng.below(3) {
            let at = self.rng.below(self.looks.len().max(1));
            let Some((name, look)) = self.looks.iter().nth(at) else { return };
            let Some(pieces) = self.stage.recorder.numbers(look.content) else {
                return self.stage.recorder.wrong(format!("name {name} has a content that no client made: {look}"));
            };
            let is_new = *name != target && sources.iter().all(|(source, _)| source != name);
            if is_new && numbers.len() + pieces.len() <= MOST_PIECES {
                sources.push((*name, look.version));
                numbers.extend(pieces);
            }
        }
        if sources.is_empty() {
            return;
        }
        let removes = self.rng.percent(50);
        let (content, _) = self.stage.recorder.register(numbers);
        let named: Vec<(Path, Version)> =
            sources.iter().map(|(name, sequence)| (path_of(*name), self.version(*sequence))).collect();
        let options = PutOptions { parents: true, ..PutOptions::default() };
        let begin = self.stage.recorder.now();
        let result = self.store.compose(&path_of(target), &named, removes, &options);
        let change = Change::Compose { target, content, sources: sources.clone(), removes };
        match self.settle("compose", begin, change, result) {
            Ok(()) => {}
            Err(Refusal::NotFound | Refusal::ConditionFailed) => {
                self.stage.recorder.seen(begin, Sight::AnyNotVersion(sources));
            }
            Err(refusal) => self.stage.recorder.wrong(format!("a compose is refused: {refusal}")),
        }
    }

    /// Notes what became of a change; the refusal, if that is what came.
    fn settle(
        &mut self,
        kind: &'static str,
        begin: Duration,
        change: Change,
        result: Result<Version, Error>,
    ) -> Result<(), Refusal> {
        let recorder = &self.stage.recorder;
        let (outcome, word) = match &result {
            Ok(version) if version.history == self.stage.history => {
                (Outcome::Done(version.sequence), "done".to_owned())
            }
            Ok(version) => {
                recorder.wrong(format!("a {kind} is acknowledged as {version:?}, of another history"));
                return Ok(());
            }
            Err(Error::Refused(refusal)) if *refusal != Refusal::UnknownOutcome => {
                (Outcome::NotDone, "refused".to_owned())
            }
            Err(Error::Refused(_) | Error::OutcomeUnknown(_)) => (Outcome::Unknown, "outcome unknown".to_owned()),
            Err(Error::Unavailable(_)) => (Outcome::NotDone, "unavailable".to_owned()),
            Err(Error::NotEnoughDstores { .. }) => (Outcome::NotDone, "not enough Dstores".to_owned()),
            Err(error) => {
                recorder.wrong(format!("a {kind} fails with {error}"));
                (Outcome::Unknown, "wrong".to_owned())
            }
        };
        recorder.count(kind, word);
        recorder.made(begin, change, outcome);
        match result {
            Err(Error::Refused(refusal)) if refusal != Refusal::UnknownOutcome => Err(refusal),
            _ => Ok(()),
        }
    }

    fn stat(&mut self, name: Name) {
        let begin = self.stage.recorder.now();
        let result = self.store.stat(&path_of(name));
        let end = self.stage.recorder.now();
        self.saw("stat", (begin, end), name, result.map(|stat| look(&stat)));
    }

    /// What a question about a file has found, between these two times.
    fn saw(
        &mut self,
        kind: &'static str,
        times: (Duration, Duration),
        name: Name,
        result: Result<Option<Look>, Error>,
    ) {
        let recorder = &self.stage.recorder;
        let seen = match result {
            Ok(Some(look)) => Some(look),
            Ok(None) => {
                return recorder.wrong(format!("name {name} is a directory"));
            }
            Err(Error::Refused(Refusal::NotFound)) => None,
            Err(error) => return fails(recorder, kind, &error),
        };
        match seen {
            Some(look) => self.looks.insert(name, look),
            None => self.looks.remove(&name),
        };
        recorder.count(kind, if seen.is_some() { "done" } else { "not found" });
        recorder.seen_by(times.0, times.1, Sight::File(name, seen));
    }

    fn get(&mut self, name: Name) {
        let begin = self.stage.recorder.now();
        let stage = Arc::clone(&self.stage);
        let recorder = &stage.recorder;
        let store = Arc::clone(&self.store);
        let opened = store.get(&path_of(name), Condition::Any);
        let end = recorder.now(); // what is read later belongs to the version that was opened
        let opened = match opened {
            Ok(mut file) => {
                let look = look(file.stat());
                let size = file.size();
                let range = match self.rng.below(10) {
                    0..6 => 0..size,
                    6..8 => {
                        let from = self.rng.next() % (size + 1);
                        from..from + self.rng.next() % (size - from + 1)
                    }
                    _ => size.saturating_sub(100)..size,
                };
                let mut read = Vec::new();
                match (file.copy_to(range.clone(), &mut read), look) {
                    (Ok(()), Some(look)) => compare(recorder, look.content, range.start, range.end, &read),
                    (Err(error), _) => fails(recorder, "get", &error),
                    (Ok(()), None) => {} // said below
                }
                Ok(look)
            }
            Err(error) => Err(error),
        };
        self.saw("get", (begin, end), name, opened);
    }

    fn version(&self, sequence: Sequence) -> Version {
        Version { history: self.stage.history, sequence }
    }
}

/// A put that is made.
struct Put {
    name: Name,
    content: Content,
    wanted: Wanted,
    options: PutOptions,
}

/// A source that pauses: what was read before is stored meanwhile, and belongs to no file yet.
struct Slow<'a> {
    bytes: &'a [u8],
    /// When so many bytes are left, for how long; the last pause first.
    pauses: Vec<(usize, Duration)>,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some((_, pause)) = self.pauses.pop_if(|(left, _)| *left >= self.bytes.len()) {
            thread::sleep(pause);
        }
        let until_pause = self.bytes.len() - self.pauses.last().map_or(0, |(left, _)| *left);
        let most = buffer.len().min(until_pause);
        self.bytes.read(&mut buffer[..most])
    }
}

/// A put that takes its time: between its first objects and its last it pauses. In the calm it is made all the same.
pub fn put_slowly(store: &Cluster, stage: &Stage, name: Name, number: u64, pause: Duration) -> Result<(), Error> {
    let (content, bytes) = stage.recorder.register(vec![several_objects(number)]);
    let begin = stage.recorder.now();
    let options = PutOptions { parents: true, ..PutOptions::default() };
    let mut source = Slow { bytes: &bytes, pauses: vec![(bytes.len() / 4, pause)] };
    let version = store.put(&path_of(name), Source::Once(&mut source), &options)?;
    let change = Change::Put(name, content, Wanted::Anything);
    stage.recorder.made(begin, change, Outcome::Done(version.sequence));
    Ok(())
}

/// How a file is; `None` for a directory.
fn look(stat: &Stat) -> Option<Look> {
    let Kind::File { size, checksum } = stat.kind else { return None };
    let content = Content { size, checksum: checksum.0 };
    Some(Look { content, version: stat.version.sequence, changed: stat.changed.sequence })
}

/// All files; `None` if they cannot be listed just now.
pub fn list(store: &Cluster, stage: &Stage) -> Option<BTreeMap<Name, Look>> {
    let recorder = &stage.recorder;
    let options = ListOptions { is_recursive: true, ..ListOptions::default() };
    let page = match store.list(&Path::root(), &options) {
        Ok(page) => page,
        Err(error) => {
            fails(recorder, "list", &error);
            return None;
        }
    };
    recorder.count("list", "done");
    let mut looks = BTreeMap::new();
    for entry in page.entries {
        let Some(look) = look(&entry.stat) else { continue };
        match name_of(&entry.name) {
            Some(name) => drop(looks.insert(name, look)),
            None => recorder.wrong(format!("a file that no client made is listed: {:?}", entry.name)),
        }
    }
    Some(looks)
}

/// A question may fail while servers are away, and a read while its file is replaced; in no other way.
fn fails(recorder: &Recorder, kind: &'static str, error: &Error) {
    let word = match error {
        Error::Unavailable(_) => "unavailable",
        Error::Damaged(_) => "all copies there are damaged",
        Error::Gone => "gone",
        error => {
            recorder.wrong(format!("a {kind} fails with {error}"));
            "wrong"
        }
    };
    recorder.count(kind, word);
}

/// Whether these are the bytes of a range of a content.
pub fn compare(recorder: &Recorder, content: Content, from: u64, to: u64, read: &[u8]) {
    let Some(numbers) = recorder.numbers(content) else {
        return recorder.wrong(format!("a file has a content that no client made: {content}"));
    };
    let bytes = bytes_of(&numbers);
    let expected = bytes.get(from as usize..(to as usize).min(bytes.len())).unwrap_or_default();
    if read != expected {
        recorder.wrong(format!("wrong bytes: {from} to {to} of {content}, {} were read", read.len()));
    }
}
