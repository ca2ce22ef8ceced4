//! The namespace against its naive model, over random histories; and what the model leaves out, rule by rule.

mod model;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::change::{
    Change, Command, Condition, Details, NewObject, NewObjects, RemovalExtent, Replicas, Settings, Stamp,
};
use super::listing::{Kind, Query};
use super::snapshot::Restore;
use super::{Namespace, Object};
use crate::checksum::Checksum;
use crate::identity::{ClusterId, DstoreId, Epoch, History, Key, Position, SessionId, Version};
use crate::path::Path;
use crate::words::Words;
use model::{Content, Model};

/// More for a hunt: `HISTORIES=100000 cargo test --release -p depot namespace`.
fn histories() -> u64 {
    let short_or_long = if kit::hunt::is_long() { 5_000 } else { 80 };
    kit::hunt::number("HISTORIES").unwrap_or(short_or_long)
}

fn path(text: &str) -> Path {
    text.parse().expect("a path")
}

/// Few names, so that changes meet.
fn any_path(rng: &mut Rng) -> Path {
    let depth = 1 + rng.usize(..3);
    let names = ["a", "b", "a!", "c d"];
    path(&(0..depth).map(|_| format!("/{}", names[rng.usize(..names.len())])).collect::<String>())
}

/// A random history under way.
struct Play {
    rng: Rng,
    namespace: Namespace,
    model: Model,
    sequence: u64,
    key: u64,
    numbers: BTreeMap<u128, u64>,
    changes: Vec<(u64, Change)>,
    /// What files name, or named and did not release.
    named: BTreeSet<Key>,
}

impl Play {
    fn new(seed: u64) -> Self {
        let mut history = Self {
            rng: Rng::with_seed(seed),
            namespace: Namespace::new(),
            model: Model::new(),
            sequence: 0,
            key: 0,
            numbers: BTreeMap::new(),
            changes: Vec::new(),
            named: BTreeSet::new(),
        };
        let settings = Settings::default();
        history.apply(Command::Create { cluster: ClusterId(1), name: "test".into(), settings }, None);
        history.lead();
        history
    }

    fn lead(&mut self) {
        let history = if self.sequence == 1 || self.rng.usize(..3) == 0 {
            History(self.rng.u64(1..))
        } else {
            self.namespace.history()
        };
        let epoch = Epoch { history, term: self.sequence, nonce: self.rng.u64(..) };
        self.apply(Command::Lead { epoch }, None);
    }

    fn apply(&mut self, command: Command, stamp: Option<Stamp>) {
        self.sequence += 1 + self.rng.u64(..2);
        let change = Change { now_ms: self.rng.u64(..1000), stamp, command };
        assert_eq!(Change::from_line(&change.to_line()).as_ref(), Ok(&change), "by way of {}", change.to_line());
        let applied = self.namespace.apply(self.sequence, &change);
        let expected = self.model.apply(self.sequence, self.namespace.version(self.sequence), &change);
        assert_eq!(applied.outcome, expected, "{}", change.to_line());
        if let (Command::Put { objects, .. }, Ok(_), false) = (&change.command, applied.outcome, applied.is_repeat) {
            self.named.extend(objects.objects.iter().map(|object| objects.key(object)));
        }
        for released in &applied.released {
            assert!(self.named.remove(&released.key), "{} was released twice, or never named", released.key);
        }
        self.changes.push((self.sequence, change));
    }

    fn any_change(&mut self) {
        if self.rng.usize(..50) == 0 {
            return self.lead();
        }
        if self.rng.usize(..10) == 0
            && let Some(at) = self.changes.len().checked_sub(1 + self.rng.usize(..5))
        {
            let Change { stamp, command, .. } = self.changes[at].1.clone();
            if stamp.is_some() {
                return self.apply(command, stamp);
            }
        }
        let command = self.any_command();
        let session = self.rng.u128(1..4);
        let number = self.numbers.entry(session).and_modify(|number| *number += 1).or_default();
        let stamp = Stamp {
            session: SessionId(session),
            born: Version::default(),
            number: *number,
            done_below: number.saturating_sub(6),
        };
        let born = Version { history: self.namespace.history(), sequence: 1 };
        let stamp = self.rng.bool().then_some(Stamp { born, ..stamp });
        self.apply(command, stamp);
    }

    /// Half of the time one that something has, if there is any.
    fn any_path(&mut self) -> Path {
        let there: Vec<&String> = self.model.nodes.keys().skip(1).collect();
        match self.rng.choice(&there) {
            Some(text) if self.rng.bool() => path(text),
            _ => any_path(&mut self.rng),
        }
    }

