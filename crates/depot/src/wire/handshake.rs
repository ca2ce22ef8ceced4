//! How the two ends of a connection come to trust each other. (depot 5.8, 8)
//!
//! Each end sends a challenge, and proves that it knows the secret by an HMAC over both challenges, both roles, the store,
//! and which end of the connection it is. So a proof is of no use on any other connection, in another role, or sent back to
//! the end it came from.
//!
//! ```text
//! connecting  DEPOT 1 0 client <cluster> <challenge> <client>
//! accepting   DEPOT 1 0 controller <cluster> <challenge> <proof>
//! connecting  PROOF <proof>
//! ```
//!
//! While a secret is being replaced, servers know two. The accepting end then proves both, and the connecting end answers by the
//! one that it knows, too. So ends that know the old one, both, or the new one understand each other, as long as none that knows
//! only the old one meets one that knows only the new one.
//!
//! Requests may follow right behind the proof: a wrong one is answered by an error, and the connection is closed.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use stevedore::socket::Wait;

use super::message::Failure;
use super::secret::Proof;
use super::{Address, ClientId, ClientKey, Connection, ReceiveError, Secret};
use crate::disk::random;
use crate::identity::ClusterId;
use crate::words::{Line, ParseError, Reader, Words, hexadecimal_word, invalid, words};

/// The version of the protocol. Another one is not understood.
const VERSION: u32 = 1;

/// What this release can do beyond version 1: nothing yet.
const FEATURES: u32 = 0;

/// How long the other end may take, for its first byte and for each line.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// What an end of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It asks for files.
    Client {
        /// Which one.
        id: ClientId,
    },
    /// It decides.
    Controller,
    /// It keeps objects.
    Dstore,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Client { .. } => "client",
            Self::Controller => "controller",
            Self::Dstore => "dstore",
        }
    }
}

/// What the connecting end knows.
#[derive(Clone, Debug)]
pub enum Access {
    /// It is a client.
    Client {
        /// Which one.
        id: ClientId,
        /// Its key.
        key: ClientKey,
    },
    /// It is a server, in this role.
    Server {
        /// Controller or Dstore.
        role: Role,
        /// The store's secret.
        secret: Secret,
    },
}

/// Why there is no connection.
#[derive(Debug)]
pub enum HandshakeError {
    /// The other end is not reached, or has gone.
    Io(io::Error),
    /// The other end refuses, and says why.
    Refused(Failure),
    /// The other end does not know the secret, belongs to another store, or has another role than was expected.
    Untrusted(String),
    /// The other end does not speak this protocol.
    Foreign(String),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Refused(failure) => failure.fmt(f),
            Self::Untrusted(why) | Self::Foreign(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for HandshakeError {}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ReceiveError> for HandshakeError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Io(error) => Self::Io(error),
            ReceiveError::Ended => Self::Io(error.into()),
            other => Self::Foreign(format!("the other end does not speak the depot's protocol: {other}")),
        }
    }
}

/// Random bits that a proof has to be about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Challenge(u128);

hexadecimal_word!(Challenge, u128, "challenge");

/// The first line of the connecting end.
struct Hello {
    protocol: Protocol,
    role: String,
    cluster: ClusterId,
    challenge: Challenge,
    client: Option<ClientId>,
}

words!(struct Hello { protocol, role, cluster, challenge, client });

/// The answer to it.
enum Answer {
    /// With a proof by each secret that it knows.
    Hello {
        protocol: Protocol,
        role: String,
        cluster: ClusterId,
        challenge: Challenge,
        proofs: Vec<Proof>,
    },
    Refused(Failure),
}

