//! What went wrong, as status and JSON.

use depot::client::Error;
use depot::namespace::change::Refusal;
use hyper::header::{HeaderName, RETRY_AFTER};
use hyper::{Response, StatusCode, header};

use super::Exchange;
use crate::access::Denied;
use crate::dav;

/// Why a request is not done.
#[derive(Debug)]
pub(crate) struct Problem {
    /// For every program.
    pub(crate) status: StatusCode,
    /// For those that look closer.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
    headers: Vec<(HeaderName, String)>,
    /// What WebDAV calls it, and the URLs that it is about. (RFC 4918, section 16)
    precondition: Option<(&'static str, Vec<String>)>,
}

/// After so many seconds it may be worth to try again.
const SOON: &str = "2";

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let mut problem = Self { status, code, message: message.into(), headers: Vec::new(), precondition: None };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            problem = problem.with(RETRY_AFTER, SOON);
        }
        problem
    }

    /// The same, with this in the head of the answer.
    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same as a client of WebDAV looks for it: an answer to a method of WebDAV is XML, with the name of the precondition
    /// that does not hold.
    pub(crate) fn with_precondition(mut self, name: &'static str, urls: Vec<String>) -> Self {
        self.precondition = Some((name, urls));
        self
    }

    /// What the store has said of `what`, usually a path.
    pub(crate) fn of(what: &str, error: &Error) -> Self {
        use Refusal as R;
        use StatusCode as S;
        let (status, code) = match error {
            Error::Refused(refusal) => match refusal {
                R::NotFound => (S::NOT_FOUND, "not-found"),
                R::AlreadyExists => (S::CONFLICT, "already-exists"),
                R::IsADirectory => (S::CONFLICT, "is-a-folder"),
                R::NotADirectory => (S::CONFLICT, "not-a-folder"),
                R::NotEmpty => (S::CONFLICT, "not-empty"),
                R::ConditionFailed => (S::PRECONDITION_FAILED, "condition-failed"),
                R::InvalidPath => (S::BAD_REQUEST, "invalid-path"),
                R::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large"),
                R::OverQuota => (S::INSUFFICIENT_STORAGE, "over-quota"),
                R::ReadOnly => (S::SERVICE_UNAVAILABLE, "read-only"),
                R::NotPermitted => (S::FORBIDDEN, "not-permitted"),
                R::UnknownOutcome => (S::GATEWAY_TIMEOUT, "outcome-unknown"),
                R::TooManyOpen => (S::SERVICE_UNAVAILABLE, "too-many-open"),
            },
            Error::NoSpace => (S::INSUFFICIENT_STORAGE, "no-space"),
            Error::NotEnoughDstores { .. } => (S::SERVICE_UNAVAILABLE, "not-enough-dstores"),
            Error::Unavailable(_) => (S::SERVICE_UNAVAILABLE, "unavailable"),
            Error::Damaged(_) => (S::INTERNAL_SERVER_ERROR, "damaged"),
            Error::Gone | Error::TooOld => (S::CONFLICT, "gone"),
            // Of the gateway, not of its client.
            Error::NotPermitted(_) => (S::BAD_GATEWAY, "gateway-not-permitted"),
            Error::OutcomeUnknown(_) => (S::GATEWAY_TIMEOUT, "outcome-unknown"),
            Error::Source(error) if error.kind() == std::io::ErrorKind::TimedOut => (S::REQUEST_TIMEOUT, "timed-out"),
            Error::Source(_) => (S::BAD_REQUEST, "incomplete"),
            Error::Sink(_) => (S::INTERNAL_SERVER_ERROR, "interrupted"),
            Error::Protocol(_) => (S::BAD_GATEWAY, "protocol"),
        };
        Self::new(status, code, format!("{what}: {error}"))
    }

    /// Tells the client, unless an answer has begun.
    pub(super) fn send(self, exchange: &mut Exchange) {
        // A client that speaks no more than HTTP does not expect XML.
        let precondition = self.precondition.as_ref().filter(|_| dav::is_method(&exchange.head.method));
        let (content_type, body) = match precondition {
            None => {
                let body = serde_json::json!({ "error": self.code, "message": self.message });
                ("application/json", format!("{body}\n"))
            }
            Some((name, urls)) => ("application/xml; charset=utf-8", dav::error(name, urls, &self.message)),
        };
        let mut head = Response::builder().header(header::CONTENT_TYPE, content_type);
        for (name, value) in &self.headers {
            head = head.header(name, value);
        }
        let body = if exchange.is_head() { String::new() } else { body };
        exchange.send(self.status, head, body);
    }
}

