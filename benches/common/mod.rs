//! What the benches share: how large a run is and which parts of it are wanted, rounds against a floor, and tables.
//!
//! The machine is noisy, so figures are compared within a round: every contender runs once in each, and a ratio is the
//! median of the rounds' ratios.

#![allow(dead_code, reason = "no bench uses all of it")]

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::ops::Index;
use std::time::Instant;

pub use kit::Rng;
use stevedore::protocol::FileName;

/// A size under `cargo bench`, and in a test run, which only checks that the bench still works.
pub struct Size<T> {
    pub full: T,
    pub tiny: T,
}

/// What this run of a bench is asked for.
pub struct Run {
    is_full: bool,
    filter: Option<String>,
    fraction: f64,
}

impl Run {
    /// From the arguments. `--bench` asks for full sizes. A word asks for the parts with that word in their name:
    /// `cargo bench --bench index rebalance`. A number after the word is the fraction of its full size that a part has.
    pub fn new() -> Self {
        let (options, words): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|arg| arg.starts_with('-'));
        let is_full = options.iter().any(|option| option == "--bench");
        if !is_full {
            println!("tiny sizes, to check that this works: `cargo bench` measures\n");
        }
        let mut words = words.into_iter();
        let filter = words.next();
        let fraction =
            words.next().map_or(1.0, |word| word.parse().expect("after the part's name: a fraction of its size"));
        Self { is_full, filter, fraction }
    }

    /// The size for this kind of run.
    pub fn size<T>(&self, size: Size<T>) -> T {
        if self.is_full { size.full } else { size.tiny }
    }

    /// Whether exactly this part was asked for, to be measured: it may take its time then.
    pub fn is_asked_for(&self, name: &str) -> bool {
        self.is_full && self.filter.as_deref() == Some(name)
    }

    /// Whether anything is measured at all.
    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// What part of its full size a part that was asked for is to have.
    pub fn fraction(&self) -> f64 {
        self.fraction
    }

    /// Whether the part called `name` is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| name.contains(filter))
    }
}

/// Plays one round to warm up and then `rounds` that count. What a round does not time is off the clock.
pub fn measure(rounds: usize, mut play: impl FnMut(&mut Clock)) -> Figures {
    play(&mut Clock::default());
    let mut clock = Clock::default();
    for _ in 0..rounds {
        play(&mut clock);
    }
    Figures(clock.times.into_iter().map(|(name, seconds)| (name, Samples(seconds))).collect())
}

/// What has been timed so far, by name.
#[derive(Default)]
pub struct Clock {
    times: BTreeMap<String, Vec<f64>>,
}

impl Clock {
    /// Times `work`; what it returns is for the caller to check, and to drop off the clock.
    pub fn time<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        self.time_each(name, 1, work)
    }

    /// Times each of the `count` operations that `work` consists of.
    pub fn time_each<T>(&mut self, name: &str, count: usize, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let outcome = work();
        self.record(name, begun.elapsed().as_secs_f64() / count as f64);
        outcome
    }

    /// Takes down what was timed elsewhere.
    pub fn record(&mut self, name: &str, seconds: f64) {
        self.times.entry(name.to_owned()).or_default().push(seconds);
    }
}

/// What was measured, by the name it was timed under.
pub struct Figures(BTreeMap<String, Samples>);

impl Index<&str> for Figures {
    type Output = Samples;

    fn index(&self, name: &str) -> &Samples {
        &self.0[name]
    }
}

/// One figure per round; seconds, until converted.
pub struct Samples(Vec<f64>);

impl Samples {
    /// In such parts of a second: 1e3 for milliseconds.
    pub fn parts(&self, of_a_second: f64) -> Self {
        self.map(|seconds| seconds * of_a_second)
    }

    /// As a rate, of `amount` in each of the times.
    pub fn rate(&self, amount: f64) -> Self {
        self.map(|seconds| amount / seconds)
    }

    /// How many times as long as `floor`, which ran in the same rounds.
    pub fn over(&self, floor: &Self) -> Self {
        Self(self.0.iter().zip(&floor.0).map(|(ours, floor)| ours / floor).collect())
    }

    /// The one in the middle.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
    }

    /// The median to three digits, for where a range would be one too many.
    pub fn brief(&self) -> String {
        digits(self.median())
    }

    fn map(&self, convert: impl Fn(f64) -> f64) -> Self {
        Self(self.0.iter().copied().map(convert).collect())
    }
}

/// The median and the range.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(0.0, f64::max);
        write!(f, "{} ({}-{})", self.brief(), digits(least), digits(most))
    }
}

/// A number to three digits, or to the last one before the point.
pub fn digits(number: f64) -> String {
    let decimals = if number > 0.0 { 2 - number.log10().floor() as i32 } else { 0 };
    format!("{number:.*}", decimals.clamp(0, 5) as usize)
}

/// A table that reads well here and in Markdown.
pub struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Under this title and these heads.
    pub fn new(title: impl Into<String>, heads: &[&str]) -> Self {
        Self { title: title.into(), rows: vec![heads.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.rows[0].len(), "a cell for each head");
        self.rows.push(cells.into());
    }

    /// Prints it: the first column as text, the others as figures.
    pub fn print(&self) {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        println!("{}\n", self.title);
        for (at, row) in self.rows.iter().enumerate() {
            print!("| {:<1$}", row[0], widths[0]);
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                print!(" | {cell:>width$}");
            }
            println!(" |");
            if at == 0 {
                print!("|{:-<1$}", "", widths[0] + 2);
                for width in &widths[1..] {
                    print!("|{:->1$}", ":", width + 2);
                }
                println!("|");
            }
        }
        println!();
    }
}

/// Names drawn from a source of numbers.
pub trait Names {
    /// The next file name: 20 bytes, no two alike, in no order.
    fn name(&mut self) -> FileName;
}

impl Names for Rng {
    fn name(&mut self) -> FileName {
        let name = format!("file-{:015x}", self.next() >> 4);
        name.parse().expect("letters and digits")
    }
}
