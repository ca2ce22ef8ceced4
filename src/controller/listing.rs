//! The answer to LIST, made once for each version of the index. (spec 4.5)
//!
//! A long list that many clients ask for and read slowly is in memory once, not once for each of them. It is put together
//! with the state free for others: names are copied out of the index a slice at a time.

use super::gate::{Request, Shut};
use super::shared::Controller;
use crate::index::Refusal;
use crate::protocol::{FileName, Line, Message};
use crate::sync::Mutex;

/// How many names are copied under one lock, as long as the index does not change meanwhile.
const SLICE: usize = 4096;

/// How often copying begins anew because the index has changed, before all names are copied under one lock.
const ATTEMPTS: usize = 3;

/// The latest answer that was made, and for which version of the index.
///
/// Locked while an answer is made: clients that ask meanwhile get the same. Locked before the state.
#[derive(Default)]
pub(super) struct Listing(Mutex<Option<(u64, Line)>>);

impl Controller {
    /// LIST: the complete files. (spec 4.5)
    pub(super) fn list(&self) -> Result<Line, Shut> {
        self.gate.enter(Request::Look, || ())?;
        Ok(self.latest_list().unwrap_or_else(|refusal| Line::new(&refusal.into())))
    }

    fn latest_list(&self) -> Result<Line, Refusal> {
        let mut latest = self.listing.0.lock();
        let version = self.version()?;
        if let Some((_, line)) = latest.as_ref().filter(|(of, _)| *of == version) {
            return Ok(line.clone());
        }
        *latest = None; // so that it need not be in memory beside the new one
        let slices = [SLICE; ATTEMPTS].into_iter().chain([usize::MAX]);
        let copied = slices.into_iter().find_map(|slice| self.copy_names(slice).transpose());
        let (version, names) = copied.expect("one slice of any size is all names")?;
        let line = Line::new(&Message::List { names });
        *latest = Some((version, line.clone()));
        Ok(line)
    }

    fn version(&self) -> Result<u64, Refusal> {
        let state = self.state.lock();
        if state.index.has_enough_dstores() { Ok(state.index.version()) } else { Err(Refusal::NotEnoughDstores) }
    }

    /// The complete files, copied `slice` names at a time, and the version of the index that they are; `None` if it has
    /// changed in between.
    fn copy_names(&self, slice: usize) -> Result<Option<(u64, Vec<FileName>)>, Refusal> {
        let mut names: Vec<FileName> = Vec::new();
        let mut begun = None;
        loop {
            let (version, part) = {
                let state = self.state.lock();
                (state.index.version(), state.index.list_after(names.last(), slice)?)
            };
            if *begun.get_or_insert(version) != version {
                return Ok(None);
            }
            let is_all = part.len() < slice;
            names.extend(part);
            if is_all {
                return Ok(Some((version, names)));
            }
        }
    }
}
