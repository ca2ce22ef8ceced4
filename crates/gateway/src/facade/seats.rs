//! How many connections a façade serves at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many connections, and no more.
#[derive(Clone)]
pub(crate) struct Seats {
    free: Arc<AtomicUsize>,
}

/// One of them, until it is dropped.
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Seats {
    /// For so many.
    pub(crate) fn new(most: usize) -> Self {
        Self { free: Arc::new(AtomicUsize::new(most)) }
    }

    /// A free one; `None` if all are taken.
    pub(crate) fn take(&self) -> Option<Seat> {
        let taken = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        taken.is_ok().then(|| Seat(Arc::clone(&self.free)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_seats_as_there_are() {
        let seats = Seats::new(2);
        let (first, second) = (seats.take(), seats.take());
        assert!(first.is_some() && second.is_some() && seats.take().is_none());
        drop(first);
        assert!(seats.take().is_some());
    }
}
