//! What is done to the store, and when: drawn from the seed.
//!
//! No process loses its data: it comes back on them. Bytes are changed on the disk of one Dstore in a storm, which is fewer
//! than the copies that an acknowledged file has; before the next storm the store has healed.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use depot::client::{Cluster, Files};
use kit::Rng;

use super::history::path_of;
use super::servers::{Server, Servers};
use crate::proxy::Weather;

/// How long a storm lasts.
const STORM: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(12));

/// How long from one fault to the next.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(900));

/// What does all this.
pub struct Faults {
    rng: Rng,
    flips_bits: bool,
    /// What has been done so far.
    pub tally: BTreeMap<&'static str, u64>,
}

/// The Controller is number 0, the Dstores follow.
type Number = usize;

impl Faults {
    /// Nothing is done yet.
    pub fn new(rng: Rng, flips_bits: bool) -> Self {
        Self { rng, flips_bits, tally: BTreeMap::new() }
    }

    /// Lets faults happen for a while, or until `end`.
    pub fn storm(
        &mut self,
        servers: &mut Servers,
        store: &Cluster,
        names: usize,
        weather: &Arc<Weather>,
        end: Instant,
    ) -> io::Result<()> {
        let end = end.min(Instant::now() + self.rng.duration(STORM.0, STORM.1));
        weather.set(*self.rng.pick(&[0, 0, 2, 5, 20]));
        let victim = self.rng.below(servers.dstores.len());
        let mut due: Vec<(Instant, Number)> = Vec::new();
        while Instant::now() < end {
            thread::sleep(self.rng.duration(PAUSE.0, PAUSE.1));
            for (_, number) in due.extract_if(.., |(due, _)| *due <= Instant::now()) {
                let server = servers.all().nth(number).expect("there is one");
                if server.is_frozen {
                    server.thaw()?;
                }
                server.restart()?;
            }
            // Drawn in any case, so that what follows does not depend on what was possible.
            let (kind, at, flips) = (self.rng.below(100), self.rng.next(), 1 + self.rng.below(5));
            let absence = match self.rng.below(10) {
                0..7 => self.rng.duration(Duration::ZERO, Duration::from_millis(800)),
                7..9 => self.rng.duration(Duration::from_millis(800), Duration::from_secs(4)),
                _ => self.rng.duration(Duration::from_secs(4), Duration::from_secs(12)),
            };
            let count = servers.dstores.len();
            match kind {
                0..25 => {
                    let number = 1 + (at % count as u64) as usize;
                    servers.dstores[number - 1].kill();
                    due.push((Instant::now() + absence, number));
                    self.count("Dstores killed (kill -9)");
                }
                25..38 => {
                    servers.controller.kill();
                    // For longer than clients look for it, now and then.
                    let absence = if absence > Duration::from_secs(6) { absence } else { absence / 4 };
                    due.push((Instant::now() + absence, 0));
                    self.count("Controllers killed (kill -9)");
                }
                38..43 => {
                    servers.all().for_each(Server::kill);
                    due.extend((0..=count).map(|number| (Instant::now() + absence / 4, number)));
                    self.count("times all processes killed at once (kill -9)");
                }
                43..75 => {
                    let number = (at % (count as u64 + 1)) as usize;
                    let server = servers.all().nth(number).expect("there is one");
                    if server.is_up() && !server.is_frozen {
                        server.freeze()?;
                        due.push((Instant::now() + absence / 2, number));
                        self.count("processes stopped");
                    }
                }
                _ if self.flips_bits => {
                    for _ in 0..flips {
                        let name = self.rng.below(names);
                        let is_reached = servers.controller.is_up() && !servers.controller.is_frozen;
                        let copy = is_reached.then(|| copy_at(&servers.dstores[victim], store, name)).flatten();
                        let what = match copy {
                            Some(_) => "bytes changed in copies of files",
                            None => "bytes changed anywhere in packs and objects",
                        };
                        let place = copy.or_else(|| anywhere(&servers.dstores[victim].folder, &mut self.rng));
                        if let Some((path, range)) = place
                            && flip(&path, range, &mut self.rng)?
                        {
                            self.count(what);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends all faults.
    pub fn calm(&mut self, servers: &mut Servers, weather: &Arc<Weather>) -> io::Result<()> {
        weather.set(0);
        for server in servers.all() {
            if server.is_frozen {
                server.thaw()?;
            }
            server.restart()?;
        }
        Ok(())
    }

    fn count(&mut self, kind: &'static str) {
        *self.tally.entry(kind).or_default() += 1;
    }
}

/// Where a copy of a file's object lies on this Dstore's disk; `None` if it has none, or cannot say so now.
fn copy_at(dstore: &Server, store: &Cluster, name: usize) -> Option<(PathBuf, Range<u64>)> {
    let objects = store.copies(&path_of(name)).ok()?;
    objects.iter().find_map(|object| {
        let copy = object.copies.iter().find(|copy| copy.address == dstore.address())?;
        let (file, offset) = copy.location.as_ref()?;
        Some((dstore.folder.join(file), *offset..*offset + object.length.max(1)))
    })
}

/// Any place in any file that holds objects.
fn anywhere(folder: &Path, rng: &mut Rng) -> Option<(PathBuf, Range<u64>)> {
    let files = object_files(folder);
    (!files.is_empty()).then(|| (rng.pick(&files).clone(), 0..u64::MAX))
}

/// Changes a byte of this range, as far as the file goes; false if there is none.
fn flip(path: &Path, range: Range<u64>, rng: &mut Rng) -> io::Result<bool> {
    let changed: io::Result<bool> = (|| {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let end = range.end.min(file.metadata()?.len());
        if end <= range.start {
            return Ok(false);
        }
        let at = range.start + rng.next() % (end - range.start);
        let mut byte = [0];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut byte)?;
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&[byte[0] ^ (1 << rng.below(8))])?;
        Ok(true)
    })();
    match changed {
        // It was given up meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        changed => changed,
    }
}

/// What lies in a Dstore's folder and holds objects, in the order of names.
fn object_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = folder.read_dir() else { continue };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            match path.is_dir() {
                true => open.push(path),
                false if name.starts_with("pack-") || name.starts_with("object-") => files.push(path),
                false => {}
            }
        }
    }
    files.sort();
    files
}