    fn any_command(&mut self) -> Command {
        let (path, other) = (self.any_path(), self.any_path());
        let rng = &mut self.rng;
        let (parents, replace) = (rng.usize(..4) > 0, rng.bool());
        let modified_ms = rng.bool().then(|| rng.u64(..100));
        let details = any_details(rng);
        match rng.usize(..22) {
            0..7 => {
                let objects = self.any_objects();
                let checksum = Model::checksum(
                    &objects
                        .objects
                        .iter()
                        .map(|object| Object {
                            key: objects.key(object),
                            length: object.length,
                            checksum: object.checksum,
                        })
                        .collect::<Vec<_>>(),
                );
                let condition = self.any_condition(&path);
                Command::Put { path, condition, parents, objects, checksum, modified_ms, details }
            }
            7..11 => {
                let (from_condition, to_condition) = (self.any_condition(&path), self.any_condition(&other));
                Command::Move { from: path, from_condition, to: other, to_condition, replace, parents }
            }
            11..14 => {
                let (from_condition, to_condition) = (self.any_condition(&path), self.any_condition(&other));
                let details = self.rng.bool().then_some(details);
                Command::Copy { from: path, from_condition, to: other, to_condition, replace, parents, details }
            }
            14 | 15 => Command::Remove { condition: self.any_condition(&path), path },
            16 => Command::MakeDirectory { path, parents, details, modified_ms },
            17 => {
                let extents = [RemovalExtent::Empty, RemovalExtent::Tree, RemovalExtent::Mark];
                let extent = extents[self.rng.usize(..3)];
                Command::RemoveDirectory { condition: self.any_condition(&path), path, extent }
            }
            18 => {
                let path = if self.rng.usize(..4) == 0 { Path::root() } else { path };
                let attributes = [("x".to_owned(), Some("1".to_owned())), ("y".to_owned(), None)].into();
                let condition = self.any_condition(&path);
                Command::SetAttributes {
                    path,
                    condition,
                    attributes,
                    content_type: Some("text".into()),
                    owner: None,
                    modified_ms,
                }
            }
            19 | 20 => {
                let sources = (0..self.rng.usize(..4)).map(|_| self.any_path()).collect::<Vec<_>>();
                let version = |path: &Path| self.namespace.stat(path).map(|stat| stat.version).unwrap_or_default();
                let sources = sources.into_iter().map(|path| (path.clone(), version(&path))).collect();
                let condition = self.any_condition(&path);
                Command::Compose { path, condition, parents, sources, remove_sources: replace, modified_ms, details }
            }
            _ if self.rng.usize(..10) == 0 => Command::Format { name: "test".into() },
            _ => Command::Reap,
        }
    }

    fn any_condition(&mut self, path: &Path) -> Condition {
        let stat = self.namespace.stat(path);
        match (self.rng.usize(..8), stat) {
            (0, _) => Condition::Absent,
            (1, Ok(stat)) => Condition::Version { version: stat.version },
            (2, Ok(stat)) => Condition::Changed { version: stat.changed },
            (3, Ok(stat)) if self.rng.bool() => {
                Condition::Version { version: Version { history: History(1), ..stat.version } }
            }
            _ => Condition::Any,
        }
    }

    fn any_objects(&mut self) -> NewObjects {
        let objects = (0..self.rng.usize(..4)).map(|_| {
            self.key += 1;
            NewObject {
                term: self.rng.u64(1..4),
                number: self.key,
                length: 1 + self.rng.u64(..100),
                checksum: Checksum(self.rng.u64(..)),
                holders: vec![(DstoreId(1), Position { start: 1, number: self.key })],
            }
        });
        let objects = objects.collect();
        NewObjects { history: self.namespace.history(), objects }
    }

    /// Namespace and model are the same to every question.
    fn compare(&self) {
        let mut listed = Vec::new();
        let mut after = String::new();
        loop {
            // Small pages: every place to go on from is tried.
            let query = Query { prefix: "", after: &after, is_recursive: true };
            let page = self.namespace.list(&Path::root(), query, 3, |_| true).expect("the root is there");
            listed.extend(page.entries);
            match page.after {
                Some(next) => after = next,
                None => break,
            }
        }
        assert!(listed.is_sorted_by(|a, b| a.name < b.name), "not in the order of bytes: {listed:?}");
        assert_eq!(listed.len(), self.model.nodes.len() - 1, "{listed:?} is not {:?}", self.model.nodes.keys());
        for entry in &listed {
            let full = format!("/{}", entry.name.trim_end_matches('/'));
            let node = &self.model.nodes[&full];
            assert_eq!(self.namespace.stat(&path(&full)).as_ref(), Ok(&entry.stat));
            assert_eq!(entry.stat.version, self.namespace.version(node.version), "{full}");
            assert_eq!(entry.stat.changed, self.namespace.version(node.changed), "{full}");
            assert_eq!((entry.stat.modified_ms, &entry.stat.details), (node.modified_ms, &node.details), "{full}");
            match &node.content {
                Content::Directory { is_explicit } => {
                    let entries = self.model.children(&full).count();
                    assert_eq!(entry.stat.kind, Kind::Directory { is_explicit: *is_explicit, entries }, "{full}");
                }
                Content::File(objects) => {
                    let size = objects.iter().map(|object| object.length).sum();
                    assert_eq!(entry.stat.kind, Kind::File { size, checksum: Model::checksum(objects) }, "{full}");
                    assert_eq!(&self.namespace.open(&path(&full)).expect("it is a file").1, objects, "{full}");
                }
            }
        }
    }

