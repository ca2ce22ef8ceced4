//! An operator, who changes which Controllers the store has while the storm goes on. (depot 4.7)
//!
//! There is one errand at a time. Each leaves the store with as many Controllers as before:
//!
//! ```text
//! a new one is added, then one is removed          add N   remove X   end X
//! one is removed, then a new one is added          remove X   end X   add N
//! one loses its folder, and is made a new one      X is refused   remove X   add X
//! ```
//!
//! X may be the leader. What a step asks of the store is asked until the store has done it: the leader may be away, or a
//! majority. What a storm leaves unfinished is finished in the calm. A folder is lost only once the errand before has been
//! answered: no store of three survives the loss of two at a time.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use depot::client::{Cluster, Error, Files};
use depot::identity::ControllerId;
use kit::Rng;
use parking_lot::Mutex;

use super::servers::{Servers, address};
use crate::stop::{Stop, wrong};

/// Between two times that the store is asked the same.
const PAUSE: Duration = Duration::from_millis(100);

/// What is done next. A Controller is known by its port until the store knows it.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The Controller there runs with an empty folder. It is to vote.
    Add(u16),
    /// The Controller there has lost its folder, and was this one before. It is not let in.
    Refuse(u16, ControllerId),
    /// It is to belong to the store no longer.
    Remove(ControllerId),
    /// The one there does not, and is ended.
    End(u16),
}

/// Who changes which Controllers there are.
pub struct Operator {
    store: Arc<Cluster>,
    steps: VecDeque<Step>,
    /// The step that the store is asked for, and the thread that asks until the store has done it.
    asking: Option<(Step, JoinHandle<Result<(), String>>)>,
    /// What the store said last.
    said: Arc<Mutex<String>>,
    /// The run ends: nothing is asked any more.
    is_over: Arc<AtomicBool>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Operator {
    /// Asks through this client.
    pub fn new(store: Cluster) -> Self {
        let (steps, asking) = (VecDeque::new(), None);
        Self { store: Arc::new(store), steps, asking, said: Arc::default(), is_over: Arc::default() }
    }

    /// Begins an errand, if none is under way.
    pub fn begin(
        &mut self,
        servers: &mut Servers,
        rng: &mut Rng,
        tally: &mut BTreeMap<&'static str, u64>,
    ) -> io::Result<()> {
        let (kind, at) = (rng.below(3), rng.below(servers.controllers.len() + 1));
        if self.asking.is_some() {
            return Ok(());
        }
        let kind = match kind {
            0 => {
                let new = servers.begin_controller()?.port();
                let (port, id) = leave(servers, at)?;
                self.steps.extend([Step::Add(new), Step::Remove(id), Step::End(port)]);
                "Controllers added, and another one removed"
            }
            1 => {
                let at = at % servers.controllers.len();
                let new = servers.begin_controller()?.port();
                let (port, id) = leave(servers, at)?;
                self.steps.extend([Step::Remove(id), Step::End(port), Step::Add(new)]);
                "Controllers removed, and another one added"
            }
            _ => {
                let at = at % servers.controllers.len();
                let lost = &mut servers.controllers[at];
                let (port, id) = (lost.port(), lost.controller_id()?);
                lost.lose_folder()?;
                self.steps.extend([Step::Refuse(port, id), Step::Remove(id), Step::Add(port)]);
                "Controllers that lost their disks"
            }
        };
        *tally.entry(kind).or_default() += 1;
        Ok(())
    }

    /// Goes on with the errand, as far as the store has done what it was asked for.
    pub fn go_on(&mut self, servers: &mut Servers) -> Result<(), Stop> {
        if let Some((step, thread)) = self.asking.take_if(|(_, thread)| thread.is_finished()) {
            let answered = thread.join().unwrap_or_else(|_| Err("the thread that asks has panicked".into()));
            answered.map_err(|why| Stop::Wrong(format!("{step:?}: {why}")))?;
        }
        while self.asking.is_none()
            && let Some(step) = self.steps.pop_front()
        {
            match step {
                Step::End(port) => servers.end_controller(port)?,
                step => self.asking = Some((step, self.ask(step)?)),
            }
        }
        Ok(())
    }

    /// Comes to the end of the errand. There are no faults any more.
    pub fn finish(&mut self, servers: &mut Servers, patience: Duration) -> Result<(), Stop> {
        let deadline = Instant::now() + patience;
        loop {
            self.go_on(servers)?;
            let Some((step, _)) = &self.asking else { return Ok(()) };
            if Instant::now() > deadline {
                return wrong(format!("{step:?} is not done after {patience:?}: {}", self.said.lock()));
            }
            thread::sleep(PAUSE / 2);
        }
    }

    fn ask(&self, step: Step) -> io::Result<JoinHandle<Result<(), String>>> {
        let (store, said, is_over) = (Arc::clone(&self.store), Arc::clone(&self.said), Arc::clone(&self.is_over));
        *said.lock() = "the store has not answered".into();
        let ask = move || {
            while !is_over.load(Ordering::Relaxed) {
                match attempt(&store, step) {
                    Attempt::Done => return Ok(()),
                    Attempt::Wrong(why) => return Err(why),
                    Attempt::NotYet(why) => *said.lock() = why,
                }
                thread::sleep(PAUSE);
            }
            Ok(())
        };
        thread::Builder::new().name("operator".into()).spawn(ask)
    }
}

/// What has come of asking once.
enum Attempt {
    Done,
    /// For this reason.
    NotYet(String),
    /// The store has done what it may not do.
    Wrong(String),
}

fn attempt(store: &Cluster, step: Step) -> Attempt {
    let asked = match step {
        Step::Add(port) | Step::Refuse(port, _) => store.add_controller(&address(port)),
        Step::Remove(id) => store.remove_controller(id),
        Step::End(_) => Ok(()),
    };
    match (step, asked) {
        (Step::Refuse(..), Ok(())) => Attempt::Wrong("a Controller that has lost its folder is let in".into()),
        // The sentence says what to do.
        (Step::Refuse(_, was), Err(Error::NotPermitted(why)))
            if why.contains(&format!("controllers replace {was}")) =>
        {
            Attempt::Done
        }
        // It was removed when it was asked for before, and the answer was lost.
        (Step::Remove(_), Err(Error::NotPermitted(why))) if why.contains("there is no Controller") => Attempt::Done,
        (_, Ok(())) => Attempt::Done,
        (_, Err(error)) => Attempt::NotYet(error.to_string()),
    }
}

/// This Controller is about to be removed: where it is reached, and which it is.
fn leave(servers: &mut Servers, at: usize) -> io::Result<(u16, ControllerId)> {
    let leaving = &mut servers.controllers[at];
    leaving.is_leaving = true;
    Ok((leaving.port(), leaving.controller_id()?))
}
