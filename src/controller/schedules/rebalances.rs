//! Rebalances against requests, joins and departures. (spec 4.6)

use shuttle::rand::{Rng, thread_rng};

use super::Manner::{Diligent, Mute, QuitsAfter};
use super::*;

#[test]
fn requests_and_rebalances_take_turns_and_none_is_refused() {
    // spec 4.6
    explore(|| {
        let mut stage = Stage::new(2, NEVER);
        stage.dstore(1, Diligent);
        stage.dstore(2, Diligent);
        for file in ["f", "g"] {
            stage.client(move |cast| {
                assert_eq!(cast.store(file).unwrap(), Some(Message::StoreComplete));
                assert!(cast.list().contains(&file.to_owned()));
            });
        }
        stage.late_dstore(3, Diligent);
        stage.join_clients();
        for file in ["f", "g"] {
            assert!(matches!(stage.cast.controller.load(&name(file), &mut Vec::new()), Ok(Message::LoadFrom { .. })));
        }
        stage.end();
    });
}

#[test]
fn rebalances_all_the_time_keep_no_request_out() {
    // spec 4.6: the period may end at any moment
    explore(|| {
        let period = Some(ANY_TIME);
        let mut stage = Stage::started(Config { timeout: NEVER, rebalance_period: period, ..Config::new(1) });
        stage.dstore(1, Diligent);
        stage.dstore(2, Diligent);
        for file in ["f", "g"] {
            stage.client(move |cast| {
                assert_eq!(cast.store(file).unwrap(), Some(Message::StoreComplete));
                assert_eq!(cast.remove(file), Some(Message::RemoveComplete));
            });
        }
        stage.end();
    });
}

#[test]
fn requests_are_served_between_the_rounds_of_a_large_rebalance() {
    // spec 7.19: so little time that a round is a single step
    explore(|| {
        let mut stage = Stage::new(1, Duration::from_millis(1));
        stage.dstore(1, Diligent);
        stage.client(|cast| {
            for file in ["f", "g", "h", "i"] {
                let _ = cast.store(file).unwrap();
            }
        });
        stage.late_dstore(2, Diligent);
        stage.late_dstore(3, Diligent);
        stage.end();
    });
}

#[test]
fn looks_pass_while_a_rebalance_waits_for_a_store() {
    // spec 4.6: the store is acknowledged only once LOAD, RELOAD and LIST have been answered
    explore(|| {
        let mut stage = Stage::new(1, NEVER);
        stage.dstore(1, Diligent);
        assert_eq!(stage.cast.store("f").unwrap(), Some(Message::StoreComplete));
        stage.late_dstore(2, Diligent);
        stage.client(|cast| {
            let stored = cast.controller.store(&name("g"), 1, |dstores| {
                let mut tried = Vec::new();
                for _ in 0..2 {
                    cast.controller.load(&name("f"), &mut tried).unwrap();
                }
                assert_eq!(cast.list(), ["f"]);
                cast.tell(&dstores[0], Message::Store { name: name("g"), size: 1 });
                Ok(())
            });
            assert_eq!(stored.unwrap(), Some(Message::StoreComplete));
        });
        stage.end();
    });
}

#[test]
fn when_all_have_joined_the_files_are_spread_as_they_should_be() {
    // spec 4.6.3, 7.9, 7.10
    explore(|| {
        let mut stage = Stage::new(2, NEVER);
        stage.dstore(1, Diligent);
        stage.dstore(2, Diligent);
        stage.client(|cast| {
            for file in ["f", "g"] {
                assert_eq!(cast.store(file).unwrap(), Some(Message::StoreComplete));
            }
        });
        stage.late_dstore(3, Diligent);
        stage.late_dstore(4, Diligent);
        stage.join_clients();
        stage.cast.settle(4);
        for file in ["f", "g"] {
            assert_eq!(stage.cast.holders(file).len(), 2, "{file}");
        }
        let members = stage.cast.controller.state.lock().index.members();
        assert!(members.iter().all(|member| member.files == 1), "{members:?}");
        stage.end();
    });
}

#[test]
fn a_rebalance_ends_if_dstores_leave_during_lists_and_reports() {
    // spec 7.9: a departure ends the wait for that Dstore; the timeout never comes here
    explore(|| {
        let mut stage = Stage::new(1, NEVER);
        stage.dstore(1, Diligent);
        stage.dstore(2, QuitsAfter(thread_rng().gen_range(0..4)));
        stage.client(|cast| {
            for file in ["f", "g"] {
                let _ = cast.store(file).unwrap();
            }
        });
        stage.late_dstore(3, QuitsAfter(thread_rng().gen_range(0..3)));
        stage.late_dstore(4, Diligent);
        stage.end();
    });
}

#[test]
fn a_rebalance_ends_in_time_although_a_dstore_says_nothing() {
    // spec 4.6.1, 4.6.6, 7.16
    explore(|| {
        let mut stage = Stage::new(1, ANY_TIME);
        stage.dstore(1, Diligent);
        stage.dstore(2, Mute);
        stage.client(|cast| {
            for file in ["f", "g"] {
                let stored = cast.store(file).unwrap().is_some();
                let _ = cast.remove(file);
                assert!(stored || !cast.list().contains(&file.to_owned()));
            }
        });
        stage.late_dstore(3, Diligent);
        stage.end();
    });
}

#[test]
fn a_silent_dstore_is_replaced_while_a_rebalance_runs() {
    // spec 7.7, 7.9: one that answers is not
    explore(|| {
        let mut stage = Stage::new(1, ANY_TIME);
        stage.dstore(1, Diligent);
        stage.dstore(2, Mute);
        stage.late_dstore(2, Diligent);
        stage.late_dstore(2, QuitsAfter(thread_rng().gen_range(0..2)));
        stage.client(|cast| {
            let _ = cast.store("f").unwrap();
            let _ = cast.remove("f");
        });
        stage.end();
    });
}

#[test]
fn what_waits_in_line_for_a_rebalance_is_served_in_order() {
    // spec 4.6: the second Dstore answers the LIST when three requests stand in line
    explore(|| {
        let mut stage = Stage::new(2, NEVER);
        stage.dstore(1, Diligent);
        let slow = TestDstore::new(&stage.cast, 2, Diligent);
        let id = slow.join().unwrap();
        let (cast, served) = (stage.cast.clone(), Arc::new(AtomicUsize::new(0)));
        stage.dstores.push(thread::spawn({
            let served = Arc::clone(&served);
            move || {
                let list = slow.wire.next().expect("the Controller runs");
                assert_eq!(list, Message::List { names: Vec::new() });
                let requests: Vec<_> = (0..3)
                    .map(|number| {
                        let (asking, served) = (cast.clone(), Arc::clone(&served));
                        let request = thread::spawn(move || {
                            // The others are in line behind the first: it has begun when they are decided.
                            let first = if number == 0 { Message::StoreComplete } else { Message::FileAlreadyExists };
                            assert_eq!(asking.store("f").unwrap(), Some(first));
                            served.fetch_add(1, Ordering::SeqCst);
                        });
                        while cast.controller.gate.in_line() == number {
                            thread::yield_now();
                        }
                        request
                    })
                    .collect();
                assert_eq!(served.load(Ordering::SeqCst), 0, "no request is served while the rebalance runs");
                assert!(cast.controller.hear(id, &slow.link, slow.obey(list), None));
                slow.serve(id);
                requests.into_iter().for_each(|request| request.join().unwrap());
            }
        }));
        stage.client(move |_| {
            while served.load(Ordering::SeqCst) < 3 {
                thread::yield_now();
            }
        });
        stage.end();
    });
}
