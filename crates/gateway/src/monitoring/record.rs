//! Where the façades beside HTTP and S3 note what they have answered.
//!
//! They speak protocols without HTTP's methods and statuses. What is asked for has a name there, too: a gRPC method, a verb, a kind of
//! frame. And each answer is as good as one of HTTP's: so one question to the metrics finds the failures of all façades.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;

use super::journal::{Answered, Journal};
use super::requests::Facade;

/// Notes the answers of one façade: in the metrics, in the console's charts, and in the access log. The default notes nothing.
#[derive(Clone, Default)]
pub struct Record(Option<Arc<To>>);

struct To {
    journal: Arc<Journal>,
    name: &'static str,
    user: String,
}

/// An answer of a façade.
#[derive(Clone, Copy, Debug)]
pub struct Noted<'a> {
    /// The client.
    pub peer: SocketAddr,
    /// What was asked for, as a label of the metrics: one of few words, whatever clients say.
    pub label: &'a str,
    /// The same as a line of the access log has it: a verb, what it is about, and the protocol.
    pub request: (&'a str, &'a str, &'a str),
    /// What HTTP would have said.
    pub status: StatusCode,
    /// So many bytes of the answer were taken by the client.
    pub sent: u64,
    /// So long after the request the answer began.
    pub waited: Duration,
}

impl Record {
    /// For the façade of this name, which acts as this user.
    pub(crate) fn new(journal: Arc<Journal>, name: &'static str, user: &str) -> Self {
        Self(Some(Arc::new(To { journal, name, user: user.to_owned() })))
    }

    /// Notes that a request was answered.
    pub fn note(&self, noted: &Noted<'_>) {
        let Some(to) = &self.0 else { return };
        let Noted { peer, label, request: (method, target, protocol), status, sent, waited } = *noted;
        let facade = Facade::Named(to.name);
        let request = (method, target, protocol);
        to.journal.note(&Answered { facade, peer, user: &to.user, label, request, status, sent, waited });
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Record").field(&self.0.as_ref().map(|to| to.name)).finish()
    }
}
