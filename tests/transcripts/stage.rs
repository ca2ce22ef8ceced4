//! Plays one case: starts the real process, plays all other parties, and notes each difference from the transcript.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use kit::TempFolder;
use stevedore::{controller, dstore};

use crate::peer::{Came, Peer};
use crate::script::{self, Action, Case, Heard, Name, Said, Setting, Step};

/// How long nothing must come for `(nothing)`.
const QUIET: Duration = Duration::from_millis(80);

/// How long nothing must come after the last line.
const LAST_QUIET: Duration = Duration::from_millis(40);

/// How often to look at a condition that no event announces.
const POLL: Duration = Duration::from_millis(2);

/// The ports that the Dstores of a `cluster` announce: d1 is 20001. No client connects to them: clients are played.
const FIRST_PORT: u16 = 20_000;

/// How a case went.
pub struct Outcome {
    /// What the file should say instead, by line; empty unless it is to be recorded anew.
    pub edits: BTreeMap<usize, Vec<String>>,
    /// What it should say after the last line.
    pub additions: Vec<String>,
    pub failure: Option<Failure>,
}

pub struct Failure {
    pub line: usize,
    pub problem: String,
    /// Everything said so far.
    pub log: Vec<String>,
}

/// How a case is played.
#[derive(Clone, Copy)]
pub struct Manner {
    /// Go on where something else came than was written, and note what came.
    pub update: bool,
    /// How long anything that must come is waited for.
    pub patience: Duration,
}

/// Plays `case` from start to end.
pub fn play(case: &Case, manner: Manner) -> Outcome {
    let Manner { update, patience } = manner;
    let mut outcome = Outcome { edits: BTreeMap::new(), additions: Vec::new(), failure: None };
    let mut stage = match Stage::set(&case.setting, patience) {
        Ok(stage) => stage,
        Err(problem) => {
            let problem = format!("cannot begin: {problem}");
            outcome.failure = Some(Failure { line: case.line, problem, log: Vec::new() });
            return outcome;
        }
    };
    let mut failed_at = None;
    for Step { line, action } in &case.steps {
        match stage.perform(action) {
            Ok(()) => continue,
            Err(Problem::Mismatch(came)) if update => {
                outcome.edits.insert(*line, came);
                continue;
            }
            Err(Problem::Mismatch(came)) => {
                let came = came.join("\n          ");
                failed_at = Some((*line, format!("expected: {}\ncame:     {came}", describe(action))));
            }
            Err(Problem::Other(problem)) => failed_at = Some((*line, problem)),
        }
        break;
    }
    if failed_at.is_none() {
        let unheard = stage.unheard();
        if update {
            outcome.additions = unheard;
        } else if !unheard.is_empty() {
            let problem = format!("more has come than is written:\n          {}", unheard.join("\n          "));
            failed_at = Some((case.last_line, problem));
        }
    }
    outcome.failure = failed_at.map(|(line, problem)| Failure { line, problem, log: stage.log });
    outcome
}

/// Why a step fails.
enum Problem {
    /// Something else came; the lines say what, as a transcript would.
    Mismatch(Vec<String>),
    Other(String),
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Other(problem)
    }
}

struct Stage {
    // Dropped in this order: played parties leave first, and the place goes last.
    cast: BTreeMap<Name, Peer>,
    /// Where the parties listen that others connect to, if the real one is a Dstore.
    listeners: BTreeMap<Name, TcpListener>,
    /// What a `{variable}` stands for.
    variables: BTreeMap<String, Name>,
    system: System,
    log: Vec<String>,
    started: Instant,
    patience: Duration,
}

enum System {
    Controller(controller::Handle),
    /// Its folder is `FILES` inside `place`, as files that are set aside appear beside it.
    Dstore {
        handle: Arc<dstore::Handle>,
        place: TempFolder,
    },
}

const FILES: &str = "files";

