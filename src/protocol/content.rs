//! Content: a known number of bytes, moved through buffers that use bounded memory. (spec 2.3, 7.13)
//!
//! Large buffers make large transfers cheap, but thousands of slow peers must not have one each. So a process has at
//! most `LARGE_BUFFERS` of them, and uses them again and again. A copy that finds none left takes a small buffer, and
//! needs about a third more processor time.

use std::io::{self, ErrorKind, Read};

use parking_lot::Mutex;

use super::Connection;

/// The size in bytes of the buffers that are shared.
const LARGE: usize = 256 << 10;

/// How many of them there are at most: 16 MiB.
const LARGE_BUFFERS: usize = 64;

/// How many are kept while no copy uses them: 1 MiB.
const IDLE_BUFFERS: usize = 4;

/// The size in bytes of a buffer that a copy has for itself.
const SMALL: usize = 32 << 10;

/// Content being received; ends after the promised number of bytes.
pub struct Content<'a> {
    connection: &'a mut Connection,
    remaining: u64,
}

impl<'a> Content<'a> {
    pub(super) fn new(connection: &'a mut Connection, size: u64) -> Self {
        Self { connection, remaining: size }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        match self.connection.read_content(&mut buffer[..wanted])? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            received => {
                self.remaining -= received as u64;
                Ok(received)
            }
        }
    }
}

/// Which side of a copy failed, and how.
#[derive(Debug)]
pub enum CopyError<SourceError = io::Error> {
    /// Where the bytes come from; if that has ended early, with `UnexpectedEof`.
    Source(SourceError),
    /// Where they go.
    Sink(io::Error),
}

impl CopyError {
    /// The same, with what the source's failure means to it.
    pub fn of_source<SourceError: From<io::Error>>(self) -> CopyError<SourceError> {
        match self {
            Self::Source(error) => CopyError::Source(error.into()),
            Self::Sink(error) => CopyError::Sink(error),
        }
    }
}

/// For callers that treat both sides' failures alike.
impl<SourceError: Into<io::Error>> From<CopyError<SourceError>> for io::Error {
    fn from(error: CopyError<SourceError>) -> Self {
        match error {
            CopyError::Source(error) => error.into(),
            CopyError::Sink(error) => error,
        }
    }
}

/// Moves exactly `size` bytes through a buffer of bounded size, whatever `size` is. (spec 2.3, 7.13)
///
/// All copies of a process together use a bounded amount of memory, and 32 KiB each beyond that.
pub fn copy(
    size: u64,
    source: &mut impl Read,
    sink: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), CopyError> {
    if size <= SMALL as u64 {
        copy_through(&mut vec![0; size as usize], size, source, sink)
    } else if let Some(mut lent) = POOL.lend() {
        copy_through(&mut lent.buffer, size, source, sink)
    } else {
        copy_through_own(size, source, sink)
    }
}

/// On the stack, the buffer is given back to the system with the thread. Not inlined, or other copies would have it, too.
#[inline(never)]
fn copy_through_own(
    size: u64,
    source: &mut impl Read,
    sink: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), CopyError> {
    copy_through(&mut [0; SMALL], size, source, sink)
}

fn copy_through(
    buffer: &mut [u8],
    size: u64,
    source: &mut impl Read,
    sink: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), CopyError> {
    let mut remaining = size;
    while remaining > 0 {
        let wanted = remaining.min(buffer.len() as u64) as usize;
        match source.read(&mut buffer[..wanted]) {
            Ok(0) => return Err(CopyError::Source(ErrorKind::UnexpectedEof.into())),
            Ok(received) => {
                sink(&buffer[..received]).map_err(CopyError::Sink)?;
                remaining -= received as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Source(error)),
        }
    }
    Ok(())
}

/// The large buffers of this process.
static POOL: Pool = Pool::new();

struct Pool(Mutex<Buffers>);

struct Buffers {
    idle: Vec<Box<[u8]>>,
    lent: usize,
}

impl Pool {
    const fn new() -> Self {
        Self(Mutex::new(Buffers { idle: Vec::new(), lent: 0 }))
    }

    /// A large buffer, whatever it holds, until what is returned is dropped; `None` if all of them are in use.
    fn lend(&self) -> Option<Lent<'_>> {
        let mut buffers = self.0.lock();
        if buffers.lent == LARGE_BUFFERS {
            return None;
        }
        buffers.lent += 1;
        let idle = buffers.idle.pop();
        drop(buffers);
        let buffer = idle.unwrap_or_else(|| vec![0; LARGE].into_boxed_slice());
        Some(Lent { pool: self, buffer })
    }
}

struct Lent<'a> {
    pool: &'a Pool,
    buffer: Box<[u8]>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut buffers = self.pool.0.lock();
        buffers.lent -= 1;
        if buffers.idle.len() < IDLE_BUFFERS {
            buffers.idle.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_moves_the_promised_bytes_and_names_the_side_that_failed() {
        // spec 7.11, 7.13
        let mut sunk = Vec::new();
        let mut sink = |bytes: &[u8]| {
            sunk.extend_from_slice(bytes);
            Ok(())
        };
        let source: Vec<_> = (0..600_000).map(|n| (n / 7) as u8).collect();
        copy(0, &mut &source[..], &mut sink).unwrap();
        copy(599_999, &mut &source[..], &mut sink).unwrap();
        assert!(sunk == source[..599_999]);

        let short = copy(5, &mut &b"four"[..], &mut |_| Ok(()));
        assert!(matches!(short, Err(CopyError::Source(error)) if error.kind() == ErrorKind::UnexpectedEof));
        let full = copy(5, &mut &b"fives"[..], &mut |_| Err(ErrorKind::StorageFull.into()));
        assert!(matches!(full, Err(CopyError::Sink(error)) if error.kind() == ErrorKind::StorageFull));
    }

    #[test]
    fn large_buffers_have_a_bound_and_few_are_kept() {
        let pool = Pool::new();
        let lent: Vec<_> = std::iter::from_fn(|| pool.lend()).take(LARGE_BUFFERS + 1).collect();
        assert_eq!(lent.len(), LARGE_BUFFERS);
        drop(lent);
        assert_eq!(pool.0.lock().idle.len(), IDLE_BUFFERS);
        let lent: Vec<_> = std::iter::from_fn(|| pool.lend()).take(LARGE_BUFFERS + 1).collect();
        assert_eq!(lent.len(), LARGE_BUFFERS, "all of them can be lent again");
        assert!(lent.iter().all(|lent| lent.buffer.len() == LARGE));
    }
}
