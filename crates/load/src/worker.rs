//! One client at work.

use std::thread;
use std::time::{Duration, Instant};

use kit::{Rng, hash};

use crate::content::{Check, Content};
use crate::inventory::{File, Inventory};
use crate::mix::{Kind, Mix};
use crate::record::{Record, Recorder};
use crate::sizes::Sizes;
use crate::style::{Operations, Trouble};

/// The pause after an error, so that an error which comes at once is not repeated at full speed.
const REST: Duration = Duration::from_millis(10);

/// This many failures in a row end the attempt to store or remove all files.
const MOST_FAILURES: u32 = 3;

/// What went wrong where the Controller and the Dstores promised otherwise: counted like errors.
pub mod wrong {
    /// Other bytes than were stored.
    pub const CONTENT: &str = "WRONG CONTENT";
    /// A file that was stored and not removed is not there.
    pub const LOST: &str = "LOST FILE";
    /// A list without a file that is stored, or with one that is not.
    pub const LIST: &str = "WRONG LIST";
}

/// What all clients are told to do.
pub struct Task {
    /// Which operations to do, and how often each.
    pub mix: Mix,
    /// How large the files are.
    pub sizes: Sizes,
    /// Whether answers are compared with what was stored.
    pub verifies: bool,
    /// The seed of every random choice.
    pub seed: u64,
}

/// One client: its connections, its files.
pub struct Worker<'a> {
    task: &'a Task,
    client: Box<dyn Operations>,
    id: u64,
    prefix: String,
    inventory: Inventory,
    rng: Rng,
}

/// When an operation began and ended, and the bytes that it moved.
type Done = (Instant, Instant, u64);

impl<'a> Worker<'a> {
    /// Client number `id`, for `names` files at most.
    pub fn new(task: &'a Task, client: Box<dyn Operations>, id: u32, names: u32) -> Self {
        let prefix = format!("load-{:x}-{id}-", task.seed);
        let id = u64::from(id);
        Self { task, client, id, prefix, inventory: Inventory::new(names), rng: Rng(hash(&[task.seed, id])) }
    }

    /// Stores so many files, off the record.
    pub fn fill(&mut self, files: usize) -> Result<(), String> {
        let mut failures = 0;
        while self.inventory.stored() < files {
            let wanted = self.inventory.feasible(Kind::Store);
            if let Err(trouble) = self.perform(wanted) {
                failures += 1;
                if failures == MOST_FAILURES {
                    return Err(trouble.message);
                }
                thread::sleep(REST);
            } else {
                failures = 0;
            }
        }
        Ok(())
    }

    /// Works until the record's window ends.
    pub fn work(&mut self, record: &Record) {
        let mut recorder = Recorder::new(record);
        while Instant::now() < record.window().end() {
            self.step(&mut recorder);
        }
    }

    /// Does one operation.
    fn step(&mut self, recorder: &mut Recorder<'_>) {
        let wanted = self.task.mix.draw(&mut self.rng);
        let kind = self.inventory.feasible(wanted);
        match self.perform(kind) {
            Ok((begun, ended, bytes)) => recorder.succeeded(kind, begun, ended, bytes),
            Err(Trouble { kind: trouble, message, .. }) => {
                recorder.failed(kind, trouble, message);
                thread::sleep(REST);
            }
        }
    }

    /// Removes all files, off the record; returns how many there may be left.
    pub fn clear(&mut self) -> usize {
        let mut failures = 0;
        while self.files() > 0 && failures < MOST_FAILURES {
            failures = if self.perform(Kind::Remove).is_ok() { 0 } else { failures + 1 };
        }
        self.files()
    }

    /// How many files there may be.
    pub fn files(&self) -> usize {
        self.inventory.stored() + self.inventory.doubtful()
    }

    fn perform(&mut self, kind: Kind) -> Result<Done, Trouble> {
        match kind {
            Kind::Store => {
                let file = self.inventory.take_for_store(&mut self.rng);
                self.store(file)
                    .inspect(|_| self.inventory.note_stored(file))
                    .inspect_err(|_| self.inventory.note_doubtful(file))
            }
            Kind::Load => {
                let file = self.inventory.pick_for_load(&mut self.rng);
                self.load(file).inspect_err(|_| self.inventory.note_doubtful(file))
            }
            Kind::Remove => {
                let file = self.inventory.take_for_remove(&mut self.rng);
                self.remove(file)
                    .inspect(|_| self.inventory.note_absent(file))
                    .inspect_err(|_| self.inventory.note_doubtful(file))
            }
            Kind::List => self.list(),
        }
    }

    fn store(&mut self, file: File) -> Result<Done, Trouble> {
        let (name, mut content) = (self.name(file), self.content(file));
        let begun = Instant::now();
        self.client.store(&name, &mut content)?;
        Ok((begun, Instant::now(), content.size()))
    }

    fn load(&mut self, file: File) -> Result<Done, Trouble> {
        let name = self.name(file);
        let mut check = Check::against(self.task.verifies.then(|| self.content(file)));
        let begun = Instant::now();
        let size = self.client.load(&name, &mut check).map_err(|trouble| self.lost(file, trouble))?;
        let ended = Instant::now();
        if check.is_passed() {
            Ok((begun, ended, size))
        } else {
            let expected = self.content(file).size();
            let message = format!("{name}: of {size} bytes, {expected} expected, not all are those that were stored");
            Err(Trouble { kind: wrong::CONTENT, message, is_missing: false })
        }
    }

