//! Which sizes clients have been told of files that they are about to load.
//!
//! LOAD_FROM says a size, and the client reads so many bytes, however many come. If the file is replaced before the client asks for
//! the content, by a file of another size, it would take a part of the new content for the whole. So LOAD_DATA is refused while some
//! client has been offered another size: each client then says RELOAD, and is offered what there is now.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stevedore::protocol::FileName;

/// An offer is forgotten after this time: the client will hardly come any more.
const LONGEST: Duration = Duration::from_secs(10);

/// The offers that are open.
#[derive(Default)]
pub(super) struct Offers {
    open: Mutex<Vec<Open>>,
}

struct Open {
    client: usize,
    name: FileName,
    size: u64,
    made: Instant,
}

impl Offers {
    /// Notes that this client was offered a file of this size; its earlier offer is open no more.
    pub(super) fn make(&self, client: usize, name: &FileName, size: u64) {
        let mut open = self.open.lock();
        let now = Instant::now();
        open.retain(|offer| offer.client != client && now.duration_since(offer.made) < LONGEST);
        open.push(Open { client, name: name.clone(), size, made: now });
    }

    /// Notes that this client has asked for something else, or is gone.
    pub(super) fn forget(&self, client: usize) {
        self.open.lock().retain(|offer| offer.client != client);
    }

    /// Whether the content may be sent, of this size: no client expects another one. An offer of it is then open no more.
    pub(super) fn take(&self, name: &FileName, size: u64) -> bool {
        let mut open = self.open.lock();
        let now = Instant::now();
        open.retain(|offer| now.duration_since(offer.made) < LONGEST);
        if open.iter().any(|offer| offer.name == *name && offer.size != size) {
            return false;
        }
        if let Some(at) = open.iter().position(|offer| offer.name == *name) {
            open.remove(at);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_sent_only_while_all_clients_expect_its_size() {
        let offers = Offers::default();
        let name: FileName = "a".parse().unwrap();
        assert!(offers.take(&name, 5), "a client that has asked nothing");
        offers.make(1, &name, 5);
        assert!(!offers.take(&name, 7), "the client would take a part for the whole");
        offers.make(2, &name, 7);
        assert!(!offers.take(&name, 7) && !offers.take(&name, 5));
        offers.make(1, &name, 7); // it has said RELOAD
        assert!(offers.take(&name, 7) && offers.take(&name, 7));
        assert_eq!(offers.open.lock().len(), 0, "both are done");
        offers.make(1, &name, 5);
        offers.forget(1);
        assert!(offers.take(&name, 7));
    }
}
