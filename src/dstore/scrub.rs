//! Reads every copy once in a while, so that one that has gone bad is found as long as there is a good one to heal it
//! from, and not when a client needs it.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{Defect, Dstore};
use crate::protocol::content::CopyError;

/// What looking at a file costs besides reading it, in bytes.
const EACH_FILE: u64 = 4 << 10;

/// No longer period: this much can be added to any time.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// Reads all there is, again and again, spread evenly over each `period`. Ends as soon as `stop` does.
pub(super) fn run(dstore: &Dstore, period: Duration, stop: &Receiver<()>) {
    let mut pace = Pace { period: period.min(LONGEST), began: Instant::now(), rested: Instant::now(), stop };
    // The folder is empty at the start, so that the first round has nothing to do and rests until the second.
    while round(dstore, &mut pace).and_then(|()| pace.rest(1.0)).is_ok() {
        pace.began = Instant::now();
    }
}

/// Reads all there is once. Fails when stopped.
fn round(dstore: &Dstore, pace: &mut Pace) -> io::Result<()> {
    let names = match dstore.folder.list() {
        Ok(names) => names,
        Err(error) => {
            log::error!("scrub: cannot list the folder: {error}");
            return Ok(());
        }
    };
    let total: u64 = names.iter().map(|name| EACH_FILE + dstore.folder.size(name).unwrap_or(0)).sum();
    let (mut copies, mut bytes, mut bad, mut done) = (0_u64, 0_u64, 0_u64, 0_u64);
    for name in &names {
        done += EACH_FILE;
        let mut file = match dstore.folder.open(name) {
            Ok(file) => file,
            Err(Defect::Missing) => continue, // gone since it was listed
            Err(_) => {
                bad += 1; // the folder has seen to it
                continue;
            }
        };
        // It is the disk that is to be looked at.
        file.forget_cached();
        copies += 1;
        let outcome = file.read(&mut |piece| {
            bytes += piece.len() as u64;
            done += piece.len() as u64;
            pace.rest(done as f64 / total.max(done) as f64)
        });
        match outcome {
            Ok(()) => {}
            Err(CopyError::Sink(stopped)) => return Err(stopped),
            Err(CopyError::Source(_)) => {
                bad += 1;
                dstore.folder.examine(&file);
            }
        }
        pace.rest(done as f64 / total.max(done) as f64)?;
    }
    if !names.is_empty() {
        let seconds = pace.began.elapsed().as_secs_f64();
        log::info!("scrub: {copies} copies, {bytes} bytes read in {seconds:.0} s: {bad} bad");
    }
    Ok(())
}

/// When to go on.
struct Pace<'a> {
    period: Duration,
    began: Instant,
    /// When the last rest ended.
    rested: Instant,
    stop: &'a Receiver<()>,
}

impl Pace<'_> {
    /// Waits until this part of the period has passed, and at least as long as has been worked since the last rest: if
    /// there is too much for the period, the disk is still free half of the time. Fails at once when stopped.
    fn rest(&mut self, part: f64) -> io::Result<()> {
        let now = Instant::now();
        let due = self.began + self.period.mul_f64(part);
        let until = due.max(now + (now - self.rested));
        match self.stop.recv_deadline(until) {
            Err(RecvTimeoutError::Timeout) => {
                self.rested = Instant::now();
                Ok(())
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(ErrorKind::Interrupted.into()),
        }
    }
}
