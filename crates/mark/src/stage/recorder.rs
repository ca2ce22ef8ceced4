//! What was said during a check: who, to whom, when. The transcript and the diagram of a failure are made of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// So much of one check is kept; whatever a submission sends, a report stays readable and memory bounded.
const KEPT_EVENTS: usize = 4_000;

/// So much of one line is kept.
const KEPT_CHARS: usize = 400;

/// One arrow of a sequence diagram.
#[derive(Clone, Debug)]
pub struct Event {
    /// Since the check began.
    pub at: Duration,
    /// Who speaks.
    pub from: String,
    /// To whom; the same as `from` for something that happens to one alone.
    pub to: String,
    /// What.
    pub what: What,
    /// Whether the check failed over this one.
    pub is_wrong: bool,
}

/// What goes along an arrow.
#[derive(Clone, Debug)]
pub enum What {
    /// A line of the protocol, as it was sent.
    Line(String),
    /// So many bytes of content.
    Content(u64),
    /// Anything else that matters: a connection ends, a process is killed, nothing comes.
    Note(String),
}

impl What {
    /// As one line of a transcript.
    pub fn text(&self) -> String {
        match self {
            Self::Line(line) => line.clone(),
            Self::Content(1) => "(1 byte)".into(),
            Self::Content(bytes) => format!("({bytes} bytes)"),
            Self::Note(note) => format!("({note})"),
        }
    }
}

/// Shared by everybody who plays a part in a check.
#[derive(Clone)]
pub struct Recorder {
    start: Instant,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    events: Vec<Event>,
    dropped: usize,
}

impl Recorder {
    /// The clock starts now.
    pub fn start() -> Self {
        Self { start: Instant::now(), kept: Arc::default() }
    }

    /// Somebody says a line.
    pub fn line(&self, from: &str, to: &str, line: &str) {
        self.push(from, to, What::Line(shorten(line)), false);
    }

    /// Somebody sends content; pieces of the same transfer are added up.
    pub fn content(&self, from: &str, to: &str, bytes: u64) {
        let mut kept = self.kept.lock();
        if let Some(Event { from: last_from, to: last_to, what: What::Content(sum), .. }) = kept.events.last_mut()
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
        self.push(from, to, What::Note(shorten(note)), false);
    }

    /// What should have come has not: an arrow that is missing.
    pub fn missing(&self, from: &str, to: &str, note: &str) {
        self.push(from, to, What::Note(shorten(note)), true);
    }

    /// The last arrow from one to another is the one that is wrong.
    pub fn mark_wrong(&self, from: &str, to: &str) {
        let mut kept = self.kept.lock();
        if let Some(event) = kept.events.iter_mut().rev().find(|event| event.from == from && event.to == to) {
            event.is_wrong = true;
        }
    }

    fn push(&self, from: &str, to: &str, what: What, is_wrong: bool) {
        let mut kept = self.kept.lock();
        let at = self.start.elapsed();
        if kept.events.len() < KEPT_EVENTS || is_wrong {
            kept.events.push(Event { at, from: from.into(), to: to.into(), what, is_wrong });
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
                from: "mark".into(),
                to: "mark".into(),
                what,
                is_wrong: false,
            });
        }
        events
    }
}

fn shorten(text: &str) -> String {
    let printable = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    let mut short: String = text.chars().take(KEPT_CHARS).map(printable).collect();
    if text.chars().nth(KEPT_CHARS).is_some() {
        short += &format!("... ({} bytes)", text.len());
    }
    short
}