impl Stage {
    fn set(setting: &Setting, patience: Duration) -> Result<Self, String> {
        let listeners = BTreeMap::new();
        match setting {
            Setting::Cluster { replicas, dstores, timeout, period } => {
                let config = controller::Config {
                    timeout: *timeout,
                    rebalance_period: *period,
                    ..controller::Config::new(*replicas)
                };
                let handle = controller::start(config).map_err(|error| error.to_string())?;
                let mut stage = Self::new(System::Controller(handle), listeners, patience);
                stage.join_all(dstores, *replicas).map_err(|error| format!("{error}\n{}", stage.log.join("\n")))?;
                Ok(stage)
            }
            Setting::Dstore { timeout, leftovers, shows_join } => {
                let listener = listen().map_err(|error| error.to_string())?;
                let port = listener.local_addr().map_err(|error| error.to_string())?.port();
                let place = TempFolder::new();
                let folder = place.path().join(FILES);
                fs::create_dir(&folder).map_err(|error| error.to_string())?;
                for file in leftovers {
                    fs::write(folder.join(file), "left over").map_err(|error| error.to_string())?;
                }
                let config = dstore::Config { timeout: *timeout, ..dstore::Config::new(port, folder) };
                let handle = Arc::new(dstore::start(config).map_err(|error| error.to_string())?);
                let mut stage = Self::new(
                    System::Dstore { handle, place },
                    BTreeMap::from([("controller".to_owned(), listener)]),
                    patience,
                );
                if !shows_join {
                    stage.hear("controller", &Heard::Line("JOIN dstore".into())).map_err(|problem| match problem {
                        Problem::Mismatch(came) => format!("instead of JOIN came: {}", came.concat()),
                        Problem::Other(problem) => problem,
                    })?;
                }
                Ok(stage)
            }
        }
    }

    fn new(system: System, listeners: BTreeMap<Name, TcpListener>, patience: Duration) -> Self {
        let (cast, variables) = (BTreeMap::new(), BTreeMap::new());
        Self { patience, cast, listeners, variables, system, log: Vec::new(), started: Instant::now() }
    }

    /// Lets the Dstores join one by one, each when the rebalance that the one before caused has ended.
    fn join_all(&mut self, dstores: &[Name], replicas: usize) -> Result<(), String> {
        for (joined, dstore) in (1..).zip(dstores) {
            self.join(dstore)?;
            if joined >= replicas {
                for member in &dstores[..joined] {
                    match self.hear(member, &Heard::Line("LIST".into())) {
                        Ok(()) => self.say(member, &Said::Line("LIST".into()))?,
                        Err(_) => return Err(format!("{member} has not been asked for its LIST")),
                    }
                }
            }
            let System::Controller(handle) = &self.system else { unreachable!("only a cluster is joined") };
            let settled = handle.wait_until(self.patience, |status| {
                // With a short period the next rebalance may run already, and wait for answers.
                let is_served = joined >= replicas && status.rebalances > (joined - replicas) as u64;
                status.members.len() == joined && (status.is_at_rest || is_served)
            });
            settled.ok_or("no end of the rebalance that a JOIN caused")?;
        }
        Ok(())
    }

    fn perform(&mut self, action: &Action) -> Result<(), Problem> {
        match action {
            Action::Say { who, what } => {
                for name in who {
                    self.say(&self.resolve(name)?, what)?;
                }
                Ok(())
            }
            Action::Hear { who, what: Heard::Nothing } => self.hear_nothing(who),
            Action::Hear { who, what } => self.hear_each(who, what),
            Action::Join { who } => Ok(self.join(who)?),
            Action::Leave { who } => {
                self.say(who, &Said::Close)?;
                Ok(self.wait_for_membership(who, false)?)
            }
            Action::Connect { who, to } => {
                let ip: IpAddr = to.parse().map_err(|_| format!("not an address: {to}"))?;
                // Where there is no IPv6, what is special about ::1 cannot be shown.
                let ip = if TcpListener::bind((ip, 0)).is_ok() { ip } else { Ipv4Addr::LOCALHOST.into() };
                self.note(format!("{who} connects to {ip}"));
                Ok(self.connect(who, ip)?)
            }
            Action::Folder { files } => self.check_folder(files),
            Action::End => Ok(self.wait_for_end()?),
        }
    }

    // What is said.

