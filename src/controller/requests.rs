//! What the Controller does about each request, and exactly the answer that the spec gives. (spec 4.2 to 4.5)
//!
//! Knows no connection. A rebalance waits for every pass: all are dropped before an answer is returned, as sending it may
//! take long.

use std::io;
use std::time::Duration;

use super::gate::{Request, Shut};
use super::shared::Controller;
use super::state::Outcome;
use crate::complaint::complain;
use crate::index::{DstoreId, Refusal};
use crate::protocol::{Address, FileName, Message};

impl Controller {
    /// STORE: has `tell` let the client know where to, and waits for the acknowledgements. No answer if they do not
    /// all come in time. Fails if the client cannot be told, or the Controller stops. (spec 4.2)
    pub(super) fn store(
        &self,
        name: &FileName,
        size: u64,
        tell: impl FnOnce(Vec<Address>) -> io::Result<()>,
    ) -> io::Result<Option<Message>> {
        let decide = || self.state.lock().begin_store(name, size);
        let (decision, _pass) = self.gate.enter(Request::Change, decide)?;
        let (dstores, outcome) = match decision {
            Ok(begun) => begun,
            Err(refusal) => return Ok(Some(refusal.into())),
        };
        let told = tell(dstores);
        // With the client gone the store could still complete, but there is no peer to tell of it.
        let timeout = if told.is_ok() { self.config.timeout } else { Duration::ZERO };
        let outcome = outcome.recv_timeout(timeout).unwrap_or_else(|_| self.state.lock().expire_store(name, &outcome));
        told?;
        Ok(match outcome {
            Outcome::Complete => Some(Message::StoreComplete),
            Outcome::Failed => {
                complain(format_args!("STORE {name}: not all acknowledgements came; removed from the index"));
                None
            }
        })
    }

    /// LOAD, or RELOAD if some have been `tried`: offers another holder, which then counts as tried. (spec 4.3)
    pub(super) fn load(&self, name: &FileName, tried: &mut Vec<DstoreId>) -> Result<Message, Shut> {
        let decide = || self.state.lock().offer(name, tried);
        let (decision, _) = self.gate.enter(Request::Look, decide)?;
        Ok(match decision {
            Ok(offer) => {
                tried.push(offer.dstore);
                Message::LoadFrom { dstore: offer.address, size: offer.size }
            }
            Err(refusal) => refusal.into(),
        })
    }

    /// REMOVE: tells every holder, and waits for their acknowledgements. No answer if they do not all come in time.
    /// (spec 4.4)
    pub(super) fn remove(&self, name: &FileName) -> Result<Option<Message>, Shut> {
        let decide = || self.state.lock().begin_remove(name);
        let (decision, _pass) = self.gate.enter(Request::Change, decide)?;
        let (holders, outcome) = match decision {
            Ok(begun) => begun,
            Err(refusal) => return Ok(Some(refusal.into())),
        };
        for dstore in holders {
            self.links.send(dstore, Message::Remove { name: name.clone() });
        }
        // The wait starts now that the last REMOVE is on its way.
        let outcome = outcome
            .recv_timeout(self.config.timeout)
            .unwrap_or_else(|_| self.state.lock().expire_remove(name, &outcome));
        Ok(match outcome {
            Outcome::Complete => Some(Message::RemoveComplete),
            Outcome::Failed => {
                complain(format_args!("REMOVE {name}: not all acknowledgements came; left to the next rebalance"));
                None
            }
        })
    }
}

/// What a client is told.
impl From<Refusal> for Message {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotEnoughDstores => Self::NotEnoughDstores,
            Refusal::FileAlreadyExists => Self::FileAlreadyExists,
            Refusal::FileDoesNotExist => Self::FileDoesNotExist { name: None },
            Refusal::AllTried => Self::LoadFailed,
        }
    }
}
