//! What changes while a page is open, as server-sent events.
//!
//! ```text
//! event: status       how the store is, whenever that has changed
//! event: trouble      the store does not say how it is, and why; the next status ends it
//! event: statistics   the samples that are over since the last ones
//! event: changes      files and folders that have changed; its id is where a page that was cut off goes on
//! ```

use std::io::{self, Write};
use std::time::{Duration, Instant};

use depot::client::{ChangeEvent, Error, WatchPage};
use depot::identity::{History, Version};
use depot::path::Path;
use depot::time::Time;
use hyper::header::HeaderName;
use hyper::{Response, StatusCode, header};
use serde_json::{Value, json};

use super::Console;
use super::observer::{MOST_VIEWERS, Viewer};
use crate::access::{Caller, Right};
use crate::http::{Exchange, Problem, is_reserved};
use crate::server::Answer;

/// How long the store may wait for a change before it answers.
const ROUND: Duration = Duration::from_secs(1);

/// At most so often a page is told something: a busy store has more changes than can be read.
const PAUSE: Duration = Duration::from_millis(250);

/// After so long without an event there is a comment, so that a page that has gone is noticed.
const SILENCE: Duration = Duration::from_secs(15);

/// After so long a stream ends. The page begins another one, and the caller's rights are looked at again.
const LONGEST: Duration = Duration::from_secs(60);

/// So many changes are told at a time, the newest; of the others only the number.
const MOST_CHANGES: usize = 100;

/// So far back a page looks when it is opened.
const BACK: u64 = 200;

/// The last event that a page has seen.
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

impl Console {
    /// Tells a page what changes, until it has gone, or the gateway ends.
    pub(super) fn tell_events(&self, exchange: &mut Exchange) -> Result<(), Problem> {
        let caller = exchange.caller.clone();
        let may_know_something = match &caller {
            Caller::User(user) => !user.rights.is_empty(),
            Caller::Anyone => true,
            Caller::Stranger => false,
        };
        if !may_know_something {
            // A user who may read nothing takes no place from those who may.
            caller.check(Right::Read, &Path::root())?;
        }
        let Some(viewer) = self.observer.enter() else {
            let message = format!("there are {MOST_VIEWERS} viewers already");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-viewers", message));
        };
        let seen = exchange.header(LAST_EVENT).and_then(version);
        let head = Response::builder()
            .header(header::CONTENT_TYPE, "text/event-stream")
            .header(header::CACHE_CONTROL, "no-store")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        let Some(answer) = exchange.begin(StatusCode::OK, head, None) else { return Ok(()) };
        let mut stream = Stream { answer, spoke: Instant::now() };
        match self.follow(&viewer, &caller, &mut stream, seen) {
            Ok(()) => stream.answer.finish(),
            Err(error) => log::debug!("a page no longer listens: {error}"),
        }
        Ok(())
    }

    fn follow(&self, viewer: &Viewer, caller: &Caller, stream: &mut Stream, seen: Option<Version>) -> io::Result<()> {
        let began = Instant::now();
        stream.write("retry: 1000\n\n")?;
        let sees_all = caller.check(Right::Read, &Path::root()).is_ok();
        let mut cursor = Cursor { after: seen };
        let (mut observed, mut sampled) = (0, self.statistics.newest());
        let mut last = Value::Null;
        loop {
            let begun = Instant::now();
            if let Some(observation) = viewer.newer_than(observed).filter(|_| sees_all) {
                observed = observation.number;
                let (event, data) = match &observation.found {
                    Ok(status) => ("status", status),
                    Err(problem) => ("trouble", problem),
                };
                if **data != last {
                    stream.event(event, None, data)?;
                    last = (**data).clone();
                }
            }
            let newest = self.statistics.newest();
            if newest > sampled && sees_all {
                stream.event("statistics", None, &self.statistics.json(sampled))?;
                sampled = newest;
            }
            let rest = match cursor.next(caller, |after, wait| self.store.watch(after, wait)) {
                Ok(Some(changes)) => {
                    stream.event("changes", cursor.after, &changes)?;
                    PAUSE
                }
                Ok(None) => PAUSE,
                // How the store is will tell why.
                Err(error) => {
                    log::debug!("no changes can be had: {error}");
                    ROUND
                }
            };
            if stream.spoke.elapsed() >= SILENCE {
                stream.write(":\n\n")?;
            }
            if began.elapsed() >= LONGEST || !viewer.rest_until(begun + rest) {
                return Ok(());
            }
        }
    }
}

/// How far a page has heard of changes.
struct Cursor {
    /// `None` at the beginning.
    after: Option<Version>,
}

impl Cursor {
    /// What has changed since; `None` if nothing has. Where the store has forgotten that, it says so, and goes on from now.
    fn next(
        &mut self,
        caller: &Caller,
        watch: impl Fn(Option<Version>, Duration) -> Result<WatchPage, Error>,
    ) -> Result<Option<Value>, Error> {
        let page = match self.after {
            None => recent(&watch)?,
            Some(after) => match watch(Some(after), ROUND) {
                Err(Error::TooOld) => {
                    self.after = Some(watch(None, Duration::ZERO)?.next);
                    return Ok(Some(json!({ "count": null, "changes": [] })));
                }
                page => page?,
            },
        };
        self.after = Some(page.next);
        // Only of what the caller may read, which the store's own is not. What is about no path is about all of them.
        let may_know = |event: &&ChangeEvent| {
            let about = if event.paths.is_empty() { &[Path::root()][..] } else { &event.paths };
            let may_read = |path: &Path| !is_reserved(path) && caller.check(Right::Read, path).is_ok();
            about.iter().all(may_read)
        };
        let events: Vec<_> = page.events.iter().filter(may_know).collect();
        let skipped = events.len().saturating_sub(MOST_CHANGES);
        let changes = events[skipped..].iter().map(|event| {
            let paths: Vec<_> = event.paths.iter().map(|path| path.as_str()).collect();
            json!({ "time": Time(event.now_ms).to_string(), "time_ms": event.now_ms, "verb": event.verb, "paths": paths })
        });
        let changes: Vec<_> = changes.collect();
        Ok((!changes.is_empty()).then(|| json!({ "count": events.len(), "changes": changes })))
    }
}

/// The last changes: as many as the store remembers, and not many more than [`BACK`].
fn recent(watch: impl Fn(Option<Version>, Duration) -> Result<WatchPage, Error>) -> Result<WatchPage, Error> {
    let now = watch(None, Duration::ZERO)?;
    let mut back = BACK.min(now.next.sequence);
    while back > 0 {
        let after = Version { sequence: now.next.sequence - back, ..now.next };
        match watch(Some(after), Duration::ZERO) {
            // It has forgotten those, or they belong to another history.
            Err(Error::TooOld) => back /= 2,
            page => return page,
        }
    }
    Ok(now)
}

fn version(text: &str) -> Option<Version> {
    let (history, sequence) = text.split_once('.')?;
    Some(Version { history: History(u64::from_str_radix(history, 16).ok()?), sequence: sequence.parse().ok()? })
}

/// What a page listens to.
struct Stream {
    answer: Answer,
    /// When it was last told something.
    spoke: Instant,
}

impl Stream {
    fn event(&mut self, name: &str, id: Option<Version>, data: &Value) -> io::Result<()> {
        let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
        // JSON has no line breaks.
        self.write(&format!("event: {name}\n{id}data: {data}\n\n"))
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.spoke = Instant::now();
        self.answer.write_all(text.as_bytes())
    }
}
