//! What a run has shown, in words and figures.

use std::fmt;
use std::time::Duration;

use crate::mix::Kind;
use crate::processes::Usage;
use crate::record::{Errors, Measures, Totals, Window};
use crate::worker::wrong;

/// The quantiles that are shown, with their names.
pub const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// A finished run.
pub struct Report {
    /// What was asked for: each option's name and value.
    pub setup: Vec<(&'static str, String)>,
    /// How many clients there were.
    pub clients: u32,
    /// When was measured.
    pub window: Window,
    /// What was measured.
    pub totals: Totals,
    /// What the processes of interest cost; the first is this one.
    pub processes: Vec<Process>,
    /// Files that could not be removed at the end; `None` if they were to be kept.
    pub left: Option<usize>,
}

/// A process at the beginning and at the end of the measurement.
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// At the beginning.
    pub before: Usage,
    /// At the end; `None` if it was gone.
    pub after: Option<Usage>,
}

impl Report {
    /// All kinds that there were operations of, with what was measured.
    pub fn kinds(&self) -> impl Iterator<Item = (Kind, &Measures)> {
        let all = Kind::ALL.into_iter().map(|kind| (kind, &self.totals.whole[kind.index()]));
        all.filter(|(_, measures)| measures.count() > 0)
    }

    /// How many operations have succeeded.
    pub fn operations(&self) -> u64 {
        self.kinds().map(|(_, measures)| measures.count()).sum()
    }

    /// What makes the run a failure, if anything does.
    pub fn failure(&self) -> Option<String> {
        let is_wrong = |trouble| [wrong::CONTENT, wrong::LOST, wrong::LIST].contains(&trouble);
        let mut wrongs = self.totals.errors.iter().filter(|((_, trouble), _)| is_wrong(*trouble));
        if let Some(((kind, trouble), errors)) = wrongs.next() {
            return Some(format!("verification failed: {kind}: {trouble}: {}", errors.first));
        }
        (self.operations() == 0).then(|| match self.totals.errors.iter().next() {
            Some(((kind, _), errors)) => format!("nothing has worked: {kind}: {}", errors.first),
            None => "no operation has ended within the time".to_owned(),
        })
    }

    /// How many clients were in the middle of an operation on average, by Little's law: throughput times mean latency.
    /// The other clients were at work of their own, between two operations. Operations that began before the window
    /// count whole, so that a few long ones may make the figure larger.
    pub fn busy_clients(&self) -> f64 {
        self.kinds().map(|(_, measures)| measures.busy.as_secs_f64()).sum::<f64>() / self.seconds()
    }

    /// How long was measured.
    pub fn seconds(&self) -> f64 {
        self.window.length.as_secs_f64()
    }

    /// How many of them there were a second.
    pub fn rate(&self, measures: &Measures) -> f64 {
        measures.count() as f64 / self.seconds()
    }

    /// How many millions of bytes they moved a second.
    pub fn megabytes(&self, measures: &Measures) -> f64 {
        measures.bytes as f64 / 1e6 / self.seconds()
    }

    /// A process's CPU time for each operation of all clients, in microseconds.
    pub fn micros_per_operation(&self, process: &Process) -> Option<f64> {
        let operations = self.operations();
        process.cpu().filter(|_| operations > 0).map(|cpu| cpu.as_secs_f64() * 1e6 / operations as f64)
    }
}

impl Process {
    /// What it has used in between.
    pub fn cpu(&self) -> Option<Duration> {
        self.after.as_ref().map(|after| after.cpu.saturating_sub(self.before.cpu))
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setup: Vec<_> = self.setup.iter().map(|(name, value)| format!("{name} {value}")).collect();
        writeln!(f, "{}\n", setup.join(", "))?;
        write!(f, "{:8}{:>10}{:>10}{:>10}", "", "ops", "ops/s", "MB/s")?;
        write!(f, "{:>10}", "mean ms")?;
        QUANTILES.iter().try_for_each(|(name, _)| write!(f, "{name:>10}"))?;
        writeln!(f, "{:>10}", "max")?;
        for (kind, measures) in self.kinds() {
            write!(f, "{kind:8}{:>10}{:>10}", measures.count(), digits(self.rate(measures)))?;
            write!(f, "{:>10}{:>10}", digits(self.megabytes(measures)), digits(ms(measures.mean())))?;
            for (_, fraction) in QUANTILES {
                write!(f, "{:>10}", digits(ms(measures.quantile(fraction))))?;
            }
            writeln!(f, "{:>10}", digits(ms(measures.max())))?;
        }
        let rates = self.kinds().map(|(_, measures)| (self.rate(measures), self.megabytes(measures)));
        let (rate, megabytes) = rates.fold((0.0, 0.0), |sum, rates| (sum.0 + rates.0, sum.1 + rates.1));
        writeln!(f, "{:8}{:>10}{:>10}{:>10}", "all", self.operations(), digits(rate), digits(megabytes))?;
        writeln!(
            f,
            "\n{} of {} clients were waiting at a time: ops/s x mean latency (Little's law)",
            digits(self.busy_clients()),
            self.clients
        )?;
        for (kind, measures) in self.kinds() {
            write_histogram(f, kind, measures)?;
        }
        if !self.processes.is_empty() {
            writeln!(f, "\n{:>8}  {:16}{:>8}{:>12}{:>12}", "process", "", "cpu s", "cpu us/op", "resident MB")?;
        }
        for process in &self.processes {
            write!(f, "{:>8}  {:16}", process.pid, process.before.name)?;
            match (process.cpu(), self.micros_per_operation(process), &process.after) {
                (Some(cpu), Some(micros), Some(after)) => {
                    let megabytes = digits(after.resident as f64 / 1e6);
                    writeln!(f, "{:>8}{:>12}{megabytes:>12}", digits(cpu.as_secs_f64()), digits(micros))?;
                }
                (_, _, None) => writeln!(f, "    has ended")?,
                _ => writeln!(f)?,
            }
        }
        if !self.totals.errors.is_empty() {
            writeln!(f, "\nerrors, warm-up included, and what the first of each said")?;
        }
        for ((kind, trouble), Errors { count, first }) in &self.totals.errors {
            writeln!(f, "{count:>8}  {kind}: {trouble}: {first}")?;
        }
        match self.left {
            Some(left) if left > 0 => writeln!(f, "\n{left} files may be left: they could not be removed"),
            _ => Ok(()),
        }
    }
}

fn write_histogram(f: &mut fmt::Formatter<'_>, kind: Kind, measures: &Measures) -> fmt::Result {
    const WIDTH: f64 = 50.0;
    writeln!(f, "\n{kind}, ms")?;
    let bars = measures.histogram();
    let most = bars.iter().map(|(_, _, count)| *count).max().unwrap_or(1) as f64;
    for (from, to, count) in bars {
        let share = count as f64 / measures.count() as f64 * 100.0;
        let bar = "█".repeat((count as f64 / most * WIDTH).round() as usize);
        writeln!(f, "{:>8} to {:<8}{count:>9}  {share:>6.2} %  {bar}", digits(ms(from)), digits(ms(to)))?;
    }
    Ok(())
}

/// A duration in milliseconds.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// A number to three digits, or to the last one before the point.
pub fn digits(number: f64) -> String {
    let decimals = if number > 0.0 { 2 - number.log10().floor() as i32 } else { 0 };
    format!("{number:.*}", decimals.clamp(0, 5) as usize)
}
