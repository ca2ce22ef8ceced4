//! A whole Controller, with clients and Dstores that say anything. The input is a script: see the sources of `session`.
//!
//! A peer whose first message is a JOIN is a Dstore (spec 2.4). Left alone it tells the truth: it keeps what it has
//! acknowledged and carries out its orders. Its script adds lies, acknowledgements never asked for, and nonsense.
//!
//! - Nothing panics, in any thread.
//! - Each request gets what spec 4 and 7 allow for it, in order, and nothing else gets an answer.
//! - Only what R Dstores have acknowledged is said to be complete, listed, or offered; the latter with a size that a client
//!   has announced, and from a Dstore that has joined. (spec 4.2, 4.3, 4.5)
//! - A Dstore is told to send only what it has listed, to others that have joined, and to remove only what it may have.
//!   (spec 4.4, 4.6)
//! - Clients that have finished asking are answered to the end within a bound, whatever Dstores do. (spec 7.28)
//! - Afterwards honest peers are served, and the index holds nothing that no Dstore holds. (spec 4.6.2)
//! - Dropping the handle ends every thread within a bound.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use stevedore::controller::{self, Config};
use stevedore::protocol::{Address, FileName, Message, Order};

use crate::session::{self, Action, PEERS, Peer, Step, TIMEOUT, eventually, within_a_moment};

/// R.
const REPLICAS: usize = 2;

/// Between rebalances: short, so that many happen during a script.
const PERIOD: Duration = Duration::from_millis(5);

/// Tries of what may fail because a loaded machine is slower than [`TIMEOUT`].
const TRIES: usize = 50;

/// Plays one script.
pub fn check(script: &[u8]) {
    let config = Config { timeout: TIMEOUT, rebalance_period: Some(PERIOD), ..Config::new(REPLICAS) };
    let controller = controller::start(config).expect("ports, memory and threads");
    let port = controller.address().expect("it listens").port();
    let mut cast = Cast { port, peers: Default::default(), parted: Vec::new() };
    for step in session::steps(script) {
        cast.play(step);
        cast.pump();
    }
    cast.finish();
    eventually("a peer that has gone is no member", || controller.status().members.is_empty());
    serve_honest_peers(&controller, port);
    session::stop(controller);
}

/// All peers of a script.
struct Cast {
    port: u16,
    peers: [Option<Player>; PEERS],
    /// Those whose connection the script has ended; their place may have been taken by a new one.
    parted: Vec<Player>,
}

/// A client or a Dstore.
struct Player {
    peer: Peer,
    /// Set with its first message if that is a JOIN.
    dstore: Option<Address>,
    /// What it would have if it was honest.
    files: BTreeSet<FileName>,
    /// Instead of its next honest answers.
    lies: VecDeque<Vec<u8>>,
    acknowledgements_seen: usize,
}

impl Cast {
    fn play(&mut self, Step { peer: number, action }: Step<'_>) {
        let place = &mut self.peers[number];
        let player = place.get_or_insert_with(|| Player::new(self.port));
        match action {
            Action::Answer(words) => player.lies.push_back(words.to_vec()),
            Action::Wait => {
                let before = player.peer.received.len();
                within_a_moment(|| {
                    self.pump();
                    let peer = &self.peers[number].as_ref().expect("just played").peer;
                    peer.received.len() > before || peer.has_seen_end
                });
            }
            action => player.peer.perform(action),
        }
        self.parted.extend(self.peers[number].take_if(|player| !player.peer.is_open()));
    }

    /// All peers take in what has been said, and the Dstores answer.
    fn pump(&mut self) {
        let mut copies = Vec::new();
        for player in self.peers.iter_mut().flatten() {
            player.pump(&mut copies);
        }
        for (receiver, name) in copies {
            for player in self.peers.iter_mut().flatten().filter(|player| player.dstore.as_ref() == Some(&receiver)) {
                player.files.insert(name.clone());
            }
        }
    }

