//! Which Dstores are members: how they join, what the Controller hears from them, and how they leave. (spec 4.1, 7.7, 7.9)

use std::fmt;
use std::io;
use std::sync::Arc;

use super::coordinator::{Answer, Reply};
use super::gate::{Pass, Request, Shut};
use super::link::{DstoreLink, Liveness};
use super::shared::Controller;
use crate::index::DstoreId;
use crate::protocol::connection::AllowanceShare;
use crate::protocol::{Address, Message};

/// Why a Dstore does not become a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// A member with its port still answers. (spec 7.7)
    PortTaken,
    /// The port is the Controller's own, where no Dstore can listen.
    OwnPort,
    /// The Controller is stopping.
    Stopping,
}

impl fmt::Display for NotAdmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PortTaken => "JOIN refused: the Dstore that has joined with this port still answers",
            Self::OwnPort => "JOIN refused: this is the Controller's own port",
            Self::Stopping => "the Controller is stopping",
        })
    }
}

impl From<Shut> for NotAdmitted {
    fn from(Shut: Shut) -> Self {
        Self::Stopping
    }
}

impl From<NotAdmitted> for io::Error {
    fn from(reason: NotAdmitted) -> Self {
        Self::other(reason.to_string())
    }
}

/// A member that did not answer when it was asked, and how many messages it had said by then.
struct Silent {
    dstore: DstoreId,
    signs: u64,
}

impl Controller {
    /// A Dstore becomes a member. Joins wait for a rebalance that is running, like any change. (spec 4.1, 4.6)
    ///
    /// A stranger must not evict a member: where one has joined with the same address, it is asked first whether it still
    /// answers. If it does, the newcomer is refused; if not, the older one has left, with its copies. A Dstore that is
    /// started again finds its old connection ended, and need not wait. (spec 7.7)
    pub(super) fn admit(
        &self,
        address: &Address,
        link: &Arc<DstoreLink>,
    ) -> Result<(DstoreId, Option<Pass<'_>>), NotAdmitted> {
        if Address::local(self.config.port).as_ref() == Some(address) {
            return Err(NotAdmitted::OwnPort);
        }
        loop {
            let silent = self.find_silent(address)?;
            // By the time that a rebalance has ended, another may have joined, or the silent one may have answered.
            let (joined, pass) = self.gate.enter(Request::Change, || self.join(address, link, silent))?;
            if let Some(dstore) = joined {
                return Ok((dstore, pass));
            }
        }
    }

    /// The member with this address, which does not answer; `None` if there is none. No lock is held and no rebalance is
    /// kept waiting meanwhile.
    fn find_silent(&self, address: &Address) -> Result<Option<Silent>, NotAdmitted> {
        loop {
            let members = self.state.lock().index.members();
            let Some(member) = members.into_iter().find(|member| member.address == *address) else { return Ok(None) };
            let dstore = member.dstore;
            let Some(older) = self.links.get(dstore) else { return Ok(None) }; // it has left just now
            match older.liveness(member.files, self.config.timeout) {
                Liveness::Answers => return Err(NotAdmitted::PortTaken),
                Liveness::Silent { signs } => return Ok(Some(Silent { dstore, signs })),
                Liveness::Ended => {} // it is a member no longer
            }
        }
    }

    /// `None` if there is a member with this address that was not found silent, or has said something since.
    fn join(&self, address: &Address, link: &Arc<DstoreLink>, silent: Option<Silent>) -> Option<DstoreId> {
        let mut state = self.state.lock();
        let mut evicted = None;
        if let Some(member) = state.index.member_at(address) {
            let older = self.links.get(member)?;
            silent.filter(|silent| silent.dstore == member && silent.signs == older.signs_of_life())?;
            state.leave(member);
            evicted = self.links.remove(member);
        }
        let dstore = state.index.join(address.clone());
        state.is_unsettled = true;
        self.links.insert(dstore, Arc::clone(link));
        self.changed.notify_all();
        drop(state);
        if let Some(older) = evicted {
            older.hang_up("it does not answer, and another Dstore joins with its port");
        }
        // The coordinator ends only when all of the Controller does.
        let _ = self.notices.joins.send(());
        Some(dstore)
    }

    /// Takes in what a member says; false if it was not asked for.
    ///
    /// `share` is what its line has beyond what was expected; a list keeps it.
    pub(super) fn hear(
        &self,
        dstore: DstoreId,
        link: &DstoreLink,
        message: Message,
        share: Option<AllowanceShare>,
    ) -> bool {
        let owed = match &message {
            Message::List { .. } => link.take_list(),
            Message::RebalanceComplete => link.take_report().map(Some),
            _ => None,
        };
        // Not before it is taken off what the Dstore owes: a newcomer that counts on an answer must not have missed it. And
        // before anything goes on because of it: what was said before a newcomer came must not count as the answer to its probe.
        link.note_sign_of_life();
        let answer = match message {
            Message::StoreAck { name } => {
                self.state.lock().acknowledge_store(&name, dstore);
                return true;
            }
            Message::RemoveAck { name } | Message::FileDoesNotExist { name: Some(name) } => {
                self.state.lock().acknowledge_remove(&name, dstore);
                return true;
            }
            Message::List { names } => Answer::Listed(names, share),
            Message::RebalanceComplete => Answer::Reported,
            _ => return false,
        };
        let Some(round) = owed else { return false };
        // One that answers a probe belongs to no round.
        if let Some(round) = round {
            let _ = self.notices.replies.send(Reply { dstore, round, answer });
        }
        true
    }

    /// A Dstore's connection has ended: it is a member no longer, if it still was one. (spec 4.1)
    pub(super) fn leave(&self, dstore: DstoreId, link: &DstoreLink) {
        let mut state = self.state.lock();
        state.leave(dstore);
        self.links.remove(dstore);
        self.changed.notify_all();
        drop(state);
        link.end();
        let _ = self.notices.departures.send(dstore);
    }
}
