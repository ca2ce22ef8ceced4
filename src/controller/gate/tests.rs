//! Which requests the gate lets in when, and in which order. (spec 4.6)
//!
//! One order of events each. `controller::schedules::primitives` tries the gate in thousands of orders: that no change overlaps with a
//! rebalance, that no request is lost, and that a gate which is shut at any moment lets all threads go.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Request::{Change, Look};
use super::*;

/// Long enough for anything that a loaded machine does; waited for only by what fails.
const PATIENCE: Duration = Duration::from_secs(30);

impl Gate {
    fn in_line(&self) -> usize {
        self.state.lock().line.len()
    }

    fn is_closing(&self) -> bool {
        self.state.lock().door == Door::Closing
    }
}

fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::yield_now();
    }
}

/// Has another thread enter, and waits until it stands in line. It says `number` when it decides, and lets go of its
/// pass at once.
fn line_up<'s, 'e: 's>(
    scope: &'s thread::Scope<'s, 'e>,
    gate: &'e Gate,
    request: Request,
    number: usize,
    decided: &Sender<usize>,
) {
    let already = gate.in_line();
    let decided = decided.clone();
    scope.spawn(move || gate.enter(request, || decided.send(number).unwrap()).map(drop));
    until(|| gate.in_line() == already + 1);
}

/// Runs a test that hangs if the gate is wrong: such a one fails, too.
fn in_time(test: impl FnOnce() + Send + 'static) {
    let (ended, has_ended) = channel::<()>();
    let running = thread::spawn(move || {
        let _ended = ended; // dropped at the end, even by a panic
        test();
    });
    assert_ne!(has_ended.recv_timeout(2 * PATIENCE), Err(RecvTimeoutError::Timeout), "a thread waits for ever");
    running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn next<T>(news: &Receiver<T>) -> T {
    news.recv_timeout(PATIENCE).expect("waited in vain")
}

#[test]
fn an_open_gate_admits_all_and_gives_passes_to_changes_only() {
    in_time(|| {
        let gate = Gate::default();
        let (decision, first) = gate.enter(Change, || "store").unwrap();
        assert_eq!(decision, "store");
        assert!(first.is_some());
        let (_, second) = gate.enter(Change, || ()).unwrap();
        assert!(second.is_some(), "changes do not wait for each other");
        let (_, none) = gate.enter(Look, || ()).unwrap();
        assert!(none.is_none());
    });
}

#[test]
fn a_rebalance_waits_for_every_change_in_progress() {
    // spec 4.6
    in_time(|| {
        let gate = Gate::default();
        let (_, first) = gate.enter(Change, || ()).unwrap();
        let (_, second) = gate.enter(Change, || ()).unwrap();
        thread::scope(|scope| {
            let closing = scope.spawn(|| gate.close());
            until(|| gate.is_closing());
            drop(first);
            assert!(gate.is_closing(), "one is left");
            drop(second);
            assert!(closing.join().unwrap());
        });
    });
}

#[test]
fn looks_pass_while_a_rebalance_waits_and_changes_do_not() {
    // spec 4.6: no client's LOAD waits for another client's STORE
    in_time(|| {
        let gate = Gate::default();
        let (decided, decisions) = channel();
        let (_, pass) = gate.enter(Change, || ()).unwrap();
        thread::scope(|scope| {
            let closing = scope.spawn(|| gate.close());
            until(|| gate.is_closing());
            line_up(scope, &gate, Change, 1, &decided);
            let (decision, _) = gate.enter(Look, || "at once").unwrap();
            assert_eq!(decision, "at once");
            drop(pass);
            assert!(closing.join().unwrap());
            assert!(decisions.try_recv().is_err(), "the change is not part of what was waited for");
            line_up(scope, &gate, Look, 2, &decided); // closed: a look waits, too
            gate.open();
            assert_eq!([next(&decisions), next(&decisions)], [1, 2]);
        });
    });
}

#[test]
fn those_in_line_get_in_after_the_rebalance_first_come_first() {
    // spec 4.6: none is refused or lost
    in_time(|| {
        let gate = Gate::default();
        for round in 0..50 {
            let (decided, decisions) = channel();
            assert!(gate.close());
            thread::scope(|scope| {
                for number in 0..6 {
                    let request = if (round + number) % 3 == 0 { Look } else { Change };
                    line_up(scope, &gate, request, number, &decided);
                }
                assert!(decisions.try_recv().is_err(), "decided while closed");
                gate.open();
                let order: Vec<_> = (0..6).map(|_| next(&decisions)).collect();
                assert_eq!(order, [0, 1, 2, 3, 4, 5], "round {round}");
            });
        }
    });
}

/// Opens the gate with two changes in line: 0, which is deciding until what is returned is told, and 1.
fn decide_slowly<'s, 'e: 's>(scope: &'s thread::Scope<'s, 'e>, gate: &'e Gate, decided: &Sender<usize>) -> Sender<()> {
    let (let_go, held) = channel();
    let (deciding, is_deciding) = channel();
    assert!(gate.close());
    let slow = decided.clone();
    scope.spawn(move || {
        let decide = || {
            deciding.send(()).unwrap();
            let _ = held.recv();
            slow.send(0).unwrap();
        };
        gate.enter(Change, decide).map(drop)
    });
    until(|| gate.in_line() == 1);
    line_up(scope, gate, Change, 1, decided);
    gate.open();
    next(&is_deciding);
    let_go
}

