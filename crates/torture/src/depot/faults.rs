//! What is done to the store, and when: drawn from the seed.
//!
//! Processes come back on their data. Only a Controller of several may lose its own, one at a time (see [`super::operator`]).
//! Bytes are changed on the disk of one Dstore in a storm, which is fewer than the copies that an acknowledged file has; before
//! the next storm the store has healed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use depot::client::{Cluster, ControllerRole, Files};
use kit::Rng;

use super::history::path_of;
use super::operator::Operator;
use super::servers::{Server, Servers};
use crate::proxy::{Party, Weather};
use crate::stop::Stop;

/// How long a storm lasts.
const STORM: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(12));

/// How long from one fault to the next.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(900));

const IN_COPIES: &str = "bytes changed in copies of files";

/// What does all this.
pub struct Faults {
    rng: Rng,
    flips_bits: bool,
    /// The Dstore whose bytes are changed in this storm.
    victim: usize,
    /// The clients that may be cut off from Controllers.
    clients: RangeInclusive<u64>,
    /// What has been done so far.
    pub tally: BTreeMap<&'static str, u64>,
}

impl Faults {
    /// Nothing is done yet. These clients may be cut off from Controllers.
    pub fn new(rng: Rng, flips_bits: bool, clients: RangeInclusive<u64>) -> Self {
        Self { rng, flips_bits, victim: 0, clients, tally: BTreeMap::new() }
    }

