//! STORE and REMOVE against each other, their acknowledgements, the timeout and departures. (spec 4.2, 4.4)

use shuttle::rand::{Rng, thread_rng};

use super::Manner::{Diligent, Mute, QuitsAfter};
use super::*;

#[test]
fn of_stores_of_one_name_at_once_exactly_one_wins() {
    // spec 3.2
    explore(|| {
        let mut stage = Stage::at_rest(2, NEVER);
        let replies = Arc::new(Mutex::new(Vec::new()));
        for port in 1..=3 {
            stage.dstore(port, Diligent);
        }
        for _ in 0..3 {
            let replies = Arc::clone(&replies);
            stage.client(move |cast| {
                let reply = cast.store("f").unwrap().unwrap();
                replies.lock().unwrap().push(reply);
            });
        }
        stage.join_clients();
        let replies = replies.lock().unwrap();
        let won = replies.iter().filter(|&reply| *reply == Message::StoreComplete).count();
        let lost = replies.iter().filter(|&reply| *reply == Message::FileAlreadyExists).count();
        assert_eq!((won, lost), (1, 2));
        assert_eq!(stage.cast.list(), ["f"]);
        stage.end();
    });
}

#[test]
fn the_index_agrees_with_the_answer_when_acks_race_the_timeout() {
    // spec 4.2, 4.4
    explore(|| {
        let mut stage = Stage::at_rest(2, ANY_TIME);
        stage.dstore(1, Diligent);
        stage.dstore(2, Diligent);
        stage.client(|cast| {
            if cast.store("f").unwrap().is_none() {
                return assert_eq!(cast.list(), [""; 0]);
            }
            assert_eq!(cast.list(), ["f"]);
            let removed = cast.remove("f");
            assert_eq!(cast.list(), [""; 0]);
            if removed.is_some() {
                assert_eq!(cast.holders("f"), []);
                assert_eq!(cast.remove("f"), Some(Message::FileDoesNotExist { name: None }));
            } else {
                assert_eq!(cast.store("f").unwrap(), Some(Message::FileAlreadyExists), "remove in progress");
            }
        });
        stage.end();
    });
}

