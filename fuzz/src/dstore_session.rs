//! A whole Dstore, with a Controller, clients and other Dstores that say anything. The input is a script: see the sources
//! of `session`. Peer 0 is the Controller, all others connect to the Dstore.
//!
//! The Dstores that the script's orders name are, by the port modulo 4: twice one that takes copies, honestly unless a
//! script's `=` has it say something else (and then close if the words end in `!`, or reset if in `x`); the Dstore itself;
//! and a port where no program listens. No port of a script is ever connected to.
//!
//! - Nothing panics, in any thread.
//! - The folder holds whole files only: each has been sent under its name with that very content; and nothing appears
//!   beside the folder. (spec 5.1, 7.11, 7.12)
//! - A peer that is told anything is told `ACK`, or the content of a file: a load never gives wrong bytes, and a copy sent to
//!   another Dstore is whole. (spec 2.3, 4.3, 4.6.5)
//! - The Controller is told what spec 4 lets a Dstore say: a STORE_ACK for a file that has come whole, one answer to each
//!   REMOVE and LIST, at most one to each REBALANCE. (spec 4.2, 4.4, 4.6, 7.17)
//! - Clients that have finished sending are done with within a bound, and then no incomplete file is left.
//! - Afterwards LIST says what is in the folder, and an honest client stores, loads and has removed. (spec 4.6.1)
//! - Dropping the handle ends every thread within a bound.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use kit::TempFolder;
use kit::folder::names;
use socket2::{Domain, Socket, Type};
use stevedore::dstore::{self, Config};
use stevedore::protocol::{Address, FileName, Message};

use crate::java::JavaReader;
use crate::session::{self, Action, PEERS, Peer, Step, TIMEOUT, eventually, within_a_moment};

/// Plays one script.
pub fn check(script: &[u8]) {
    let place = Place::new();
    let controller = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = controller.local_addr().expect("bound").port();
    let dstore = dstore::start(Config { timeout: TIMEOUT, ..Config::new(port, place.folder()) }).expect("it starts");
    let mut cast = Cast {
        own: dstore.address().clone(),
        port: dstore.listening_on().expect("it listens").port(),
        controller: Peer::new(controller.accept().expect("it has connected").0),
        peers: Default::default(),
        parted: Vec::new(),
        partners: Partners::new(),
    };
    cast.expect_from_dstore(&Message::Join { address: cast.own.clone() });
    for step in session::steps(script) {
        cast.play(step);
        cast.pump();
    }
    cast.finish();
    if cast.controller.is_open() && !cast.controller.has_finished {
        cast.settle(&place);
        cast.serve_honest_peers();
    }
    session::stop(dstore);
    cast.controller.pump();
    let facts = cast.facts();
    place.check(&facts);
    cast.check(&facts);
}

/// All that talk to the Dstore.
struct Cast {
    own: Address,
    port: u16,
    controller: Peer,
    /// Clients, and Dstores that send copies; the first place stays empty.
    peers: [Option<Peer>; PEERS],
    parted: Vec<Peer>,
    partners: Partners,
}

impl Cast {
    fn play(&mut self, Step { peer: number, action }: Step<'_>) {
        match (number, action) {
            (_, Action::Wait) => {
                let before = self.heard(number);
                within_a_moment(|| {
                    self.pump();
                    self.heard(number) != before
                });
            }
            (_, Action::Answer(words)) => self.partners.lies.push_back(words.to_vec()),
            (0, Action::Say(words) | Action::Send(words)) => {
                let lines: Vec<_> = words.split(|byte| *byte == b'\r').map(|line| self.with_own_ports(line)).collect();
                self.controller.say_line(&lines.join(&b'\r'));
            }
            (0, action) => self.controller.perform(action),
            (number, action) => {
                let place = &mut self.peers[number];
                place.get_or_insert_with(|| Peer::connect(self.port)).perform(action);
                self.parted.extend(place.take_if(|peer| !peer.is_open()));
            }
        }
    }

    /// How much a peer has heard, and whether all.
    fn heard(&self, number: usize) -> (usize, bool) {
        let peer = if number == 0 { Some(&self.controller) } else { self.peers[number].as_ref() };
        peer.map_or((0, true), |peer| (peer.received.len(), peer.has_seen_end))
    }