#[test]
fn what_comes_while_the_line_is_served_stands_behind_it() {
    in_time(|| {
        let gate = Gate::default();
        let (decided, decisions) = channel();
        thread::scope(|scope| {
            let let_go = decide_slowly(scope, &gate, &decided);
            line_up(scope, &gate, Look, 2, &decided);
            line_up(scope, &gate, Change, 3, &decided);
            let_go.send(()).unwrap();
            assert_eq!((0..4).map(|_| next(&decisions)).collect::<Vec<_>>(), [0, 1, 2, 3]);
        });
        let (_, pass) = gate.enter(Change, || ()).unwrap();
        assert!(pass.is_some(), "with the line served the gate is simply open");
    });
}

#[test]
fn a_rebalance_waits_only_for_the_requests_in_line_before_it() {
    // spec 4.6: a busy line keeps no rebalance from beginning
    in_time(|| {
        let gate = Gate::default();
        let (decided, decisions) = channel();
        thread::scope(|scope| {
            let let_go = decide_slowly(scope, &gate, &decided);
            let closing = scope.spawn(|| gate.close());
            until(|| gate.is_closing());
            line_up(scope, &gate, Change, 2, &decided);
            let _ = gate.enter(Look, || decided.send(9).unwrap()).unwrap(); // without waiting
            let_go.send(()).unwrap();
            assert!(closing.join().unwrap());
            let mut before = [next(&decisions), next(&decisions), next(&decisions)];
            before.sort();
            assert_eq!(before, [0, 1, 9]);
            assert!(decisions.try_recv().is_err(), "2 has come too late for this time");
            gate.open();
            assert_eq!(next(&decisions), 2);
        });
    });
}

#[test]
fn a_shut_gate_sends_all_requests_away_now_and_in_future() {
    in_time(|| {
        let gate = Gate::default();
        let (decided, decisions) = channel::<usize>();
        assert!(gate.close());
        thread::scope(|scope| {
            let waiting = [Look, Change, Change].map(|request| {
                let already = gate.in_line();
                let thread = scope.spawn({
                    let (gate, decided) = (&gate, decided.clone());
                    move || gate.enter(request, || decided.send(0).unwrap()).map(drop)
                });
                until(|| gate.in_line() == already + 1);
                thread
            });
            gate.shut();
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), Err(Shut));
            }
        });
        for request in [Look, Change] {
            assert_eq!(gate.enter(request, || decided.send(0).unwrap()).map(drop), Err(Shut));
        }
        assert!(!gate.close());
        gate.open();
        assert_eq!(gate.enter(Look, || ()).map(drop), Err(Shut), "for good");
        assert!(decisions.try_recv().is_err(), "a request that is sent away has not decided");
    });
}

#[test]
fn a_decision_that_panics_leaves_the_gate_in_order() {
    in_time(|| {
        let gate = Gate::default();
        let (decided, decisions) = channel();
        assert!(gate.close());
        thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    let _ = gate.enter(Change, || std::panic::resume_unwind(Box::new("quietly")));
                }))
            });
            until(|| gate.in_line() == 1);
            line_up(scope, &gate, Change, 1, &decided);
            gate.open();
            assert!(panicking.join().unwrap().is_err());
            assert_eq!(next(&decisions), 1);
            assert!(gate.close());
        });
    });
}