#[test]
fn a_store_that_follows_one_of_the_same_name_ends_by_itself() {
    // spec 7.5: the first may have failed, and its end must not be taken for the second's
    explore(|| {
        let mut stage = Stage::at_rest(1, ANY_TIME);
        stage.dstore(1, Diligent);
        stage.dstore(2, QuitsAfter(thread_rng().gen_range(0..2)));
        let wins = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let wins = Arc::clone(&wins);
            stage.client(move |cast| {
                if cast.store("f").unwrap() == Some(Message::StoreComplete) {
                    wins.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        stage.join_clients();
        assert_eq!(stage.cast.list().len(), wins.load(Ordering::SeqCst));
        stage.end();
    });
}

#[test]
fn a_store_ends_when_a_dstore_that_it_waits_for_leaves() {
    // spec 7.3: long before the timeout, which never comes here
    explore(|| {
        let mut stage = Stage::at_rest(2, NEVER);
        stage.dstore(1, Diligent);
        stage.dstore(2, QuitsAfter(thread_rng().gen_range(0..2)));
        stage.dstore(3, QuitsAfter(thread_rng().gen_range(0..2)));
        for file in ["f", "g"] {
            stage.client(move |cast| match cast.store(file).unwrap() {
                Some(Message::StoreComplete) | None => {}
                Some(refusal) => assert_eq!(refusal, Message::NotEnoughDstores),
            });
        }
        stage.end();
    });
}

#[test]
fn a_remove_completes_whether_its_holders_acknowledge_or_leave() {
    // spec 4.4: a holder that leaves is no longer waited for
    explore(|| {
        let mut stage = Stage::at_rest(2, NEVER);
        stage.dstore(1, QuitsAfter(1));
        stage.dstore(2, Diligent);
        assert_eq!(stage.cast.store("f").unwrap(), Some(Message::StoreComplete));
        stage.dstore(3, Diligent);
        stage.dstore(4, Mute); // holds nothing: no request waits for it
        for _ in 0..2 {
            stage.client(|cast| match cast.remove("f").unwrap() {
                Message::RemoveComplete => assert_eq!(cast.list(), [""; 0]),
                refusal => assert_eq!(refusal, Message::FileDoesNotExist { name: None }),
            });
        }
        stage.end();
    });
}

#[test]
fn a_dstore_that_answers_keeps_its_port() {
    // spec 7.7: the timeout never comes, so the newcomer is refused by an answer or finds the port free
    explore(|| {
        let mut stage = Stage::at_rest(1, NEVER);
        stage.dstore(1, Diligent);
        let keeps = stage.cast.controller.state.lock().index.members();
        let (one, other) = (TestDstore::new(&stage.cast, 1, Diligent), TestDstore::new(&stage.cast, 1, Diligent));
        for newcomer in [one, other] {
            stage.client(move |_| assert_eq!(newcomer.join(), None));
        }
        stage.client(|cast| assert_eq!(cast.store("f").unwrap(), Some(Message::StoreComplete)));
        stage.join_clients();
        assert_eq!(stage.cast.controller.state.lock().index.members()[0].dstore, keeps[0].dstore);
        stage.end();
    });
}

#[test]
fn a_port_is_free_once_its_dstore_has_left() {
    // spec 7.7: it may leave while it is asked whether it still answers
    explore(|| {
        let mut stage = Stage::at_rest(1, NEVER);
        stage.dstore(1, QuitsAfter(0));
        let newcomer = TestDstore::new(&stage.cast, 1, Diligent);
        stage.client(move |cast| {
            let dstore = newcomer.join().expect("the older one never answers");
            cast.controller.leave(dstore, &newcomer.link);
        });
        stage.end();
    });
}

#[test]
fn what_waits_for_a_silent_dstore_ends_when_it_is_replaced() {
    // spec 7.3, 7.7: the timeout comes for the newcomer that waits for an answer, or for the store
    explore(|| {
        let mut stage = Stage::at_rest(2, ANY_TIME);
        stage.dstore(1, Diligent);
        stage.dstore(2, Mute);
        stage.client(|cast| {
            // Either the silent one has been told, or its successor, which acknowledges.
            match cast.store("f").unwrap() {
                None => assert_eq!(cast.list(), [""; 0]),
                Some(Message::StoreComplete) => assert_eq!(cast.list(), ["f"]),
                Some(other) => panic!("{other}"),
            }
        });
        stage.late_dstore(2, Diligent);
        let older = stage.dstores.remove(1);
        older.join().unwrap(); // its connection is closed
        stage.end();
    });
}

#[test]
fn a_store_and_a_remove_of_one_file_take_turns() {
    // spec 3.2
    explore(|| {
        let mut stage = Stage::at_rest(1, NEVER);
        stage.dstore(1, Diligent);
        stage.dstore(2, Diligent);
        for _ in 0..2 {
            stage.client(|cast| {
                let stored = cast.store("f").unwrap().unwrap();
                let removed = cast.remove("f").unwrap();
                assert!(matches!(stored, Message::StoreComplete | Message::FileAlreadyExists), "{stored}");
                let expected = [Message::RemoveComplete, Message::FileDoesNotExist { name: None }];
                assert!(expected.contains(&removed), "{removed}");
            });
        }
        stage.join_clients();
        assert_eq!(stage.cast.list().len(), stage.cast.holders("f").len());
        stage.end();
    });
}

#[test]
fn a_client_that_cannot_be_told_leaves_nothing_behind() {
    // spec 4.2: its connection has ended, and no thread waits
    explore(|| {
        let mut stage = Stage::at_rest(1, NEVER);
        stage.dstore(1, Diligent);
        stage.client(|cast| {
            let gone = cast.controller.store(&name("f"), 1, |dstores| {
                cast.tell(&dstores[0], Message::Store { name: name("f"), size: 1 });
                Err(io::ErrorKind::BrokenPipe.into())
            });
            assert!(matches!(gone, Err(_) | Ok(Some(Message::FileAlreadyExists))));
        });
        stage.client(|cast| drop(cast.store("f").unwrap().unwrap()));
        stage.end();
    });
}
