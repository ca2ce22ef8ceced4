//! One failed check's messages again, against the program: what comes now, beside what came then.
//!
//! The recording is a part of the JSON report. Whatever `mark` said then it says again, on connections opened in the same order,
//! and not sooner after the event before than it did then. Nothing is judged: the reader sees where the two begin to differ.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use argh::FromArgs;
use serde::Deserialize;
use stevedore::program::{Failure, positive};

use crate::guard;
use crate::stage::process::Process;
use crate::stage::recorder::{CLOSES, ENDS_SENDING, Event, KILLED, Recorder, What};
use crate::stage::submission::Submission;
use crate::stage::system_scene::Relay;
use crate::stage::wire::{Heard, Wire, begins};
use crate::stage::{self, content, dstore_scene, ports, wait_until};

/// Sends a program the messages of a failed check again, and shows what it says now beside what it said then. Run it in the
/// folder where the commands work.
#[derive(FromArgs)]
#[argh(subcommand, name = "replay", example = "mark replay results.json store/completes-on-the-last")]
pub struct Arguments {
    /// what --json has written
    #[argh(positional, arg_name = "FILE")]
    file: PathBuf,
    /// which failed check, or a part of its id (default: the first of those that fail)
    #[argh(positional, arg_name = "CHECK")]
    check: Option<String>,
    /// the Controller's command, if it is another one now
    #[argh(option, arg_name = "command")]
    controller: Option<String>,
    /// the Dstore's command, if it is another one now
    #[argh(option, arg_name = "command")]
    dstore: Option<String>,
    /// how many seconds to wait for an answer (default 5)
    #[argh(option, from_str_fn(positive), default = "5")]
    patience: usize,
}

/// What is needed of a JSON report.
#[derive(Deserialize)]
struct Report {
    controller: String,
    dstore: String,
    checks: Vec<Recording>,
}

#[derive(Deserialize)]
struct Recording {
    id: String,
    claim: String,
    #[serde(default)]
    expected: String,
    #[serde(default)]
    came: String,
    #[serde(default)]
    messages: Vec<Event>,
}

/// Plays it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let file = arguments.file.display();
    let text =
        fs::read_to_string(&arguments.file).map_err(|error| Failure::usage(format!("cannot read {file}: {error}")))?;
    let report: Report =
        serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{file} is no report of mark: {error}")))?;
    let pattern = arguments.check.as_deref().unwrap_or("");
    let mut failed = report.checks.iter().filter(|check| !check.messages.is_empty());
    let Some(recording) =
        failed.clone().find(|check| check.id == pattern).or_else(|| failed.find(|check| check.id.contains(pattern)))
    else {
        return Err(Failure::usage(format!("{file} holds no messages of a failed check like {pattern:?}")));
    };
    let home = std::env::current_dir().map_err(Failure::new)?;
    let command = |given: &Option<String>, recorded: &str| match given {
        Some(command) => Some(command.clone()),
        None => (!recorded.starts_with(crate::stage::submission::OURS)).then(|| recorded.to_owned()),
    };
    let (controller, dstore) =
        (command(&arguments.controller, &report.controller), command(&arguments.dstore, &report.dstore));
    let submission = Submission::new(controller.as_deref(), dstore.as_deref(), home).map_err(Failure::usage)?;
    guard::guarded(false, |folder| {
        println!("{}\n{}.\n", recording.id, recording.claim);
        let mut replay = Replay::new(recording, &submission, folder, Duration::from_secs(arguments.patience as u64))?;
        for (at, event) in recording.messages.iter().enumerate() {
            let before = at.checked_sub(1).map_or(Duration::ZERO, |before| recording.messages[before].at);
            replay.play(event, event.at.saturating_sub(before))?;
        }
        println!("\nthen: expected {}; came {}", recording.expected, recording.came);
        println!("now:  {} of {} answers are the same as then", replay.same, replay.answers);
        replay.end();
        Ok(())
    })
}

/// A recording on its way.
struct Replay<'a> {
    submission: &'a Submission,
    folder: &'a Path,
    recorder: Recorder,
    patience: Duration,
    /// Those that the recording starts.
    programs: BTreeMap<String, Option<Process>>,
    /// By name: where each program listens, and each of those that `mark` plays.
    ports: BTreeMap<String, u16>,
    /// Of those that `mark` plays.
    listeners: BTreeMap<String, TcpListener>,
    wires: BTreeMap<u32, Wire>,
    /// By name: between the Controller and each Dstore, where both are programs.
    relays: BTreeMap<String, Arc<Relay>>,
    answers: usize,
    same: usize,
}

