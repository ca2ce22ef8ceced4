//! In the background: what keeps a disk in order, at a pace that leaves it to requests.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::Shared;
use crate::log::SyncMode;
use crate::pack::ScrubRound;

/// So often it is looked whether packs are due for compaction.
const COMPACTION_CHECK: Duration = Duration::from_secs(10);

/// Compaction reads so many bytes a second.
const COMPACTION_RATE: u64 = 64 << 20;

/// The scrub reads so much before it rests.
const SCRUB_STEP: u64 = 4 << 20;

/// With `--sync interval`: puts of the last second may be lost in a power cut, not more.
pub(super) fn sync_every_second(shared: &Shared) {
    while shared.sync == SyncMode::Interval && shared.rest(Duration::from_secs(1)) {
        if let Err(error) = shared.disk.settle() {
            return shared.give_up(error.to_string());
        }
    }
}

/// Compaction and the scrub, by turns, until the Dstore stops.
pub(super) fn run(shared: &Shared) {
    let mut scrub = Scrub::resume(shared);
    let mut compaction = Instant::now() + COMPACTION_CHECK;
    loop {
        let next = compaction.min(scrub.due);
        if !shared.rest(next.saturating_duration_since(Instant::now())) {
            return scrub.keep(shared);
        }
        if Instant::now() >= compaction {
            compact(shared);
            compaction = Instant::now() + COMPACTION_CHECK;
        }
        if Instant::now() >= scrub.due {
            scrub.step(shared);
        }
    }
}

/// So long after its start a Dstore has other things to do.
const FIRST_SCRUB: Duration = Duration::from_secs(60);

/// So often it is kept where the scrub is.
const SCRUB_KEPT: Duration = Duration::from_secs(60);

fn compact(shared: &Shared) {
    let mut pace = |bytes: u64| -> io::Result<()> {
        let time = Duration::from_secs_f64(bytes as f64 / COMPACTION_RATE as f64);
        if shared.rest(time) { Ok(()) } else { Err(ErrorKind::Interrupted.into()) }
    };
    loop {
        match shared.disk.compact_if_due(&mut pace) {
            Ok(Some(done)) => log::info!(
                "{}: {} packs became one: {} bytes moved, {} bytes free again",
                shared.number(),
                done.packs,
                done.moved_bytes,
                done.freed_bytes
            ),
            Ok(None) => return,
            Err(error) => return log::warn!("{}: compaction: {error}", shared.number()),
        }
    }
}

/// The scrub, in a round that may have begun before the last start.
struct Scrub {
    round: ScrubRound,
    /// What this process has verified of the round.
    objects: u64,
    damaged: usize,
    due: Instant,
    kept: Instant,
}

impl Scrub {
    fn resume(shared: &Shared) -> Self {
        let (round, now) = (*shared.scrub_round.lock(), Instant::now());
        let mut scrub = Self { round, objects: 0, damaged: 0, due: now, kept: now };
        scrub.due += scrub.rest(shared).max(FIRST_SCRUB.min(shared.scrub_period));
        scrub
    }

    /// How long it is until the round begins: never longer than a period, whatever the clock says.
    fn rest(&self, shared: &Shared) -> Duration {
        self.round.begins_in().min(shared.scrub_period)
    }

    fn step(&mut self, shared: &Shared) {
        let step = shared.disk.scrub_step(self.round.after, SCRUB_STEP);
        self.objects += step.objects;
        self.damaged += step.damaged.len();
        for key in &step.damaged {
            log::warn!("{}: object {key} is damaged", shared.number());
        }
        for (key, error) in &step.errors {
            log::warn!("{}: object {key} cannot be read now: {error}", shared.number());
        }
        self.round.after = step.last;
        let period = shared.scrub_period;
        if self.round.after.is_some() {
            let total = shared.disk.usage().map_or(0, |usage| usage.bytes);
            let share = step.bytes as f64 / total.max(1) as f64;
            self.due = Instant::now() + period.mul_f64(share.min(1.0));
            if self.kept.elapsed() >= SCRUB_KEPT {
                self.keep(shared);
            }
            return;
        }
        if self.objects > 0 || self.damaged > 0 {
            log::info!("{}: the scrub is through: {} objects, {} damaged", shared.number(), self.objects, self.damaged);
        }
        self.round.complete(period);
        self.keep(shared);
        (self.objects, self.damaged) = (0, 0);
        self.due = Instant::now() + self.rest(shared).max(Duration::from_secs(1));
    }

    fn keep(&mut self, shared: &Shared) {
        *shared.scrub_round.lock() = self.round;
        self.kept = Instant::now();
        if let Err(error) = shared.disk.keep_scrub_round(&self.round) {
            log::warn!("{}: where the scrub is cannot be kept: {error}", shared.number());
        }
    }
}
