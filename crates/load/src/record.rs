//! What is measured: by kind and by interval. Takes the same memory however long and fast the run is.

use std::collections::BTreeMap;
use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use crate::mix::Kind;

/// The most intervals that a run is cut into.
const MOST_INTERVALS: u128 = 120;

/// Latencies below about this are not told apart.
const RESOLUTION_NS: u64 = 128;

/// The time that is measured: operations that end in it count.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// When the warm-up is over.
    pub start: Instant,
    /// How long from then on.
    pub length: Duration,
    /// What it is cut into; the last piece may be shorter.
    pub interval: Duration,
}

impl Window {
    /// Begins at `start`, with pieces of a round length.
    pub fn new(start: Instant, length: Duration) -> Self {
        const ROUND_MS: [u64; 12] =
            [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000];
        let fits = |interval: &Duration| length.as_nanos().div_ceil(interval.as_nanos()) <= MOST_INTERVALS;
        let longest = length / MOST_INTERVALS as u32 + Duration::from_nanos(1);
        let interval = ROUND_MS.into_iter().map(Duration::from_millis).find(fits).unwrap_or(longest);
        Self { start, length, interval }
    }

    /// When it is over.
    pub fn end(&self) -> Instant {
        self.start + self.length
    }

    /// In which interval something happens; `None` before the start and after the end.
    fn interval_at(&self, instant: Instant) -> Option<usize> {
        let since = instant.checked_duration_since(self.start)?;
        (since < self.length).then(|| (since.as_nanos() / self.interval.as_nanos()) as usize)
    }

    /// When each interval begins and how long it is, counted from the start.
    pub fn intervals(&self) -> impl Iterator<Item = (Duration, Duration)> {
        let begins = iter::successors(Some(Duration::ZERO), |begin| Some(*begin + self.interval));
        begins.take_while(|begin| *begin < self.length).map(|begin| (begin, self.interval.min(self.length - begin)))
    }
}

/// Operations of one kind.
#[derive(Clone)]
pub struct Measures {
    /// How long each took, in nanoseconds.
    pub latencies: Histogram<u64>,
    /// How long they took together.
    pub busy: Duration,
    /// The bytes of content that they moved, counted once however many copies there are.
    pub bytes: u64,
}

impl Measures {
    fn new(digits: u8) -> Self {
        let latencies = Histogram::new_with_bounds(RESOLUTION_NS, 2 * RESOLUTION_NS * 1000, digits);
        let mut latencies = latencies.expect("bounds and digits are in range");
        latencies.auto(true);
        Self { latencies, busy: Duration::ZERO, bytes: 0 }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.latencies.len()
    }

    /// The latency that `fraction` of them did not exceed.
    pub fn quantile(&self, fraction: f64) -> Duration {
        Duration::from_nanos(if self.latencies.is_empty() { 0 } else { self.latencies.value_at_quantile(fraction) })
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.latencies.max())
    }

    /// The exact mean.
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.busy.as_secs_f64() / self.count().max(1) as f64)
    }

    /// How many latencies lie in each of the ranges from the shortest to the longest, five to a power of ten.
    pub fn histogram(&self) -> Vec<(Duration, Duration, u64)> {
        const PER_DECADE: f64 = 5.0;
        let range_of = |nanos: u64| ((nanos.max(1) as f64).log10() * PER_DECADE).floor() as i32;
        let begin = |range: i32| Duration::from_nanos(10_f64.powf(f64::from(range) / PER_DECADE) as u64);
        let mut counts = BTreeMap::<i32, u64>::new();
        for value in self.latencies.iter_recorded() {
            *counts.entry(range_of(value.value_iterated_to())).or_default() += value.count_at_value();
        }
        let Some((&first, &last)) = counts.keys().next().zip(counts.keys().next_back()) else { return Vec::new() };
        let count = |range| counts.get(&range).copied().unwrap_or(0);
        (first..=last).map(|range| (begin(range), begin(range + 1), count(range))).collect()
    }

    fn record(&mut self, latency: Duration, bytes: u64) {
        let nanos = u64::try_from(latency.as_nanos()).expect("less than centuries");
        self.latencies.record(nanos).expect("grows as needed");
        self.busy += latency;
        self.bytes += bytes;
    }

    /// Adds what others have measured.
    pub fn add(&mut self, others: &Self) {
        self.latencies.add(&others.latencies).expect("grows as needed");
        self.busy += others.busy;
        self.bytes += others.bytes;
    }

    fn clear(&mut self) {
        self.latencies.reset();
        self.busy = Duration::ZERO;
        self.bytes = 0;
    }
}

/// One entry for each kind, in the order of [`Kind::ALL`].
pub type ByKind = [Measures; Kind::ALL.len()];

fn by_kind(digits: u8) -> ByKind {
    Kind::ALL.map(|_| Measures::new(digits))
}

/// All that has been measured.
pub struct Totals {
    /// The whole run, to three digits.
    pub whole: ByKind,
    /// Each interval, to two digits.
    pub intervals: Vec<ByKind>,
    /// What went wrong, and how often.
    pub errors: BTreeMap<(Kind, &'static str), Errors>,
}

/// Errors that are alike.
pub struct Errors {
    /// How many there were.
    pub count: u64,
    /// What the first one said.
    pub first: String,
}

/// What all clients record into.
pub struct Record {
    window: Window,
    totals: Mutex<Totals>,
    /// Operations so far, warm-up included: for the line that shows progress.
    operations: AtomicU64,
}

impl Record {
    /// An empty one.
    pub fn new(window: Window) -> Self {
        let intervals = window.intervals().map(|_| by_kind(2)).collect();
        let totals = Totals { whole: by_kind(3), intervals, errors: BTreeMap::new() };
        Self { window, totals: Mutex::new(totals), operations: AtomicU64::new(0) }
    }