/// What access control says.
impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::LoginNeeded => {
                let message = "this needs a user and its password (curl -u NAME:PASSWORD)";
                let problem = Self::new(StatusCode::UNAUTHORIZED, "login-needed", message);
                problem.with(header::WWW_AUTHENTICATE, "Basic realm=\"Stevedore\", charset=\"UTF-8\"")
            }
            Denied::NotPermitted => {
                let message = "this user may not do that there (stevedore user grant gives rights)";
                Self::new(StatusCode::FORBIDDEN, "not-permitted", message)
            }
            Denied::TooManyAttempts(wait) => {
                let seconds = wait.as_secs() + 1;
                let message = format!("there were too many wrong passwords: try again in {seconds} s");
                let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", message);
                problem.with(RETRY_AFTER, seconds.to_string())
            }
            Denied::Store(error) => Self::of("the users", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, ErrorKind};

    #[test]
    fn each_error_of_the_store_has_its_status_and_code() {
        let text = String::new;
        let io = |kind| io::Error::new(kind, "x");
        let refused = |refusal| Error::Refused(refusal);
        let table = [
            (refused(Refusal::NotFound), 404, "not-found"),
            (refused(Refusal::AlreadyExists), 409, "already-exists"),
            (refused(Refusal::IsADirectory), 409, "is-a-folder"),
            (refused(Refusal::NotADirectory), 409, "not-a-folder"),
            (refused(Refusal::NotEmpty), 409, "not-empty"),
            (refused(Refusal::ConditionFailed), 412, "condition-failed"),
            (refused(Refusal::InvalidPath), 400, "invalid-path"),
            (refused(Refusal::TooLarge), 413, "too-large"),
            (refused(Refusal::OverQuota), 507, "over-quota"),
            (refused(Refusal::ReadOnly), 503, "read-only"),
            (refused(Refusal::NotPermitted), 403, "not-permitted"),
            (refused(Refusal::UnknownOutcome), 504, "outcome-unknown"),
            (refused(Refusal::TooManyOpen), 503, "too-many-open"),
            (Error::NoSpace, 507, "no-space"),
            (Error::NotEnoughDstores { there: 1, needed: 2, why: text() }, 503, "not-enough-dstores"),
            (Error::Unavailable(text()), 503, "unavailable"),
            (Error::Damaged(text()), 500, "damaged"),
            (Error::Gone, 409, "gone"),
            (Error::TooOld, 409, "gone"),
            (Error::NotPermitted(text()), 502, "gateway-not-permitted"),
            (Error::OutcomeUnknown(text()), 504, "outcome-unknown"),
            (Error::Source(io(ErrorKind::TimedOut)), 408, "timed-out"),
            (Error::Source(io(ErrorKind::ConnectionAborted)), 400, "incomplete"),
            (Error::Sink(io(ErrorKind::BrokenPipe)), 500, "interrupted"),
            (Error::Protocol(text()), 502, "protocol"),
        ];
        // What people are told of each: the rows of a table.
        let documented = include_str!("../../../../docs/gateway.md");
        for (error, status, code) in table {
            let problem = Problem::of("/a", &error);
            assert_eq!((problem.status.as_u16(), problem.code), (status, code), "{error:?}");
            assert!(problem.message.starts_with("/a: "), "{error:?}: it says of what");
            let is_temporary = problem.headers.iter().any(|(name, _)| name == RETRY_AFTER);
            assert_eq!(is_temporary, status == 503, "{error:?}");
            let row = |line: &str| {
                let (numbers, codes) = line.trim_start_matches("| ").split_once(" |").unwrap_or_default();
                numbers.contains(&status.to_string()) && codes.contains(&format!("`{code}`"))
            };
            assert!(documented.lines().any(row), "docs/gateway.md does not say {status} {code}");
        }
    }
}
