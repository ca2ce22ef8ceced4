//! What this gateway was asked for in the last hour, in samples of some seconds each.
//!
//! Bytes are counted when they move, so a long upload shows while it lasts. A request is counted when it has been answered, with
//! the time from its head to the first byte of its answer: how fast the client takes the rest is not the gateway's doing.
//! What the console itself asks for is not counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use depot::client::{DstoreState, Status};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// How long a sample is.
pub(super) const PERIOD: Duration = Duration::from_secs(5);

/// So many samples are kept: an hour.
const MOST: usize = 720;

/// The counts of a gateway.
pub(crate) struct Statistics {
    started: Instant,
    received: AtomicU64,
    sent: AtomicU64,
    ring: Mutex<Ring>,
}

/// The bytes that Dstores have and could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    used: u64,
    total: u64,
}

impl Space {
    /// Of the Dstores that are there. A disk may hold other things; what they take is in use, too.
    pub(super) fn of(status: &Status) -> Self {
        let present = status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Present);
        present.fold(Self { used: 0, total: 0 }, |sum, dstore| Self {
            used: sum.used + dstore.total_bytes.saturating_sub(dstore.free_bytes),
            total: sum.total + dstore.total_bytes,
        })
    }
}

/// Samples, the oldest first, and the one that is being taken.
#[derive(Default)]
struct Ring {
    samples: VecDeque<Sample>,
    /// How many samples there were in all.
    number: u64,
    current: Counts,
    /// What the byte counters were when the current sample began.
    received: u64,
    sent: u64,
    /// As it was last seen.
    space: Option<Space>,
}

/// What was counted within a period.
#[derive(Clone, Debug, Default)]
struct Counts {
    errors: u64,
    times: Times,
}

/// A period that is over.
#[derive(Clone, Debug)]
struct Sample {
    number: u64,
    at_ms: u64,
    received: u64,
    sent: u64,
    counts: Counts,
    space: Option<Space>,
}

impl Statistics {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), received: AtomicU64::new(0), sent: AtomicU64::new(0), ring: Mutex::default() }
    }

    /// So many bytes of content have come.
    pub(crate) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes of content were taken by clients.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The bytes of content that have come, and that clients have taken, since the gateway was started.
    pub(crate) fn moved(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }

    /// A request's answer began after so long; `is_error` if the gateway or the store is at fault.
    pub(crate) fn answered(&self, is_error: bool, after: Duration) {
        let mut ring = self.ring.lock();
        self.advance(&mut ring);
        ring.current.errors += u64::from(is_error);
        ring.current.times.add(after);
    }

    /// How full the store is, until something else is said.
    pub(super) fn space(&self, space: Option<Space>) {
        let mut ring = self.ring.lock();
        self.advance(&mut ring);
        ring.space = space;
    }

    /// Ends the samples whose time is over.
    fn advance(&self, ring: &mut Ring) {
        let periods = (self.started.elapsed().as_millis() / PERIOD.as_millis()) as u64;
        if periods > ring.number {
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
            ring.advance(periods, now_ms, self.moved());
        }
    }

    /// The number of the last sample that is over; 0 for none.
    pub(super) fn newest(&self) -> u64 {
        let mut ring = self.ring.lock();
        self.advance(&mut ring);
        ring.number
    }

    /// The samples behind the one of this number.
    pub(super) fn json(&self, after: u64) -> Value {
        let mut ring = self.ring.lock();
        self.advance(&mut ring);
        let samples = ring.samples.iter().filter(|sample| sample.number > after).map(Sample::json);
        json!({ "period_ms": PERIOD.as_millis() as u64, "samples": samples.collect::<Vec<_>>() })
    }
}

