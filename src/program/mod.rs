//! What the four programs share: arguments, the log, exit codes, the client's commands and prompt.
//!
//! The mains stay thin; what can be tested without starting a process is here.

pub mod cluster;
pub mod commands;
pub mod demo;
pub mod log_2021;
mod patient;
pub mod prompt;
pub mod signals;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use argh::{EarlyExit, FromArgs};
use env_logger::{Builder, Env, Logger};
use log::{Log, Metadata, Record};
use parking_lot::Mutex;

use crate::client;

/// The exit codes of all programs. 0 is success, and for a server, which runs until it is told to stop, also its end by
/// SIGINT or SIGTERM. A client that is interrupted dies of the signal: 130 or 143 to a shell. See [`signals`].
pub mod exit_code {
    /// It did not work, for a reason that has no code of its own.
    pub const FAILED: u8 = 1;
    /// The command line makes no sense.
    pub const USAGE: u8 = 2;
    /// There is no such file in the store.
    pub const DOES_NOT_EXIST: u8 = 3;
    /// There is a file of that name in the store.
    pub const ALREADY_EXISTS: u8 = 4;
    /// Fewer than R Dstores have joined.
    pub const NOT_ENOUGH_DSTORES: u8 = 5;
}

/// Why a program ends, or a command fails: one line for a person, one number for a script.
#[derive(Debug)]
pub struct Failure {
    /// What to tell the person.
    pub message: String,
    /// What to tell the script; see [`exit_code`].
    pub code: u8,
}

impl Failure {
    /// A failure that has no code of its own.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), code: exit_code::FAILED }
    }

    /// A command that makes no sense.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), code: exit_code::USAGE }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let code = match error {
            client::Error::DoesNotExist(_) => exit_code::DOES_NOT_EXIST,
            client::Error::AlreadyExists(_) => exit_code::ALREADY_EXISTS,
            client::Error::NotEnoughDstores => exit_code::NOT_ENOUGH_DSTORES,
            _ => exit_code::FAILED,
        };
        Self { message: error.to_string(), code }
    }
}

/// Reads the command line, lets `run` do the work, and turns what comes of it into an exit code: the whole of a main.
pub fn main<Arguments: FromArgs>(program: &str, run: impl FnOnce(Arguments) -> Result<(), Failure>) -> ExitCode {
    let words: Vec<String> = match std::env::args_os().skip(1).map(|word| word.into_string()).collect() {
        Ok(words) => words,
        Err(word) => return fail(program, &Failure::usage(format!("{word:?} is not UTF-8"))),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match Arguments::from_args(&[program], &words) {
        Ok(arguments) => run(arguments),
        Err(EarlyExit { output, status: Ok(()) }) => {
            // Nobody reads on: that is not our failure.
            let _ = writeln!(io::stdout(), "{}", output.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(EarlyExit { output, status: Err(()) }) => {
            let reason = output.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(Failure::usage(format!("{reason} (see {program} --help)")))
        }
    };
    outcome.map_or_else(|failure| fail(program, &failure), |()| ExitCode::SUCCESS)
}

fn fail(program: &str, failure: &Failure) -> ExitCode {
    complain(program, failure);
    ExitCode::from(failure.code)
}

/// One line on stderr. An empty message has been told already; and where stderr is closed there is nobody to tell.
fn complain(program: &str, failure: &Failure) {
    if !failure.message.is_empty() {
        let _ = writeln!(io::stderr(), "{program}: {}", failure.message);
    }
}

/// Logs to stderr what `RUST_LOG` asks for, and `default` where it does not say. Messages of the protocol are logged
/// at level `info` with target `stevedore::messages`. (spec 5.2)
pub fn start_log(default: &str) {
    let logger = log_builder(default).build();
    log::set_max_level(logger.filter());
    log::set_boxed_logger(Box::new(InTurn::new(logger))).expect("a program starts one log");
}

/// Lets threads log in turn. The lock within would go to whoever logs most, and keep the others from their work.
struct InTurn {
    logger: Logger,
    turn: Mutex<()>,
}

impl InTurn {
    fn new(logger: Logger) -> Self {
        Self { logger, turn: Mutex::default() }
    }
}

impl Log for InTurn {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        if self.logger.matches(record) {
            let _turn = self.turn.lock();
            self.logger.log(record);
        }
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

fn log_builder(default: &str) -> Builder {
    let mut builder = Builder::from_env(Env::default().default_filter_or(default));
    builder.format_timestamp_millis();
    // A terminal has colours and somebody before it.
    if !io::stderr().is_terminal() {
        builder.target(env_logger::Target::Pipe(Box::new(patient::Patient::new(io::stderr()))));
    }
    builder
}

/// Says where a server listens, for whoever started it on port 0. On stdout, which scripts read, unless `to_log`.
pub fn say_listening(address: io::Result<SocketAddr>, to_log: bool) -> Result<(), Failure> {
    let port = address.map_err(Failure::new)?.port();
    if to_log {
        log::info!("listening on {port}");
        return Ok(());
    }
    commands::say(format_args!("listening on {port}"))
}

/// Does all of them, tells what fails, and fails with the first failure's code.
pub fn for_each<T>(program: &str, items: &[T], run: impl FnMut(&T) -> Result<(), Failure>) -> Result<(), Failure> {
    let failures = items.iter().map(run).filter_map(Result::err).map(|failure| {
        complain(program, &failure);
        failure.code
    });
    match failures.reduce(|first, _| first) {
        None => Ok(()),
        Some(code) => Err(Failure { message: String::new(), code }), // told already
    }
}

/// The port of somebody who is already listening, for argh.
pub fn peer_port(word: &str) -> Result<u16, String> {
    match word.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("expected a port, 1 to 65535".into()),
    }
}

/// A positive number of milliseconds, for argh.
pub fn milliseconds(word: &str) -> Result<Duration, String> {
    positive(word).map(|ms| Duration::from_millis(ms as u64))
}

/// A positive number of seconds, for argh.
pub fn seconds(word: &str) -> Result<Duration, String> {
    positive(word).map(|seconds| Duration::from_secs(seconds as u64))
}

/// A positive number, for argh.
pub fn positive(word: &str) -> Result<usize, String> {
    match word.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a whole number, 1 or more".into()),
    }
}
