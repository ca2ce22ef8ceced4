//! A Controller that is stopped, at any moment, keeps no thread waiting.

use shuttle::rand::{Rng, thread_rng};

use super::Manner::{Diligent, Mute, QuitsAfter};
use super::*;

/// Lets others go on, as far as the scheduler likes or at least for some steps.
fn wait_a_while() {
    if thread_rng().r#gen() {
        for _ in 0..thread_rng().gen_range(0..40) {
            thread::yield_now();
        }
    }
}

#[test]
fn requests_in_progress_end_when_the_controller_stops() {
    // A timeout never comes: only the stop can end them.
    explore(|| {
        let mut stage = Stage::at_rest(1, NEVER);
        stage.dstore(1, Diligent);
        assert_eq!(stage.cast.store("old").unwrap(), Some(Message::StoreComplete));
        stage.dstore(2, Mute);
        for file in ["f", "g"] {
            stage.client(move |cast| {
                let _ = cast.store(file);
            });
        }
        stage.client(|cast| {
            let _ = cast.controller.remove(&name("old"));
            let _ = cast.controller.list();
        });
        wait_a_while();
        stage.stop();
    });
}

#[test]
fn a_stopping_controller_ends_its_rebalance_and_waiting_clients() {
    explore(|| {
        let mut stage = Stage::new(1, NEVER);
        stage.dstore(1, Diligent);
        stage.late_dstore(2, Mute);
        stage.late_dstore(3, QuitsAfter(1));
        for file in ["f", "g"] {
            stage.client(move |cast| {
                let _ = cast.store(file);
                let _ = cast.controller.load(&name(file), &mut Vec::new());
                let _ = cast.controller.remove(&name(file));
            });
        }
        wait_a_while();
        stage.stop();
    });
}

#[test]
fn a_client_that_takes_nothing_holds_up_no_stop() {
    // STORE_TO cannot be sent, and a rebalance waits for that store: only the end of the client's socket ends the store,
    // and sockets end last.
    explore(|| {
        let mut stage = Stage::new(1, NEVER);
        stage.dstore(1, Diligent);
        stage.late_dstore(2, Diligent);
        let socket = Arc::new(Outbox::new());
        stage.cast.wires.lock().unwrap().push(Arc::clone(&socket));
        let cast = stage.cast.clone();
        stage.dstores.push(thread::spawn(move || {
            let _ = cast.controller.store(&name("f"), 1, |_| match socket.next() {
                Some(_) => Ok(()),
                None => Err(io::ErrorKind::BrokenPipe.into()),
            });
        }));
        wait_a_while();
        stage.stop();
    });
}

#[test]
fn a_controller_with_nothing_to_do_stops() {
    explore(|| {
        let mut stage = Stage::new(1, NEVER);
        stage.late_dstore(1, Diligent);
        stage.stop();
    });
}
