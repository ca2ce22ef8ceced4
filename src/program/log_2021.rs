//! The log of the 2021 edition: every message in a file of the current folder and on stdout, without time stamps.
//! (spec 5.4)

use std::fs::File;
use std::io::{self, Stdout, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use env_logger::{Builder, Target};
use log::{LevelFilter, Log, Metadata, Record};

use super::InTurn;
use super::patient::Patient;
use crate::protocol::connection::MESSAGE_LOG;

/// Starts the log in `<name>_<ms>.log`: the messages there and on stdout, everything else on stderr as usual.
pub fn start(name: &str) -> io::Result<()> {
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let file = File::create(format!("{name}_{ms}.log"))?;
    let messages = Builder::new()
        .filter_level(LevelFilter::Info)
        .format(|line, record| writeln!(line, "{}", record.args()))
        .target(Target::Pipe(Box::new(Tee { file, stdout: Patient::new(io::stdout()) })))
        .build();
    let rest = super::log_builder("info").build();
    log::set_max_level(messages.filter().max(rest.filter()));
    let split = Split { messages: InTurn::new(messages), rest: InTurn::new(rest) };
    log::set_boxed_logger(Box::new(split)).map_err(io::Error::other)
}

struct Split {
    messages: InTurn,
    rest: InTurn,
}

impl Split {
    fn of(&self, metadata: &Metadata) -> &InTurn {
        if metadata.target() == MESSAGE_LOG { &self.messages } else { &self.rest }
    }
}

impl Log for Split {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.of(metadata).enabled(metadata)
    }

    fn log(&self, record: &Record) {
        self.of(record.metadata()).log(record);
    }

    fn flush(&self) {
        self.messages.flush();
        self.rest.flush();
    }
}

struct Tee {
    file: File,
    stdout: Patient<Stdout>,
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        // The file is the record; with stdout closed it goes on.
        let _ = self.stdout.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.stdout.flush();
        self.file.flush()
    }
}
