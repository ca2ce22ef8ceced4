//! What went wrong, and what to do next.

use std::fmt;

use depot::client::Error;
use depot::namespace::change::Refusal;
use stevedore::program::{Failure, exit_code};

/// Makes a failure of an error about `what`, usually a path.
pub fn about(what: impl fmt::Display) -> impl Fn(Error) -> Failure {
    move |error| {
        let advice = advice(&error).map(|advice| format!("; {advice}")).unwrap_or_default();
        Failure { message: format!("{what}: {error}{advice}"), code: code(&error) }
    }
}

/// Makes a failure of an error that is about the whole store.
pub fn of_store(error: Error) -> Failure {
    about("the store")(error)
}

fn code(error: &Error) -> u8 {
    match error {
        Error::Refused(Refusal::NotFound) => exit_code::DOES_NOT_EXIST,
        Error::Refused(Refusal::AlreadyExists) => exit_code::ALREADY_EXISTS,
        Error::NotEnoughDstores { .. } => exit_code::NOT_ENOUGH_DSTORES,
        _ => exit_code::FAILED,
    }
}

fn advice(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Refused(Refusal::ReadOnly) => "stevedore set read-only off ends that",
        Error::Refused(Refusal::OverQuota) => "stevedore set most-entries NUMBER allows more",
        Error::Refused(Refusal::NotEmpty) => "rmdir -r removes it with all that is in it",
        Error::NoSpace => "remove files, or add a Dstore (stevedore status shows the disks)",
        Error::Unavailable(_) => {
            "stevedore status says more if a Controller runs; stevedore serve or controller starts one"
        }
        Error::Damaged(_) => "stevedore stat --copies shows where its copies are",
        Error::Gone => "get it again for the new version",
        Error::NotPermitted(_) => "is this the client.toml of the store that runs there?",
        Error::OutcomeUnknown(_) => "look with stevedore stat, and repeat the command if need be",
        _ => return None,
    })
}
