//! What was said during a check: sender, receiver, time, connection. The transcript and the diagram of a failure are made of
//! it, and `mark replay` plays it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::precedents::{ENOUGH, Precedents};
use super::wire::begins;

/// So much of one check is kept; whatever a submission sends, a report stays readable and memory bounded.
const KEPT_EVENTS: usize = 4_000;

/// So much of one line is shown.
const SHOWN_CHARS: usize = 400;

/// So much of one line is shown where it is wrong: any line that a person can read.
const WHOLE_CHARS: usize = 4_000;

/// So much of one line is kept.
const KEPT_CHARS: usize = 64 << 10;

/// So much of all lines of a check is kept; of later ones, what is shown.
const KEPT_BYTES: usize = 4 << 20;

/// The note of a party that ends both directions of a connection.
pub const CLOSES: &str = "closes the connection";

/// The note of a party that says nothing more on a connection, but still listens.
pub const ENDS_SENDING: &str = "ends its sending half";

/// The note of a process that is killed.
pub const KILLED: &str = "is killed";

/// One arrow of a sequence diagram.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Event {
    /// Since the check began.
    #[serde(with = "in_seconds")]
    pub at: Duration,
    /// The number of the connection, if `mark` has one end of it.
    pub connection: Option<u32>,
    /// The sender.
    pub from: String,
    /// The receiver; the same as `from` for something that happens to one party alone.
    pub to: String,
    /// What.
    pub what: What,
    /// Whether the check failed over this one.
    pub is_wrong: bool,
}

/// What goes along an arrow.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A line of the protocol, as it was sent.
    Line(String),
    /// So many bytes of content.
    Content(u64),
    /// Anything else that matters: a connection ends, a process is killed, nothing comes.
    Note(String),
    /// Bytes that are no line, or not only one.
    Bytes(Vec<u8>),
    /// A program is started, with these values in its command's places.
    Starts(Vec<(String, String)>),
    /// One connects to the other. Not shown.
    Connects,
    /// `mark` has no more use for its end of a connection. Not shown.
    Leaves,
}

impl What {
    /// Whether it is part of transcripts and diagrams.
    pub fn is_shown(&self) -> bool {
        !matches!(self, Self::Connects | Self::Leaves)
    }

    /// As one line of a transcript.
    pub fn text(&self) -> String {
        self.text_within(SHOWN_CHARS)
    }

    /// As a label that nothing is to be missing of.
    pub fn whole_text(&self) -> String {
        self.text_within(WHOLE_CHARS)
    }

    fn text_within(&self, most: usize) -> String {
        match self {
            Self::Line(line) => shorten(line, most),
            Self::Bytes(bytes) => shorten(&String::from_utf8_lossy(bytes), most),
            Self::Starts(_) => "(starts)".into(),
            Self::Connects => "(connects)".into(),
            Self::Leaves => "(leaves)".into(),
            Self::Content(1) => "(1 byte)".into(),
            Self::Content(bytes) => format!("({bytes} bytes)"),
            Self::Note(note) => format!("({})", shorten(note, most)),
        }
    }
}

/// Shared by all parties of a check.
#[derive(Clone)]
pub struct Recorder {
    start: Instant,
    kept: Arc<Mutex<Kept>>,
    connections: Arc<AtomicU32>,
    precedents: Arc<Precedents>,
    /// Of which connection this one tells.
    connection: Option<u32>,
}

#[derive(Default)]
struct Kept {
    events: Vec<Event>,
    bytes: usize,
    remarks: Vec<String>,
    is_set_up: bool,
    /// When a Dstore was last told something that belongs to a rebalance.
    rebalanced: Option<Instant>,
    dropped: usize,
}

impl Recorder {
    /// The clock starts now.
    pub fn start(precedents: Arc<Precedents>) -> Self {
        let (kept, connections) = (Arc::default(), Arc::default());
        Self { start: Instant::now(), kept, connections, precedents, connection: None }
    }

    /// Waits for something that is due: `wait` gets how long, and returns what came, or nothing. In the `patience` of a check that is
    /// waited for in full, unless it has never come in the whole run.
    pub fn wait_for<T>(
        &self,
        awaited: &str,
        patience: Duration,
        wait: impl FnOnce(Duration) -> Option<T>,
    ) -> Option<T> {
        let most = self.precedents.patience(awaited, patience);
        let came = wait(most);
        match came {
            Some(_) => self.precedents.came(awaited),
            None => self.precedents.in_vain(awaited, most, patience),
        }
        if came.is_none() && most < patience {
            let (most, patience) = (most.as_secs_f64(), patience.as_secs_f64());
            let remark = format!(
                "waited {most:.1} s for {awaited}, not {patience:.0} s: in {ENOUGH} checks before, it did not come either"
            );
            self.kept.lock().remarks.push(remark);
        }
        came
    }

    /// The programs have started, and do what they must before anything can be checked.
    pub fn set_up(&self) {
        self.kept.lock().is_set_up = true;
    }

