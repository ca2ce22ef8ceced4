//! What is done to the cluster, and when: drawn from the seed.
//!
//! A storm destroys the copies of at most R-1 Dstores, so that every acknowledged file keeps a holder. These Dstores
//! are its *victims*: killed, cut off, or with bytes of their files changed. Before the next storm the cluster has
//! healed. Freezing loses nothing and may hit any Dstore.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::history::Recorder;
use crate::proxy::Weather;
use crate::workload::Stage;
use kit::Rng;

/// How long a storm lasts.
const STORM: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(10));

/// How long from one fault to the next.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(700));

/// Faults by kind.
pub type Tally = BTreeMap<&'static str, u64>;

/// What does all this.
pub struct Faults {
    rng: Rng,
    replicas: usize,
    /// How many Dstores there should be; for a while there may be one or two more, or fewer.
    dstores: usize,
    timeout: Duration,
    flips_bits: bool,
    /// What has been done so far.
    pub tally: Tally,
    /// How many members there are at least, from each time on.
    membership: Vec<(Duration, usize)>,
    /// Dstores that have been started and are not seen to be members yet.
    joining: Vec<u16>,
}

impl Faults {
    /// Nothing is done yet.
    pub fn new(rng: Rng, replicas: usize, dstores: usize, timeout: Duration, flips_bits: bool) -> Self {
        let membership = vec![(Duration::ZERO, 0)];
        Self { rng, replicas, dstores, timeout, flips_bits, tally: Tally::new(), membership, joining: Vec::new() }
    }

    /// Starts a Dstore; half of them get a network that may fail.
    pub fn join(&mut self, cluster: &mut Cluster) -> io::Result<()> {
        let port = cluster.join(self.rng.percent(50))?;
        self.joining.push(port);
        Ok(())
    }

    /// Counts the Dstores that have joined.
    pub fn notice_joins(&mut self, cluster: &Cluster, recorder: &Recorder) {
        let members = cluster.status().members;
        let before = self.joining.len();
        self.joining.retain(|port| !members.contains(port));
        let joined = before - self.joining.len();
        if joined > 0 {
            self.change_membership(recorder, |least| least + joined);
        }
    }

    /// Whether there may have been fewer than R members at some time between the two.
    pub fn may_lack_dstores(&self, begin: Duration, end: Duration) -> bool {
        let from = self.membership.partition_point(|(time, _)| *time <= begin).saturating_sub(1);
        self.membership[from..].iter().take_while(|(time, _)| *time <= end).any(|(_, least)| *least < self.replicas)
    }

    /// Forgets which Dstores were members when: later questions are about later times.
    pub fn forget_membership(&mut self) {
        self.membership.drain(..self.membership.len() - 1);
    }

