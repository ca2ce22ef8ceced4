//! WebDAV, classes 1 and 2 (RFC 4918): what lets a file manager mount a store.
//!
//! It is HTTP with some further methods, on the same port and with the same paths, users and conditions. `GET`, `PUT` and
//! `DELETE` are those of plain HTTP (`http`).
//!
//! | method | becomes |
//! |---|---|
//! | `PROPFIND` | `stat`, and `list` for a folder's members |
//! | `PROPPATCH` | one `set_attributes`: all of its properties are set, or none |
//! | `MKCOL` | `make_directory` |
//! | `COPY`, `MOVE` | `copy`, `rename`: one change, also of a folder; no byte moves |
//! | `LOCK`, `UNLOCK` | entries of the table of locks (`locks`) |
//!
//! *Properties.* Live ones (`getetag` and its like) are computed from what the store knows. All others are dead: what a client
//! sets is kept, as XML, in an attribute of the file or folder, named `dav:{NAMESPACE}NAME`. So a copy has them, too, and
//! they count towards the 16 KiB that all attributes may have.
//!
//! *Rights* are looked at for each path that a request names. A right holds for all that is below its path, so a user who may
//! read a folder may read all of its members.
//!
//! *Why own code.* There is a crate, `dav-server`. It asks for files that are opened and written at any place, copies folders file
//! by file, and has a trait of its own for locks that live in one process. Here a PUT, a COPY and a MOVE are one change of the
//! store each, under conditions that the store looks at.
//!
//! | file | what |
//! |---|---|
//! | `xml` | bodies as trees, and parts of them as text |
//! | `properties` | PROPFIND and PROPPATCH |
//! | `transfer` | MKCOL, COPY, MOVE |
//! | `lock` | LOCK and UNLOCK |

mod lock;
mod properties;
mod transfer;
mod xml;

use hyper::{Method, StatusCode};

pub(crate) use xml::error;

use crate::http::{Exchange, Http, Problem, Target};

/// What a server of both classes says of itself.
pub(crate) const CLASSES: &str = "1, 2";

/// The methods that HTTP itself does not have.
pub(crate) const METHODS: &str = "PROPFIND, PROPPATCH, MKCOL, COPY, MOVE, LOCK, UNLOCK";

/// Whether a method is one of them.
pub(crate) fn is_method(method: &Method) -> bool {
    METHODS.split(", ").any(|known| known == method.as_str())
}

impl Http {
    /// Answers a method of WebDAV; `None` for any other.
    pub(crate) fn answer_dav(&self, exchange: &mut Exchange, target: &Target) -> Option<Result<(), Problem>> {
        Some(match exchange.head.method.as_str() {
            "PROPFIND" => self.find_properties(exchange, target),
            "PROPPATCH" => self.set_properties(exchange, target),
            "MKCOL" => self.make_collection(exchange, target),
            "COPY" => self.transfer(exchange, target, transfer::Kind::Copy),
            "MOVE" => self.transfer(exchange, target, transfer::Kind::Move),
            "LOCK" => self.lock(exchange, target),
            "UNLOCK" => self.unlock(exchange, target),
            _ => return None,
        })
    }
}

/// How far below its path a request is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    Zero,
    One,
    Infinity,
}

impl Depth {
    /// As the head says; `Infinity` if it says nothing.
    fn of(exchange: &Exchange) -> Result<Self, Problem> {
        match exchange.head.headers.get("depth").map(|value| value.as_bytes().to_ascii_lowercase()).as_deref() {
            Some(b"0") => Ok(Self::Zero),
            Some(b"1") => Ok(Self::One),
            Some(b"infinity") | None => Ok(Self::Infinity),
            Some(_) => Err(invalid("Depth: expected 0, 1 or infinity")),
        }
    }
}

/// A head or a body that makes no sense here.
fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid-request", message)
}
