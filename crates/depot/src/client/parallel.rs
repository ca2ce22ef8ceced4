//! Reading much of a file from all its holders at the same time. (depot 5.5)
//!
//! What is asked for is cut into *pieces*, and each piece is in the share of one of the Dstores that have it; equal ones have equal
//! shares. A thread for each Dstore reads the pieces of its share, one after another. When there is none left, it *steals* one that
//! another has not begun. And when all have been begun, but the next one to be handed over takes its reader much longer than it
//! would take this one, both read it: the first that has it wins.
//!
//! ```text
//!   handed over, in order │ window: whole, being read, or waiting   │ not cut yet
//!  ───────────────────────┼─────────────────────────────────────────┼─────────────▶
//!                       front                              front + WINDOW
//! ```
//!
//! The caller's thread hands over. What no thread can read any more it reads itself, as if there was nothing but
//! [`Download::fetch`], which asks the leader for other holders. The window bounds the memory of a download, and
//! [`Permits`] how many downloads there are of this kind; more of them read one object after another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Error;
use super::download::{Download, Interrupted};
use crate::identity::DstoreId;
use crate::wire::Address;

/// What is read from one Dstore at a time: long enough that asking for it costs little.
const PIECE: u64 = 2 << 20;

/// So many pieces of a download are in memory, or on their way.
const WINDOW: usize = 16;

/// Less than this is read from one Dstore.
pub(super) const LEAST: u64 = 2 * PIECE;

/// So many Dstores are read from at the same time.
const MOST_SOURCES: usize = 8;

/// A reader that takes twice as long as another would, and this much longer, is not waited for.
const SLACK: Duration = Duration::from_millis(20);

/// So many downloads of one client read from several Dstores at the same time.
const MOST_DOWNLOADS: usize = 4;

/// How many downloads may read from several Dstores, and what those have done.
#[derive(Debug, Default)]
pub(super) struct Permits {
    taken: AtomicUsize,
    pieces: AtomicU64,
    stolen: AtomicU64,
    doubled: AtomicU64,
}

/// What a client has read from several Dstores at the same time, since it began. (depot 5.5)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParallelReads {
    /// Pieces of up to 2 MiB.
    pub pieces: u64,
    /// Those among them that one Dstore was to give, and an idle one gave.
    pub stolen: u64,
    /// Those that two Dstores were asked for, since the first one was slow.
    pub doubled: u64,
}

/// One of the [`Permits`].
pub(super) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(super) fn take(&self) -> Option<Permit<'_>> {
        let permit = Permit(self); // dropped again if it is one too many
        (self.taken.fetch_add(1, Ordering::Relaxed) < MOST_DOWNLOADS).then_some(permit)
    }

    pub(super) fn counts(&self) -> ParallelReads {
        let [pieces, stolen, doubled] =
            [&self.pieces, &self.stolen, &self.doubled].map(|count| count.load(Ordering::Relaxed));
        ParallelReads { pieces, stolen, doubled }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of one object.
struct Piece {
    /// Its place among the file's.
    object: usize,
    range: Range<u64>,
    /// The Dstore in whose share it is, if there is one that can give it.
    share: Option<DstoreId>,
    /// Dstores that it is being read from, and since when the first one is.
    readers: Vec<DstoreId>,
    since: Instant,
    /// All of it, once it is there.
    bytes: Option<Vec<u8>>,
}

/// What a thread is to read.
struct Task {
    number: u64,
    object: usize,
    range: Range<u64>,
    buffer: Vec<u8>,
}

struct State {
    /// The number of the window's first piece, which is handed over next.
    front: u64,
    window: VecDeque<Piece>,
    /// What is not cut yet: ranges of objects.
    uncut: VecDeque<(usize, Range<u64>)>,
    /// Dstores for which there is a thread, with the socket that it waits on.
    sources: BTreeMap<DstoreId, Option<Arc<TcpStream>>>,
    /// Dstores that cannot be read from, and Dstores that have no good copy of an object.
    failed: BTreeSet<DstoreId>,
    without: BTreeSet<(usize, DstoreId)>,
    /// Memory of pieces that were handed over.
    spare: Vec<Vec<u8>>,
    is_over: bool,
}

struct Reading<'a> {
    download: &'a Download<'a>,
    permits: &'a Permits,
    state: Mutex<State>,
    /// Signalled at each change of the state.
    changed: Condvar,
}