    fn say(&mut self, name: &str, what: &Said) -> Result<(), String> {
        self.note(format!("{name} -> {}", describe_said(what)));
        let failed = |error: io::Error| format!("{name} cannot say it: {error}");
        if !self.cast.contains_key(name) && !self.accept(name, Instant::now() + self.patience)? {
            match what {
                Said::Line(_) | Said::Bytes(_) => self.connect(name, Ipv4Addr::LOCALHOST.into())?,
                Said::Close | Said::End | Said::Reset => return Err(format!("{name} is not connected")),
            }
        }
        let said = match what {
            Said::Line(line) => format!("{}\n", self.with_ports(line)?).into_bytes(),
            Said::Bytes(bytes) => self.with_ports_in_braces(bytes),
            Said::Close => {
                self.cast.remove(name);
                return Ok(());
            }
            Said::End => return self.cast[name].finish().map_err(failed),
            Said::Reset => return self.cast.remove(name).map_or(Ok(()), Peer::reset).map_err(failed),
        };
        self.cast.get_mut(name).expect("connected above").say(&said).map_err(failed)
    }

    fn join(&mut self, name: &str) -> Result<(), String> {
        self.say(name, &Said::Line(format!("JOIN {name}")))?;
        self.wait_for_membership(name, true)
    }

    fn wait_for_membership(&mut self, name: &str, is_wanted: bool) -> Result<(), String> {
        let port = self.port(name)?.ok_or_else(|| format!("{name} has no port"))?.to_string();
        let System::Controller(handle) = &self.system else { return Err("there is no Controller to join".into()) };
        let is_member = |status: &controller::Status| status.members.iter().any(|m| m.address.to_string() == port);
        match handle.wait_until(self.patience, |status| is_member(status) == is_wanted) {
            Some(_) => Ok(()),
            None => Err(format!("{name} is {} a member", if is_wanted { "not" } else { "still" })),
        }
    }

    fn connect(&mut self, name: &str, ip: IpAddr) -> Result<(), String> {
        let port = match &self.system {
            System::Controller(handle) => handle.address().map_err(|error| error.to_string())?.port(),
            System::Dstore { handle, .. } => handle.listening_on().map_err(|error| error.to_string())?.port(),
        };
        let stream = TcpStream::connect_timeout(&SocketAddr::new(ip, port), self.patience);
        let peer = stream.and_then(|stream| Peer::new(stream, self.patience));
        self.cast.insert(name.to_owned(), peer.map_err(|error| format!("{name} cannot connect: {error}"))?);
        Ok(())
    }

