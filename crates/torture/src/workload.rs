//! The clients: what they ask for, one thing after another, until told to stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kit::Rng;
use parking_lot::RwLock;
use stevedore::client::{Client, Error};
use stevedore::protocol::FileName;

use crate::history::{Content, Name, Operation, Outcome, Phantom, Recorder, Request, fresh_bytes};
use crate::official::{Manner, Official};
use crate::watcher::Watcher;

/// Sizes that clients store. They are few, so that the files of one name often have the same length, and lie around the
/// sizes of buffers. Now and then a file is larger.
const SIZES: [usize; 10] = [0, 1, 7, 100, 4_096, 4_096, 20_000, 65_536, 65_537, 300_000];
const LARGE: usize = 3 << 20;

/// A file's name; none is the beginning of another.
pub fn file_name(name: Name) -> String {
    format!("file-{name:03}")
}

/// Which of the names this is.
pub fn name_of(file: &str) -> Option<Name> {
    file.strip_prefix("file-").filter(|digits| digits.len() == 3)?.parse().ok()
}

/// What all clients share.
pub struct Stage {
    /// Where they write down what happens.
    pub recorder: Recorder,
    /// The watcher, which is told what is about to be stored.
    pub watcher: Arc<Watcher>,
    /// How many names there are.
    pub names: usize,
    /// Held for reading during each operation: the thread that holds it for writing has the cluster for itself.
    pub turn: RwLock<()>,
    /// Ends the clients.
    pub is_over: AtomicBool,
}

/// One client's place.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// Its number.
    pub client: usize,
    /// Whether it behaves as the official one does, or uses our library.
    pub is_official: bool,
    /// Where it finds the Controller.
    pub controller: u16,
    /// Whether there is nothing in between that may cut its connection to the Controller.
    pub is_direct: bool,
    /// Its timeout.
    pub timeout: Duration,
    /// How long after an offer to store it may still begin to send; our own client has its timeout for that.
    pub promptness: Duration,
    /// Whether that is so long that the Controller must have answered by then.
    pub is_patient: bool,
}

/// Starts a client.
pub fn start(stage: &Arc<Stage>, seat: Seat, rng: Rng) -> std::io::Result<JoinHandle<()>> {
    let stage = Arc::clone(stage);
    thread::Builder::new().name(format!("client-{}", seat.client)).spawn(move || run(&stage, seat, rng))
}

/// Either kind of client.
enum Kind {
    Official(Official),
    /// `None` while it is not connected.
    Ours(Option<Client>),
}

fn run(stage: &Stage, seat: Seat, mut rng: Rng) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, seat.controller));
    let mut kind = match seat.is_official {
        true => Kind::Official(Official::new(address, seat.timeout, seat.promptness)),
        false => Kind::Ours(None),
    };
    while !stage.is_over.load(Ordering::Relaxed) {
        thread::sleep(rng.duration(Duration::ZERO, Duration::from_millis(30)));
        let _turn = stage.turn.read();
        if let Kind::Ours(client @ None) = &mut kind {
            match Client::connect(address, seat.timeout) {
                Ok(mut connected) => {
                    connected.keep_connections(seat.client % 16 < 8);
                    *client = Some(connected);
                }
                Err(_) => continue, // cut at once, perhaps
            }
        }
        operate(stage, seat, &mut kind, &mut rng);
    }
}

