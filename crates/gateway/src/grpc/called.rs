//! A call, as it is noted: in the gateway's metrics and in its access log.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::http::HeaderMap;
use tonic::{Code, Status};

use crate::monitoring::{Noted, Record};

/// A call, which is noted when this is dropped.
pub(super) struct Called {
    record: Record,
    peer: Option<SocketAddr>,
    path: String,
    came: Instant,
    waited: Option<Duration>,
    /// How it has ended. A call that ends without saying so was given up by its client, or cut off.
    code: Code,
    sent: u64,
}

impl Called {
    /// A call that has come in this moment.
    pub(super) fn new(record: Record, peer: Option<SocketAddr>, path: &str) -> Self {
        let (came, code) = (Instant::now(), Code::Cancelled);
        Self { record, peer, path: path.to_owned(), came, waited: None, code, sent: 0 }
    }

    /// Its answer begins.
    pub(super) fn begins(&mut self) {
        self.waited = Some(self.came.elapsed());
    }

    /// It has ended so, and its client has taken so many bytes.
    pub(super) fn ends(&mut self, code: Code, sent: u64) {
        (self.code, self.sent) = (code, sent);
    }
}

impl Drop for Called {
    fn drop(&mut self) {
        let Some(peer) = self.peer else { return };
        // What no service knows may be any word of the client's.
        let label = match self.code {
            Code::Unimplemented => "other",
            _ => self.path.rsplit('/').next().unwrap_or_default(),
        };
        let waited = self.waited.unwrap_or_else(|| self.came.elapsed());
        let request = ("POST", &*self.path, "HTTP/2.0");
        self.record.note(&Noted { peer, label, request, status: status(self.code), sent: self.sent, waited });
    }
}

/// What is said at the end of an answer, or with its head if that is all of it.
pub(super) fn code_in(trailers: &HeaderMap) -> Option<Code> {
    Status::from_header_map(trailers).map(|status| status.code())
}

/// What HTTP says for it, as Google's gateways translate it (google/rpc/code.proto).
fn status(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
    };
    StatusCode::from_u16(number).expect("three digits")
}