    /// What was removed is taken apart; then objects are those of the files that are left.
    fn reap_all(&mut self) {
        while self.namespace.has_to_reap() {
            self.apply(Command::Reap, None);
        }
        let live: BTreeSet<Key> = self.namespace.objects().map(|object| object.key).collect();
        let expected = self.model.nodes.values().filter_map(|node| match &node.content {
            Content::File(objects) => Some(objects.iter().map(|object| object.key)),
            Content::Directory { .. } => None,
        });
        assert_eq!(live, expected.flatten().collect(), "the objects that files name");
        assert_eq!(live, self.named, "what was named and not released");
        assert_eq!(self.namespace.entry_count(), self.model.nodes.len() as u64 - 1);
    }
}

fn any_details(rng: &mut Rng) -> Details {
    if rng.bool() {
        return Details::default();
    }
    Details {
        content_type: ["", "text/plain; charset=utf-8"][rng.usize(..2)].into(),
        owner: "-".into(),
        replicas: [None, Some(Replicas::All), Some(Replicas::Number(2))][rng.usize(..3)],
        digests: [("md5".to_owned(), "d41d8".to_owned())].into(),
        attributes: (0..rng.usize(..3)).map(|n| (format!("name {n}"), "%\n".to_owned())).collect(),
    }
}

/// The namespace, written down by a walk that goes on while `meanwhile` is made, and read back.
fn written_and_read(namespace: &mut Namespace, mut meanwhile: impl FnMut(&mut Namespace)) -> Namespace {
    let beginning = namespace.begin_walk();
    let mut restore = Restore::new(beginning);
    loop {
        let lines = namespace.walk_on(2);
        if lines.is_empty() {
            break;
        }
        lines.iter().for_each(|line| restore.enter(line).expect("what was written can be read"));
        meanwhile(namespace);
    }
    let restored = restore.finish().expect("a walk is consistent at one sequence");
    assert_eq!((restored.sequence(), restored.hash()), (beginning.sequence, beginning.hash));
    restored
}

#[test]
fn it_agrees_with_a_map_of_full_paths() {
    for seed in 0..histories() {
        println!("seed {seed}");
        let mut history = Play::new(seed);
        for _ in 0..60 {
            history.any_change();
            history.compare();
        }
        history.reap_all();
        history.compare();
    }
}

#[test]
fn a_replayed_log_gives_the_same_state_and_hash() {
    for seed in 0..histories() {
        println!("seed {seed}");
        let mut history = Play::new(seed);
        (0..60).for_each(|_| history.any_change());
        let mut replayed = Namespace::new();
        for (sequence, change) in &history.changes {
            let line = Change::from_line(&change.to_line()).expect("a change comes back");
            replayed.apply(*sequence, &line);
        }
        assert_eq!(replayed.hash(), history.namespace.hash());
        history.namespace = replayed;
        history.compare();
    }
}

#[test]
fn a_snapshot_and_the_tail_of_the_log_give_the_same_state() {
    for seed in 0..histories() {
        println!("seed {seed}");
        let mut history = Play::new(seed);
        (0..40).for_each(|_| history.any_change());
        // The second half of the changes is made while the snapshot is being written.
        let mut later = Play::new(seed);
        (0..80).for_each(|_| later.any_change());
        let tail = later.changes.split_off(history.changes.len());
        let mut left = tail.iter();
        let mut restored = written_and_read(&mut history.namespace, |namespace| {
            for (sequence, change) in left.by_ref().take(3) {
                namespace.apply(*sequence, change);
            }
        });
        left.for_each(|(sequence, change)| {
            history.namespace.apply(*sequence, change);
        });
        for (sequence, change) in &tail {
            restored.apply(*sequence, change);
        }
        assert_eq!(restored.hash(), later.namespace.hash());
        assert_eq!(history.namespace.hash(), later.namespace.hash(), "a walk changes nothing");
        assert_eq!(restored.entry_count(), later.namespace.entry_count());
        later.namespace = restored;
        later.compare();
        later.reap_all();
    }
}

#[test]
fn the_hash_is_the_sum_over_all_records() {
    for seed in 0..histories() / 4 {
        println!("seed {seed}");
        let mut history = Play::new(seed);
        (0..60).for_each(|_| history.any_change());
        let mut sum = 0_u128;
        let mut at = None;
        while let Some(id) = history.namespace.next_record(at.as_ref()) {
            sum = sum.wrapping_add(super::records::hash(&history.namespace.line_of(&id).expect("it was found")));
            at = Some(id);
        }
        assert_eq!(sum, history.namespace.hash());
    }
}