    /// An order goes to Dstores of ours only; any other line is left as it is.
    fn with_own_ports(&self, line: &[u8]) -> Vec<u8> {
        let Ok(Message::Rebalance { mut order }) = Message::parse(&String::from_utf8_lossy(line)) else {
            return line.to_vec();
        };
        for receiver in order.sends.iter_mut().flat_map(|send| &mut send.to) {
            *receiver = match receiver.socket().port() % 4 {
                0 | 1 => self.partners.address.clone(),
                2 => self.own.clone(),
                _ => self.partners.absent.clone(),
            };
        }
        Message::Rebalance { order }.to_string().into_bytes()
    }

    fn pump(&mut self) {
        self.controller.pump();
        self.peers.iter_mut().flatten().for_each(Peer::pump);
        self.partners.pump();
    }

    /// Has every client wait for its last answer.
    fn finish(&mut self) {
        self.peers.iter_mut().flatten().for_each(Peer::finish_sending);
        eventually("clients are done with", || {
            self.pump();
            self.peers.iter().flatten().all(|peer| peer.has_seen_end)
        });
        self.parted.extend(self.peers.iter_mut().filter_map(Option::take));
    }

    /// Waits until every order is carried out and every connection's end has been noticed: from then on LIST says what
    /// is there.
    fn settle(&mut self, place: &Place) {
        eventually("LIST says what is in the folder, and all there is whole", || {
            let listed = self.list();
            let names = place.names();
            listed.iter().map(FileName::as_str).eq(names.iter().map(String::as_str))
        });
    }

    /// Asks for the list of files and waits for all answers that are due.
    fn list(&mut self) -> Vec<FileName> {
        self.controller.say(&Message::List { names: vec![] });
        let due = self.controller.messages_sent().into_iter().filter(is_list_request).count();
        let mut lists = Vec::new();
        eventually("every LIST is answered", || {
            self.pump();
            lists = self.controller.messages_received().into_iter().filter_map(listed_names).collect();
            lists.len() >= due
        });
        lists.pop().expect("one has been asked for")
    }

    fn serve_honest_peers(&mut self) {
        let name: FileName = "honest".parse().expect("a name");
        self.transfer(&[Message::Store { name: name.clone(), size: 5 }], b"hello", b"ACK\n");
        self.expect_from_dstore(&Message::StoreAck { name: name.clone() });
        self.transfer(&[Message::KeepAlive, Message::LoadData { name: name.clone() }], b"", b"hello");
        assert!(self.list().contains(&name));
        self.controller.say(&Message::Remove { name: name.clone() });
        self.expect_from_dstore(&Message::RemoveAck { name: name.clone() });
        assert!(!self.list().contains(&name));
    }

    fn transfer(&mut self, lines: &[Message], content: &[u8], answer: &[u8]) {
        let mut client = Peer::connect(self.port);
        lines.iter().for_each(|line| client.say(line));
        client.send(content);
        client.finish_sending();
        eventually("a transfer ends", || {
            client.pump();
            client.has_seen_end
        });
        assert_eq!(client.received, answer, "{lines:?}");
        self.parted.push(client);
    }

    fn expect_from_dstore(&mut self, message: &Message) {
        eventually("the Dstore tells the Controller", || {
            self.pump();
            self.controller.messages_received().last() == Some(message)
        });
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for request in self.parted.iter().flat_map(requests) {
            if let Request::Content { name, content, is_from_client } = request {
                facts.contents.entry(name.clone()).or_default().insert(content);
                *facts.stores.entry(name).or_default() += usize::from(is_from_client);
            }
        }
        facts
    }

    /// Checks what the Dstore has said to all peers.
    fn check(&self, facts: &Facts) {
        self.parted.iter().for_each(|peer| facts.check_answers(peer));
        for (name, content) in &self.partners.taken {
            assert!(facts.have(name, content), "sent to another Dstore as {name}: {:?}", content.escape_ascii());
        }
        self.check_reports(facts);
    }

