//! What a Controller's log tells of its rebalances: how many rounds they took, and what they spent their time with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kit::Program;

/// What the Controller is to log for this: the messages of which rebalances consist, and its own words about them.
pub const LOG: &str =
    r"stevedore=info/->.*\] (LIST$|REBALANCE [0-9])|<-.*\] REBALANCE_COMPLETE$|rebalance:|error|cannot";

/// The next round of a rebalance begins at once; what begins later than this is another rebalance.
const PAUSE: Duration = Duration::from_secs(1);

/// A log that is being read.
pub struct Rebalances(Arc<Mutex<Vec<Entry>>>);

struct Entry {
    at: Instant,
    said: Said,
}

/// A message, with the Dstore's end of its connection.
enum Said {
    Asked,
    Ordered {
        dstore: String,
        is_empty: bool,
    },
    Reported {
        dstore: String,
    },
    /// Not all Dstores have reported within the timeout.
    Late,
}

/// How one went.
#[derive(Default)]
pub struct Rebalance {
    /// Those in which there was something to do.
    pub rounds: usize,
    /// Those of them in which a Dstore did not report in time.
    pub late_rounds: usize,
    /// From the first LIST to the last report.
    pub took: Duration,
    /// From a round's LIST to its orders: lists and planning.
    pub asking: Duration,
    /// From a round's orders to its last report.
    pub moving: Duration,
    /// How long, of `moving`, a Dstore with something to do waited for a slower one, on average.
    pub waiting: Duration,
    /// The longest round, from LIST to the last report.
    pub longest_round: Duration,
}

impl Rebalances {
    /// Reads a Controller's log until it ends. What tells of no rebalance is passed on.
    pub fn follow(controller: &mut Program) -> Self {
        let entries = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&entries);
        controller.follow(move |line| match Said::parse(&line) {
            Some(said) => heard.lock().expect("no thread panics").push(Entry { at: Instant::now(), said }),
            None if line.contains(" WARN ") || line.contains(" ERROR ") => eprintln!("{line}"),
            None => {}
        });
        Self(entries)
    }

    /// Waits for the end of a rebalance in which there was something to do and that began after `since`; `None` if none
    /// has begun, or nothing more has happened, for so long.
    pub fn wait(&self, since: Instant, patience: Duration) -> Option<Rebalance> {
        loop {
            thread::sleep(Duration::from_millis(20));
            let now = Instant::now();
            let entries = self.0.lock().expect("no thread panics");
            let rounds = rounds(&entries, since);
            let first = rounds.iter().position(|round| !round.orders.is_empty());
            if let Some(first) = first {
                let ends = |at: &usize| match rounds.get(at + 1) {
                    Some(next) => next.begun - rounds[*at].ended() > PAUSE,
                    None => rounds[*at].is_over() && now - rounds[*at].ended() > PAUSE,
                };
                if let Some(last) = (first..rounds.len()).find(ends) {
                    return Some(summary(&rounds[first..=last]));
                }
            }
            let last = entries.iter().map(|entry| entry.at).next_back().map_or(since, |last| last.max(since));
            if now - last > patience {
                return None;
            }
        }
    }
}

impl Said {
    fn parse(line: &str) -> Option<Self> {
        if line.contains("has reported in time") {
            return Some(Self::Late);
        }
        // [time program] [local->remote] message
        let (_, rest) = line.split_once("] [")?;
        let (ends, message) = rest.split_once("] ")?;
        let dstore = || ends.trim_start_matches(|c: char| c.is_ascii_digit())[2..].to_owned();
        match message {
            "LIST" => Some(Self::Asked),
            "REBALANCE_COMPLETE" => Some(Self::Reported { dstore: dstore() }),
            _ if message.starts_with("REBALANCE ") => {
                Some(Self::Ordered { dstore: dstore(), is_empty: message == "REBALANCE 0 0" })
            }
            _ => None,
        }
    }
}

struct Round {
    begun: Instant,
    /// By Dstore: when it was told, and whether to do nothing.
    orders: BTreeMap<String, (Instant, bool)>,
    reports: BTreeMap<String, Instant>,
    late: Option<Instant>,
}

impl Round {
    fn ended(&self) -> Instant {
        self.reports.values().copied().chain(self.late).max().unwrap_or(self.begun)
    }

    fn is_over(&self) -> bool {
        self.late.is_some() || (!self.orders.is_empty() && self.reports.len() >= self.orders.len())
    }
}

fn rounds(entries: &[Entry], since: Instant) -> Vec<Round> {
    let mut rounds: Vec<Round> = Vec::new();
    for Entry { at, said } in entries.iter().filter(|entry| entry.at >= since) {
        let round = rounds.last_mut();
        match (said, round) {
            (Said::Asked, Some(round)) if round.orders.is_empty() && *at - round.begun < PAUSE / 10 => {}
            (Said::Asked, _) => {
                rounds.push(Round { begun: *at, orders: BTreeMap::new(), reports: BTreeMap::new(), late: None })
            }
            (_, None) => {}
            (Said::Ordered { dstore, is_empty }, Some(round)) => {
                round.orders.insert(dstore.clone(), (*at, *is_empty));
            }
            // A Dstore that has no order yet reports on an earlier round, which was over before the report came.
            (Said::Reported { dstore }, Some(round)) if !round.orders.contains_key(dstore) => {}
            (Said::Reported { dstore }, Some(round)) => {
                round.reports.insert(dstore.clone(), *at);
            }
            (Said::Late, Some(round)) => round.late = Some(*at),
        }
    }
    rounds
}

fn summary(rounds: &[Round]) -> Rebalance {
    let mut summary = Rebalance::default();
    for round in rounds.iter().filter(|round| !round.orders.is_empty()) {
        let ended = round.ended();
        let ordered = round.orders.values().map(|(at, _)| *at).min().expect("not empty");
        let busy: Vec<_> = round.orders.iter().filter(|(_, (_, is_empty))| !is_empty).collect();
        let reported = |dstore: &String| round.reports.get(dstore).copied().unwrap_or(ended);
        let waited: Duration = busy.iter().map(|(dstore, _)| ended - reported(dstore)).sum();
        summary.rounds += 1;
        summary.late_rounds += usize::from(round.late.is_some());
        summary.asking += ordered - round.begun;
        summary.moving += ended - ordered;
        summary.waiting += waited / busy.len().max(1) as u32;
        summary.longest_round = summary.longest_round.max(ended - round.begun);
    }
    summary.took = rounds[rounds.len() - 1].ended() - rounds[0].begun;
    summary
}
