//! A program's log: what `RUST_LOG` asks for, on stderr, or the files of the 2021 edition. (spec 5.2, 5.4)
//!
//! Every output has a writer thread of its own (`log_writer`): a pipe that is not read holds up no serving thread, and
//! no other output.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::panic;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use env_logger::{Builder, Env, Logger, Target, WriteStyle};
use log::{LevelFilter, Log, Metadata, Record};

use super::Failure;
use super::log_writer::LogWriter;
use crate::protocol::connection::MESSAGE_LOG;

/// Writes to stderr, once a log has been started.
static STDERR: OnceLock<LogWriter> = OnceLock::new();

/// Writes the rest of the log when it is dropped: keep it for as long as the program runs.
///
/// `std::process::exit` and a signal's default effect drop nothing: call `log::logger().flush()` before them.
#[must_use]
pub struct LogGuard(());

impl Drop for LogGuard {
    fn drop(&mut self) {
        log::logger().flush();
    }
}

/// Logs to stderr what `RUST_LOG` asks for, and `default` where it does not say. Messages of the protocol are logged
/// at level `info` with target `stevedore::messages`. (spec 5.2)
///
/// A program starts one log. What was logged before a panic is written before the panic's message.
pub fn start_log(default: &str) -> Result<LogGuard, Failure> {
    let stderr = stderr().map_err(cannot_start)?;
    let rest = everything(default, stderr.clone());
    install(ProgramLog { messages: None, rest, writers: vec![stderr] })
}

/// The log of the 2021 edition: every message in the file `<name>_<ms>.log` of the current folder and on stdout, without
/// times, and everything else on stderr as usual. (spec 5.4)
pub fn start_log_2021(name: &str) -> Result<LogGuard, Failure> {
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let file = File::create(format!("{name}_{ms}.log"))
        .map_err(|error| Failure::new(format!("cannot write the log file: {error}")))?;
    let file = LogWriter::start(file).map_err(cannot_start)?;
    let stdout = LogWriter::start(io::stdout()).map_err(cannot_start)?;
    let stderr = stderr().map_err(cannot_start)?;
    let messages = Builder::new()
        .filter_level(LevelFilter::Info)
        .format(|line, record| writeln!(line, "{}", record.args()))
        .target(Target::Pipe(Box::new(Both(file.clone(), stdout.clone()))))
        .build();
    let rest = everything("info", stderr.clone());
    install(ProgramLog { messages: Some(messages), rest, writers: vec![file, stdout, stderr] })
}

/// Writes a line to stderr, after what has been logged so far. Where stderr is closed, or is not read, the line is lost.
pub(super) fn write_to_stderr(line: &str) {
    match STDERR.get() {
        Some(writer) => {
            writer.append(format!("{line}\n").as_bytes());
            writer.flush();
        }
        None => {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }
}

fn cannot_start(error: io::Error) -> Failure {
    Failure::new(format!("cannot start the log: {error}"))
}

fn stderr() -> io::Result<LogWriter> {
    let writer = LogWriter::start(io::stderr())?;
    Ok(STDERR.get_or_init(|| writer).clone())
}

fn everything(default: &str, writer: LogWriter) -> Logger {
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    let has_colours = io::stderr().is_terminal() && !is_plain;
    Builder::new()
        .write_style(if has_colours { WriteStyle::Always } else { WriteStyle::Never })
        .parse_env(Env::default().default_filter_or(default))
        .format_timestamp_millis()
        .target(Target::Pipe(Box::new(writer)))
        .build()
}

fn install(program_log: ProgramLog) -> Result<LogGuard, Failure> {
    log::set_max_level(program_log.max_level());
    log::set_boxed_logger(Box::new(program_log)).map_err(|error| cannot_start(io::Error::other(error)))?;
    let usual_hook = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        log::logger().flush();
        usual_hook(panic);
    }));
    Ok(LogGuard(()))
}

struct ProgramLog {
    /// For messages of the protocol, where they are logged apart.
    messages: Option<Logger>,
    rest: Logger,
    writers: Vec<LogWriter>,
}

impl ProgramLog {
    fn of(&self, metadata: &Metadata) -> &Logger {
        self.messages.as_ref().filter(|_| metadata.target() == MESSAGE_LOG).unwrap_or(&self.rest)
    }

    fn max_level(&self) -> LevelFilter {
        self.rest.filter().max(self.messages.as_ref().map_or(LevelFilter::Off, Logger::filter))
    }
}

impl Log for ProgramLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.of(metadata).enabled(metadata)
    }

    fn log(&self, record: &Record) {
        self.of(record.metadata()).log(record);
    }

    fn flush(&self) {
        self.writers.iter().for_each(LogWriter::flush);
    }
}

/// Every line goes to both.
struct Both(LogWriter, LogWriter);

impl Write for Both {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.append(line);
        self.1.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
