//! What is to be written to one Dstore, until its writer has written it.
//!
//! A Dstore that reads slowly, or not at all, must not make the Controller grow. So an outbox holds at most one LIST, one
//! order, and a bounded number of bytes of other messages.

use std::collections::VecDeque;

use crate::protocol::{Message, Order};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The most bytes of messages that are neither a LIST nor an order, each counted with [`OVERHEAD`].
pub(super) const MOST_BYTES: usize = 8 << 20;

/// About what a message needs beside its name.
const OVERHEAD: usize = 64;

/// Any thread puts messages in; one, the writer, takes them out.
pub(in crate::controller) struct Outbox {
    state: Mutex<State>,
    /// Signalled when there is something for the writer, and at the end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Message>,
    /// Of the messages that count.
    bytes: usize,
    /// Whether an order waits to be written, or is being written.
    has_order: bool,
    /// Whether that is what the writer is at.
    is_writing_order: bool,
    is_closed: bool,
}

impl Outbox {
    /// An empty one.
    pub(in crate::controller) fn new() -> Self {
        Self { state: Mutex::default(), changed: Condvar::new() }
    }

    /// Adds a message; false if there are too many unwritten ones.
    pub(super) fn add(&self, message: Message) -> bool {
        let mut state = self.state.lock();
        let bytes = cost(&message);
        if state.bytes + bytes > MOST_BYTES {
            return false;
        }
        state.bytes += bytes;
        self.put(state, message);
        true
    }

    /// Adds a LIST; false if one waits to be written already: the answer to that will be as new.
    pub(super) fn add_list(&self) -> bool {
        let state = self.state.lock();
        if state.messages.iter().any(|message| matches!(message, Message::List { .. })) {
            return false;
        }
        self.put(state, Message::List { names: Vec::new() });
        true
    }

    /// Adds an order; false if an older one has not been written yet.
    pub(super) fn add_order(&self, order: Order) -> bool {
        let mut state = self.state.lock();
        if state.has_order {
            return false;
        }
        state.has_order = true;
        self.put(state, Message::Rebalance { order });
        true
    }

    fn put(&self, mut state: MutexGuard<'_, State>, message: Message) {
        if !state.is_closed {
            state.messages.push_back(message);
            drop(state); // else the writer wakes only to wait for the lock
            self.changed.notify_one();
        }
    }

    /// For the writer, which has written what it got before: waits for the next message; `None` once closed.
    pub(in crate::controller) fn next(&self) -> Option<Message> {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.is_writing_order) {
            state.has_order = false;
        }
        loop {
            if let Some(message) = state.messages.pop_front() {
                state.bytes -= cost(&message);
                state.is_writing_order = matches!(message, Message::Rebalance { .. });
                return Some(message);
            }
            if state.is_closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Drops what is in it, and ends the writer.
    pub(in crate::controller) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let unwritten = std::mem::take(&mut state.messages);
        state.bytes = 0;
        drop(state);
        self.changed.notify_one();
        drop(unwritten); // an order may be large
    }
}

fn cost(message: &Message) -> usize {
    match message {
        Message::List { .. } | Message::Rebalance { .. } => 0,
        Message::Remove { name } => OVERHEAD + name.len(),
        _ => OVERHEAD,
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    fn order() -> Order {
        Order { sends: Vec::new(), removes: vec!["f".parse().unwrap()] }
    }

    #[test]
    fn an_order_is_refused_until_the_one_before_is_written() {
        let outbox = Outbox::new();
        assert!(outbox.add_order(order()));
        assert!(!outbox.add_order(order()), "one waits");
        assert!(outbox.next().is_some());
        assert!(!outbox.add_order(order()), "one is being written");
        assert!(outbox.add_list());
        assert!(outbox.next().is_some());
        assert!(outbox.add_order(order()), "it is written: the writer has come for the next message");
    }

    #[test]
    fn a_list_that_is_not_written_yet_serves_for_a_later_one() {
        let outbox = Outbox::new();
        assert!(outbox.add_list());
        assert!(!outbox.add_list());
        assert!(outbox.next().is_some());
        assert!(outbox.add_list(), "the first one may have been answered");
    }

    #[test]
    fn the_bytes_of_unwritten_messages_are_bounded() {
        let outbox = Outbox::new();
        let message = || Message::Remove { name: "f".repeat(200).parse().unwrap() };
        let most = MOST_BYTES / (200 + OVERHEAD);
        assert_eq!((0..2 * most).filter(|_| outbox.add(message())).count(), most);
        assert!(outbox.next().is_some());
        assert!(outbox.add(message()), "room for one again");
        assert!(!outbox.add(message()));
    }

    #[test]
    fn a_closed_outbox_is_empty_and_stays_so() {
        let outbox = Outbox::new();
        assert!(outbox.add_list());
        outbox.close();
        assert!(outbox.add_list());
        assert_eq!(outbox.next(), None);
    }
}