impl<'a> Replay<'a> {
    fn new(
        recording: &Recording,
        submission: &'a Submission,
        folder: &'a Path,
        patience: Duration,
    ) -> Result<Self, Failure> {
        fs::create_dir_all(folder).map_err(Failure::new)?;
        stage::link_home(&submission.home, folder);
        let mut replay = Self {
            submission,
            folder,
            recorder: Recorder::start(Arc::default()),
            patience,
            programs: BTreeMap::new(),
            ports: BTreeMap::new(),
            listeners: BTreeMap::new(),
            wires: BTreeMap::new(),
            relays: BTreeMap::new(),
            answers: 0,
            same: 0,
        };
        for event in &recording.messages {
            if let What::Starts(values) = &event.what {
                let place = if event.from == "controller" { "{cport}" } else { "{port}" };
                replay.programs.insert(event.from.clone(), None);
                replay.ports.extend(number(values, place).map(|port| (event.from.clone(), port)));
                // Of the Controller, played or real.
                replay.ports.entry("controller".into()).or_insert(number(values, "{cport}").unwrap_or(0));
            }
        }
        let names = recording.messages.iter().flat_map(|event| [&event.from, &event.to]);
        for name in names.filter(|name| *name == "controller" || name.starts_with("dstore ")) {
            if replay.programs.contains_key(name) || replay.listeners.contains_key(name) {
                continue;
            }
            let port = match name.strip_prefix("dstore ") {
                Some(port) => port.parse().unwrap_or(0),
                None => replay.ports.get(name).copied().unwrap_or(0),
            };
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
                Failure::new(format!(
                    "the {name} of the recording listens on port {port}, and now: {error}; try again in a minute"
                ))
            })?;
            replay.listeners.insert(name.clone(), listener);
        }
        Ok(replay)
    }

    /// Plays one event, so long after the one before.
    fn play(&mut self, event: &Event, gap: Duration) -> Result<(), Failure> {
        let is_theirs = self.programs.contains_key(&event.from);
        match &event.what {
            What::Starts(values) => return self.start(event, values),
            What::Connects => return self.connect(event, is_theirs),
            What::Note(note) if note == KILLED && event.from == event.to => {
                self.programs.insert(event.from.clone(), None);
                say(event);
                return Ok(());
            }
            _ => {}
        }
        let wire = event.connection.and_then(|connection| self.wires.get_mut(&connection));
        let Some(wire) = wire else {
            if event.what.is_shown() {
                say(event); // between two programs, or what `mark` looked at
            }
            return self.wait_to_join(event);
        };
        if is_theirs {
            say(event);
            let now = hear(wire, event, self.patience);
            let is_same = now == event.what.text() || event.is_wrong && now.starts_with("(nothing") && !is_line(event);
            self.answers += 1;
            self.same += usize::from(is_same);
            println!("{:14}now: {}", "", if is_same { "the same" } else { &now });
            return Ok(());
        }
        thread::sleep(gap);
        match &event.what {
            What::Line(line) => wire.send(line),
            What::Bytes(bytes) => wire.send_raw(bytes),
            What::Content(size) => _ = wire.send_content(&content(1, *size as usize)),
            What::Note(note) if note == CLOSES => wire.close(),
            What::Note(note) if note == ENDS_SENDING => wire.finish_sending(),
            What::Leaves => _ = event.connection.and_then(|connection| self.wires.remove(&connection)),
            _ => {}
        }
        if event.what.is_shown() {
            say(event);
        }
        Ok(())
    }

    fn start(&mut self, event: &Event, values: &[(String, String)]) -> Result<(), Failure> {
        let is_controller = event.from == "controller";
        let mut values = values.to_vec();
        if !is_controller && self.programs.contains_key("controller") {
            let port = |name: &str| self.ports.get(name).copied().unwrap_or(0);
            let relay = Relay::start(port(&event.from), port("controller"), &self.recorder);
            let relay = relay.map_err(|failure| Failure::new(failure.came))?;
            let its_port = relay.port.to_string();
            values.iter_mut().filter(|(place, _)| place == "{cport}").for_each(|(_, value)| *value = its_port.clone());
            self.relays.insert(event.from.clone(), relay);
        }
        if let Some((_, folder)) = values.iter().find(|(place, _)| place == "{folder}") {
            let _ = fs::create_dir_all(self.folder.join(folder));
        }
        let template = if is_controller { &self.submission.controller } else { &self.submission.dstore };
        let places: Vec<(&str, String)> = values.iter().map(|(place, value)| (place.as_str(), value.clone())).collect();
        let words = template.fill(&places, &self.submission.home);
        println!("{:>12}  {} starts: {}", seconds(event), event.from, words.join(" "));
        self.programs.insert(event.from.clone(), None); // first the older one ends
        let process = Process::start(&words, self.folder, &format!("{}.replay", std::process::id()))
            .map_err(|failure| Failure::new(failure.came))?;
        self.programs.insert(event.from.clone(), Some(process));
        if is_controller { self.wait_to_listen(&event.from) } else { Ok(()) }
    }

    /// What clients say after a Dstore has joined makes no sense before.
    fn wait_to_join(&self, event: &Event) -> Result<(), Failure> {
        let relay =
            self.relays.get(&event.from).filter(|_| matches!(&event.what, What::Line(line) if begins(line, "JOIN")));
        let Some(relay) = relay else { return Ok(()) };
        let joined = wait_until(stage::START, || relay.has_heard("JOIN").then_some(()));
        joined.ok_or_else(|| Failure::new(format!("the {} does not join", event.from)))
    }

    fn wait_to_listen(&self, name: &str) -> Result<(), Failure> {
        let port = self.ports.get(name).copied().unwrap_or(0);
        let listens = wait_until(stage::START, || ports::is_listened_to(port).then_some(()));
        listens.ok_or_else(|| Failure::new(format!("the {name} does not listen on port {port}")))
    }

    fn connect(&mut self, event: &Event, is_theirs: bool) -> Result<(), Failure> {
        let Some(connection) = event.connection else { return Ok(()) };
        let wire = if is_theirs {
            let listener = self.listeners.get(&event.to);
            let accepted = listener.and_then(|listener| dstore_scene::accept(listener, stage::START, || false));
            let Some(stream) = accepted else {
                println!("{:14}now: {} does not connect to {}", "", event.from, event.to);
                return Ok(());
            };
            Wire::over(stream, &event.to, &event.from, &self.recorder)
        } else {
            self.wait_to_listen(&event.to)?;
            let port = self.ports.get(&event.to).copied().unwrap_or(0);
            Wire::connect(&event.from, &event.to, port, &self.recorder).map_err(|failure| Failure::new(failure.came))?
        };
        self.wires.insert(connection, wire);
        Ok(())
    }

    /// What the programs have printed, where a reader may find the reason.
    fn end(self) {
        for (name, process) in self.programs {
            let Some(process) = process else { continue };
            let printed = process.printed();
            let lines: Vec<&str> = printed.lines().rev().take(10).collect();
            if !lines.is_empty() {
                println!("\nthe {name} printed last:");
                lines.iter().rev().for_each(|line| println!("    {line}"));
            }
        }
    }
}

/// What comes now in an event's place.
fn hear(wire: &mut Wire, event: &Event, patience: Duration) -> String {
    if let What::Content(size) = event.what {
        let came = wire.receive_content(usize::try_from(size).unwrap_or(usize::MAX), patience);
        return What::Content(came.len() as u64).text();
    }
    match wire.receive(patience) {
        Heard::Line(line) => What::Line(line).text(),
        Heard::Closed => What::Note(CLOSES.into()).text(),
        Heard::Nothing(waited) => format!("(nothing, for {:.0} s)", waited.as_secs_f64()),
    }
}

fn is_line(event: &Event) -> bool {
    matches!(event.what, What::Line(_) | What::Content(_))
}

fn number(values: &[(String, String)], place: &str) -> Option<u16> {
    values.iter().find(|(known, _)| known == place)?.1.parse().ok()
}

fn seconds(event: &Event) -> String {
    format!("{}{:.3}", if event.is_wrong { "=> " } else { "" }, event.at.as_secs_f64())
}

fn say(event: &Event) {
    let parties = if event.from == event.to { event.from.clone() } else { format!("{} -> {}", event.from, event.to) };
    println!("{:>12}  {parties}: {}", seconds(event), event.what.text());
}