impl Words for Answer {
    fn write(&self, line: &mut Line) {
        match self {
            Self::Hello { protocol, role, cluster, challenge, proofs } => {
                protocol.write(line);
                role.write(line);
                cluster.write(line);
                challenge.write(line);
                proofs.iter().for_each(|proof| proof.write(line));
            }
            Self::Refused(failure) => {
                line.plain("ERROR");
                failure.write(line);
            }
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        if reader.clone().raw("answer")? == "ERROR" {
            reader.raw("answer")?;
            return Failure::read(reader).map(Self::Refused);
        }
        Ok(Self::Hello {
            protocol: Words::read(reader)?,
            role: Words::read(reader)?,
            cluster: Words::read(reader)?,
            challenge: Words::read(reader)?,
            proofs: {
                let mut proofs = vec![Words::read(reader)?];
                if reader.clone().raw("proof").is_ok() {
                    proofs.push(Words::read(reader)?);
                }
                proofs
            },
        })
    }
}

/// `DEPOT 1 0`
struct Protocol {
    version: u32,
    features: u32,
}

const OURS: Protocol = Protocol { version: VERSION, features: FEATURES };

impl Words for Protocol {
    fn write(&self, line: &mut Line) {
        line.plain("DEPOT");
        self.version.write(line);
        self.features.write(line);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        match reader.raw("DEPOT")? {
            "DEPOT" => Ok(Self { version: Words::read(reader)?, features: Words::read(reader)? }),
            other => Err(invalid("DEPOT", other)),
        }
    }
}

/// The last line of the connecting end.
struct Proven {
    proof: Proof,
}

impl Words for Proven {
    fn write(&self, line: &mut Line) {
        line.plain("PROOF");
        self.proof.write(line);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        match reader.raw("PROOF")? {
            "PROOF" => Ok(Self { proof: Words::read(reader)? }),
            other => Err(invalid("PROOF", other)),
        }
    }
}

/// What both ends know of the connection, and prove a secret about.
struct Terms<'a> {
    cluster: ClusterId,
    connecting: &'a str,
    accepting: &'a str,
    challenge: Challenge,
    answer: Challenge,
}

impl Terms<'_> {
    /// What the `end` ("connecting" or "accepting") proves.
    fn of(&self, end: &str) -> String {
        let Self { cluster, connecting, accepting, challenge, answer } = self;
        format!("DEPOT {VERSION} {end} {cluster} {connecting} {accepting} {challenge} {answer}")
    }
}

/// Connects to a server of this store, which must prove to be one in the role `expected`. `announce` gets the socket
/// before, so that another thread can end the wait.
pub fn connect(
    address: &Address,
    access: &Access,
    cluster: ClusterId,
    expected: Role,
    timeout: Duration,
    announce: impl Fn(&Arc<TcpStream>),
) -> Result<Connection, HandshakeError> {
    let mut connection = Connection::connect(address, timeout, announce)?;
    let (role, client) = match access {
        Access::Client { id, .. } => (Role::Client { id: *id }, Some(*id)),
        Access::Server { role, .. } => (*role, None),
    };
    let challenge = Challenge(u128::from_le_bytes(random()?));
    connection.send(&Hello { protocol: OURS, role: role.word().to_owned(), cluster, challenge, client })?;
    let (theirs, other, answer, proofs) = match connection.receive(Wait::deadline(timeout.min(HANDSHAKE_PATIENCE)))? {
        Answer::Hello { role, cluster, challenge, proofs, .. } => (role, cluster, challenge, proofs),
        Answer::Refused(failure) => return Err(HandshakeError::Refused(failure)),
    };
    if other != cluster {
        return Err(HandshakeError::Untrusted(format!("{address} belongs to another store ({other}, not {cluster})")));
    }
    if theirs != expected.word() {
        return Err(HandshakeError::Untrusted(format!("{address} is a {theirs}, not a {}", expected.word())));
    }
    let terms = Terms { cluster, connecting: role.word(), accepting: &theirs, challenge, answer };
    let keys = match access {
        Access::Client { key, .. } => key.keys(),
        Access::Server { secret, .. } => secret.keys(),
    };
    let Some(ours) = keys.answer((&terms.of("accepting"), &proofs), &terms.of("connecting")) else {
        return Err(HandshakeError::Untrusted(format!(
            "{address} does not know this store's secret, or knows another one than ours"
        )));
    };
    connection.send(&Proven { proof: ours })?;
    connection.trust();
    Ok(connection)
}

