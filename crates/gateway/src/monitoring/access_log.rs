//! A line for each request, in the common log format that many programs read.
//!
//! `127.0.0.1 - alice [22/Nov/2026:13:40:00 +0000] "GET /a%20b HTTP/1.1" 200 613`
//!
//! A log that was renamed, as `logrotate` does, is begun anew at its path within a second.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::journal::Answered;
use crate::access::ANONYMOUS;

/// How often it is looked whether the file is still at its path.
const PERIOD: Duration = Duration::from_secs(1);

/// Where requests are logged.
pub struct AccessLog {
    /// `None` for stdout.
    file: Option<Mutex<LogFile>>,
}

struct LogFile {
    path: PathBuf,
    file: File,
    looked: Instant,
    /// The last attempt to write has failed, and that was said.
    has_failed: bool,
}

impl AccessLog {
    /// Appends to a file.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        let log = LogFile { path: path.to_owned(), file: open(path)?, looked: Instant::now(), has_failed: false };
        Ok(Self { file: Some(Mutex::new(log)) })
    }

    /// Prints.
    pub fn to_stdout() -> Self {
        Self { file: None }
    }

    /// Logs a request. What cannot be written is lost: requests are answered nevertheless.
    pub(super) fn write(&self, answered: &Answered<'_>) {
        let line = line(answered, SystemTime::now());
        match &self.file {
            Some(file) => file.lock().write(&line),
            None => drop(io::stdout().lock().write_all(line.as_bytes())),
        }
    }
}

impl LogFile {
    fn write(&mut self, line: &str) {
        if self.looked.elapsed() >= PERIOD {
            self.looked = Instant::now();
            self.follow_path();
        }
        let written = self.file.write_all(line.as_bytes());
        if let Err(error) = &written
            && !self.has_failed
        {
            log::error!("{}: requests cannot be logged: {error}", self.path.display());
        }
        self.has_failed = written.is_err();
    }

    /// Opens the path again if another file is there now, or none.
    fn follow_path(&mut self) {
        let place = |found: io::Result<std::fs::Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
        if place(std::fs::metadata(&self.path)) != place(self.file.metadata())
            && let Ok(file) = open(&self.path)
        {
            self.file = file;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn line(answered: &Answered<'_>, now: SystemTime) -> String {
    let Answered { peer, user, request: (method, target, protocol), status, sent, .. } = answered;
    let user = if *user == ANONYMOUS { "-".to_owned() } else { tame(user) };
    let (method, target) = (tame(method), tame(target));
    let (time, status, ip) = (time(now), status.as_u16(), peer.ip());
    format!("{ip} - {user} [{time}] \"{method} {target} {protocol}\" {status} {sent}\n")
}

/// Keeps a word from being taken for more than one.
fn tame(word: &str) -> String {
    let is_tame = |c: char| !c.is_control() && !c.is_whitespace() && c != '"' && c != '\\';
    word.chars().map(|c| if is_tame(c) { c.to_string() } else { format!("\\x{:02x}", u32::from(c)) }).collect()
}

/// `22/Nov/2026:13:40:00 +0000`, of the same words as HTTP's `Sun, 22 Nov 2026 13:40:00 GMT`.
fn time(now: SystemTime) -> String {
    let date = httpdate::fmt_http_date(now);
    match date.split(' ').collect::<Vec<_>>()[..] {
        [_, day, month, year, time, _] => format!("{day}/{month}/{year}:{time} +0000"),
        _ => date,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Facade;
    use super::*;
    use hyper::StatusCode;
    use kit::TempFolder;

    fn line_of(user: &str, target: &str, sent: u64) -> String {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(951_782_401);
        let status = StatusCode::NOT_FOUND;
        let (peer, waited) = ("10.0.0.7:999".parse().unwrap(), Duration::ZERO);
        let request = ("GET", target, "HTTP/1.1");
        line(&Answered { facade: Facade::Http, peer, user, label: "GET", request, status, sent, waited }, at)
    }

    #[test]
    fn a_line_is_what_readers_of_the_common_format_expect() {
        assert_eq!(
            line_of("alice", "/a%20b?x=1", 613),
            "10.0.0.7 - alice [29/Feb/2000:00:00:01 +0000] \"GET /a%20b?x=1 HTTP/1.1\" 404 613\n"
        );
        assert!(line_of(ANONYMOUS, "/", 0).starts_with("10.0.0.7 - - ["));
        assert!(line_of("al ice\n\"", "/", 0).starts_with("10.0.0.7 - al\\x20ice\\x0a\\x22 ["));
    }

    #[test]
    fn a_log_that_was_renamed_is_begun_anew() {
        let folder = TempFolder::new();
        let (path, old) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let log = AccessLog::to_file(&path).unwrap();
        let file = log.file.as_ref().unwrap();
        file.lock().write("one\n");
        std::fs::rename(&path, &old).unwrap();
        kit::eventually("it is begun anew", || {
            file.lock().write("two\n");
            path.exists()
        });
        assert!(std::fs::read_to_string(&old).unwrap().starts_with("one\n"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }
}
