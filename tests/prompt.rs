//! The prompt as a person at a terminal has it: what is typed too early, pasted, or deceptive to look at. (spec 5)

#![cfg(unix)]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use stevedore::protocol::{Connection, Message};

mod common;
use common::{PATIENCE, eventually};

/// A client at its prompt on a terminal of its own, with the test as its Controller.
struct Prompt {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
    controller: Connection,
}

impl Prompt {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let terminal = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_client"));
        command.args([&port, "60000"]).env("TERM", "xterm").env_remove("RUST_LOG");
        command.stdin(terminal.try_clone().unwrap()).stdout(terminal.try_clone().unwrap()).stderr(terminal);
        let child = command.spawn().unwrap();
        drop(command); // its ends of the terminal
        let keyboard = File::from(master);
        let screen = Arc::<Mutex<String>>::default();
        let (mut output, shown) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                shown.lock().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        let controller = Connection::new(Arc::new(listener.accept().unwrap().0)).unwrap();
        let prompt = Self { child, keyboard, screen, controller };
        prompt.shows("> ");
        prompt
    }

    fn shows(&self, text: &str) {
        eventually(text, || self.screen.lock().contains(text));
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the client's next request.
    fn asks(&mut self, request: &str) {
        match self.controller.receive_within(PATIENCE) {
            Ok(Some(Ok(message))) => assert_eq!(message.to_string(), request),
            other => panic!("{request}: {other:?} {}", self.screen.lock()),
        }
    }

    fn is_answered(&mut self, reply: &str) {
        self.controller.send_content(format!("{reply}\n").as_bytes()).unwrap();
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn lines_typed_while_a_command_runs_are_the_next_commands() {
    let mut prompt = Prompt::start();
    prompt.types("list\r");
    prompt.asks("LIST");
    // The client waits for its answer now, and reads no key.
    prompt.types("remove one\rremove two\rremove three\r");
    prompt.is_answered("LIST one two three");
    for name in ["one", "two", "three"] {
        prompt.asks(&format!("REMOVE {name}"));
        prompt.is_answered("REMOVE_COMPLETE");
    }
    prompt.shows("removed three");
}

#[test]
fn each_line_of_a_pasted_block_is_a_command() {
    let mut prompt = Prompt::start();
    prompt.types("\x1b[200~list\rremove one\rremove two\x1b[201~\r"); // as a terminal marks what is pasted
    prompt.asks("LIST");
    prompt.is_answered("LIST one two");
    for name in ["one", "two"] {
        prompt.asks(&format!("REMOVE {name}"));
        prompt.is_answered("REMOVE_COMPLETE");
    }
    prompt.shows("removed two");
}

#[test]
fn names_that_deceive_are_escaped_on_a_terminal() {
    // Piped, they come as they are: tests/processes.rs.
    let mut prompt = Prompt::start();
    prompt.types("list\r");
    prompt.asks("LIST");
    let names = ["cod.\u{202e}gpj.exe", "plain"].map(|name| name.parse().unwrap());
    prompt.is_answered(&Message::List { names: names.into() }.to_string());
    prompt.shows("cod.\\u{202e}gpj.exe\r\nplain");
    assert!(!prompt.screen.lock().contains('\u{202e}'));
    prompt.types("remove \u{202e}none\r");
    prompt.asks("REMOVE \u{202e}none");
    prompt.is_answered("ERROR_FILE_DOES_NOT_EXIST");
    prompt.shows("\\u{202e}none does not exist");
}