    /// Has every client wait for its last answer, then all Dstores leave, and checks what has been said.
    fn finish(mut self) {
        for player in self.peers.iter_mut().flatten() {
            if player.dstore.is_none() {
                player.peer.finish_sending();
            }
        }
        eventually("clients are answered to the end", || {
            self.pump();
            self.peers.iter().flatten().all(|player| player.dstore.is_some() || player.peer.has_seen_end)
        });
        let players: Vec<_> = self.parted.into_iter().chain(self.peers.into_iter().flatten()).collect();
        let facts = Facts::of(&players);
        for player in &players {
            match player.dstore {
                None => facts.check_client(&player.peer),
                Some(_) => facts.check_dstore(player),
            }
        }
    }
}

impl Player {
    fn new(port: u16) -> Self {
        Self {
            peer: Peer::connect(port),
            dstore: None,
            files: BTreeSet::new(),
            lies: VecDeque::new(),
            acknowledgements_seen: 0,
        }
    }

    /// Takes in what it is told, and if it is a Dstore answers; the copies that it sends go into `copies`.
    fn pump(&mut self, copies: &mut Vec<(Address, FileName)>) {
        self.peer.pump();
        let sent = self.peer.messages_sent();
        let Some(Message::Join { address }) = sent.first() else { return };
        self.dstore = Some(address.clone());
        for message in &sent[self.acknowledgements_seen..] {
            if let Message::StoreAck { name } = message {
                self.files.insert(name.clone());
            }
        }
        // An unfinished line is looked at again once it is finished: it is not among these.
        self.acknowledgements_seen = sent.len();
        while let Some(question) = self.peer.next_message() {
            match self.lies.pop_front() {
                Some(lie) if lie.is_empty() => {}
                Some(lie) => self.peer.say_line(&lie),
                None => self.answer(question, copies),
            }
        }
    }

    fn answer(&mut self, question: Message, copies: &mut Vec<(Address, FileName)>) {
        let answer = match question {
            Message::List { .. } => Message::List { names: self.files.iter().cloned().collect() },
            Message::Remove { name } if self.files.remove(&name) => Message::RemoveAck { name },
            Message::Remove { name } => Message::FileDoesNotExist { name: Some(name) },
            Message::Rebalance { order } => {
                for send in order.sends.iter().filter(|send| self.files.contains(&send.name)) {
                    copies.extend(send.to.iter().map(|receiver| (receiver.clone(), send.name.clone())));
                }
                for name in &order.removes {
                    self.files.remove(name);
                }
                Message::RebalanceComplete
            }
            other => panic!("said to a Dstore: {other}"),
        };
        self.peer.say(&answer);
    }
}

/// What the peers have said in the whole of a session. It may have been said later than the answer that is judged by it:
/// so the verdict errs on the side of the Controller only.
#[derive(Default)]
struct Facts {
    /// The sizes with which clients have asked to store a file.
    sizes: BTreeMap<FileName, BTreeSet<u64>>,
    joined: BTreeSet<Address>,
    /// How many Dstores have acknowledged a file.
    acknowledgements: BTreeMap<FileName, usize>,
    /// The Dstores that were to be sent a file, in orders.
    sent_to: BTreeMap<FileName, BTreeSet<Address>>,
}

impl Facts {
    fn of(players: &[Player]) -> Self {
        let mut facts = Self::default();
        for player in players {
            let messages = player.peer.messages_sent();
            match &player.dstore {
                None => {
                    for message in messages {
                        if let Message::Store { name, size } = message {
                            facts.sizes.entry(name).or_default().insert(size);
                        }
                    }
                }
                Some(address) => {
                    facts.joined.insert(address.clone());
                    // However often a Dstore says so, it counts once. (spec 7.25)
                    for name in acknowledged(&messages).collect::<BTreeSet<_>>() {
                        *facts.acknowledgements.entry(name.clone()).or_default() += 1;
                    }
                    for order in orders(&player.peer.messages_received()) {
                        for send in &order.sends {
                            facts.sent_to.entry(send.name.clone()).or_default().extend(send.to.iter().cloned());
                        }
                    }
                }
            }
        }
        facts
    }

