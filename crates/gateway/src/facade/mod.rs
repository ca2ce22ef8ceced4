//! Façades: further ways into a store, beside HTTP and S3. (docs/gateway.md)
//!
//! Each speaks one protocol that clients of another system speak, in a folder of its own, and only translates to
//! [`Files`]. What they have in common is here: a façade acts as one named user of the store, in one of its directories, and
//! gets a store that is bounded to that (`bounded`). So no façade decides what its clients may do, and none can forget to.
//!
//! ```text
//!   Facade { name, acting, starter }  ── Gateway::start ─▶  starter(bounded store, record)  ─▶  Running { places, stop }
//! ```

mod bounded;
mod seats;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use depot::client::{Error, Files};
use depot::namespace::change::{Details, Refusal};
use depot::path::Path;

use crate::access::{ANONYMOUS, Access};
use crate::http::Budget;
use crate::locks::Locks;
use crate::monitoring::{Journal, Record};
use crate::server;
use bounded::Bounded;
pub(crate) use seats::Seats;

/// Whom a façade acts as, and where.
#[derive(Clone, Debug)]
pub struct Acting {
    /// The user whose rights its clients have. They are looked up anew as they change.
    pub user: String,
    /// What its clients see as the root. It is made if it is missing.
    pub directory: Path,
    /// `anonymous` may read and write if there is no user of that name: only this machine reaches the façade, or all clients that reach
    /// it are meant to.
    pub is_open: bool,
}

impl Acting {
    /// As `anonymous`, in the whole store. `is_open` is as in [`Acting`].
    pub fn anonymous(is_open: bool) -> Self {
        Self { user: ANONYMOUS.to_owned(), directory: Path::root(), is_open }
    }
}

/// A façade that listens, and is ready to start.
pub struct Facade {
    /// What people call it: it is shown.
    pub name: &'static str,
    /// Whom it acts as.
    pub acting: Acting,
    /// Starts to serve the store that it is given, and nothing beyond that.
    pub starter: Starter,
}

/// What starts a façade on a store. What it has answered it may note in the record.
pub type Starter = Box<dyn FnOnce(Arc<dyn Files>, Record) -> io::Result<Box<dyn Running>> + Send>;

/// A façade that serves. Dropping it ends it at once.
pub trait Running: Send {
    /// Where it is reached, for people: `127.0.0.1:6235`.
    fn places(&self) -> String;

    /// Takes no more requests, gives those under way `grace` to end, and returns when all its threads have ended.
    fn stop(self: Box<Self>, grace: Duration);
}

/// What bounds all façades of a gateway, and HTTP and S3 as well.
#[derive(Clone)]
pub(crate) struct Common {
    /// The users.
    pub(crate) access: Arc<Access>,
    /// What clients of WebDAV have locked.
    pub(crate) locks: Arc<Locks>,
    /// The memory for all uploads.
    pub(crate) uploads: Arc<Budget>,
    /// Where answers are noted.
    pub(crate) journal: Arc<Journal>,
}

impl Running for server::Server {
    fn places(&self) -> String {
        self.address().map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    fn stop(self: Box<Self>, grace: Duration) {
        server::Server::stop(*self, grace);
    }
}

impl Facade {
    /// Starts it on what its user may have of the store.
    pub(crate) fn start(self, store: &Arc<dyn Files>, common: &Common) -> io::Result<Box<dyn Running>> {
        let Self { name, acting, starter } = self;
        make_directory(&**store, &acting.directory)
            .map_err(|error| io::Error::other(format!("{name}: {}: {error}", acting.directory)))?;
        let record = Record::new(Arc::clone(&common.journal), name, &acting.user);
        let bounded = Bounded::new(Arc::clone(store), common, acting);
        starter(Arc::new(bounded), record).map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
    }
}

fn make_directory(store: &dyn Files, path: &Path) -> Result<(), Error> {
    match store.stat(path) {
        Err(Error::Refused(Refusal::NotFound)) => {}
        found => return found.map(drop),
    }
    match store.make_directory(path, true, &Details::default(), None) {
        Ok(_) | Err(Error::Refused(Refusal::AlreadyExists)) => Ok(()),
        Err(error) => Err(error),
    }
}