    /// Whether the programs have got so far.
    pub fn is_set_up(&self) -> bool {
        self.kept.lock().is_set_up
    }

    /// Whether a rebalance has gone on since.
    pub fn has_rebalanced_since(&self, start: Instant) -> bool {
        self.kept.lock().rebalanced.is_some_and(|at| at >= start)
    }

    /// What was not done as it is done for others.
    pub fn remarks(&self) -> Vec<String> {
        self.kept.lock().remarks.clone()
    }

    /// The same record, for what is said on a new connection.
    pub fn of_a_connection(&self) -> Self {
        Self { connection: Some(self.connections.fetch_add(1, Ordering::Relaxed)), ..self.clone() }
    }

    /// A party connects to another.
    pub fn connects(&self, from: &str, to: &str) {
        self.push(from, to, What::Connects, false);
    }

    /// `mark` has no more use for its end of the connection.
    pub fn leaves(&self, from: &str, to: &str) {
        self.push(from, to, What::Leaves, false);
    }

    /// A program is started, with values in its command's places.
    pub fn starts(&self, name: &str, values: &[(&str, String)]) {
        let values = values.iter().map(|(place, value)| ((*place).to_owned(), value.clone())).collect();
        self.push(name, name, What::Starts(values), false);
    }

    /// A party sends bytes that are no line, or not only one.
    pub fn bytes(&self, from: &str, to: &str, bytes: &[u8]) {
        self.push(from, to, What::Bytes(bytes[..bytes.len().min(KEPT_CHARS)].to_owned()), false);
    }

    /// A party says a line.
    pub fn line(&self, from: &str, to: &str, line: &str) {
        self.push(from, to, What::Line(line.into()), false);
    }

    /// A party sends content; pieces of the same transfer are added up.
    pub fn content(&self, from: &str, to: &str, bytes: u64) {
        let mut kept = self.kept.lock();
        if let Some(Event { from: last_from, to: last_to, what: What::Content(sum), connection, .. }) =
            kept.events.last_mut()
            && *connection == self.connection
            && last_from == from
            && last_to == to
        {
            *sum += bytes;
            return;
        }
        drop(kept);
        self.push(from, to, What::Content(bytes), false);
    }

    /// Something else happens between two, or to one.
    pub fn note(&self, from: &str, to: &str, note: &str) {
        self.push(from, to, What::Note(note.into()), false);
    }

    /// What should have come has not: an arrow that is missing.
    pub fn missing(&self, from: &str, to: &str, note: &str) {
        self.push(from, to, What::Note(note.into()), true);
    }

    /// The last arrow from one to another is the one that is wrong.
    pub fn mark_wrong(&self, from: &str, to: &str) {
        let mut kept = self.kept.lock();
        let is_it = |event: &&mut Event| event.from == from && event.to == to && event.what.is_shown();
        if let Some(event) = kept.events.iter_mut().rev().find(is_it) {
            event.is_wrong = true;
        }
    }

    fn push(&self, from: &str, to: &str, what: What, is_wrong: bool) {
        let mut kept = self.kept.lock();
        let most = if kept.bytes < KEPT_BYTES { KEPT_CHARS } else { SHOWN_CHARS };
        let what = match what {
            What::Line(line) if line.len() > most => What::Line(shorten(&line, most)),
            What::Note(note) if note.len() > most => What::Note(shorten(&note, most)),
            what => what,
        };
        if let What::Line(text) | What::Note(text) = &what {
            kept.bytes += text.len();
        }
        let is_of_a_rebalance = |line: &String| begins(line, "LIST") || begins(line, "REBALANCE");
        if from == "controller"
            && to.starts_with("dstore ")
            && matches!(&what, What::Line(line) if is_of_a_rebalance(line))
        {
            kept.rebalanced = Some(Instant::now());
        }
        let at = self.start.elapsed();
        if kept.events.len() < KEPT_EVENTS || is_wrong {
            let connection = self.connection;
            kept.events.push(Event { at, connection, from: from.into(), to: to.into(), what, is_wrong });
        } else {
            kept.dropped += 1;
        }
    }

    /// All that has been recorded so far.
    pub fn events(&self) -> Vec<Event> {
        let kept = self.kept.lock();
        let mut events = kept.events.clone();
        if kept.dropped > 0 {
            let what = What::Note(format!("{} more messages are not shown", kept.dropped));
            events.push(Event {
                at: self.start.elapsed(),
                connection: None,
                from: "mark".into(),
                to: "mark".into(),
                what,
                is_wrong: false,
            });
        }
        events
    }
}

fn shorten(text: &str, most: usize) -> String {
    let printable = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let mut short: String = text.chars().take(most).map(printable).collect();
    if text.chars().nth(most).is_some() {
        short += &format!("... ({} bytes)", text.len());
    }
    short
}

/// A duration as a number of seconds, which people can read.
mod in_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e6)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}
