//! Requests to the port that passes for the Controller. (spec 4.2 to 4.5)

use std::collections::BTreeSet;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use depot::client::{Error, ListOptions, PutOptions};
use depot::namespace::change::{Condition, Refusal};
use depot::namespace::listing::Kind;
use depot::path::Path;
use hyper::StatusCode;
use stevedore::complaint::complain;
use stevedore::protocol::connection::KEEPALIVE;
use stevedore::protocol::{Connection, FileName, Message};

use super::stores::Store;
use super::{MOST_BYTES, Shared, path};

/// How long a client may take none of an answer.
const STALL: Duration = Duration::from_secs(30);

/// Serves a client until it closes its connection. It may be idle for as long as it likes. (spec 2.7)
pub(super) fn serve(shared: &Shared, stream: Arc<TcpStream>) {
    let Some(_seat) = shared.clients.take() else { return };
    let Ok(connection) = Connection::new(stream) else { return };
    let peer = connection.peer();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let asked = ("", None, Instant::now());
    let mut client = Client { shared, connection, number, pending: None, load: None, turn: number, asked };
    if let Err(error) = client.serve() {
        complain(format_args!("{peer}: connection closed: {error}"));
    }
    client.give_up();
    shared.offers.forget(number);
}

/// One client.
struct Client<'a> {
    shared: &'a Shared,
    connection: Connection,
    /// Among all clients.
    number: usize,
    /// Its store, if one was begun since its last request.
    pending: Option<Arc<Store>>,
    /// What it is loading: the file, and the Dstores that it was offered.
    load: Option<(FileName, BTreeSet<usize>)>,
    /// The Dstores take turns.
    turn: usize,
    /// What it has asked for last, and when: the verb, and the file.
    asked: (&'static str, Option<FileName>, Instant),
}

