//! One thread that writes a log, so that no thread that serves ever waits for the log's reader.
//!
//! A thread that logs only appends its line to a queue in memory. The writer takes all that has come, writes it, and
//! looks again after [`PAUSE`]. So a line that comes alone is written at once, and under load hundreds share a system
//! call. A reader that is slower than the log costs memory up to a limit; after that lines are left out. How many were
//! left out is written in their place.
//!
//! ```text
//!  serving threads ──append──▶ queue (whole lines, at most 4 MiB) ──all of it──▶ writer ──write──▶ file, pipe, terminal
//! ```

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How many bytes may wait to be written: some 10,000 requests, or a quarter of a second of a Controller at full load.
const QUEUE_BYTES: usize = 4 << 20;

/// A queue keeps this much memory for the next lines, however much it once held.
const KEPT_BYTES: usize = 64 << 10;

/// How long the writer lets lines gather after it has written some.
const PAUSE: Duration = Duration::from_millis(5);

/// At most this much goes into one write, unless a single line is longer. A pipe takes so much in one piece on Linux, so
/// that the lines of programs that share a pipe do not mix.
const PIECE_BYTES: usize = 4096;

/// How long [`LogWriter::flush`] waits while the reader takes nothing at all.
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// How long to wait for an output that does not block and takes nothing now.
const RETRY: Duration = Duration::from_millis(5);

/// Appends lines to a log that a thread of its own writes. Clones append to the same log.
#[derive(Clone)]
pub(super) struct LogWriter {
    queue: Arc<Queue>,
}

struct Queue {
    state: Mutex<State>,
    limit: usize,
    /// There is something to write, after there was nothing.
    filled: Condvar,
    /// A flush has begun.
    flushing: Condvar,
    /// Something has been written.
    progress: Condvar,
}

#[derive(Default)]
struct State {
    /// Whole lines, in the order in which they came.
    lines: Vec<u8>,
    /// Lines for which there was no room; all of them came after `lines`.
    left_out: u64,
    /// Bytes that the writer has taken and not written yet.
    unwritten: usize,
    /// Bytes written so far.
    written: u64,
    /// Threads that wait for everything to be written.
    flushes: usize,
}

impl LogWriter {
    /// Starts the thread that writes to `output`. It ends with the process.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        Self::with_limit(QUEUE_BYTES, output)
    }

    fn with_limit(limit: usize, output: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            limit,
            filled: Condvar::new(),
            flushing: Condvar::new(),
            progress: Condvar::new(),
        });
        let writing = Arc::clone(&queue);
        thread::Builder::new().name("log".into()).spawn(move || writing.write_to(output))?;
        Ok(Self { queue })
    }

    /// Appends one line, with its ending. Never waits for the writer.
    pub(super) fn append(&self, line: &[u8]) {
        let mut state = self.queue.state.lock();
        let was_empty = state.is_empty();
        // Once a line is left out those after it are, too: the place of the count must be true.
        if state.left_out == 0 && state.unwritten + state.lines.len() + line.len() <= self.queue.limit {
            state.lines.extend_from_slice(line);
        } else {
            state.left_out += 1;
        }
        drop(state);
        if was_empty {
            self.queue.filled.notify_one();
        }
    }

    /// Waits until all lines appended so far are written. Gives up where the reader takes nothing for a while.
    pub(super) fn flush(&self) {
        let queue = &*self.queue;
        let mut state = queue.state.lock();
        state.flushes += 1;
        queue.flushing.notify_one();
        let mut seen = state.written;
        let mut deadline = Instant::now() + FLUSH_PATIENCE;
        while state.unwritten > 0 || !state.is_empty() {
            let has_timed_out = queue.progress.wait_until(&mut state, deadline).timed_out();
            if state.written != seen {
                seen = state.written;
                deadline = Instant::now() + FLUSH_PATIENCE;
            } else if has_timed_out {
                break;
            }
        }
        state.flushes -= 1;
    }
}

/// For `env_logger`, which hands over a line at a time and flushes after each: only [`LogWriter::flush`] waits.
impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.left_out == 0
    }
}