    /// Whether a client has been told what it should have been.
    fn check_client(&self, client: &Peer) {
        let (requests, replies) = (client.messages_sent(), client.messages_received());
        assert!(client.was_cut || !client.was_reset, "a client was cut off: {requests:?} {replies:?}");
        // A reply may be missing, or come in two parts: so all the ways to share them out are followed at once.
        let mut answered = BTreeSet::from([0]);
        for request in &requests {
            if client.was_cut && answered.contains(&replies.len()) {
                return;
            }
            answered = answered
                .iter()
                .flat_map(|&from| (from..=replies.len().min(from + 2)).map(move |to| (from, to)))
                .filter(|&(from, to)| self.is_allowed(request, &replies[from..to]))
                .map(|(_, to)| to)
                .collect();
        }
        assert!(answered.contains(&replies.len()), "requests: {requests:?}\nreplies: {replies:?}");
    }

    /// Whether a request may be answered like this. (spec 3.2, 3.3, 4.2 to 4.5)
    fn is_allowed(&self, request: &Message, replies: &[Message]) -> bool {
        match (request, replies) {
            (Message::List { names }, _) if !names.is_empty() => replies.is_empty(), // an answer, not a request
            (
                Message::Store { .. } | Message::Load { .. } | Message::Reload { .. } | Message::Remove { .. },
                [Message::NotEnoughDstores],
            )
            | (Message::List { .. }, [Message::NotEnoughDstores])
            | (Message::Store { .. }, [Message::FileAlreadyExists])
            | (
                Message::Load { .. } | Message::Reload { .. } | Message::Remove { .. },
                [Message::FileDoesNotExist { name: None }],
            )
            | (Message::Load { .. } | Message::Reload { .. }, [Message::LoadFailed])
            // Silence: not all have acknowledged it in time.
            | (Message::Remove { .. }, [] | [Message::RemoveComplete]) => true,
            (Message::Store { .. }, [Message::StoreTo { dstores }]) => self.are_chosen(dstores),
            (Message::Store { name, .. }, [Message::StoreTo { dstores }, Message::StoreComplete]) => {
                self.are_chosen(dstores) && self.may_be_complete(name)
            }
            (Message::Load { name } | Message::Reload { name }, [Message::LoadFrom { dstore, size }]) => {
                self.may_be_complete(name) && self.joined.contains(dstore) && self.sizes[name].contains(size)
            }
            (Message::List { .. }, [Message::List { names }]) => {
                names.is_sorted_by(|a, b| a < b) && names.iter().all(|name| self.may_be_complete(name))
            }
            (
                Message::Store { .. }
                | Message::Load { .. }
                | Message::Reload { .. }
                | Message::Remove { .. }
                | Message::List { .. },
                _,
            ) => false,
            // Not a request. (spec 2.6)
            (_, replies) => replies.is_empty(),
        }
    }

    /// Whether a client has stored the file, and enough have acknowledged it.
    fn may_be_complete(&self, name: &FileName) -> bool {
        let acknowledgements = self.acknowledgements.get(name).copied().unwrap_or_default();
        self.sizes.contains_key(name) && acknowledgements >= REPLICAS
    }

    fn are_chosen(&self, dstores: &[Address]) -> bool {
        let different: BTreeSet<_> = dstores.iter().collect();
        different.len() == REPLICAS
            && dstores.len() == REPLICAS
            && different.iter().all(|&one| self.joined.contains(one))
    }

    /// Whether a Dstore has been asked only what it could be.
    fn check_dstore(&self, player: &Player) {
        let own = player.dstore.as_ref().expect("it is a Dstore");
        let said = player.peer.messages_sent();
        let listed: BTreeSet<_> = said.iter().filter_map(listed_names).flatten().collect();
        let received = player.peer.messages_received();
        for message in &received {
            match message {
                Message::List { names } => assert!(names.is_empty()),
                Message::Remove { name } => {
                    let is_sent = self.sent_to.get(name).is_some_and(|receivers| receivers.contains(own));
                    // Its acknowledgement may be the last of those that make the file complete.
                    let may_have_it =
                        is_sent || listed.contains(name) || acknowledged(&said).any(|acked| acked == name);
                    assert!(may_have_it, "{own} is told to remove {name}");
                }
                Message::Rebalance { order } => {
                    for send in &order.sends {
                        assert!(listed.contains(&send.name), "{own} is to send what it has not: {order:?}");
                        let receivers: BTreeSet<_> = send.to.iter().collect();
                        assert!(!receivers.is_empty() && receivers.len() == send.to.len(), "{order:?}");
                        assert!(!receivers.contains(own), "{own} is to send to itself: {order:?}");
                        assert!(receivers.iter().all(|&receiver| self.joined.contains(receiver)), "{order:?}");
                    }
                    assert!(order.removes.iter().all(|name| listed.contains(name)), "{own}: {order:?}");
                }
                other => panic!("said to a Dstore: {other}"),
            }
        }
    }
}