impl Client<'_> {
    fn serve(&mut self) -> io::Result<()> {
        self.connection.outgoing().limit_stalls(STALL)?;
        self.connection.outgoing().notice_death(KEEPALIVE);
        while let Some(line) = self.connection.receive()? {
            // A client that asks for something else does not wait any more: no late answer is to reach it. (spec 6.1)
            self.give_up();
            self.asked = match &line {
                Ok(Message::Store { name, .. }) => ("STORE", Some(name.clone()), Instant::now()),
                Ok(Message::Load { name }) => ("LOAD", Some(name.clone()), Instant::now()),
                Ok(Message::Reload { name }) => ("RELOAD", Some(name.clone()), Instant::now()),
                Ok(Message::Remove { name }) => ("REMOVE", Some(name.clone()), Instant::now()),
                _ => ("LIST", None, Instant::now()),
            };
            match line {
                Ok(Message::Store { name, size }) => self.store(&name, size)?,
                Ok(Message::Load { name }) => self.load(&name, false)?,
                Ok(Message::Reload { name }) => self.load(&name, true)?,
                Ok(Message::Remove { name }) => self.remove(&name)?,
                Ok(Message::List { names }) if names.is_empty() => self.list()?,
                Ok(_) => self.connection.ignore(&"not a request"),
                Err(error) => self.connection.ignore(&error),
            }
        }
        Ok(())
    }

    fn give_up(&mut self) {
        if let Some(store) = self.pending.take() {
            self.shared.stores.abandon(&store);
        }
    }

    fn store(&mut self, name: &FileName, size: u64) -> io::Result<()> {
        self.forget_load();
        let Shared { files, stores, dstores, timeout, .. } = self.shared;
        // The name is claimed before it is looked up: a store that ended in between would be unseen by both.
        self.pending = stores.begin((name, size), dstores.len(), *timeout, self.connection.outgoing());
        let options = PutOptions { condition: Condition::Absent, ..PutOptions::default() };
        if let Err(error) = files.check_put(&path(name), &options) {
            self.give_up();
            return match error {
                error if is_taken(&error) => self.say(&Message::FileAlreadyExists),
                error => self.refuse(&format_args!("STORE {name}"), &error),
            };
        }
        // A look that took long may have lost the claim to another client.
        let Some(store) = self.pending.clone().filter(|store| store.hear()) else {
            return self.say(&Message::FileAlreadyExists);
        };
        let is_in_a_hurry = self.connection.has_more()?;
        self.say(&Message::StoreTo { dstores: dstores.clone() })?;
        if is_in_a_hurry {
            store.wait_for_end();
        }
        Ok(())
    }

    fn load(&mut self, name: &FileName, is_repeated: bool) -> io::Result<()> {
        let tried = match self.load.take() {
            Some((file, tried)) if is_repeated && file == *name => tried,
            _ => BTreeSet::new(),
        };
        self.shared.offers.forget(self.number);
        let size = match self.shared.files.stat(&path(name)) {
            Ok(stat) => match stat.kind {
                Kind::File { size, .. } if size <= MOST_BYTES => size,
                _ => return self.say(&Message::FileDoesNotExist { name: None }),
            },
            Err(error) if is_missing(&error) => {
                return self.say(&Message::FileDoesNotExist { name: None });
            }
            Err(error) => return self.refuse(&format_args!("LOAD {name}"), &error),
        };
        let count = self.shared.dstores.len();
        self.turn += 1;
        let mut in_turn = (self.turn..self.turn + count).map(|turn| turn % count);
        let next = in_turn.find(|dstore| !tried.contains(dstore));
        let mut tried = tried;
        tried.extend(next);
        self.load = Some((name.clone(), tried));
        let Some(next) = next else { return self.say(&Message::LoadFailed) };
        self.shared.offers.make(self.number, name, size);
        self.say(&Message::LoadFrom { dstore: self.shared.dstores[next].clone(), size })
    }

    fn remove(&mut self, name: &FileName) -> io::Result<()> {
        self.forget_load();
        match self.shared.files.remove(&path(name), Condition::Any) {
            Ok(_) => self.say(&Message::RemoveComplete),
            Err(error) if is_missing(&error) => self.say(&Message::FileDoesNotExist { name: None }),
            // As if a Dstore had not answered. (spec 4.4)
            Err(error @ Error::OutcomeUnknown(_)) => {
                complain(format_args!("{}: REMOVE {name}: {error}", self.connection.peer()));
                Ok(())
            }
            Err(error) => self.refuse(&format_args!("REMOVE {name}"), &error),
        }
    }

    fn list(&mut self) -> io::Result<()> {
        self.forget_load();
        let mut names = Vec::new();
        let mut options = ListOptions::default();
        loop {
            let page = match self.shared.files.list(&Path::root(), &options) {
                Ok(page) => page,
                Err(error) => return self.refuse(&"LIST", &error),
            };
            let is_told = |kind| matches!(kind, Kind::File { size, .. } if size <= MOST_BYTES);
            let told = page.entries.iter().filter(|entry| is_told(entry.stat.kind));
            names.extend(told.filter_map(|entry| entry.name.parse::<FileName>().ok()));
            match page.after {
                Some(after) => options.after = after,
                None => return self.say(&Message::List { names }),
            }
        }
    }

    /// Answers, and notes it.
    fn say(&self, answer: &Message) -> io::Result<()> {
        let (verb, name, came) = &self.asked;
        let status = match answer {
            Message::FileAlreadyExists => StatusCode::CONFLICT,
            Message::FileDoesNotExist { .. } => StatusCode::NOT_FOUND,
            Message::NotEnoughDstores | Message::LoadFailed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        };
        self.shared.note(self.connection.peer(), (verb, name.as_ref()), status, 0, came.elapsed());
        self.connection.send(answer)
    }

    fn forget_load(&mut self) {
        self.load = None;
        self.shared.offers.forget(self.number);
    }

    /// Says that the store cannot do it now. The protocol has one word for that. (spec 3.3)
    fn refuse(&self, request: &dyn std::fmt::Display, error: &Error) -> io::Result<()> {
        complain(format_args!("{}: {request}: {error}", self.connection.peer()));
        self.say(&Message::NotEnoughDstores)
    }
}

/// Whether the name is a file's or a directory's already.
fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Refused(Refusal::AlreadyExists | Refusal::IsADirectory))
}

/// Whether no file has the name.
fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Refused(Refusal::NotFound | Refusal::IsADirectory))
}