    /// Lets faults happen for a while, or until `end`.
    pub fn storm(
        &mut self,
        servers: &mut Servers,
        operator: &mut Operator,
        store: &Cluster,
        names: usize,
        weather: &Arc<Weather>,
        end: Instant,
    ) -> Result<(), Stop> {
        let end = end.min(Instant::now() + self.rng.duration(STORM.0, STORM.1));
        weather.set(*self.rng.pick(&[0, 0, 2, 5, 20]));
        self.victim = self.rng.below(servers.dstores.len());
        // Servers that are to recover, by their ports.
        let mut due: Vec<(Instant, u16)> = Vec::new();
        let mut gates_open: Option<Instant> = None;
        let has_group = servers.controllers.len() >= 3;
        while Instant::now() < end {
            thread::sleep(self.rng.duration(PAUSE.0, PAUSE.1));
            operator.go_on(servers)?;
            if gates_open.take_if(|due| *due <= Instant::now()).is_some() {
                servers.gates.set(BTreeSet::new());
            }
            for (_, port) in due.extract_if(.., |(due, _)| *due <= Instant::now()) {
                servers.at(port).map_or(Ok(()), Server::recover)?;
            }
            // Drawn in any case, so that what follows does not depend on what was possible.
            let (kind, at, flips) = (self.rng.below(100), self.rng.next(), 1 + self.rng.below(5));
            let absence = match self.rng.below(10) {
                0..7 => self.rng.duration(Duration::ZERO, Duration::from_millis(800)),
                7..9 => self.rng.duration(Duration::from_millis(800), Duration::from_secs(4)),
                _ => self.rng.duration(Duration::from_secs(4), Duration::from_secs(12)),
            };
            let (controllers, dstores) = (servers.controllers.len(), servers.dstores.len());
            let count = controllers + dstores;
            match kind {
                0..25 => {
                    let number = (at % dstores as u64) as usize;
                    servers.dstores[number].kill();
                    due.push((Instant::now() + absence, servers.dstores[number].port()));
                    self.count("Dstores killed (kill -9)");
                }
                25..38 => {
                    let number = (at % controllers as u64) as usize;
                    servers.controllers[number].kill();
                    // For longer than clients look for it, now and then.
                    let absence =
                        if absence > Duration::from_secs(6) || controllers > 1 { absence } else { absence / 4 };
                    due.push((Instant::now() + absence, servers.controllers[number].port()));
                    self.count("Controllers killed (kill -9)");
                }
                38..40 => {
                    servers.all().for_each(Server::kill);
                    due.extend(servers.all().map(|server| (Instant::now() + absence / 4, server.port())));
                    self.count("times all processes killed at once (kill -9)");
                }
                40..43 => {
                    servers.controllers.iter_mut().for_each(Server::kill);
                    due.extend(servers.controllers.iter().map(|one| (Instant::now() + absence / 4, one.port())));
                    self.count("times all Controllers killed at once (kill -9)");
                }
                43..53 => {
                    let number = (at % count as u64) as usize;
                    let server = servers.all().nth(number).expect("there is one");
                    if server.is_up() {
                        // Some files may grow a little yet.
                        let largest = sizes(&server.folder).max().unwrap_or(0);
                        server.fill(at % (largest + 1))?;
                        due.push((Instant::now() + absence, server.port()));
                        self.count("disks full");
                    }
                }
                53..75 => {
                    let number = (at % count as u64) as usize;
                    let server = servers.all().nth(number).expect("there is one");
                    if server.is_up() && !server.is_frozen {
                        server.freeze()?;
                        due.push((Instant::now() + absence / 2, server.port()));
                        self.count("processes stopped");
                    }
                }
                75..84 if controllers > 1 => {
                    servers.gates.set(self.partition(servers));
                    gates_open = Some(Instant::now() + absence);
                }
                84..89 if has_group => operator.begin(servers, &mut self.rng, &mut self.tally)?,
                89..92 if has_group => {
                    if let Some(leader) = leader(servers, store) {
                        leader.freeze()?;
                        due.push((Instant::now() + super::servers::LEASE + absence / 4, leader.port()));
                        self.count("leaders stopped for longer than a lease");
                    }
                }
                _ if self.flips_bits => {
                    let is_reached = is_reached(servers);
                    for _ in 0..flips {
                        let name = self.rng.below(names);
                        let victim = &servers.dstores[self.victim];
                        let copy = is_reached.then(|| copy_at(victim, store, name)).flatten();
                        let what =
                            if copy.is_some() { IN_COPIES } else { "bytes changed anywhere in packs and objects" };
                        let place = copy.or_else(|| anywhere(&victim.folder, &mut self.rng));
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

    /// The storm leaves damage behind in files that stay: changes bytes of copies that the Dstore has which it has happened to
    /// before.
    pub fn leave_damage(&mut self, servers: &Servers, store: &Cluster, names: usize) -> io::Result<()> {
        let wanted = if self.flips_bits { self.rng.below(4) } else { 0 };
        let first = self.rng.below(names);
        let victim = &servers.dstores[self.victim];
        let copies = (first..first + names).filter_map(|name| copy_at(victim, store, name % names));
        for (path, range) in copies.take(wanted) {
            if flip(&path, range, &mut self.rng)? {
                self.count(IN_COPIES);
            }
        }
        Ok(())
    }

    /// Divides the Controllers: what one part says does not reach the other, in one direction or both. Each client may reach all
    /// of them, or only those of one part, be it a minority. Or one Controller hears nothing of what Dstores report.
    fn partition(&mut self, servers: &Servers) -> BTreeSet<(Party, Party)> {
        let party = |server: &Server| Party::Server(server.port());
        let all: Vec<Party> = servers.controllers.iter().map(party).collect();
        let mut closed = BTreeSet::new();
        if self.rng.percent(15) {
            let deaf = *self.rng.pick(&all);
            closed.extend(servers.dstores.iter().map(|dstore| (party(dstore), deaf)));
            self.count("Controllers that hear no Dstore");
            return closed;
        }
        let (one, other): (Vec<Party>, Vec<Party>) = match self.rng.below(2) {
            0 => {
                let alone = *self.rng.pick(&all);
                all.iter().partition(|party| **party == alone)
            }
            _ => all.iter().partition(|_| self.rng.percent(50)),
        };
        if self.rng.percent(50) {
            for client in self.clients.clone().map(Party::Client) {
                let hidden = match self.rng.below(3) {
                    0 => &one,
                    1 => &other,
                    _ => continue,
                };
                closed.extend(hidden.iter().flat_map(|to| [(client, *to), (*to, client)]));
            }
            self.count("times clients reach one part of a divided network only");
        }
        let is_mutual = self.rng.percent(60);
        for (from, to) in one.iter().flat_map(|from| other.iter().map(|to| (*from, *to))) {
            closed.insert((from, to));
            if is_mutual {
                closed.insert((to, from));
            }
        }
        self.count(if is_mutual { "networks divided" } else { "networks divided in one direction" });
        closed
    }

    /// Ends all faults.
    pub fn calm(&mut self, servers: &mut Servers, weather: &Arc<Weather>) -> io::Result<()> {
        weather.set(0);
        servers.gates.set(BTreeSet::new());
        servers.all().try_for_each(Server::recover)
    }

    fn count(&mut self, kind: &'static str) {
        *self.tally.entry(kind).or_default() += 1;
    }
}

/// Whether most Controllers run. Else to ask them takes long.
fn is_reached(servers: &Servers) -> bool {
    servers.controllers.iter().filter(|one| one.is_up() && !one.is_frozen).count() * 2 > servers.controllers.len()
}

/// The Controller that leads, if it runs: when it is stopped, another one is elected meanwhile, and it wakes up without knowing that.
fn leader<'a>(servers: &'a mut Servers, store: &Cluster) -> Option<&'a mut Server> {
    let status = is_reached(servers).then(|| store.status().ok()).flatten()?;
    let leader = status.controllers.into_iter().find(|one| one.role == ControllerRole::Leader)?;
    let is_it = |one: &&mut Server| one.address() == leader.address && one.is_up() && !one.is_frozen;
    servers.controllers.iter_mut().find(is_it)
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

/// How large the files of a server are.
fn sizes(folder: &Path) -> impl Iterator<Item = u64> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len()))
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
