//! What makes a program: arguments, exit codes, the log, signals, output, progress bars, a prompt.
//!
//! The mains stay thin; what can be tested without starting a process is here. What is general serves any program built
//! on this library: [`main`] and [`Failure`], [`start_log`], [`signals`], [`output`], [`progress`], [`prompt`]. The rest
//! belongs to the four programs of this package: the client's [`commands`], a [`cluster`] in one process, its [`demo`].
//!
//! Compiled with the feature `programs`: a program that embeds a Controller, a Dstore or a client can do without.

pub mod cluster;
pub mod commands;
pub mod demo;
mod log_writer;
mod logging;
pub mod output;
pub mod progress;
pub mod prompt;
pub mod signals;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use argh::{EarlyExit, FromArgs};

use crate::client;
use crate::server::raise_descriptor_limit;
pub use logging::{LogGuard, start_log, start_log_2021};
use output::{complain, say};

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
    main_of_words(program, Ok, run)
}

/// The same for a program that has its own way with words: `prepare` makes of the command line's what [`FromArgs`] reads.
pub fn main_of_words<Arguments: FromArgs>(
    program: &str,
    prepare: impl FnOnce(Vec<String>) -> Result<Vec<String>, Failure>,
    run: impl FnOnce(Arguments) -> Result<(), Failure>,
) -> ExitCode {
    raise_descriptor_limit();
    let words: Vec<String> = match std::env::args_os().skip(1).map(|word| word.into_string()).collect() {
        Ok(words) => match prepare(words) {
            Ok(words) => words,
            Err(failure) => return fail(program, &failure),
        },
        Err(word) => return fail(program, &Failure::usage(format!("{word:?} is not UTF-8"))),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match Arguments::from_args(&[program], &words) {
        Ok(arguments) => run(arguments),
        Err(EarlyExit { output, status: Ok(()) }) => {
            // A reader that has seen enough (`| head`) is no failure.
            let _ = say(format_args!("{}", output.trim_end()));
            return ExitCode::SUCCESS;
        }
        Err(EarlyExit { output, status: Err(()) }) => Err(misread(&output, program)),
    };
    outcome.map_or_else(|failure| fail(program, &failure), |()| ExitCode::SUCCESS)
}

/// The failure for what argh says of words that make no sense.
pub fn misread(reason: &str, program: &str) -> Failure {
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    Failure::usage(format!("{reason} (see {program} --help)"))
}

fn fail(program: &str, failure: &Failure) -> ExitCode {
    tell(program, failure);
    ExitCode::from(failure.code)
}

/// Prints one line on stderr. An empty message has been printed already.
fn tell(program: &str, failure: &Failure) {
    if !failure.message.is_empty() {
        complain(format_args!("{program}: {}", failure.message));
    }
}

/// Says where a server listens, which may have been started on port 0. On stdout, which scripts read, unless `to_log`.
pub fn say_listening(address: io::Result<SocketAddr>, to_log: bool) -> Result<(), Failure> {
    let port = address.map_err(Failure::new)?.port();
    if to_log {
        log::info!("listening on {port}");
        return Ok(());
    }
    say(format_args!("listening on {port}"))
}

/// Does all of them, tells what fails, and fails with the first failure's code.
pub fn for_each<T>(program: &str, items: &[T], run: impl FnMut(&T) -> Result<(), Failure>) -> Result<(), Failure> {
    let failures = items.iter().map(run).filter_map(Result::err).map(|failure| {
        tell(program, &failure);
        failure.code
    });
    match failures.reduce(|first, _| first) {
        None => Ok(()),
        Some(code) => Err(Failure { message: String::new(), code }), // told already
    }
}

/// The port of a peer that is listening already, for argh.
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