impl Ring {
    /// Ends all samples up to the one of this number, the last of them now.
    fn advance(&mut self, periods: u64, now_ms: u64, (received, sent): (u64, u64)) {
        let first = (self.number + 1).max(periods.saturating_sub(MOST as u64 - 1));
        for number in first..=periods {
            // All that was counted since the last sample ended belongs to the first of these: nothing has come since.
            let sample = Sample {
                number,
                at_ms: now_ms.saturating_sub((periods - number) * PERIOD.as_millis() as u64),
                received: received - std::mem::replace(&mut self.received, received),
                sent: sent - std::mem::replace(&mut self.sent, sent),
                counts: std::mem::take(&mut self.current),
                space: self.space,
            };
            self.samples.push_back(sample);
        }
        self.number = self.number.max(periods);
        let surplus = self.samples.len().saturating_sub(MOST);
        self.samples.drain(..surplus);
    }
}

impl Sample {
    fn json(&self) -> Value {
        let Counts { errors, times } = &self.counts;
        let ms = |share| times.quantile(share).map(|time| time.as_secs_f64() * 1000.0);
        json!({
            "number": self.number,
            "at_ms": self.at_ms,
            "requests": times.count(),
            "errors": errors,
            "received_bytes": self.received,
            "sent_bytes": self.sent,
            "half_ms": ms(0.5),
            "most_ms": ms(0.99),
            "used_bytes": self.space.map(|space| space.used),
            "total_bytes": self.space.map(|space| space.total),
        })
    }
}

/// How many answers took how long: four steps for each doubling, so that a time is known to within a fifth.
#[derive(Clone, Debug, Default)]
struct Times(Vec<u32>);

/// Steps for each doubling.
const STEPS: u32 = 4;

impl Times {
    fn add(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let octave = micros.ilog2();
        let step = ((u128::from(micros) * u128::from(STEPS)) >> octave) as u32 - STEPS;
        let place = (octave * STEPS + step) as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, 0);
        }
        self.0[place] += 1;
    }

    fn count(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }

    /// The time within which this share of the answers began, rounded up to a step; `None` if there were none.
    fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let place = self.0.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        })?;
        let (octave, step) = (place as u32 / STEPS, place as u32 % STEPS);
        let micros = f64::from(STEPS + step + 1) / f64::from(STEPS) * 2f64.powi(octave as i32);
        Some(Duration::from_secs_f64(micros / 1e6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_known_to_within_a_fifth() {
        for micros in (0..40).flat_map(|octave| [1u64, 5, 7].map(|factor| factor << octave)) {
            let mut times = Times::default();
            times.add(Duration::from_micros(micros));
            let shown = times.quantile(0.5).unwrap().as_secs_f64() * 1e6;
            assert!(shown > micros as f64 && shown <= micros as f64 * 1.2501, "{micros}: {shown}");
        }
        let mut times = Times::default();
        assert_eq!((times.count(), times.quantile(0.5)), (0, None));
        (0..99).for_each(|_| times.add(Duration::from_millis(1)));
        times.add(Duration::from_secs(1));
        assert_eq!(times.count(), 100);
        assert!(times.quantile(0.99).unwrap() < Duration::from_millis(2));
        assert!(times.quantile(1.0).unwrap() > Duration::from_secs(1));
    }

    #[test]
    fn quiet_periods_are_samples_too_and_old_ones_go() {
        let mut ring = Ring::default();
        ring.current.times.add(Duration::from_millis(3));
        ring.advance(3, 100_000, (10, 20));
        let seen: Vec<_> =
            ring.samples.iter().map(|s| (s.number, s.at_ms, s.received, s.sent, s.counts.times.count())).collect();
        assert_eq!(seen, [(1, 90_000, 10, 20, 1), (2, 95_000, 0, 0, 0), (3, 100_000, 0, 0, 0)]);
        ring.advance(4, 105_000, (15, 20));
        assert_eq!(ring.samples.back().map(|sample| (sample.number, sample.received)), Some((4, 5)));
        ring.advance(100_000, 900_000_000, (15, 20));
        assert_eq!(ring.samples.len(), MOST);
        assert_eq!(ring.samples.back().map(|sample| sample.number), Some(100_000));
        assert_eq!(ring.samples.front().map(|sample| sample.number), Some(100_001 - MOST as u64));
    }
}
