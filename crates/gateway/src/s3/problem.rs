//! What went wrong, as S3 says it: a status, a code for programs, and a sentence for people, in XML.

use depot::client::Error;
use depot::namespace::change::Refusal;
use hyper::StatusCode;
use hyper::header::{self, HeaderName};

use crate::access::Denied;

/// Why a request is not done.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// One of S3's where it has one.
    pub(super) code: &'static str,
    pub(super) message: String,
    /// Further fields of the answer's head.
    pub(super) headers: Vec<(HeaderName, String)>,
}

/// After so many seconds it may be worth to try again.
const SOON: &str = "2";

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let again = (status == StatusCode::SERVICE_UNAVAILABLE).then(|| (header::RETRY_AFTER, SOON.to_owned()));
        Self { status, code, message: message.into(), headers: again.into_iter().collect() }
    }

    /// The request is not well formed: status 400.
    pub(super) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The sender may not: status 403.
    pub(super) fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// S3 has it, and this gateway does not.
    pub(super) fn not_implemented(what: &str) -> Self {
        let message = format!("{what} is not supported here: docs/s3.md says what is");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    pub(super) fn no_such_bucket(bucket: &str) -> Self {
        let message = format!("{bucket}: there is no such bucket: a bucket is a folder directly below /");
        Self::new(StatusCode::NOT_FOUND, "NoSuchBucket", message)
    }

    pub(super) fn no_such_key(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NoSuchKey", format!("{name}: there is no such object"))
    }

    /// A condition of the client does not hold.
    pub(super) fn condition_failed(name: &str) -> Self {
        let message = format!("{name}: what If-Match or another condition says does not hold");
        Self::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", message)
    }

    /// What the store has said of `what`, usually a path.
    pub(super) fn of(what: &str, error: &Error) -> Self {
        use Refusal as R;
        use StatusCode as S;
        let (status, code) = match error {
            Error::Refused(refusal) => match refusal {
                R::NotFound => return Self::no_such_key(what),
                R::AlreadyExists | R::ConditionFailed => return Self::condition_failed(what),
                // S3 has no names for these two: it has no folders.
                R::IsADirectory => {
                    let message = format!(
                        "{what}: there are objects below {what}/, so nothing can be called {what}: a store has files and folders"
                    );
                    return Self::new(S::CONFLICT, "KeyIsAFolder", message);
                }
                R::NotADirectory => {
                    let message = format!("{what}: an object is on the way to it, and cannot be a folder, too");
                    return Self::new(S::CONFLICT, "ParentIsAnObject", message);
                }
                R::NotEmpty => (S::CONFLICT, "BucketNotEmpty"),
                R::InvalidPath => (S::BAD_REQUEST, "KeyTooLongError"),
                R::TooLarge => (S::BAD_REQUEST, "EntityTooLarge"),
                R::OverQuota => (S::INSUFFICIENT_STORAGE, "QuotaExceeded"),
                R::ReadOnly => (S::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
                R::NotPermitted => (S::FORBIDDEN, "AccessDenied"),
                R::UnknownOutcome => (S::INTERNAL_SERVER_ERROR, "InternalError"),
                R::TooManyOpen => (S::SERVICE_UNAVAILABLE, "SlowDown"),
            },
            Error::NoSpace => (S::INSUFFICIENT_STORAGE, "InsufficientStorage"),
            Error::NotEnoughDstores { .. } | Error::Unavailable(_) => (S::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Error::Gone | Error::TooOld => (S::CONFLICT, "OperationAborted"),
            Error::Source(error) if error.kind() == std::io::ErrorKind::TimedOut => (S::BAD_REQUEST, "RequestTimeout"),
            Error::Source(_) => (S::BAD_REQUEST, "IncompleteBody"),
            // Of the gateway, not of its client.
            Error::NotPermitted(_) | Error::Protocol(_) => (S::BAD_GATEWAY, "InternalError"),
            Error::Damaged(_) | Error::OutcomeUnknown(_) | Error::Sink(_) => {
                (S::INTERNAL_SERVER_ERROR, "InternalError")
            }
        };
        Self::new(status, code, format!("{what}: {error}"))
    }
}

/// What access control says. S3 has no 401.
impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::LoginNeeded => {
                Self::forbidden("AccessDenied", "this needs an access key (stevedore user key add NAME)")
            }
            Denied::NotPermitted => {
                let message = "this user may not do that there (stevedore user grant gives rights)";
                Self::forbidden("AccessDenied", message)
            }
            Denied::TooManyAttempts(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "try again soon"),
            Denied::Store(error) => Self::of("the users", &error),
        }
    }
}
