//! The log of the programs: all of it arrives, and no reader of it can hold up a server. (spec 5.2)

#![cfg(unix)]

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use stevedore::protocol::{Connection, Message};

mod common;
use common::{PATIENCE, TempFolder, eventually};

/// A server with a stderr that is read only when the test says so.
struct Unread {
    child: Child,
    port: u16,
}

impl Unread {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).env("RUST_LOG", "info").stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        let port = said.trim_end().strip_prefix("listening on ").unwrap().parse().unwrap();
        Self { child, port }
    }

    fn controller() -> Self {
        Self::start(env!("CARGO_BIN_EXE_controller"), &["0", "1", "60000", "0"])
    }

    fn connect(&self) -> Connection {
        Connection::connect((Ipv4Addr::LOCALHOST, self.port).into(), PATIENCE).unwrap()
    }

    fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// Asks it to end, and returns its exit code.
    fn end(&mut self) -> Option<i32> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the end of `output` on a thread of its own; what has come so far is in the mutex.
fn read_all(mut output: impl Read + Send + 'static) -> (Arc<Mutex<String>>, thread::JoinHandle<()>) {
    let text = Arc::<Mutex<String>>::default();
    let reading = thread::spawn({
        let text = Arc::clone(&text);
        move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                text.lock().push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            }
        }
    });
    (text, reading)
}

/// Sends `line` so many times, up to a hundred ahead of the answers. Returns once each has been answered.
fn ask(client: &mut Connection, line: &str, times: usize) {
    let line = format!("{line}\n");
    for batch in (0..times).step_by(100).map(|done| (times - done).min(100)) {
        client.send_content(line.repeat(batch).as_bytes()).unwrap();
        for _ in 0..batch {
            assert!(matches!(client.receive_within(PATIENCE), Ok(Some(Ok(Message::NotEnoughDstores)))));
        }
    }
}

#[test]
fn an_ordinary_reader_misses_no_line_not_even_the_last() {
    let mut controller = Unread::controller();
    let (log, reading) = read_all(controller.stderr());
    ask(&mut controller.connect(), "LIST", 5000);
    assert_eq!(controller.end(), Some(0));
    reading.join().unwrap();
    let log = log.lock();
    assert_eq!(log.matches("] LIST\n").count(), 5000);
    assert_eq!(log.matches("] ERROR_NOT_ENOUGH_DSTORES\n").count(), 5000);
    assert_eq!(log.matches("missing").count(), 0);
    assert!(log.ends_with("asked to end\n"), "{}", log.lines().last().unwrap_or_default());
}

#[test]
fn an_unread_log_stops_no_server_and_counts_its_lost_lines() {
    const REQUESTS: usize = 12_000;
    let mut controller = Unread::controller();
    let mut client = controller.connect();
    // In all some 5 MB of log: more than may wait for a reader.
    ask(&mut client, &format!("LOAD {}", "x".repeat(255)), REQUESTS);
    let (log, _reading) = read_all(controller.stderr());
    eventually("the place is marked", || log.lock().contains("missing here"));
    ask(&mut client, "LIST", 1);
    eventually("it goes on", || log.lock().ends_with("] ERROR_NOT_ENOUGH_DSTORES\n"));
    let log = log.lock();
    let (before, after) = log.split_once("lines are missing here").unwrap();
    let left_out: usize = before.rsplit_once('(').unwrap().1.trim().parse().unwrap();
    assert_eq!(before.matches(" INFO ").count() + left_out, 2 * REQUESTS);
    assert_eq!(after.matches(" INFO ").count(), 2, "{after}");
}

#[test]
fn a_server_whose_log_is_not_read_ends_when_it_is_told_to() {
    let mut controller = Unread::controller();
    ask(&mut controller.connect(), "LIST", 2000); // the pipe takes a few hundred of their lines
    assert_eq!(controller.end(), Some(0));
}

#[test]
fn a_dstore_whose_log_is_not_read_ends_with_its_controller() {
    // spec 4.1
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let folder = TempFolder::new();
    let files = folder.path().join("files");
    let mut dstore = Unread::start(env!("CARGO_BIN_EXE_dstore"), &["0", &port, "60000", files.to_str().unwrap()]);
    let mut controller = Connection::new(Arc::new(listener.accept().unwrap().0)).unwrap();
    assert!(matches!(controller.receive_within(PATIENCE), Ok(Some(Ok(Message::Join { .. })))));
    for _ in 0..2000 {
        controller.send(&Message::List { names: Vec::new() }).unwrap();
        assert!(matches!(controller.receive_within(PATIENCE), Ok(Some(Ok(Message::List { .. })))));
    }
    drop(controller);
    assert_eq!(dstore.child.wait().unwrap().code(), Some(1));
}

#[test]
fn what_was_logged_before_a_panic_comes_before_its_message() {
    const ROLE: &str = "STEVEDORE_TEST_PANICS";
    if env::var_os(ROLE).is_some() {
        let _log = stevedore::program::start_log("info");
        (0..1000).for_each(|number| log::info!("line {number}"));
        panic!("on purpose");
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "what_was_logged_before_a_panic_comes_before_its_message", "--nocapture"]);
    let output = command.env(ROLE, "1").env_remove("RUST_LOG").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let (before, _) = stderr.split_once("panicked at").expect(&stderr);
    assert_eq!(before.matches(" INFO ").count(), 1000, "{stderr}");
}