    /// Lets faults happen for a while, or until `end`.
    pub fn storm(&mut self, cluster: &mut Cluster, weather: &Weather, stage: &Stage, end: Instant) -> io::Result<()> {
        let recorder = &stage.recorder;
        let end = end.min(Instant::now() + self.rng.duration(STORM.0, STORM.1));
        weather.set(*self.rng.pick(&[0, 5, 20, 40]));
        let mut victims = BTreeSet::new();
        let mut thaws: Vec<(Instant, usize)> = Vec::new();
        while Instant::now() < end {
            thread::sleep(self.rng.duration(PAUSE.0, PAUSE.1));
            self.notice_joins(cluster, recorder);
            for (_, number) in thaws.extract_if(.., |(due, _)| *due <= Instant::now()) {
                if let Some(dstore) = cluster.dstores.iter_mut().find(|dstore| dstore.number == number) {
                    dstore.thaw()?;
                }
            }
            // Drawn in any case, so that what follows does not depend on what was possible.
            let (kind, at, shortly, flips) =
                (self.rng.below(100), self.rng.next(), self.rng.percent(60), self.rng.below(5));
            let frozen_for = match shortly {
                true => self.rng.duration(self.timeout / 50, self.timeout / 2),
                false => self.rng.duration(self.timeout, self.timeout * 4),
            };
            if cluster.dstores.is_empty() {
                continue;
            }
            let at = (at % cluster.dstores.len() as u64) as usize;
            let number = cluster.dstores[at].number;
            let may_lose = victims.contains(&number) || victims.len() + 1 < self.replicas;
            match kind {
                0..10 if may_lose => {
                    victims.insert(number);
                    self.lose_member(cluster, at, recorder);
                    cluster.kill(at);
                    self.count("Dstores killed (kill -9)");
                }
                10..18 if may_lose && cluster.dstores[at].has_network() => {
                    victims.insert(number);
                    self.lose_member(cluster, at, recorder);
                    cluster.cut(at)?;
                    self.count("Dstores cut off from the Controller in the middle of a message");
                }
                18..48 if !cluster.dstores[at].is_frozen => {
                    cluster.dstores[at].freeze()?;
                    thaws.push((Instant::now() + frozen_for, number));
                    self.count(if shortly {
                        "Dstores stopped for less than the timeout"
                    } else {
                        "Dstores stopped for more than the timeout"
                    });
                }
                48..66 if cluster.dstores.len() < self.dstores + 2 => {
                    self.join(cluster)?;
                    self.count("Dstores joined");
                }
                66..90 if self.flips_bits => {
                    // A Dstore that is a victim already can bear more.
                    let victim = cluster.dstores.iter().position(|dstore| victims.contains(&dstore.number));
                    let Some(at) = victim.or(may_lose.then_some(at)) else { continue };
                    victims.insert(cluster.dstores[at].number);
                    stage.watcher.excuse(&cluster.dstores[at].folder);
                    for _ in 0..=flips {
                        self.damage_a_file(cluster, at);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Ends all faults; what is missing joins.
    pub fn calm(&mut self, cluster: &mut Cluster, weather: &Weather) -> io::Result<()> {
        weather.set(0);
        for dstore in &mut cluster.dstores {
            dstore.thaw()?;
        }
        while cluster.dstores.len() < self.dstores {
            self.join(cluster)?;
            self.count("Dstores joined");
        }
        Ok(())
    }

    /// Overwrites a few bytes of a file in place, or cuts it short.
    fn damage_a_file(&mut self, cluster: &Cluster, at: usize) {
        let damage = (self.rng.next(), self.rng.next(), self.rng.percent(30));
        let Ok(entries) = std::fs::read_dir(&cluster.dstores[at].folder) else { return };
        let is_ours =
            |path: &std::path::PathBuf| path.file_name().is_some_and(|name| !name.to_string_lossy().contains(' '));
        let files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_ours).collect();
        if files.is_empty() {
            return;
        }
        let path = &files[(damage.0 % files.len() as u64) as usize];
        let change = || -> io::Result<bool> {
            let mut file = OpenOptions::new().read(true).write(true).open(path)?;
            let size = file.metadata()?.len();
            if size == 0 {
                return Ok(false);
            }
            let place = damage.1 % size;
            if damage.2 {
                file.set_len(place)?;
            } else {
                let mut byte = [0];
                file.seek(SeekFrom::Start(place))?;
                io::Read::read_exact(&mut file, &mut byte)?;
                file.seek(SeekFrom::Start(place))?;
                file.write_all(&[byte[0] ^ 1 << (damage.0 % 8)])?;
            }
            Ok(true)
        };
        // If the file is gone by now, or was replaced, no harm is done.
        if change().unwrap_or(false) {
            self.count("copies damaged in the folder");
        }
    }

    fn lose_member(&mut self, cluster: &Cluster, at: usize, recorder: &Recorder) {
        let port = cluster.dstores[at].port;
        let was_joining = self.joining.contains(&port);
        self.joining.retain(|other| *other != port);
        if !was_joining {
            self.change_membership(recorder, |least| least - 1);
        }
    }

    fn change_membership(&mut self, recorder: &Recorder, change: impl FnOnce(usize) -> usize) {
        let least = self.membership.last().expect("never empty").1;
        self.membership.push((recorder.now(), change(least)));
    }

    fn count(&mut self, kind: &'static str) {
        *self.tally.entry(kind).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dstores_may_be_too_few_from_a_departure_until_a_join_is_seen() {
        // spec 3.3
        let mut faults = Faults::new(Rng::stream(1, 1), 3, 3, Duration::from_secs(1), false);
        let at = Duration::from_secs;
        faults.membership = vec![(at(0), 3), (at(10), 2), (at(20), 3)];
        for (begin, end, may_lack) in [
            (1, 2, false),
            (1, 9, false),
            (1, 10, true),
            (12, 13, true),
            (19, 30, true),
            (20, 30, false),
            (21, 22, false),
        ] {
            assert_eq!(faults.may_lack_dstores(at(begin), at(end)), may_lack, "{begin} to {end}");
        }
        faults.forget_membership();
        assert!(!faults.may_lack_dstores(at(31), at(32)));
    }
}
