//! Uploads in parts that are never completed: they are removed when their last part is a week old.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use depot::client::{Error, Files, ListOptions};
use depot::namespace::change::{Condition, Refusal, RemovalExtent};
use depot::namespace::listing::{Listed, Stat};
use depot::path::Path;

use super::object::now_ms;

/// Where uploads in parts are, each in a folder of its bucket.
pub(super) const UPLOADS: &str = "/.stevedore/uploads";

/// So old an upload becomes.
const AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// So long after its start a gateway first looks for them.
const FIRST: Duration = Duration::from_secs(60);

/// So often it looks again.
const PERIOD: Duration = Duration::from_secs(60 * 60);

/// A thread that removes abandoned uploads, until this is dropped. Every gateway has one: to remove what another one has
/// removed does no harm.
pub(crate) struct Expiry {
    // Dropped in this order: the thread ends, and is then joined.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Expiry {
    /// Starts to look.
    pub(crate) fn start(store: Arc<dyn Files>) -> io::Result<Self> {
        let (end, ended) = mpsc::channel();
        let look = move || {
            let mut wait = FIRST;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = PERIOD;
                match remove_abandoned(&*store, AGE) {
                    Ok(0) => {}
                    Ok(removed) => log::info!("{removed} uploads that were never completed have expired"),
                    Err(error) => log::warn!("cannot look for uploads that have expired: {error}"),
                }
            }
        };
        let thread = thread::Builder::new().name("s3-expiry".into()).spawn(look)?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Expiry {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has said why it panicked
        }
    }
}

/// Removes uploads whose last part is older than this; how many.
fn remove_abandoned(store: &dyn Files, age: Duration) -> Result<usize, Error> {
    let newest_ms = now_ms().saturating_sub(age.as_millis() as u64);
    let mut removed = 0;
    let uploads: Path = UPLOADS.parse().expect("it is a path");
    each_entry(store, &uploads, &mut |bucket, _| {
        each_entry(store, bucket, &mut |upload, stat| {
            if stat.modified_ms > newest_ms {
                return Ok(());
            }
            // A part that comes in this moment keeps it.
            let condition = Condition::Changed { version: stat.changed };
            match store.remove_directory(upload, condition, RemovalExtent::Tree) {
                Ok(_) => removed += 1,
                Err(Error::Refused(Refusal::NotFound | Refusal::ConditionFailed)) => {}
                Err(error) => return Err(error),
            }
            Ok(())
        })
    })?;
    Ok(removed)
}

/// Calls `visit` for each entry of a folder, of which a page at a time is in memory.
fn each_entry(
    store: &dyn Files,
    folder: &Path,
    visit: &mut dyn FnMut(&Path, &Stat) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut options = ListOptions::default();
    loop {
        let page = match store.list(folder, &options) {
            Err(Error::Refused(Refusal::NotFound)) => return Ok(()),
            page => page?,
        };
        for Listed { name, stat } in page.entries {
            if let Ok(path) = folder.join(name.trim_end_matches('/')) {
                visit(&path, &stat)?;
            }
        }
        match page.after {
            Some(after) => options.after = after,
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::client::memory::Memory;
    use depot::client::{PutOptions, Source};
    use depot::namespace::change::Details;

    #[test]
    fn an_upload_is_as_old_as_its_last_part() {
        let store = Memory::new("test").unwrap();
        let old = now_ms() - 10_000;
        let folder = |name: &str| -> Path { format!("{UPLOADS}/b/{name}").parse().unwrap() };
        for name in ["old", "used", "new"] {
            let made = if name == "new" { None } else { Some(old) };
            store.make_directory(&folder(name), true, &Details::default(), made).unwrap();
        }
        let part = folder("used").join("00001").unwrap();
        store.put(&part, Source::Once(&mut &b"x"[..]), &PutOptions::default()).unwrap();
        assert_eq!(remove_abandoned(&store, Duration::from_secs(60)).unwrap(), 0);
        assert_eq!(remove_abandoned(&store, Duration::from_secs(5)).unwrap(), 1);
        assert!(store.stat(&folder("old")).is_err() && store.stat(&part).is_ok() && store.stat(&folder("new")).is_ok());
        assert_eq!(remove_abandoned(&store, Duration::ZERO).unwrap(), 2);
    }
}
