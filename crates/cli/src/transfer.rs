//! Many files at a time, with a bar and a summary.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use depot::checksum::{Checksum, Hasher};
use depot::client::ReadAt;
use indicatif::{HumanBytes, ProgressBar};
use parking_lot::Mutex;
use serde_json::json;
use stevedore::client::{NewFile, Target as _};
use stevedore::program::output::{complain, say};
use stevedore::program::{Failure, exit_code, progress};

use crate::show::{self, count};

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// So many bytes were moved.
    Moved(u64),
    /// It was there already, the same.
    Skipped,
}

/// What became of all files.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many were moved.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many were there already.
    pub skipped: u64,
    /// How many failed; each was told.
    pub failed: u64,
    /// Links and special files, which are not taken; each was told.
    pub left_out: u64,
    /// The exit code of the first failure.
    pub code: Option<u8>,
    /// How long it took.
    pub took: Duration,
}

impl Summary {
    /// Tells of a failure, and counts it.
    pub fn fail(&mut self, failure: &Failure) {
        complain(format_args!("{}: {}", crate::PROGRAM, failure.message));
        self.failed += 1;
        self.code.get_or_insert(failure.code);
    }

    /// Tells of a file that is neither a file nor a directory, and counts it.
    pub fn leave_out(&mut self, path: &std::path::Path, what: &str) {
        complain(format_args!("{}: {} is {what}: left out", crate::PROGRAM, path.display()));
        self.left_out += 1;
    }

    /// Prints it, and fails if anything has.
    pub fn finish(&self, verb: &str, as_json: bool) -> Result<(), Failure> {
        let seconds = self.took.as_secs_f64();
        if as_json {
            show::say_json(&json!({
                "files": self.files,
                "bytes": self.bytes,
                "skipped": self.skipped,
                "failed": self.failed,
                "left_out": self.left_out,
                "seconds": seconds,
            }))?;
        } else {
            let took = match self.took.as_millis() {
                ms @ ..1000 => format!("{ms} ms"),
                _ => format!("{seconds:.1} s"),
            };
            let rate = HumanBytes((self.bytes as f64 / seconds.max(1e-6)) as u64);
            let mut text =
                format!("{verb} {}, {} in {took}", count(self.files, "file", "files"), HumanBytes(self.bytes));
            if self.bytes > 0 {
                text += &format!(" ({rate}/s)");
            }
            for (number, what) in
                [(self.skipped, "already there"), (self.failed, "failed"), (self.left_out, "left out")]
            {
                if number > 0 {
                    text += &format!(", {} {what}", indicatif::HumanCount(number));
                }
            }
            say(format_args!("{text}"))?;
        }
        match self.code {
            None => Ok(()),
            Some(code) => Err(Failure { message: String::new(), code }), // told already
        }
    }
}

/// Does `work` for each batch, `jobs` at a time, and adds what became of its items to the summary. A failure is told when it
/// happens, and the others go on.
pub fn run<Item: Sync>(
    batches: &[&[Item]],
    bytes: u64,
    jobs: usize,
    summary: &mut Summary,
    work: impl Fn(&[Item], &ProgressBar, &mut dyn FnMut(Result<Done, Failure>)) + Sync,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let items: usize = batches.iter().map(|batch| batch.len()).sum();
    let bar = progress::of_transfer(items, bytes);
    let said = |ended: usize| format!("{ended} of {}", count(items as u64, "file", "files"));
    bar.set_message(said(0));
    let next = AtomicUsize::new(0);
    let ended = AtomicUsize::new(0);
    let shared = Mutex::new(&mut *summary);
    let note = |outcome| {
        let ended = ended.fetch_add(1, Ordering::Relaxed) + 1;
        bar.set_message(said(ended));
        let mut summary = shared.lock();
        match outcome {
            Ok(Done::Moved(bytes)) => {
                summary.files += 1;
                summary.bytes += bytes;
            }
            Ok(Done::Skipped) => summary.skipped += 1,
            Err(failure) => bar.suspend(|| summary.fail(&failure)),
        }
    };
    let one_after_another = || {
        while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(batch, &bar, &mut |outcome| note(outcome));
        }
    };
    let started = thread::scope(|scope| {
        for number in 1..jobs.min(batches.len()) {
            thread::Builder::new().name(format!("transfer-{number}")).spawn_scoped(scope, one_after_another)?;
        }
        one_after_another();
        io::Result::Ok(())
    });
    bar.finish_and_clear();
    started.map_err(|error| Failure::new(format!("cannot start a thread: {error}")))?;
    summary.took += begun.elapsed();
    Ok(())
}

/// The checksum of all that a reader has, and how much that was.
pub fn checksum(mut reader: impl Read) -> io::Result<(u64, Checksum)> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((size, hasher.checksum())),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file that is being put: what is read of it moves the bar. What is read again does not.
pub struct Counted<'a> {
    file: &'a File,
    bar: &'a ProgressBar,
    /// How far it was read.
    reached: AtomicU64,
}

impl<'a> Counted<'a> {
    /// Nothing is read yet.
    pub fn new(file: &'a File, bar: &'a ProgressBar) -> Self {
        Self { file, bar, reached: AtomicU64::new(0) }
    }
}

impl ReadAt for Counted<'_> {
    fn size(&self) -> io::Result<u64> {
        ReadAt::size(self.file)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = ReadAt::read_at(self.file, buffer, offset)?;
        let end = offset + read as u64;
        let before = self.reached.fetch_max(end, Ordering::Relaxed);
        self.bar.inc(end.saturating_sub(before));
        Ok(read)
    }
}

/// A sink whose bytes move the bar.
pub struct CountedSink<'a, W> {
    /// What takes the bytes.
    pub sink: W,
    /// What shows how many there were.
    pub bar: &'a ProgressBar,
}

impl<W: Write> Write for CountedSink<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        self.bar.inc(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// A new file as a sink.
pub struct ToNewFile<'a>(pub &'a mut NewFile);

impl Write for ToNewFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many files at a time, for argh.
pub fn jobs(word: &str) -> Result<usize, String> {
    match word.parse() {
        Ok(jobs @ 1..=64) => Ok(jobs),
        _ => Err("expected a number from 1 to 64".into()),
    }
}

/// A failure about a local file.
pub fn local(doing: &str, path: &std::path::Path) -> impl Fn(io::Error) -> Failure {
    let what = format!("cannot {doing} {}", path.display());
    move |error| Failure { message: format!("{what}: {error}"), code: exit_code::FAILED }
}