    fn check_reports(&self, facts: &Facts) {
        let asked = self.controller.messages_sent();
        let mut said = self.controller.messages_received().into_iter();
        assert_eq!(said.next(), Some(Message::Join { address: self.own.clone() }));
        let mut stores = facts.stores.clone();
        let mut removes: BTreeMap<FileName, usize> = BTreeMap::new();
        for message in &asked {
            if let Message::Remove { name } = message {
                *removes.entry(name.clone()).or_default() += 1;
            }
        }
        let mut lists = asked.iter().filter(|message| is_list_request(message)).count();
        let mut orders = asked.iter().filter(|message| matches!(message, Message::Rebalance { .. })).count();
        let take = |count: Option<&mut usize>, message: &Message| match count {
            Some(count) if *count > 0 => *count -= 1,
            _ => panic!("nothing asked for {message}: {asked:?}"),
        };
        for message in said {
            match &message {
                Message::StoreAck { name } => take(stores.get_mut(name), &message),
                Message::RemoveAck { name } | Message::FileDoesNotExist { name: Some(name) } => {
                    take(removes.get_mut(name), &message);
                }
                Message::RebalanceComplete => take(Some(&mut orders), &message),
                Message::List { names } => {
                    take(Some(&mut lists), &message);
                    assert!(names.is_sorted_by(|a, b| a < b), "{message}");
                    assert!(names.iter().all(|name| facts.contents.contains_key(name)), "{message}");
                }
                _ => panic!("said to the Controller: {message}"),
            }
        }
        if !self.controller.was_cut && !self.controller.has_finished {
            assert_eq!(lists, 0, "unanswered LISTs");
            assert!(removes.values().all(|&count| count == 0), "unanswered REMOVEs: {removes:?}");
        }
    }
}

fn is_list_request(message: &Message) -> bool {
    matches!(message, Message::List { names } if names.is_empty())
}

fn listed_names(message: Message) -> Option<Vec<FileName>> {
    if let Message::List { names } = message { Some(names) } else { None }
}

/// What the peers have sent in the whole of a session: what files there may be.
#[derive(Default)]
struct Facts {
    contents: BTreeMap<FileName, BTreeSet<Vec<u8>>>,
    /// How often a client has sent all of a file.
    stores: BTreeMap<FileName, usize>,
}

impl Facts {
    fn have(&self, name: &str, content: &[u8]) -> bool {
        self.contents.get(name).is_some_and(|contents| contents.contains(content))
    }

    /// Whether a peer has been sent the answers to its requests, in order, as far as the Dstore has served it.
    fn check_answers(&self, peer: &Peer) {
        let requests = requests(peer);
        // A file may have had several contents, one the beginning of another: all the ways are followed at once.
        let mut answered = BTreeSet::from([0]);
        for request in &requests {
            if answered.contains(&peer.received.len()) {
                return;
            }
            answered = answered.iter().flat_map(|&at| self.ends_of_answer(request, peer, at)).collect();
        }
        assert!(
            answered.contains(&peer.received.len()),
            "requests: {requests:?}\nanswers: {:?}",
            peer.received.escape_ascii().to_string()
        );
    }

    /// Where in what the peer has received an answer that begins at `at` may end.
    fn ends_of_answer(&self, request: &Request, peer: &Peer, at: usize) -> BTreeSet<usize> {
        let rest = &peer.received[at..];
        let end_of = |answer: &[u8]| {
            let is_whole = rest.starts_with(answer);
            let is_cut = peer.was_cut && answer.starts_with(rest);
            (is_whole || is_cut).then(|| at + answer.len().min(rest.len()))
        };
        match request {
            Request::Content { .. } | Request::CutShort => end_of(b"ACK\n").into_iter().collect(),
            Request::SendAhead => end_of(b"SEND_AHEAD\n").into_iter().collect(),
            Request::Load { name } => {
                let contents = self.contents.get(name);
                contents.into_iter().flatten().filter_map(|content| end_of(content)).collect()
            }
        }
    }
}

/// One transfer that a peer has begun.
#[derive(Debug)]
enum Request {
    /// STORE or REBALANCE_STORE with all of its content.
    Content { name: FileName, content: Vec<u8>, is_from_client: bool },
    /// Either with too little.
    CutShort,
    /// LOAD_DATA.
    Load { name: FileName },
    /// SEND_AHEAD, where it is answered. (spec 8.3)
    SendAhead,
}