impl Queue {
    fn write_to(&self, mut output: impl Write) {
        let mut batch = Vec::new();
        let mut state = self.state.lock();
        loop {
            while state.is_empty() {
                self.filled.wait(&mut state);
            }
            std::mem::swap(&mut state.lines, &mut batch);
            if state.left_out > 0 {
                batch.extend_from_slice(format!("({} lines are missing here: {REASON})\n", state.left_out).as_bytes());
                state.left_out = 0;
            }
            state.unwritten = batch.len();
            drop(state);

            let mut rest = batch.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(piece(rest));
                write_all(&mut output, now);
                rest = later;
                let mut state = self.state.lock();
                state.unwritten = rest.len();
                state.written += now.len() as u64;
                self.progress.notify_all();
            }
            batch.clear();
            batch.shrink_to(KEPT_BYTES);

            state = self.state.lock();
            if state.flushes == 0 {
                self.flushing.wait_for(&mut state, PAUSE);
            }
        }
    }
}

const REASON: &str = "the log is read more slowly than it is written";

/// How many bytes of `lines` to write at once: as many whole lines as fit, and at least one.
fn piece(lines: &[u8]) -> usize {
    let end_of_line = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte == b'\n').map(|at| at + 1);
    let fits = &lines[..lines.len().min(PIECE_BYTES)];
    let first_line = || lines.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
    end_of_line(fits).or_else(first_line).unwrap_or(lines.len())
}

/// What cannot be written is lost: there is no other place to say so.
fn write_all(output: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match output.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A program that shares the pipe has made it one that does not block.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(_) => return,
        }
    }
    let _ = output.flush();
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// An output that takes a piece only when the test allows it.
    struct Gated {
        allowed: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Gated {
        fn new() -> (Self, Sender<()>, Arc<Mutex<Vec<u8>>>) {
            let (allow, allowed) = channel();
            let written = Arc::default();
            (Self { allowed, written: Arc::clone(&written) }, allow, written)
        }
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the test has dropped its end everything is allowed.
            let _ = self.allowed.recv();
            self.written.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn text(written: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(written.lock().clone()).unwrap()
    }

    #[test]
    fn a_flush_returns_once_all_lines_are_written_in_order() {
        let (output, allow, written) = Gated::new();
        let log = LogWriter::start(output).unwrap();
        drop(allow);
        let lines: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
        lines.split_inclusive('\n').for_each(|line| log.append(line.as_bytes()));
        log.flush();
        assert_eq!(text(&written), lines);
    }

    #[test]
    fn lines_beyond_the_limit_are_counted_in_their_place() {
        let (output, allow, written) = Gated::new();
        let log = LogWriter::with_limit(30, output).unwrap();
        log.append(b"taken by the writer\n");
        while log.queue.state.lock().unwritten == 0 {
            thread::yield_now();
        }
        for line in ["123456789\n", "too long for the rest\n", "short\n"] {
            log.append(line.as_bytes());
        }
        drop(allow);
        log.flush();
        log.append(b"after\n");
        log.flush();
        let expected = format!("taken by the writer\n123456789\n(2 lines are missing here: {REASON})\nafter\n");
        assert_eq!(text(&written), expected);
    }

    #[test]
    fn a_flush_gives_up_on_a_reader_that_takes_nothing() {
        let (output, allow, written) = Gated::new();
        let log = LogWriter::start(output).unwrap();
        log.append(b"a line\n");
        log.flush();
        assert_eq!(text(&written), "");
        drop(allow);
        log.flush();
        assert_eq!(text(&written), "a line\n");
    }

    #[test]
    fn a_write_ends_at_the_end_of_a_line() {
        let (short, long) = ("x\n".repeat(3000), "y".repeat(5000) + "\n");
        assert_eq!(piece(b"one\n"), 4);
        assert_eq!(piece(short.as_bytes()), PIECE_BYTES);
        assert_eq!(piece(format!("{long}{long}").as_bytes()), long.len(), "a line is not cut");
        assert_eq!(piece(format!("x\n{long}").as_bytes()), 2);
    }

    #[test]
    fn an_output_that_would_block_is_tried_again() {
        struct Busy(u32, Arc<Mutex<Vec<u8>>>);
        impl Write for Busy {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                if self.0 % 2 == 1 {
                    return Err(ErrorKind::WouldBlock.into());
                }
                self.1.lock().push(bytes[0]);
                Ok(1)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = Arc::default();
        let log = LogWriter::start(Busy(0, Arc::clone(&written))).unwrap();
        log.append(b"whole\n");
        log.flush();
        assert_eq!(text(&written), "whole\n");
    }
}