/// One operation, whatever comes of it.
fn operate(stage: &Stage, seat: Seat, kind: &mut Kind, rng: &mut Rng) {
    let name = rng.below(stage.names);
    let file: FileName = file_name(name).parse().expect("a proper name");
    let draw = rng.below(100);
    let manner = match rng.below(100) {
        0..2 => Manner::Trap,
        2..10 => Manner::Quits(rng.below(4)),
        _ => Manner::Honest,
    };
    let content = match draw {
        0..40 => {
            let size = if rng.percent(2) { rng.below(LARGE) } else { *rng.pick(&SIZES) };
            Some(fresh_bytes(rng, size))
        }
        _ => None,
    };
    let request = match (&content, draw) {
        (Some(bytes), _) => Request::Store(name, Content::of(bytes)),
        (None, ..75) => Request::Load(name),
        // A file that is removed soon is not there to be lost: half of them live long.
        (None, ..93) if name % 2 == 1 && !rng.percent(4) => Request::Load(name),
        (None, ..93) => Request::Remove(name),
        (None, _) => Request::List,
    };
    if let Request::Store(_, content) = request {
        stage.watcher.expect(name, content);
    }
    let begin = stage.recorder.now();
    let outcome = match (kind, &request) {
        (Kind::Official(client), Request::Store(..)) => {
            client.store(&file, content.as_deref().unwrap_or_default(), manner)
        }
        (Kind::Official(client), Request::Load(_)) => {
            let absent = stage.watcher.without_copy(&file);
            client.load(&file, manner, |dstore| {
                let port = dstore.socket().port();
                if absent.contains(&port) && stage.watcher.without_copy(&file).contains(&port) {
                    stage.recorder.suspect(Phantom { name, port, begin, end: stage.recorder.now() });
                }
            })
        }
        (Kind::Official(client), Request::Remove(_)) => client.remove(&file),
        (Kind::Official(client), Request::List) => {
            client.list().map_or_else(|outcome| outcome, |names| listed(&names, stage.names))
        }
        (Kind::Ours(client), request) => {
            let client = client.as_mut().expect("connected");
            let done = match request {
                Request::Store(..) => {
                    client.store_bytes(&file, content.as_deref().unwrap_or_default()).map(|()| Outcome::Stored)
                }
                Request::Load(_) => client.load_bytes(&file).map(|bytes| Outcome::Loaded(Content::of(&bytes))),
                Request::Remove(_) => client.remove(&file).map(|()| Outcome::Removed),
                Request::List => client.list().map(|names| listed(&names, stage.names)),
            };
            done.unwrap_or_else(refused)
        }
    };
    let outcome = judge(seat, &request, outcome);
    let end = stage.recorder.now();
    stage.recorder.record(Operation { client: seat.client, begin, end, request, outcome });
}

/// A LIST as a set of names. A name that no client has stored is wrong.
pub fn listed(names: &[FileName], count: usize) -> Outcome {
    let mut is_listed = vec![false; count];
    for file in names {
        match name_of(file) {
            Some(name) if name < count && !is_listed[name] => is_listed[name] = true,
            _ => return Outcome::Wrong { reason: format!("the list shows {file}, or shows it twice") },
        }
    }
    Outcome::Listed(is_listed)
}

fn refused(error: Error) -> Outcome {
    match error {
        Error::NotEnoughDstores => Outcome::NotEnoughDstores,
        Error::AlreadyExists(_) => Outcome::AlreadyExists,
        Error::DoesNotExist(_) => Outcome::DoesNotExist,
        Error::LoadFailed { .. } => Outcome::LoadFailed,
        Error::NoReply { .. } | Error::StoreOverdue { .. } | Error::Controller { .. } | Error::Dstore { .. } => {
            Outcome::Unknown { reason: error.to_string() }
        }
        Error::Name(_) | Error::TooLarge { .. } | Error::Unexpected { .. } | Error::Local(_) => {
            Outcome::Wrong { reason: error.to_string() }
        }
    }
}

/// What a LOAD or LIST may not end in: a client that waits long enough on a sound connection gets an answer. (spec 4.6,
/// 7.28)
fn judge(seat: Seat, request: &Request, outcome: Outcome) -> Outcome {
    match (outcome, request) {
        (Outcome::Unknown { reason }, Request::Load(_) | Request::List) if seat.is_patient && seat.is_direct => {
            Outcome::Wrong { reason: format!("no answer: {reason}") }
        }
        // The one refusal that a request of each kind cannot get.
        (Outcome::AlreadyExists, Request::Load(_) | Request::Remove(_) | Request::List)
        | (Outcome::DoesNotExist, Request::Store(..) | Request::List)
        | (Outcome::LoadFailed, Request::Store(..) | Request::Remove(_) | Request::List) => {
            Outcome::Wrong { reason: "a refusal of another kind of request".to_owned() }
        }
        (outcome, _) => outcome,
    }
}
