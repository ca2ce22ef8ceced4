//! What the store says, as gRPC says it.

use depot::client::Error;
use depot::namespace::change::Refusal;
use tonic::{Code, Status};

/// What the store has said of `what`, usually a file's name.
pub(crate) fn status_of(what: &str, error: &Error) -> Status {
    use Refusal as R;
    let code = match error {
        Error::Refused(refusal) => match refusal {
            R::NotFound => Code::NotFound,
            R::AlreadyExists => Code::AlreadyExists,
            R::IsADirectory | R::NotADirectory | R::NotEmpty => Code::FailedPrecondition,
            R::ConditionFailed => Code::Aborted,
            R::InvalidPath => Code::InvalidArgument,
            R::TooLarge | R::OverQuota | R::TooManyOpen => Code::ResourceExhausted,
            R::ReadOnly => Code::Unavailable,
            R::NotPermitted => Code::PermissionDenied,
            R::UnknownOutcome => Code::DeadlineExceeded,
        },
        Error::NoSpace => Code::ResourceExhausted,
        Error::NotEnoughDstores { .. } | Error::Unavailable(_) => Code::Unavailable,
        Error::Damaged(_) => Code::DataLoss,
        Error::Gone | Error::TooOld => Code::Aborted,
        Error::OutcomeUnknown(_) => Code::DeadlineExceeded,
        Error::Source(_) | Error::Sink(_) => Code::Cancelled,
        Error::NotPermitted(_) => Code::PermissionDenied,
        Error::Protocol(_) => Code::Internal,
    };
    Status::new(code, format!("{what}: {error}"))
}