/// Hands over these ranges of these objects, one after the other.
pub(super) fn copy(
    download: &Download<'_>,
    permit: &Permit<'_>,
    ranges: Vec<(usize, Range<u64>)>,
    sink: &mut dyn Write,
) -> Result<(), Error> {
    let reading = Reading {
        download,
        permits: permit.0,
        state: Mutex::new(State {
            front: 0,
            window: VecDeque::new(),
            uncut: ranges.into(),
            sources: BTreeMap::new(),
            failed: BTreeSet::new(),
            without: BTreeSet::new(),
            spare: Vec::new(),
            is_over: false,
        }),
        changed: Condvar::new(),
    };
    thread::scope(|scope| {
        let _end = End(&reading);
        loop {
            for (holder, address) in reading.cut() {
                let reading = &reading;
                scope.spawn(move || {
                    let lost = Lost(reading, holder);
                    reading.read_from(holder, &address);
                    mem::forget(lost); // it has left in order, and another thread may be in its place by now
                });
            }
            match reading.next() {
                None => return Ok(()),
                Some(Next::Whole(bytes)) => {
                    sink.write_all(&bytes).map_err(Error::Sink)?;
                    reading.state.lock().spare.push(bytes);
                }
                Some(Next::Orphan(object, range)) => download.fetch(object, range, sink)?,
            }
        }
    })
}

/// What is handed over next.
enum Next {
    Whole(Vec<u8>),
    /// No thread can read it.
    Orphan(usize, Range<u64>),
}

impl State {
    /// Whether a Dstore may have a good copy of an object.
    fn can_give(&self, download: &Download<'_>, holder: DstoreId, object: usize) -> bool {
        download.objects[object].holders.contains(&holder)
            && !self.failed.contains(&holder)
            && !self.without.contains(&(object, holder))
    }
}

