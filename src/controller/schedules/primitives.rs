//! What everything else waits with: a one-shot, and the gate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::super::gate::Request::{Change, Look};
use super::super::gate::{Gate, Request, Shut};
use super::{ANY_TIME, exhaust, explore};
use crate::sync::one_shot::{Missing, one_shot};
use crate::sync::thread;

#[test]
fn a_receiver_gets_the_value_or_learns_that_none_will_come() {
    exhaust(|| {
        let (first, told) = one_shot();
        let (second, dropped) = one_shot::<()>();
        let telling = thread::spawn(move || {
            first.send(1);
            drop(second);
        });
        assert_eq!(told.recv(), Ok(1));
        assert_eq!(told.recv(), Err(Missing::Gone), "told once");
        assert_eq!(dropped.recv(), Err(Missing::Gone));
        telling.join().unwrap();
    });
}

#[test]
fn a_value_that_comes_after_the_deadline_is_still_there() {
    explore(|| {
        let (teller, value) = one_shot();
        let telling = thread::spawn(move || teller.send(1));
        let in_time = value.recv_timeout(ANY_TIME);
        telling.join().unwrap();
        match in_time {
            Ok(value) => assert_eq!(value, 1),
            Err(missing) => {
                assert_eq!(missing, Missing::Pending);
                assert_eq!(value.try_recv(), Ok(1));
            }
        }
    });
}

/// A gate, whether it is closed, and how many changes are inside.
#[derive(Default)]
struct Watched {
    gate: Gate,
    is_closed: AtomicBool,
    inside: AtomicUsize,
}

impl Watched {
    fn enter(&self, request: Request) -> Result<(), Shut> {
        let change = usize::from(request == Change);
        let decide = || {
            assert!(!self.is_closed.load(Ordering::SeqCst), "decided while closed");
            self.inside.fetch_add(change, Ordering::SeqCst);
        };
        let (_, pass) = self.gate.enter(request, decide)?;
        thread::yield_now();
        self.inside.fetch_sub(change, Ordering::SeqCst);
        drop(pass);
        Ok(())
    }

    /// False once it is shut.
    fn rebalance(&self) -> bool {
        if !self.gate.close() {
            return false;
        }
        self.is_closed.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            assert_eq!(self.inside.load(Ordering::SeqCst), 0, "closed with a change inside");
            thread::yield_now();
        }
        self.is_closed.store(false, Ordering::SeqCst);
        self.gate.open();
        true
    }
}

#[test]
fn a_change_and_a_rebalance_never_overlap_in_any_schedule() {
    // spec 4.6
    exhaust(|| {
        let watched = Arc::new(Watched::default());
        let changing = thread::spawn({
            let watched = Arc::clone(&watched);
            move || watched.enter(Change)
        });
        assert!(watched.rebalance());
        assert_eq!(changing.join().unwrap(), Ok(()));
        assert!(watched.gate.is_left());
    });
}

#[test]
fn between_rebalances_every_request_gets_through_the_gate() {
    // spec 4.6: none is refused or lost
    explore(|| {
        let watched = Arc::new(Watched::default());
        let entering = [Change, Look, Change, Change].map(|request| {
            let watched = Arc::clone(&watched);
            thread::spawn(move || (watched.enter(request), watched.enter(request)))
        });
        for _ in 0..2 {
            assert!(watched.rebalance());
        }
        for entering in entering {
            assert_eq!(entering.join().unwrap(), (Ok(()), Ok(())));
        }
        assert!(watched.gate.is_left());
    });
}

#[test]
fn a_gate_that_is_shut_at_any_moment_lets_all_threads_go() {
    explore(|| {
        let watched = Arc::new(Watched::default());
        let (_, pass) = watched.gate.enter(Change, || ()).unwrap();
        let entering = [Change, Look, Change].map(|request| {
            let watched = Arc::clone(&watched);
            thread::spawn(move || watched.enter(request))
        });
        let rebalancing = thread::spawn({
            let watched = Arc::clone(&watched);
            move || while watched.rebalance() {}
        });
        watched.gate.shut();
        for entering in entering {
            let _ = entering.join().unwrap();
        }
        rebalancing.join().unwrap(); // not waiting for the pass
        drop(pass);
        assert!(watched.gate.is_left());
    });
}