/// The transfers that a Dstore may read in what a peer has sent; it may have given up before the last. (spec 2.5, 8.2)
fn requests(peer: &Peer) -> Vec<Request> {
    let mut reader = JavaReader::new(&peer.sent);
    let mut requests = Vec::new();
    let (mut is_first, mut keeps_alive) = (true, false);
    while let Some(line) = reader.line(peer.sent.len(), peer.has_finished) {
        let message = Message::parse(&String::from_utf8_lossy(line));
        let was_first = std::mem::replace(&mut is_first, false);
        match message {
            Ok(Message::KeepAlive) => {
                keeps_alive |= was_first;
                continue;
            }
            Ok(Message::SendAhead) if keeps_alive => requests.push(Request::SendAhead),
            Ok(Message::LoadData { name }) => requests.push(Request::Load { name }),
            Ok(Message::Store { ref name, size } | Message::RebalanceStore { ref name, size }) => {
                let content = reader.content(size, peer.sent.len()).to_vec();
                if (content.len() as u64) < size {
                    requests.push(Request::CutShort);
                    return requests;
                }
                let is_from_client = matches!(message, Ok(Message::Store { .. }));
                requests.push(Request::Content { name: name.clone(), content, is_from_client });
            }
            _ => continue,
        }
        if !keeps_alive {
            break;
        }
    }
    requests
}

/// The Dstores that copies are sent to.
struct Partners {
    listener: TcpListener,
    address: Address,
    absent: Address,
    /// Keeps the port of `absent` from being another program's.
    _bound: Socket,
    /// Instead of the next ACKs.
    lies: VecDeque<Vec<u8>>,
    senders: Vec<Partner>,
    /// The copies that were taken.
    taken: Vec<(FileName, Vec<u8>)>,
}

/// A connection over which a copy is sent.
struct Partner {
    peer: Peer,
    has_answered: bool,
}

impl Partners {
    fn new() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(any).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        bound.bind(&any.into()).expect("a free port");
        let local = |address: SocketAddr| Address::local(address.port()).expect("a bound socket has a port");
        Self {
            address: local(listener.local_addr().expect("bound")),
            listener,
            absent: local(bound.local_addr().expect("bound").as_socket().expect("IPv4")),
            _bound: bound,
            lies: VecDeque::new(),
            senders: Vec::new(),
            taken: Vec::new(),
        }
    }

    fn pump(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            self.senders.push(Partner { peer: Peer::new(stream), has_answered: false });
        }
        for Partner { peer, has_answered } in &mut self.senders {
            peer.pump();
            let Some(end) = peer.received.iter().position(|byte| *byte == b'\n') else { continue };
            let line = String::from_utf8(peer.received[..end].to_vec()).expect("servers speak UTF-8");
            let Ok(Message::RebalanceStore { name, size }) = Message::parse(&line) else {
                panic!("to a Dstore: {line}")
            };
            if !*has_answered {
                *has_answered = true;
                match self.lies.pop_front() {
                    None => peer.say(&Message::Ack),
                    Some(lie) => tell(peer, &lie),
                }
            }
            let content = &peer.received[end + 1..];
            let size = usize::try_from(size).expect("what fits a folder of ours");
            assert!(content.len() <= size, "more than {line} has announced");
            if content.len() == size && peer.is_open() && !peer.sent.is_empty() {
                self.taken.push((name, content.to_vec()));
                peer.close(); // which says that it is stored (spec 7.18)
            }
        }
    }
}

/// Says something else than ACK, or nothing; see the module's description.
fn tell(peer: &mut Peer, lie: &[u8]) {
    match lie.split_last() {
        None => {}
        Some((b'!', words)) => {
            peer.say_line(words);
            peer.close();
        }
        Some((b'x', words)) => {
            peer.say_line(words);
            peer.reset();
        }
        Some(_) => peer.say_line(lie),
    }
}

/// A folder that holds the Dstore's and nothing else.
struct Place(TempFolder);

impl Place {
    fn new() -> Self {
        let place = Self(TempFolder::in_memory());
        fs::create_dir(place.folder()).expect("a folder of our own");
        place
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("folder")
    }

    /// What lies in the Dstore's folder, in order.
    fn names(&self) -> Vec<String> {
        names(&self.folder())
    }

    /// Checks that all there is is whole.
    fn check(&self, facts: &Facts) {
        assert_eq!(self.0.names(), ["folder"]);
        for name in self.names() {
            let content = fs::read(self.folder().join(&name)).expect("a file");
            assert!(
                facts.have(&name, &content),
                "no peer has sent {name:?} as {:?}",
                content.escape_ascii().to_string()
            );
        }
    }
}
