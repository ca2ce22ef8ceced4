//! What the Controller's threads share, and how all of it is started and ended.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use super::Config;
use super::coordinator::{Coordinator, Incoming, Notices, channels};
use super::gate::Gate;
use super::link::Links;
use super::listing::Listing;
use super::state::State;
use crate::protocol::connection::Allowance;
use crate::server::ThreadGroup;
use crate::sync::{Condvar, Mutex, Sender, thread};

/// What the Controller's threads share.
///
/// Lock order: the gate lets in before the state is locked; `listing`, then `state`, then `links`, then a link's `life`; a one-shot's
/// last. None is held across a wait for a peer, or any I/O.
pub(super) struct Controller {
    /// With the port that it really listens on.
    pub(super) config: Config,
    pub(super) state: Mutex<State>,
    /// Signalled with the state's lock held, whenever a [`Status`](super::Status) shows something new to wait for.
    pub(super) changed: Condvar,
    pub(super) links: Links,
    pub(super) gate: Gate,
    pub(super) listing: Listing,
    /// For lists that are longer than expected.
    pub(super) allowance: Allowance,
    /// To the coordinator.
    pub(super) notices: Notices,
    pub(super) threads: Arc<ThreadGroup>,
}

impl Controller {
    /// No Dstore has joined. What the coordinator is told comes in at the second; dropping the third stops it.
    pub(super) fn new(config: Config) -> (Arc<Self>, Incoming, Sender<Infallible>) {
        let (notices, incoming, stop) = channels();
        let controller = Self {
            state: Mutex::new(State::new(config.replicas)),
            changed: Condvar::new(),
            links: Links::default(),
            gate: Gate::default(),
            listing: Listing::default(),
            allowance: Allowance::new(config.dstore_line_limit),
            notices,
            threads: ThreadGroup::new("connection"),
            config,
        };
        (Arc::new(controller), incoming, stop)
    }
}

/// All of a running Controller but its listener. Dropping it ends all that runs or waits there.
pub(super) struct Running {
    pub(super) controller: Arc<Controller>,
    pub(super) coordinator: Option<thread::JoinHandle<()>>,
    /// Dropped to end the coordinator.
    pub(super) stop: Option<Sender<Infallible>>,
}

impl Running {
    pub(super) fn start(config: Config) -> io::Result<Self> {
        let (controller, incoming, stop) = Controller::new(config);
        let coordinator = thread::Builder::new().name("rebalance".into()).spawn({
            let controller = Arc::clone(&controller);
            move || Coordinator::new(&controller, incoming).run()
        })?;
        Ok(Self { controller, coordinator: Some(coordinator), stop: Some(stop) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // From the outside in: no request waits, no rebalance runs, then the threads can end.
        self.controller.gate.shut();
        self.controller.state.lock().stop();
        drop(self.stop.take());
        if let Some(coordinator) = self.coordinator.take() {
            let _ = coordinator.join();
        }
        self.controller.links.clear();
        self.controller.threads.stop();
    }
}