fn acknowledged(messages: &[Message]) -> impl Iterator<Item = &FileName> {
    messages.iter().filter_map(|message| if let Message::StoreAck { name } = message { Some(name) } else { None })
}

fn orders(messages: &[Message]) -> impl Iterator<Item = &Order> {
    messages.iter().filter_map(|message| if let Message::Rebalance { order } = message { Some(order) } else { None })
}

fn listed_names(message: &Message) -> Option<&[FileName]> {
    if let Message::List { names } = message { Some(names) } else { None }
}

/// R honest Dstores join, which clears up, and a client finds everything in order.
fn serve_honest_peers(controller: &controller::Handle, port: u16) {
    let mut cast = Cast { port, peers: Default::default(), parted: Vec::new() };
    for (number, place) in cast.peers[..REPLICAS].iter_mut().enumerate() {
        let player = place.insert(Player::new(port));
        let address = Address::local(number as u16 + 1).expect("not port 0");
        player.peer.say(&Message::Join { address });
    }
    eventually("the index is cleared up", || {
        cast.pump();
        let status = controller.status();
        status.members.len() == REPLICAS && status.is_at_rest && status.files == 0
    });
    let mut names = (0..).map(|number| format!("honest-{number}").parse::<FileName>().expect("a name"));
    let stored = cast.repeat(|cast| {
        let name = names.next()?; // a new one each time: an earlier attempt may have succeeded late
        let begun = cast.ask(Message::Store { name: name.clone(), size: 5 });
        for player in cast.peers[..REPLICAS].iter_mut().flatten() {
            player.peer.say(&Message::StoreAck { name: name.clone() });
        }
        let is_chosen = matches!(begun?, Message::StoreTo { dstores } if dstores.len() == REPLICAS);
        (is_chosen && cast.hear()? == Message::StoreComplete).then_some(name)
    });
    let is_listed = |cast: &mut Cast| match cast.ask(Message::List { names: vec![] })? {
        Message::List { names } => Some(names.contains(&stored)),
        _ => None,
    };
    assert!(cast.repeat(is_listed));
    let load = Message::Load { name: stored.clone() };
    let offer = cast.repeat(|cast| cast.ask(load.clone()));
    assert!(matches!(offer, Message::LoadFrom { size: 5, .. }), "{offer}");
    let remove = Message::Remove { name: stored.clone() };
    cast.ask(remove); // where the answer does not come in time, the next rebalance sees to it
    assert!(!cast.repeat(is_listed));
}

impl Cast {
    /// The client's place.
    const CLIENT: usize = PEERS - 1;

    /// Tries until it succeeds.
    fn repeat<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Option<T>) -> T {
        (0..TRIES).find_map(|_| attempt(self)).expect("it is served in one of all these tries")
    }

    /// Has a new client ask; what it is told first.
    fn ask(&mut self, request: Message) -> Option<Message> {
        let client = self.peers[Self::CLIENT].insert(Player::new(self.port));
        client.peer.say(&request);
        self.hear()
    }

    /// What the client is told next; `None` if nothing comes for so long that it will not.
    fn hear(&mut self) -> Option<Message> {
        let mut said = None;
        session::comes_true(TIMEOUT * 25, &mut || {
            self.pump();
            said = self.peers[Self::CLIENT].as_mut().expect("it has asked").peer.next_message();
            said.is_some()
        });
        said
    }
}