impl Reading<'_> {
    /// Fills the window. The Dstores that have some of it, and need a thread.
    fn cut(&self) -> Vec<(DstoreId, Address)> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut wanted = BTreeSet::new();
        while state.window.len() < WINDOW
            && let Some((object, range)) = state.uncut.front_mut()
        {
            let (object, from, to) = (*object, range.start, range.end.min(range.start / PIECE * PIECE + PIECE));
            range.start = to;
            if range.is_empty() {
                state.uncut.pop_front();
            }
            let in_share = |holder: &DstoreId| state.window.iter().filter(|piece| piece.share == Some(*holder)).count();
            let holders = self.download.objects[object].holders.iter().copied();
            let able: Vec<_> = holders.filter(|holder| state.can_give(self.download, *holder, object)).collect();
            let share = able.iter().copied().min_by_key(in_share);
            wanted.extend(able);
            let piece =
                Piece { object, range: from..to, share, readers: Vec::new(), since: Instant::now(), bytes: None };
            state.window.push_back(piece);
        }
        let mut starting = Vec::new();
        for holder in wanted {
            if state.sources.len() >= MOST_SOURCES || state.sources.contains_key(&holder) {
                continue;
            }
            match self.download.address(holder) {
                Some(address) => {
                    state.sources.insert(holder, None);
                    starting.push((holder, address));
                }
                None => drop(state.failed.insert(holder)),
            }
        }
        self.changed.notify_all();
        starting
    }

    /// Waits for what is handed over next; `None` at the end.
    fn next(&self) -> Option<Next> {
        let mut state = self.state.lock();
        loop {
            let piece = state.window.front_mut()?;
            let next = match piece.bytes.take() {
                Some(bytes) => Some(Next::Whole(bytes)),
                None => {
                    let (object, range) = (piece.object, piece.range.clone());
                    let is_read = !piece.readers.is_empty();
                    let can_be = state.sources.keys().any(|source| state.can_give(self.download, *source, object));
                    (!is_read && !can_be).then_some(Next::Orphan(object, range))
                }
            };
            if next.is_some() {
                state.window.pop_front();
                state.front += 1;
                return next;
            }
            self.changed.wait(&mut state);
        }
    }

    /// What the thread of a Dstore does, until it leaves.
    fn read_from(&self, holder: DstoreId, address: &Address) {
        let waits_on = |stream: Option<&Arc<TcpStream>>| self.waits_on(holder, stream);
        let mut usual = None;
        while let Some(Task { number, object, range, mut buffer }) = self.take(holder, usual) {
            let begun = Instant::now();
            buffer.clear();
            let mut position = range.start;
            let result = self.download.read_from(address, object, &mut position, range.end, &mut buffer, &waits_on);
            usual = Some(begun.elapsed());
            if let Err(interrupted) = &result
                && !self.state.lock().is_over
            {
                self.download.note(holder, address, object, interrupted);
            }
            let is_damaged = |interrupted| matches!(interrupted, Interrupted::Holder { is_damaged: true, .. });
            self.give(holder, number, object, buffer, result.map_err(is_damaged));
        }
    }

    /// Waits for something that is to be read from a Dstore, which usually takes so long for a piece. If there is nothing in the window
    /// that it could give, its thread has left.
    fn take(&self, holder: DstoreId, usual: Option<Duration>) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            let gives = |piece: &Piece| state.can_give(self.download, holder, piece.object);
            if state.is_over || !state.window.is_empty() && !state.window.iter().any(gives) {
                state.sources.remove(&holder); // before the next piece is cut, which may need it again
                self.changed.notify_all();
                return None;
            }
            let waits = |piece: &Piece| piece.bytes.is_none() && piece.readers.is_empty() && gives(piece);
            let own = state.window.iter().position(|piece| piece.share == Some(holder) && waits(piece));
            let mut at = own.or_else(|| state.window.iter().position(waits));
            let mut again = None;
            if let (None, Some(usual)) = (at, usual) {
                let is_slow = |piece: &Piece| piece.bytes.is_none() && !piece.readers.contains(&holder) && gives(piece);
                let slow = state.window.iter().position(is_slow);
                let due = slow.map(|slow| state.window[slow].since + 2 * usual + SLACK);
                again = due.filter(|_| slow.is_some_and(|slow| state.window[slow].readers.len() == 1));
                at = slow.filter(|_| again.is_some_and(|again| again <= Instant::now()));
            }
            let Some(at) = at else {
                match again {
                    Some(again) => drop(self.changed.wait_until(&mut state, again)),
                    None => self.changed.wait(&mut state),
                }
                continue;
            };
            let number = state.front + at as u64;
            let buffer = state.spare.pop().unwrap_or_default();
            let piece = &mut state.window[at];
            if piece.readers.is_empty() {
                piece.since = Instant::now();
                self.permits.pieces.fetch_add(1, Ordering::Relaxed);
                self.permits.stolen.fetch_add(u64::from(piece.share != Some(holder)), Ordering::Relaxed);
            } else {
                self.permits.doubled.fetch_add(1, Ordering::Relaxed);
            }
            piece.readers.push(holder);
            return Some(Task { number, object: piece.object, range: piece.range.clone(), buffer });
        }
    }

    /// Takes what was read; the error is whether the Dstore's copy is damaged.
    fn give(&self, holder: DstoreId, number: u64, object: usize, bytes: Vec<u8>, result: Result<(), bool>) {
        let mut state = self.state.lock();
        match result {
            Err(true) => drop(state.without.insert((object, holder))),
            Err(false) => drop(state.failed.insert(holder)),
            Ok(()) => {}
        }
        let at = number.checked_sub(state.front); // it may have been handed over already
        let piece = at.and_then(|at| state.window.get_mut(at as usize));
        if let Some(piece) = piece {
            piece.readers.retain(|reader| *reader != holder);
            if result.is_ok() && piece.bytes.is_none() {
                piece.bytes = Some(bytes);
            }
        }
        self.changed.notify_all();
    }

    /// The thread of a Dstore waits on a socket from now on, or on none. When all is over, it is not waited for.
    fn waits_on(&self, holder: DstoreId, stream: Option<&Arc<TcpStream>>) {
        let mut state = self.state.lock();
        if state.is_over {
            stream.into_iter().for_each(|stream| shut_down(stream));
        }
        state.sources.insert(holder, stream.cloned());
    }
}

fn shut_down(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both); // an error means that it has ended already
}

/// A thread that has panicked is not waited for.
struct Lost<'a>(&'a Reading<'a>, DstoreId);

impl Drop for Lost<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.sources.remove(&self.1);
        state.window.iter_mut().for_each(|piece| piece.readers.retain(|reader| *reader != self.1));
        self.0.changed.notify_all();
    }
}

/// All has been handed over, or cannot be: threads that still read are not waited for.
struct End<'a>(&'a Reading<'a>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.is_over = true;
        state.sources.values().flatten().for_each(|stream| shut_down(stream));
        self.0.changed.notify_all();
    }
}
