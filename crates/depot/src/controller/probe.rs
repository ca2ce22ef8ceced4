//! What a Controller says of itself to the process that it runs in, for monitoring.

use std::sync::Weak;

use super::Shared;
use crate::client::Status;
use crate::identity::ControllerId;

/// Looks at a Controller for as long as it runs. No answer waits for another Controller, a Dstore or a disk.
#[derive(Clone)]
pub struct Probe(pub(super) Weak<Shared>);

/// A Controller's figures.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Which Controller this is.
    pub id: ControllerId,
    /// Whether it leads.
    pub is_leader: bool,
    /// How the store is, as far as this Controller knows: what is healed is known by the leader.
    pub status: Status,
    /// Why it cannot answer clients now, nor have another Controller answer them; `None` if it can.
    pub trouble: Option<String>,
}

impl Probe {
    /// Why the Controller has failed for good, if it has.
    pub fn failure(&self) -> Option<String> {
        self.0.upgrade()?.failure()
    }

    /// How the Controller is; `None` once it has ended. Its [`Handle`](super::Handle) must not be stopped meanwhile.
    pub fn look(&self) -> Option<Figures> {
        let shared = self.0.upgrade()?;
        let leader = shared.replica.leader();
        let trouble = match leader {
            _ if shared.waits() => Some("it waits to be added to the store".to_owned()),
            _ if shared.failure().is_some() => shared.failure(),
            None => Some("no Controller leads".to_owned()),
            Some(_) => None,
        };
        let id = shared.replica.id();
        Some(Figures { id, is_leader: leader == Some(id), status: shared.status_here(), trouble })
    }
}
