//! LOAD_DATA. (spec 4.3)

use std::thread;

use super::super::checks;
use crate::stage::failure::{Verdict, given};
use crate::stage::{NO_TIMEOUT, SHORT, Stage, content};

checks! { Dstore "load":
    [Sequential LOAD_DATA "4.3"] sends_the_content "LOAD_DATA gets the content and nothing else"
    [Sequential LOAD_DATA "4.3"] again_and_again "A file can be loaded any number of times"
    [Sequential LOAD_DATA_ABSENT "4.3"] closes_without_the_file "LOAD_DATA of a file that is not there: the connection is closed"
    [Concurrent MANY_CLIENTS "4.3"] ten_clients_at_once "Ten clients load the same file at the same time"
    [Robustness "2.5"] a_client_that_does_not_read_holds_up_nobody "A client that asks for a file and does not read it holds up no other"
    [Robustness "4.3"] a_client_that_vanishes "A client that vanishes while it loads harms no other client"
    [Robustness "8.2"] closes_after_the_content "After the last byte the connection is closed, as some clients read to the end of the stream"
}

fn sends_the_content(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, 54_321);
    given(scene.store("a", &bytes))?;
    scene.expect_content("a", &bytes)?;
    scene.expect_silence("loads are no business of the Controller's")
}

fn again_and_again(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let (a, b) = (content(1, 5_000), content(2, 7_000));
    given(scene.store("a", &a))?;
    given(scene.store("b", &b))?;
    for _ in 0..5 {
        scene.expect_content("a", &a)?;
        scene.expect_content("b", &b)?;
    }
    Ok(())
}

fn closes_without_the_file(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"hello"))?;
    scene.expect_no_content("b")
}

fn ten_clients_at_once(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, 90_000);
    given(scene.store("a", &bytes))?;
    thread::scope(|scope| {
        let (scene, bytes) = (&scene, &bytes);
        let loading: Vec<_> = (0..10).map(|_| scope.spawn(move || scene.expect_content("a", bytes))).collect();
        loading.into_iter().try_for_each(|thread| thread.join().expect("no panic in a client"))
    })
}

fn a_client_that_does_not_read_holds_up_nobody(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let large = content(stage.seed, 20_000_000); // more than fits the sockets' buffers
    given(scene.store("large", &large))?;
    let deaf = scene.connect_as("deaf client")?;
    deaf.send("LOAD_DATA large");
    scene.store("small", b"hello")?;
    scene.expect_content("small", b"hello")?;
    scene.expect_listed(&["large", "small"])
}

fn a_client_that_vanishes(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(SHORT)?;
    let large = content(stage.seed, 5_000_000);
    given(scene.store("large", &large))?;
    for _ in 0..3 {
        let mut client = scene.connect_as("vanishing client")?;
        client.send("LOAD_DATA large");
        client.receive_content(100, stage.patience);
        client.close();
    }
    scene.expect_content("large", &large)
}

fn closes_after_the_content(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"hello"))?;
    let mut client = scene.connect()?;
    client.send("LOAD_DATA a");
    client.receive_content(5, stage.patience);
    client.expect_end(stage.patience)
}
