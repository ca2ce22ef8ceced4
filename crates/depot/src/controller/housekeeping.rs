//! What is done now and then, beside requests.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Shared, group, healing, now_ms};
use crate::disk::Folder;
use crate::namespace::change::{Change, Command};

/// Raft's clock, on average. What else is looked after comes as often.
const TICK: Duration = Duration::from_millis(100);

/// With fewer bytes free on its disk, or more of it in use, a Controller accepts only removals. (depot 12)
const LEAST_FREE_BYTES: u64 = 1 << 30;
const MOST_USED_PERCENT: u8 = 95;

pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let spawn = |name: &str, work: fn(&Arc<Shared>)| {
        let shared = Arc::clone(shared);
        thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared))
    };
    Ok(vec![
        spawn("controller-clock", keep_time)?,
        spawn("controller-group", group::look_after)?,
        spawn("controller-housekeeping", keep_house)?,
        spawn("controller-snapshots", snapshot)?,
        spawn("controller-healing", |shared| healing::run(shared))?,
    ])
}

/// Raft's clock has a thread of its own: what else there is to do may wait for a majority, which may wait for this clock.
fn keep_time(shared: &Arc<Shared>) {
    let mut random = fastrand::Rng::new();
    while !shared.is_stopping() {
        thread::park_timeout(next_tick(&mut random));
        shared.replica.tick();
    }
}

/// A little more or less, each time. Two members that stand for election at the same moment write their votes at the same time, and
/// begin to wait again at the same time: by clocks that go alike they stand again at the same moment, as the time that an
/// election takes is drawn from a few ticks.
fn next_tick(random: &mut fastrand::Rng) -> Duration {
    TICK.mul_f64(0.75 + random.f64() / 2.0)
}

fn keep_house(shared: &Arc<Shared>) {
    let mut last_second = Instant::now();
    while !shared.is_stopping() {
        thread::park_timeout(TICK);
        let is_second = last_second.elapsed() >= Duration::from_secs(1);
        shared.replica.settle(is_second);
        shared.reap();
        if is_second {
            last_second = Instant::now();
            shared.state.lock().keys.expire(last_second);
            shared.tell_progress();
            shared.measure_space();
        }
        shared.take_census();
    }
}

/// Snapshots have a thread of their own: the rest must not wait for a disk.
fn snapshot(shared: &Arc<Shared>) {
    while !shared.is_stopping() {
        thread::park_timeout(TICK); // a Controller that is added waits for one
        match shared.replica.snapshot_if_due() {
            Ok(false) => {}
            Ok(true) => log::info!("wrote a snapshot"),
            Err(error) => log::error!("cannot write a snapshot, will try again: {error}"),
        }
    }
}

impl Shared {
    /// Takes apart what was removed with all that is in it, a thousand records at a time; as long again is left to requests. It
    /// may go on at the next tick: other things are due then, too.
    fn reap(&self) {
        let end = Instant::now() + TICK;
        let has_to_reap = || self.epoch().is_ok() && self.replica.look(|namespace| namespace.has_to_reap());
        while !self.is_stopping() && Instant::now() < end && has_to_reap() {
            let begun = Instant::now();
            let reap = Change { now_ms: now_ms(), stamp: None, command: Command::Reap };
            let Ok(applied) = self.replica.propose(&reap) else {
                return; // it leads no more, or the log has failed, which is said elsewhere
            };
            let Ok((mut state, _)) = self.lead() else { return };
            state.healing.released(applied.released.iter().map(|released| released.key));
            drop(state);
            thread::park_timeout(begun.elapsed());
        }
    }

    pub(super) fn measure_space(&self) {
        let Ok(space) = self.folder.space() else { return };
        let free = space.available;
        let is_short = free < LEAST_FREE_BYTES || space.used_percent() > MOST_USED_PERCENT;
        if self.is_short_of_space.swap(is_short, Ordering::AcqRel) != is_short {
            if is_short {
                log::warn!("{} has only {} MiB free: only removals are accepted", self.data.display(), free >> 20);
            } else {
                log::info!("{} has room again: all changes are accepted", self.data.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_were_in_step_do_not_stay_so() {
        let mut clocks = [1, 2].map(fastrand::Rng::with_seed);
        let election = |random: &mut fastrand::Rng| (0..7).map(|_| next_tick(random)).sum::<Duration>();
        let apart: Vec<Duration> = (0..100)
            .map(|_| {
                let [one, other] = clocks.each_mut().map(election);
                assert!(one.abs_diff(7 * TICK) < 2 * TICK, "it is about as long: {one:?}");
                one.abs_diff(other)
            })
            .collect();
        let close = apart.iter().filter(|apart| **apart < Duration::from_millis(5)).count();
        assert!(close < 20, "{apart:?}");
    }
}
