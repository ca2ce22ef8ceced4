//! A log that nobody reads must not stop the service.

use std::io::{self, Write};
#[cfg(unix)]
use std::os::fd::AsFd as Waitable;
use std::time::Duration;

/// How long one who reads slowly is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a pipe that is ready takes without making anybody wait: on Linux a page is free then, on every system this.
const READY_BYTES: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// Writes all of it as long as somebody reads, however slowly. Once a pipe has been full for [`PATIENCE`], what does
/// not fit is lost, until somebody reads on and is told so.
pub(super) struct Patient<W> {
    inner: W,
    is_stuck: bool,
}

impl<W> Patient<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, is_stuck: false }
    }
}

impl<W: Write + Waitable> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !is_ready(&self.inner, if self.is_stuck { Duration::ZERO } else { PATIENCE }) {
            self.is_stuck = true;
            return Ok(bytes.len());
        }
        if std::mem::take(&mut self.is_stuck) {
            self.inner.write_all(b"\n(some of the log is missing here: nobody read it)\n")?;
            return self.write(bytes);
        }
        self.inner.write(&bytes[..bytes.len().min(READY_BYTES)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(unix)]
fn is_ready(output: &impl Waitable, patience: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let patience = Timespec::try_from(patience).expect("it is a second at most");
    // Whatever is wrong with it the write will tell.
    poll(&mut [PollFd::new(output, PollFlags::OUT)], Some(&patience)) != Ok(0)
}

/// Where readiness cannot be asked for, a write waits.
#[cfg(not(unix))]
fn is_ready(_output: &impl Waitable, _patience: Duration) -> bool {
    true
}

#[cfg(not(unix))]
pub(super) trait Waitable {}

#[cfg(not(unix))]
impl<W> Waitable for W {}
