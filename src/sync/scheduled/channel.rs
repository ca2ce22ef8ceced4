//! Unbounded channels with one receiver each, and `select!`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use shuttle::rand::{Rng, thread_rng};

use crate::sync::{Condvar, Mutex, thread};

/// Sends into a channel. The last one that is dropped closes it.
pub(crate) struct Sender<T>(Arc<Channel<T>>);

/// Receives from a channel.
pub(crate) struct Receiver<T>(Arc<Channel<T>>);

/// The channel is closed and empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

struct Channel<T> {
    state: Mutex<State<T>>,
    /// shuttle has no clock: what a timer sends comes at any moment.
    is_timer: bool,
}

struct State<T> {
    messages: VecDeque<T>,
    is_closed: bool,
    /// The thread that waits in a `select!`.
    waiting: Option<Arc<Wake>>,
}

#[derive(Default)]
pub(crate) struct Wake {
    is_due: Mutex<bool>,
    changed: Condvar,
}

fn channel<T>(messages: impl IntoIterator<Item = T>, is_timer: bool) -> Arc<Channel<T>> {
    let state = State { messages: messages.into_iter().collect(), is_closed: false, waiting: None };
    Arc::new(Channel { state: Mutex::new(state), is_timer })
}

/// A channel that takes any number of messages.
pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let channel = channel([], false);
    (Sender(Arc::clone(&channel)), Receiver(channel))
}

/// Receives one message, at some time.
pub(crate) fn at(deadline: Instant) -> Receiver<Instant> {
    Receiver(channel([deadline], true))
}

/// Receives nothing.
pub(crate) fn never<T>() -> Receiver<T> {
    Receiver(channel([], false))
}

impl<T> Channel<T> {
    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        let waiting = {
            let mut state = self.state.lock();
            change(&mut state);
            state.waiting.clone()
        };
        if let Some(waiting) = waiting {
            *waiting.is_due.lock() = true;
            waiting.changed.notify_one();
        }
    }
}

impl<T> Sender<T> {
    pub(crate) fn send(&self, message: T) -> Result<(), Closed> {
        self.0.change(|state| state.messages.push_back(message));
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.change(|state| state.is_closed = true);
    }
}

impl<T> Receiver<T> {
    /// The next message, of a channel that [`ready`] has named.
    pub(crate) fn take(&self) -> Result<T, Closed> {
        self.0.state.lock().messages.pop_front().ok_or(Closed)
    }

    pub(crate) fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.take().ok())
    }
}

/// What a `select!` looks at.
pub(crate) trait Arm {
    fn is_ready(&self) -> bool;
    fn is_timer(&self) -> bool;
    fn watch(&self, waiting: Option<Arc<Wake>>);
}

impl<T> Arm for Receiver<T> {
    fn is_ready(&self) -> bool {
        let is_due = !self.0.is_timer || thread_rng().gen_ratio(1, 4);
        let state = self.0.state.lock();
        is_due && (!state.messages.is_empty() || state.is_closed)
    }

    fn is_timer(&self) -> bool {
        self.0.is_timer
    }

    fn watch(&self, waiting: Option<Arc<Wake>>) {
        self.0.state.lock().waiting = waiting;
    }
}

impl<A: Arm> Arm for &A {
    fn is_ready(&self) -> bool {
        (*self).is_ready()
    }

    fn is_timer(&self) -> bool {
        (*self).is_timer()
    }

    fn watch(&self, waiting: Option<Arc<Wake>>) {
        (*self).watch(waiting);
    }
}

/// Waits until one of the channels has a message or is closed; of several, any one.
pub(crate) fn ready(arms: &[&dyn Arm]) -> usize {
    loop {
        let ready: Vec<usize> = (0..arms.len()).filter(|&arm| arms[arm].is_ready()).collect();
        if !ready.is_empty() {
            return ready[thread_rng().gen_range(0..ready.len())];
        }
        if arms.iter().any(|arm| arm.is_timer()) {
            thread::yield_now();
            continue;
        }
        let wake = Arc::new(Wake::default());
        arms.iter().for_each(|arm| arm.watch(Some(Arc::clone(&wake))));
        // Looked at again: what came before the watch has woken no thread.
        if !arms.iter().any(|arm| arm.is_ready()) {
            let mut is_due = wake.is_due.lock();
            while !*is_due {
                wake.changed.wait(&mut is_due);
            }
        }
        arms.iter().for_each(|arm| arm.watch(None));
    }
}

/// Waits for the first of several channels, and does what stands at its arm.
macro_rules! select {
    ($(recv($receiver:expr) -> $message:pat => $body:expr,)+) => {{
        let ready = $crate::sync::ready(&[$(&$receiver),+]);
        let mut arms = 0..;
        $(if arms.next() == Some(ready) {
            let $message = $receiver.take();
            $body
        } else)+ {
            unreachable!("one of the arms is ready")
        }
    }};
}
pub(crate) use select;
