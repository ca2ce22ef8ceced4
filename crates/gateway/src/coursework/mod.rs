//! The coursework's protocol (docs/spec.md), with the depot behind it: chapter one's clients, the official one among them, store
//! and load what all other clients of the store see. (docs/wires.md, section 5)
//!
//! The façade answers as a Controller on one port, and as R Dstores on R others. It keeps no file: what comes to the R Dstores has
//! to be the same each time, and is put once.
//!
//! ```text
//!   client                          Controller's port           Dstores' ports           store
//!     |-- STORE notes.txt 5 ------------->| begins a store
//!     |<- STORE_TO 12346 12347 -----------|
//!     |-- STORE notes.txt 5 -------------------------------------->| the first copy      put begins
//!     |-- hello -------------------------------------------------->|  is what is put
//!     |-- STORE notes.txt 5, hello ------------------------------->| the others are compared
//!     |                                                            | the last one: the put may end
//!     |<- STORE_COMPLETE ------------------------------------------| once it is committed
//! ```
//!
//! A put ends when the read that finds the end of the content does. That read waits for the other copies, and fails
//! if they do not come, or differ, or the client has given up: so content is kept once, or not at all.
//!
//! No answer is ever late (spec 6.1). The thread that commits sends STORE_COMPLETE, under a lock, and only while the client waits for it: not
//! after the client's next request, and not when the timeout is over.
//!
//! | file | what |
//! |---|---|
//! | `controller` | requests: what is asked, and what is answered |
//! | `dstore` | transfers: content that comes and goes |
//! | `stores` | stores in progress |
//! | `offers` | which sizes clients have been told of files that they are about to load |

mod controller;
mod dstore;
mod offers;
mod stores;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use depot::client::{DstoreState, Error, Files};
use depot::namespace::change::Replicas;
use depot::path::Path;
use hyper::StatusCode;
use stevedore::protocol::{Address, FileName};
use stevedore::server::{Server, ThreadGroup, listen};

use crate::facade::{Running, Seats};
use crate::monitoring::{Noted, Record};
use offers::Offers;
use stores::Stores;

/// So long the last copy of a store may take to be committed, unless the command line says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// So many clients are served at a time, and so many transfers.
const MOST_CONNECTIONS: usize = 1_000;

/// The largest file that clients are told of: the official one has sizes of 32 bits. (spec 6.3)
const MOST_BYTES: u64 = i32::MAX as u64;

/// The façade while it runs.
pub struct Coursework {
    servers: Vec<Server>,
    threads: Arc<ThreadGroup>,
    places: String,
}

/// What its threads share.
struct Shared {
    files: Arc<dyn Files>,
    /// The R ports that pass for Dstores.
    dstores: Vec<Address>,
    stores: Stores,
    offers: Offers,
    timeout: Duration,
    record: Record,
    /// So many connections to the Controller's port, and so many to the others.
    clients: Seats,
    transfers: Seats,
}

impl Shared {
    /// Notes an answer: `sent` is how many bytes of content came with it.
    fn note(
        &self,
        peer: SocketAddr,
        (verb, name): (&str, Option<&FileName>),
        status: StatusCode,
        sent: u64,
        waited: Duration,
    ) {
        let name = name.map_or_else(|| "-".to_owned(), FileName::to_string);
        let request = (verb, &*name, "COURSEWORK");
        self.record.note(&Noted { peer, label: verb, request, status, sent, waited });
    }
}

impl Coursework {
    /// Answers as a Controller at `listener`, and as so many Dstores as a file has replicas: on the ports that follow, or on any free
    /// ones if the Controller's was any. `timeout` is the coursework's: what it bounds is an answer to a client that waits.
    pub fn start(
        listener: TcpListener,
        is_any_port: bool,
        timeout: Duration,
        files: Arc<dyn Files>,
        record: Record,
    ) -> io::Result<Box<dyn Running>> {
        let at = listener.local_addr()?;
        let replicas = replicas(&*files).map_err(|error| io::Error::other(format!("the store: {error}")))?;
        let wanted = |number: u16| if is_any_port { 0 } else { at.port().saturating_add(number) };
        let bind = |number| {
            let port = wanted(number);
            let failed = |error: io::Error| io::Error::new(error.kind(), format!("port {port}, for a Dstore: {error}"));
            listen(Some(at.ip()), port).map_err(failed)
        };
        let listeners: Vec<TcpListener> = (1..=replicas).map(bind).collect::<Result<_, _>>()?;
        let ports: Vec<u16> =
            listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<io::Result<_>>()?;
        let shared = Arc::new(Shared {
            files,
            dstores: ports.iter().map(|port| Address::local(*port).expect("a bound port is not 0")).collect(),
            stores: Stores::default(),
            offers: Offers::default(),
            timeout,
            record,
            clients: Seats::new(MOST_CONNECTIONS),
            transfers: Seats::new(MOST_CONNECTIONS),
        });
        let threads = ThreadGroup::new("coursework");
        let mut servers = Vec::new();
        for (number, listener) in listeners.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            let serve = move |stream: Arc<TcpStream>| dstore::serve(&shared, number, stream);
            servers.push(Server::start(listener, &threads, Some(dstore::IDLE), serve)?);
        }
        let serve = move |stream: Arc<TcpStream>| controller::serve(&shared, stream);
        servers.push(Server::start(listener, &threads, None, serve)?);
        Ok(Box::new(Self { servers, threads, places: places(at, &ports) }))
    }
}

/// How many Dstores the façade pretends to be.
fn replicas(files: &dyn Files) -> Result<u16, Error> {
    Ok(match files.settings()?.replicas {
        Replicas::Number(number) => number.into(),
        Replicas::All => {
            let present = files.status()?.dstores.iter().filter(|one| one.state == DstoreState::Present).count();
            present.clamp(1, 100) as u16
        }
    })
}

fn places(controller: SocketAddr, dstores: &[u16]) -> String {
    let ports: Vec<_> = dstores.iter().map(u16::to_string).collect();
    format!("{controller}, Dstores {}", ports.join(" "))
}

impl Running for Coursework {
    fn places(&self) -> String {
        self.places.clone()
    }

    /// Clients repeat what they have no answer to: none is waited for.
    fn stop(self: Box<Self>, _grace: Duration) {}
}

impl Drop for Coursework {
    fn drop(&mut self) {
        self.servers.iter_mut().for_each(Server::stop);
        self.threads.stop();
    }
}

/// Where a file of the protocol is: in the façade's directory. Each name of the protocol is one of the store, too. (spec 7.12)
fn path(name: &FileName) -> Path {
    Path::root().join(name).expect("the protocol's names are stricter")
}
