//! May a STORE replace the file that is there? (spec 8.4)
//!
//! The problem: a stranger who reaches a Dstore's port can say `STORE f 5` for a file that is stored already. Nothing in
//! the message tells the Dstore that no Controller sent this client.
//!
//! The idea: a file that is *store complete* is not stored again before it is removed (spec 3.2), and any client may ask
//! the Controller whether it is. So a Dstore that has a file of this name says LOAD to the Controller, as a client would,
//! before it says ACK.
//!
//! | answer to LOAD | the STORE |
//! |---|---|
//! | ERROR_FILE_DOES_NOT_EXIST | is taken: what is there is left over from a store that failed |
//! | LOAD_FROM, ERROR_LOAD, anything else | is refused: the file is complete, or may be |
//! | none | is refused if this Controller has ever answered such a question. Otherwise it may be one that never does, and the STORE goes on |
//!
//! LOAD_FROM also tells the file's size. A copy of another size is bad, whatever its checksum says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::protocol::{Connection, FileName, Message};

/// The longest wait for an answer: the client that waits for its ACK has a timeout, too.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// What a Dstore knows of its Controller as a client of it.
pub(super) struct Replacements {
    controller: SocketAddr,
    wait: Duration,
    /// Whether the Controller has ever answered such a question.
    has_answered: AtomicBool,
}

/// What is to happen to a STORE of a file that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may be replaced.
    Replace,
    /// It may not. Its right size is told where the Controller has said it.
    Keep {
        /// In bytes.
        size: Option<u64>,
    },
}

impl Replacements {
    /// `timeout` is the Dstore's own for replies.
    pub(super) fn new(controller: SocketAddr, timeout: Duration) -> Self {
        Self { controller, wait: LONGEST_WAIT.min(timeout / 2), has_answered: AtomicBool::new(false) }
    }

    /// Asks the Controller whether the file is complete.
    pub(super) fn ask(&self, name: &FileName) -> Verdict {
        let answer = self.answer(name);
        if answer.is_some() {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        match answer {
            Some(Message::FileDoesNotExist { name: None }) => Verdict::Replace,
            Some(Message::LoadFrom { size, .. }) => Verdict::Keep { size: Some(size) },
            None if !self.has_answered.load(Ordering::Relaxed) => Verdict::Replace,
            _ => Verdict::Keep { size: None },
        }
    }

    fn answer(&self, name: &FileName) -> Option<Message> {
        let mut connection = Connection::connect(self.controller, self.wait).ok()?;
        connection.send(&Message::Load { name: name.clone() }).ok()?;
        connection.receive_within(self.wait).ok()??.ok()
    }
}