    fn remove(&mut self, file: File) -> Result<Done, Trouble> {
        let name = self.name(file);
        let begun = Instant::now();
        match self.client.remove(&name) {
            Err(trouble) if trouble.is_missing && !file.is_certain => {}
            outcome => outcome.map_err(|trouble| self.lost(file, trouble))?,
        }
        Ok((begun, Instant::now(), 0))
    }

    fn list(&mut self) -> Result<Done, Trouble> {
        let begun = Instant::now();
        let names = self.client.list()?;
        let ended = Instant::now();
        if self.task.verifies {
            let own = names.iter().filter_map(|name| name.strip_prefix(&self.prefix)?.parse().ok());
            let contradictions = self.inventory.contradictions(own);
            if contradictions > 0 {
                let message = format!("{contradictions} of the names {}* are listed or missing wrongly", self.prefix);
                return Err(Trouble { kind: wrong::LIST, message, is_missing: false });
            }
        }
        Ok((begun, ended, 0))
    }

    /// What an error means: a file that is certainly there and yet does not exist has been lost.
    fn lost(&self, file: File, trouble: Trouble) -> Trouble {
        let is_lost = self.task.verifies && file.is_certain && trouble.is_missing;
        if is_lost { Trouble { kind: wrong::LOST, ..trouble } } else { trouble }
    }

    fn name(&self, file: File) -> String {
        format!("{}{}", self.prefix, file.number)
    }

    fn content(&self, file: File) -> Content {
        let key = hash(&[self.task.seed, self.id, file.number.into(), file.generation.into()]);
        Content::new(key, self.task.sizes.draw(key))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Read;

    use stevedore::client::{Error, Target};

    use super::*;
    use crate::record::{Totals, Window};

    /// A store in memory, with a fault that it may have.
    struct Fake {
        files: HashMap<String, Vec<u8>>,
        fault: Option<&'static str>,
        operations: u32,
    }

    impl Fake {
        /// Counts, and loses the file of every tenth operation if that is the fault.
        fn lose(&mut self, name: &str) {
            self.operations += 1;
            if self.fault == Some(wrong::LOST) && self.operations.is_multiple_of(10) {
                self.files.remove(name);
            }
        }
    }

    impl Operations for Fake {
        fn store(&mut self, name: &str, content: &mut Content) -> Result<(), Trouble> {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).unwrap();
            match self.files.insert(name.to_owned(), bytes) {
                Some(_) => Err(Error::AlreadyExists(name.parse().unwrap()).into()),
                None => Ok(()),
            }
        }

        fn load(&mut self, name: &str, check: &mut Check) -> Result<u64, Trouble> {
            self.lose(name);
            let bytes = self.files.get_mut(name).ok_or_else(|| Error::DoesNotExist(name.parse().unwrap()))?;
            if self.fault == Some(wrong::CONTENT) && self.operations.is_multiple_of(10) {
                bytes[17] ^= 1;
            }
            check.write(bytes).unwrap();
            Ok(bytes.len() as u64)
        }

        fn remove(&mut self, name: &str) -> Result<(), Trouble> {
            self.lose(name);
            self.files.remove(name).map(drop).ok_or_else(|| Error::DoesNotExist(name.parse().unwrap()).into())
        }

        fn list(&mut self) -> Result<Vec<String>, Trouble> {
            let surplus = (self.fault == Some(wrong::LIST)).then(|| "load-7-0-999".to_owned());
            Ok(self.files.keys().cloned().chain(surplus).chain(["another's".to_owned()]).collect())
        }
    }

    /// What is measured with a store that has this fault, and how many files are left at the end.
    fn run(fault: Option<&'static str>, verifies: bool) -> (Totals, usize) {
        let mix = "store:30,load:30,remove:30,list:10".parse().unwrap();
        let task = Task { mix, sizes: "100-200".parse().unwrap(), verifies, seed: 7 };
        let fake = Fake { files: HashMap::new(), fault, operations: 0 };
        let mut worker = Worker::new(&task, Box::new(fake), 0, 20);
        worker.fill(10).unwrap();
        assert_eq!(worker.files(), 10);
        let record = Record::new(Window::new(Instant::now(), Duration::from_secs(3600)));
        let mut recorder = Recorder::new(&record);
        (0..500).for_each(|_| worker.step(&mut recorder));
        drop(recorder);
        (record.into_totals(), worker.clear())
    }

    #[test]
    fn every_operation_on_a_correct_store_counts_and_none_is_left() {
        let (totals, left) = run(None, true);
        assert!(totals.errors.is_empty());
        assert!(totals.whole.iter().all(|measures| measures.count() > 0));
        let stores = &totals.whole[Kind::Store.index()];
        assert!((100 * stores.count()..=200 * stores.count()).contains(&stores.bytes));
        assert_eq!(left, 0);
    }

    #[test]
    fn what_is_wrong_is_found_out_when_asked_to_verify() {
        for fault in [wrong::CONTENT, wrong::LOST, wrong::LIST] {
            let (totals, left) = run(Some(fault), true);
            let troubles: Vec<_> = totals.errors.keys().map(|(_, trouble)| *trouble).collect();
            assert!(troubles.contains(&fault), "{fault}: {troubles:?}");
            assert!(troubles.iter().all(|trouble| *trouble == fault || fault == wrong::LOST), "{fault}: {troubles:?}");
            assert_eq!(left, 0, "{fault}");
        }
        let (totals, _) = run(Some(wrong::LOST), true);
        assert!([Kind::Load, Kind::Remove].iter().all(|kind| totals.errors.contains_key(&(*kind, wrong::LOST))));
        let (totals, _) = run(Some(wrong::CONTENT), false);
        assert!(totals.errors.is_empty(), "no request was made");
    }
}