/// Answers the first lines of a connection; the role that the other end has proven. An end that is refused has been told
/// why: the connection is only to be closed.
pub fn accept(
    connection: &mut Connection,
    ours: Role,
    cluster: ClusterId,
    secret: &Secret,
) -> Result<Role, HandshakeError> {
    connection.limit_stalls(HANDSHAKE_PATIENCE)?;
    let result = answer(connection, ours, cluster, secret);
    if let Err(HandshakeError::Untrusted(why) | HandshakeError::Foreign(why)) = &result {
        // It may have gone already.
        let _ = connection.send(&Answer::Refused(Failure::NotPermitted { why: why.clone() }));
    }
    result
}

fn answer(
    connection: &mut Connection,
    ours: Role,
    cluster: ClusterId,
    secret: &Secret,
) -> Result<Role, HandshakeError> {
    let hello: Hello = connection.receive(Wait::deadline(HANDSHAKE_PATIENCE))?;
    if hello.protocol.version != VERSION {
        let theirs = hello.protocol.version;
        return Err(HandshakeError::Foreign(format!(
            "this server speaks version {VERSION} of the protocol, not {theirs}"
        )));
    }
    if hello.cluster != cluster {
        return Err(HandshakeError::Untrusted(format!("this server belongs to another store ({cluster})")));
    }
    let role = match (hello.role.as_str(), hello.client) {
        ("client", Some(id)) => Role::Client { id },
        ("controller", None) => Role::Controller,
        ("dstore", None) => Role::Dstore,
        _ => {
            return Err(HandshakeError::Foreign(
                "a role is client, controller or dstore; a client has a number".into(),
            ));
        }
    };
    let challenge = Challenge(u128::from_le_bytes(random()?));
    let terms = Terms {
        cluster,
        connecting: role.word(),
        accepting: ours.word(),
        challenge: hello.challenge,
        answer: challenge,
    };
    let keys = match role {
        Role::Client { id } => secret.client_keys(id),
        Role::Controller | Role::Dstore => secret.keys(),
    };
    let proofs = keys.proofs(&terms.of("accepting"));
    connection.send(&Answer::Hello { protocol: OURS, role: ours.word().to_owned(), cluster, challenge, proofs })?;
    let Proven { proof } = connection.receive(Wait::deadline(HANDSHAKE_PATIENCE))?;
    if !keys.is_proven(&terms.of("connecting"), proof) {
        return Err(HandshakeError::Untrusted("the secret or the key is not this store's".into()));
    }
    connection.trust();
    Ok(role)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const CLUSTER: ClusterId = ClusterId(0xc);
    const SOON: Duration = Duration::from_secs(10);

    /// A Controller that does the handshake once; its address, and what it comes to.
    fn accepting(secret: &Secret) -> (Address, thread::JoinHandle<Result<Role, HandshakeError>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").into();
        let secret = secret.clone();
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a connection");
            let mut connection = Connection::new(Arc::new(stream)).expect("a connection");
            accept(&mut connection, Role::Controller, CLUSTER, &secret)
        });
        (address, thread)
    }

    fn client(id: u64, secret: &Secret) -> Access {
        Access::Client { id: ClientId(id), key: secret.client_key(ClientId(id)) }
    }

    fn dial(address: &Address, access: &Access) -> Result<Connection, HandshakeError> {
        connect(address, access, CLUSTER, Role::Controller, SOON, |_| ())
    }

    #[test]
    fn clients_and_servers_with_the_secret_are_let_in() {
        let secret = Secret::draw().expect("random bytes");
        for (access, role) in [
            (client(7, &secret), Role::Client { id: ClientId(7) }),
            (Access::Server { role: Role::Dstore, secret: secret.clone() }, Role::Dstore),
            (Access::Server { role: Role::Controller, secret: secret.clone() }, Role::Controller),
        ] {
            let (address, accepting) = accepting(&secret);
            dial(&address, &access).expect("a connection");
            assert_eq!(accepting.join().expect("no panic").expect("let in"), role);
        }
    }

    #[test]
    fn neither_end_is_trusted_without_the_right_secret() {
        let (ours, theirs) = (Secret::draw().expect("random bytes"), Secret::draw().expect("random bytes"));
        for access in [client(7, &theirs), Access::Server { role: Role::Dstore, secret: theirs.clone() }] {
            let (address, accepting) = accepting(&ours);
            // The connecting end finds out first: the other one has had to prove itself before.
            assert!(matches!(dial(&address, &access), Err(HandshakeError::Untrusted(_))));
            accepting.join().expect("no panic").expect_err("not let in");
        }
    }

    #[test]
    fn a_secret_is_replaced_without_a_moment_of_distrust() {
        let old = Secret::draw().expect("random bytes");
        let both = old.renewed().expect("random bytes");
        let new = both.settled();
        let servers = |here: &Secret, there: &Secret| {
            let role = Role::Dstore;
            let accesses = [client(7, there), Access::Server { role, secret: there.clone() }];
            accesses.map(|access| {
                let (address, accepting) = accepting(here);
                let is_connected = dial(&address, &access).is_ok();
                assert_eq!(accepting.join().expect("no panic").is_ok(), is_connected, "both ends come to the same");
                is_connected
            })
        };
        for (here, there) in [(&old, &both), (&both, &both), (&both, &old), (&both, &new), (&new, &both), (&new, &new)]
        {
            // A client has only the key of the newest that it was given.
            let has_client_key = here == there || here == &both || there.settled() == *here;
            assert_eq!(servers(here, there), [has_client_key, true]);
        }
        for (here, there) in [(&old, &new), (&new, &old)] {
            assert_eq!(servers(here, there), [false, false]);
        }
    }

    #[test]
    fn a_client_cannot_speak_as_a_server_or_as_another() {
        let secret = Secret::draw().expect("random bytes");
        let key = secret.client_key(ClientId(7)).reveal();
        // What a client knows, used as if it were the secret, or another client's key.
        let posing = [
            Access::Server { role: Role::Dstore, secret: key.parse().expect("as long as a secret") },
            Access::Client { id: ClientId(8), key: key.parse().expect("a key") },
        ];
        for access in posing {
            let (address, accepting) = accepting(&secret);
            assert!(dial(&address, &access).is_err());
            accepting.join().expect("no panic").expect_err("not let in");
        }
    }

    #[test]
    fn strangers_are_told_what_is_wrong() {
        let secret = Secret::draw().expect("random bytes");
        let table = [
            ("DEPOT 2 0 client c 1 7\n", "version 1"),
            ("DEPOT 1 0 client d 1 7\n", "another store"),
            ("DEPOT 1 0 client c 1 -\n", "a client has a number"),
            ("DEPOT 1 0 king c 1 -\n", "a role is"),
            ("GET / HTTP/1.1\r\n\r\n", "expected a DEPOT"),
            ("DEPOT 1 0 dstore c 1 -\nPROOF 00\n", "expected a proof"),
            (&format!("DEPOT 1 0 dstore c 1 -\nPROOF {}\n", "0".repeat(64)), "is not this store's"),
            (&"x".repeat(2000), "longer than 1024"),
        ];
        for (said, expected) in table {
            let (address, accepting) = accepting(&secret);
            let mut stream = std::net::TcpStream::connect(address.resolve().expect("numeric")[0]).expect("it listens");
            stream.write_all(said.as_bytes()).expect("it reads");
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard); // what was not read makes the end a reset
            let heard = String::from_utf8_lossy(&heard).replace("%20", " ");
            assert!(
                heard.contains("ERROR not-permitted") && heard.contains(expected),
                "{said:?} is answered {heard:?}"
            );
            accepting.join().expect("no panic").expect_err("not let in");
        }
    }

    #[test]
    fn a_server_of_another_role_or_store_is_not_trusted() {
        let secret = Secret::draw().expect("random bytes");
        let (address, accepting_one) = accepting(&secret);
        let result = connect(&address, &client(7, &secret), CLUSTER, Role::Dstore, SOON, |_| ());
        assert!(matches!(result, Err(HandshakeError::Untrusted(why)) if why.contains("is a controller, not a dstore")));
        accepting_one.join().expect("no panic").expect_err("not let in");
        let (address, accepting_two) = accepting(&secret);
        let result = connect(&address, &client(7, &secret), ClusterId(0xd), Role::Controller, SOON, |_| ());
        assert!(matches!(result, Err(HandshakeError::Refused(Failure::NotPermitted { .. }))));
        accepting_two.join().expect("no panic").expect_err("not let in");
    }
}