    /// Takes the next connection to a party that others connect to; false if the party is none of those.
    fn accept(&mut self, name: &str, deadline: Instant) -> Result<bool, String> {
        // A Dstore's further connections to its Controller, as a client. (spec 8.4)
        let listener = if name == "question" { "controller" } else { name };
        if listener == name && self.port(name)?.is_none() || !self.listeners.contains_key(listener) {
            return Ok(false);
        }
        loop {
            match self.listeners[listener].accept() {
                Ok((stream, _)) => {
                    let peer = stream.set_nonblocking(false).and_then(|()| Peer::new(stream, self.patience));
                    self.cast.insert(name.to_owned(), peer.map_err(|error| error.to_string())?);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                    thread::sleep(POLL);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(format!("no peer has connected to {name}"));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    // What is heard.

    fn hear_each(&mut self, who: &[Name], what: &Heard) -> Result<(), Problem> {
        let mut came = Vec::new();
        let mut is_as_expected = true;
        for name in who {
            let name = match (self.resolve(name), what) {
                (Ok(name), _) => name,
                (Err(_), Heard::Line(line)) => {
                    self.find_speaker(name, line)?;
                    came.push(format!("{name} <- {line}"));
                    continue;
                }
                (Err(problem), _) => return Err(problem.into()),
            };
            match self.hear(&name, what) {
                Ok(()) => came.push(format!("{name} <- {}", describe_heard(what))),
                Err(Problem::Mismatch(texts)) => {
                    is_as_expected = false;
                    came.extend(texts);
                }
                Err(problem) => return Err(problem),
            }
        }
        if is_as_expected { Ok(()) } else { Err(Problem::Mismatch(came)) }
    }

    fn hear(&mut self, name: &str, what: &Heard) -> Result<(), Problem> {
        let deadline = Instant::now() + self.patience;
        if !self.cast.contains_key(name) && !self.accept(name, deadline)? {
            return Err(format!("{name} is not connected").into());
        }
        let expected_bytes = match what {
            Heard::Bytes(bytes) => Some(self.with_ports_in_braces(bytes)),
            _ => None,
        };
        let peer = self.cast.get_mut(name).expect("connected above");
        let came = match &expected_bytes {
            Some(bytes) => peer.next_bytes(bytes.len(), self.patience),
            None => peer.next_line(deadline),
        };
        let is_expected = match (what, &came) {
            (Heard::Line(line), Came::Line(bytes)) => match self.matches(line, bytes)? {
                Some(found) => {
                    self.variables.extend(found);
                    true
                }
                None => false,
            },
            (Heard::Bytes(_), Came::Bytes(bytes)) => expected_bytes.as_ref() == Some(bytes),
            (Heard::End | Heard::Closed, Came::Closed) | (Heard::Reset, Came::Reset) => true,
            _ => false,
        };
        if matches!(came, Came::Closed | Came::Reset) && !matches!(what, Heard::End) {
            self.cast.remove(name);
        }
        let text = format!("{name} <- {}", self.shown(&came));
        self.note(text.clone());
        if is_expected { Ok(()) } else { Err(Problem::Mismatch(vec![text])) }
    }

    /// One quiet while for all of `who` together.
    fn hear_nothing(&mut self, who: &[Name]) -> Result<(), Problem> {
        let deadline = Instant::now() + QUIET;
        let mut came = Vec::new();
        let mut is_quiet = true;
        for name in who {
            let name = self.resolve(name)?;
            if !self.cast.contains_key(&name) {
                match self.accept(&name, deadline) {
                    Ok(true) => {}
                    Ok(false) => return Err(format!("{name} is not connected").into()),
                    Err(_) => {
                        came.push(format!("{name} <- (nothing)"));
                        continue;
                    }
                }
            }
            let peer = self.cast.get_mut(&name).expect("connected above");
            let heard = if peer.hears_anything(deadline) {
                is_quiet = false;
                // The rest of a line may be on its way.
                peer.next_line(Instant::now() + QUIET)
            } else {
                Came::Nothing
            };
            if matches!(heard, Came::Closed | Came::Reset) {
                self.cast.remove(&name);
            }
            let text = format!("{name} <- {}", self.shown(&heard));
            self.note(text.clone());
            came.push(text);
        }
        if is_quiet { Ok(()) } else { Err(Problem::Mismatch(came)) }
    }

    /// Waits until this line is the next one of a party that no other variable stands for.
    fn find_speaker(&mut self, name: &str, line: &str) -> Result<(), String> {
        let variable = script::variable(name).ok_or_else(|| format!("{name} is not connected"))?;
        let deadline = Instant::now() + self.patience;
        let candidates: Vec<Name> =
            self.cast.keys().filter(|name| !self.variables.values().any(|taken| taken == *name)).cloned().collect();
        loop {
            for candidate in &candidates {
                let Some(peer) = self.cast.get_mut(candidate) else { continue };
                let Some(next) = peer.peek_line().map(<[u8]>::to_vec) else { continue };
                // It may be named in the line, too.
                self.variables.insert(variable.to_owned(), candidate.clone());
                if let Some(found) = self.matches(line, &next)? {
                    self.variables.extend(found);
                    let _ = self.cast.get_mut(candidate).map(|peer| peer.next_line(deadline));
                    self.note(format!("{candidate} <- {line}"));
                    return Ok(());
                }
                self.variables.remove(variable);
            }
            if Instant::now() >= deadline {
                let came: Vec<_> = candidates
                    .iter()
                    .map(|name| {
                        let next = self.cast.get_mut(name).and_then(|peer| peer.peek_line().map(<[u8]>::to_vec));
                        format!("{name} <- {}", self.shown(&next.map_or(Came::Nothing, Came::Line)))
                    })
                    .collect();
                return Err(format!("expected: {name} <- {line}\ncame:     {}", came.join("\n          ")));
            }
        }
    }

    /// Everything that has come and was not heard, as lines of a transcript.
    fn unheard(&mut self) -> Vec<String> {
        let deadline = Instant::now() + LAST_QUIET;
        let mut texts = Vec::new();
        let listening: Vec<Name> = self.listeners.keys().cloned().collect();
        for name in &listening {
            if !self.cast.contains_key(name) && self.accept(name, deadline).is_ok() {
                self.note(format!("a peer connects to {name}"));
            }
        }
        let names: Vec<Name> = self.cast.keys().cloned().collect();
        for name in names {
            let Some(mut peer) = self.cast.remove(&name) else { continue };
            while peer.hears_anything(deadline) {
                let came = peer.next_line(Instant::now() + LAST_QUIET);
                texts.push(format!("{name} <- {}", self.shown(&came)));
                if matches!(came, Came::Closed | Came::Reset) {
                    break;
                }
            }
        }
        for name in &listening {
            if self.accept(name, Instant::now()).is_ok() {
                texts.push(format!("{name} <- (one more connection)"));
            }
        }
        texts
    }

    // What is neither.

    fn check_folder(&mut self, expected: &[String]) -> Result<(), Problem> {
        let System::Dstore { place, .. } = &self.system else { return Err("there is no folder".to_owned().into()) };
        let mut expected = expected.to_vec();
        expected.sort();
        let deadline = Instant::now() + self.patience;
        loop {
            let files = kit::folder::names(&place.path().join(FILES));
            if files == expected {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Problem::Mismatch(vec![describe(&Action::Folder { files })]));
            }
            thread::sleep(POLL);
        }
    }

    fn wait_for_end(&mut self) -> Result<(), String> {
        let System::Dstore { handle, .. } = &self.system else { return Err("there is no Dstore".into()) };
        let (ended, end) = mpsc::channel();
        thread::spawn({
            let handle = Arc::clone(handle);
            move || {
                handle.wait_for_controllers_end();
                drop(handle);
                ended.send(())
            }
        });
        end.recv_timeout(self.patience).map_err(|_| "the Dstore does not end".to_owned())
    }

    // Names and ports.

    /// The party that a name or a variable stands for.
    fn resolve(&self, name: &str) -> Result<Name, String> {
        match script::variable(name) {
            None => Ok(name.to_owned()),
            Some(variable) => self.variables.get(variable).cloned().ok_or_else(|| format!("who is {name}?")),
        }
    }

    /// The port that stands for a name on the wire, if it has one.
    fn port(&mut self, name: &str) -> Result<Option<u16>, String> {
        let number = |letter| name.strip_prefix(letter).and_then(|number: &str| number.parse::<u16>().ok());
        match &self.system {
            System::Controller(_) => Ok(number('d').map(|number| FIRST_PORT + number)),
            System::Dstore { handle, .. } if name == "dstore" => {
                handle.listening_on().map(|address| Some(address.port())).map_err(|error| error.to_string())
            }
            System::Dstore { .. } => {
                if number('p').is_some() && !self.listeners.contains_key(name) {
                    self.listeners.insert(name.to_owned(), listen().map_err(|error| error.to_string())?);
                }
                let listener = self.listeners.get(name);
                listener.map(TcpListener::local_addr).transpose().map_err(|error| error.to_string()).map(|address| {
                    // No party is told where the Controller is.
                    address.map(|address| address.port())
                })
            }
        }
    }

    /// What goes over the wire where the transcript says `line`.
    fn with_ports(&mut self, line: &str) -> Result<String, String> {
        let mut words = Vec::new();
        for word in line.split(' ') {
            let name = match script::variable(word) {
                Some(_) => self.resolve(word)?,
                None => word.to_owned(),
            };
            words.push(self.port(&name)?.map_or(name, |port| port.to_string()));
        }
        Ok(words.join(" "))
    }

    /// In bytes only `{d1}` is a port: a word as such means itself.
    fn with_ports_in_braces(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
        let mut pieces = text.split('{');
        let mut replaced = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let name = piece.split_once('}').and_then(|(name, rest)| Some((self.port(name).ok()??, rest)));
            match name {
                Some((port, rest)) => replaced.push_str(&format!("{port}{rest}")),
                None => replaced.push_str(&format!("{{{piece}")),
            }
        }
        replaced.into_bytes()
    }

    /// What the new variables of `expected` stand for, if it describes `actual`.
    fn matches(&mut self, expected: &str, actual: &[u8]) -> Result<Option<BTreeMap<String, Name>>, String> {
        let mut found = BTreeMap::new();
        let Ok(actual) = std::str::from_utf8(actual) else { return Ok(None) };
        if expected.split(' ').count() != actual.split(' ').count() {
            return Ok(None);
        }
        for (expected, actual) in expected.split(' ').zip(actual.split(' ')) {
            match script::variable(expected) {
                Some(variable) if !self.variables.contains_key(variable) && !found.contains_key(variable) => {
                    let party = self.party(actual);
                    let is_taken = |party| self.variables.values().chain(found.values()).any(|taken| taken == party);
                    match party {
                        Some(party) if !is_taken(&party) => found.insert(variable.to_owned(), party),
                        _ => return Ok(None),
                    };
                }
                Some(variable) => {
                    let party = self.variables.get(variable).or(found.get(variable));
                    if party != self.party(actual).as_ref() {
                        return Ok(None);
                    }
                }
                None => {
                    if self.with_ports(expected)? != actual {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(found))
    }

    /// The party that has this word as its port.
    fn party(&self, word: &str) -> Option<Name> {
        let port: u16 = word.parse().ok()?;
        match &self.system {
            System::Controller(_) => {
                let number = port.checked_sub(FIRST_PORT)?;
                (1..100).contains(&number).then(|| format!("d{number}"))
            }
            System::Dstore { handle, .. } => {
                if handle.listening_on().is_ok_and(|address| address.port() == port) {
                    return Some("dstore".to_owned());
                }
                let is_there =
                    |listener: &TcpListener| listener.local_addr().is_ok_and(|address| address.port() == port);
                self.listeners.iter().find(|(_, listener)| is_there(listener)).map(|(name, _)| name.clone())
            }
        }
    }

    // What is shown.

    fn note(&mut self, text: String) {
        const SHOWN: usize = 200;
        let ms = self.started.elapsed().as_secs_f64() * 1e3;
        let cut = text.char_indices().nth(SHOWN).map_or(text.as_str(), |(at, _)| &text[..at]);
        self.log.push(format!("{ms:8.1} ms  {cut}"));
    }

    /// As a transcript would write it.
    fn shown(&self, came: &Came) -> String {
        match came {
            Came::Line(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if text.trim() == text && !text.is_empty() && !text.contains(char::is_control) => {
                    let word = |word| self.party(word).unwrap_or_else(|| word.to_owned());
                    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
                }
                _ => script::quote(&[bytes.as_slice(), b"\n"].concat()),
            },
            Came::Bytes(bytes) => script::quote(bytes),
            Came::Closed => "(closed)".to_owned(),
            Came::Reset => "(reset)".to_owned(),
            Came::Nothing => "(nothing)".to_owned(),
        }
    }
}

fn describe(action: &Action) -> String {
    match action {
        Action::Say { who, what } => format!("{} -> {}", who.join(","), describe_said(what)),
        Action::Hear { who, what } => format!("{} <- {}", who.join(","), describe_heard(what)),
        Action::Join { who } => format!("{who} joins"),
        Action::Leave { who } => format!("{who} leaves"),
        Action::Connect { who, to } => format!("{who} connects to {to}"),
        Action::Folder { files } if files.is_empty() => "folder: (empty)".to_owned(),
        Action::Folder { files } => format!("folder: {}", files.join(" ")),
        Action::End => "dstore ends".to_owned(),
    }
}

fn describe_said(what: &Said) -> String {
    match what {
        Said::Line(line) => line.clone(),
        Said::Bytes(bytes) => script::quote(bytes),
        Said::Close => "(close)".to_owned(),
        Said::End => "(end)".to_owned(),
        Said::Reset => "(reset)".to_owned(),
    }
}

fn describe_heard(what: &Heard) -> String {
    match what {
        Heard::Line(line) => line.clone(),
        Heard::Bytes(bytes) => script::quote(bytes),
        Heard::End => "(end)".to_owned(),
        Heard::Closed => "(closed)".to_owned(),
        Heard::Reset => "(reset)".to_owned(),
        Heard::Nothing => "(nothing)".to_owned(),
    }
}

/// A listener that can be asked whether a connection has come.
///
/// Its port is none of those that systems give out by themselves. A program may still believe that a process of another
/// test listens at such a port. It would connect to us instead, and each connection that is not used is a failure.
fn listen() -> io::Result<TcpListener> {
    const PORTS: std::ops::Range<u32> = 10_000..30_000;
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        // Processes at the same time begin at different places.
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let place = std::process::id().wrapping_mul(997).wrapping_add(tried) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + place).expect("a port");
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                return Ok(listener);
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse && tried < PORTS.end - PORTS.start => {}
            Err(error) => return Err(error),
        }
    }
}