    /// When is measured.
    pub fn window(&self) -> Window {
        self.window
    }

    /// How many operations there have been, warm-up included.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Everything, once all recorders have been dropped.
    pub fn into_totals(self) -> Totals {
        self.totals.into_inner()
    }
}

/// One client's part of a record. It keeps an interval to itself, so that clients do not wait for each other.
pub struct Recorder<'a> {
    record: &'a Record,
    interval: usize,
    current: ByKind,
}

impl<'a> Recorder<'a> {
    /// For one client.
    pub fn new(record: &'a Record) -> Self {
        Self { record, interval: 0, current: by_kind(3) }
    }

    /// An operation has succeeded that moved `bytes` of content.
    pub fn succeeded(&mut self, kind: Kind, begun: Instant, ended: Instant, bytes: u64) {
        self.record.operations.fetch_add(1, Ordering::Relaxed);
        let Some(interval) = self.record.window.interval_at(ended) else { return };
        if interval != self.interval {
            self.hand_over();
            self.interval = interval;
        }
        self.current[kind.index()].record(ended - begun, bytes);
    }

    /// An operation has failed. Counts whenever it happens: an error in the warm-up is one, too.
    pub fn failed(&mut self, kind: Kind, trouble: &'static str, message: impl ToString) {
        let mut totals = self.record.totals.lock();
        let new = || Errors { count: 0, first: message.to_string() };
        totals.errors.entry((kind, trouble)).or_insert_with(new).count += 1;
    }

    fn hand_over(&mut self) {
        let totals = &mut *self.record.totals.lock();
        for kind in Kind::ALL.map(Kind::index) {
            if self.current[kind].count() > 0 {
                totals.whole[kind].add(&self.current[kind]);
                totals.intervals[self.interval][kind].add(&self.current[kind]);
                self.current[kind].clear();
            }
        }
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        self.hand_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_bounded_number_of_intervals_covers_a_window() {
        for ms in [1, 99, 100, 250, 10_000, 12_001, 600_000, 86_400_000, 1_000_000_000] {
            let window = Window::new(Instant::now(), MS * ms);
            let intervals: Vec<_> = window.intervals().collect();
            assert!(intervals.len() <= MOST_INTERVALS as usize, "{ms} ms: {}", intervals.len());
            assert_eq!(intervals.iter().map(|(_, length)| *length).sum::<Duration>(), MS * ms);
            let last = window.end() - Duration::from_nanos(1);
            assert_eq!(window.interval_at(last), Some(intervals.len() - 1), "{ms} ms");
            assert_eq!(window.interval_at(window.start), Some(0));
            assert_eq!(window.interval_at(window.end()), None);
        }
    }

    #[test]
    fn what_ends_within_the_window_counts_and_sums_are_exact() {
        let start = Instant::now() + Duration::from_secs(10);
        let record = Record::new(Window::new(start, 1000 * MS));
        for client in 0..2 {
            let mut recorder = Recorder::new(&record);
            let mut succeeded =
                |begun: Instant, ms, bytes| recorder.succeeded(Kind::Load, begun, begun + MS * ms, bytes);
            succeeded(start - 50 * MS, 49, 1); // warm-up
            succeeded(start - 50 * MS, 60, 10);
            succeeded(start + 10 * MS, 20, 100);
            succeeded(start + 950 * MS, 40, 1000);
            succeeded(start + 990 * MS, 10, 10_000); // too late
            recorder.failed(Kind::Store, "no reply", format!("client {client}"));
        }
        assert_eq!(record.operations(), 10);
        let totals = record.into_totals();
        let loads = &totals.whole[Kind::Load.index()];
        assert_eq!((loads.count(), loads.bytes, loads.busy, loads.mean()), (6, 2220, 240 * MS, 40 * MS));
        assert_eq!(totals.intervals.len(), 10);
        let counts: Vec<_> = totals.intervals.iter().map(|kinds| kinds[Kind::Load.index()].count()).collect();
        assert_eq!(counts, [4, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(totals.whole[Kind::Store.index()].count(), 0);
        let errors = &totals.errors[&(Kind::Store, "no reply")];
        assert_eq!((errors.count, errors.first.as_str()), (2, "client 0"));
    }

    #[test]
    fn quantiles_are_right_to_a_thousandth() {
        let mut measures = Measures::new(3);
        (1..=10_000).for_each(|number| measures.record(Duration::from_micros(number), 0));
        for (fraction, expected) in [(0.5, 5_000.0), (0.9, 9_000.0), (0.99, 9_900.0), (1.0, 10_000.0)] {
            let micros = measures.quantile(fraction).as_secs_f64() * 1e6;
            assert!((micros / expected - 1.0).abs() < 0.002, "{fraction}: {micros}");
        }
        assert!(measures.max() >= Duration::from_micros(10_000));
        let bars = measures.histogram();
        assert!(bars.is_sorted_by(|(_, to, _), (from, _, _)| to == from), "{bars:?}");
        assert_eq!(bars.iter().map(|(_, _, count)| count).sum::<u64>(), 10_000);
        let from_1_ms: Vec<_> = bars.iter().filter(|(from, ..)| *from >= MS).collect();
        assert!(from_1_ms.iter().map(|(_, _, count)| count).sum::<u64>().abs_diff(9_000) < 10, "{bars:?}");
        assert!(Measures::new(3).histogram().is_empty());
        assert_eq!(Measures::new(3).quantile(0.5), Duration::ZERO);
        assert_eq!(Measures::new(3).mean(), Duration::ZERO);
    }
}
