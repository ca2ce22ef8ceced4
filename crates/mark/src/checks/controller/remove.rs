//! REMOVE. (spec 4.4)

use std::time::Duration;

use super::super::checks;
use crate::stage::client::Client;
use crate::stage::controller_scene::{ControllerScene, Habits, OnRemove};
use crate::stage::failure::{Failure, Verdict, claim, given};
use crate::stage::wire::{Heard, begins};
use crate::stage::{NO_TIMEOUT, QUIET, SHORT, Setup, Stage};

checks! { Controller "remove":
    [Sequential REMOVE "4.4"] asks_every_holder_and_no_other "REMOVE is sent to every holder of the file, and to no other Dstore"
    [Sequential REMOVE "4.4"] completes_on_the_last_acknowledgement "REMOVE_COMPLETE comes after the last holder's REMOVE_ACK, not before"
    [Sequential REMOVE "4.4"] then_the_file_is_gone "After REMOVE_COMPLETE the file is neither listed nor loaded, and the name is free"
    [Sequential REMOVE_TIMEOUT "4.4"] nothing_is_said_at_the_timeout "If not every holder acknowledges in time, nothing is said to the client"
    [Sequential REMOVE_TIMEOUT "4.4"] the_entry_stays_in_progress "If not every holder acknowledges in time, the file stays as remove in progress"
        after (&["controller/states/remove-in-progress-store", "controller/states/remove-in-progress-load", "controller/states/remove-in-progress-list"])
    [Sequential REMOVE_TIMEOUT "6.1"] no_late_reply "A REMOVE_ACK after the timeout brings no late REMOVE_COMPLETE"
    [Concurrent REMOVE "4.4"] another_files_acknowledgement_does_not_count "A REMOVE_ACK counts for the file that it names and no other"
        after (&["controller/remove/completes-on-the-last-acknowledgement"])
    [OneFailure ONE_FAILURE "4.4"] a_holder_had_left_before "A file of which a holder has left is removed, or its removal times out; it is not served any more"
    [Robustness "4.4"] completes_without_a_holder_that_had_left "The removal of a file of which a holder has left is completed by the others"
    [Robustness "4.4"] a_holder_without_the_file_counts "ERROR_FILE_DOES_NOT_EXIST from a holder counts as its acknowledgement"
    [Robustness "4.4"] a_holder_leaves_meanwhile "A holder that leaves during the wait is no longer waited for"
    [Robustness "7.6"] a_strangers_acknowledgement_does_not_count "A REMOVE_ACK from a Dstore that was not asked does not count"
    [Robustness "4.4"] two_acknowledgements_from_one_holder "Two acknowledgements from one holder count as one"
}

/// The check of whether the holders are asked.
pub const ASKS: &str = "controller/remove/asks-every-holder-and-no-other";

fn hush(scene: &ControllerScene) {
    for dstore in &scene.dstores {
        dstore.behave(Habits { remove: OnRemove::Silence, ..Habits::default() });
    }
}

/// Waits until a Dstore is told to remove a file, where that is not what the check is about.
fn expect_asked(scene: &ControllerScene, port: u16, name: &str) -> Verdict {
    let asked = scene.dstore(port)?.wait_for(&format!("REMOVE {name}"), 0);
    given(asked.map(|_| ()).map_err(|failure| failure.judged_by(ASKS)))
}

fn asks_every_holder_and_no_other(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    client.send("REMOVE a");
    for &port in &holders {
        scene.dstore(port)?.wait_for("REMOVE a", 0)?;
    }
    client.expect("REMOVE_COMPLETE")?;
    for dstore in scene.dstores.iter().filter(|dstore| !holders.contains(&dstore.port)) {
        dstore.expect_not_heard("REMOVE", 0, "it does not have the file")?;
    }
    Ok(())
}

fn completes_on_the_last_acknowledgement(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    hush(&scene);
    client.send("REMOVE a");
    for (acknowledged, &port) in holders.iter().enumerate() {
        expect_asked(&scene, port, "a")?;
        client.expect_silence(&format!("{acknowledged} of {} holders have acknowledged", holders.len()))?;
        scene.dstore(port)?.send("REMOVE_ACK a");
    }
    client.expect_exactly("REMOVE_COMPLETE")
}

fn a_holder_without_the_file_counts(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    scene.dstore(holders[0])?.loses("a"); // so that it answers ERROR_FILE_DOES_NOT_EXIST a
    client.remove("a")
}

fn then_the_file_is_gone(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    given(scene.store(&mut client, "a", 5))?;
    given(scene.store(&mut client, "b", 6))?;
    client.remove("a")?;
    let listed = given(client.list())?;
    claim(!listed.contains(&"a".to_owned()), "`LIST` without a", listed.join(" "))?;
    let reply = client.ask("LOAD a")?;
    claim(!begins(&reply, "LOAD_FROM"), "no `LOAD_FROM` for a file that was removed", reply)?;
    scene.store(&mut client, "a", 7)?;
    client.load_from("LOAD a", 7).map(|_| ())
}

/// A file is removed, and one holder, or all, never acknowledge: the client's timeout is over.
fn time_out(stage: &mut Stage, dstores: usize) -> Result<(ControllerScene, Client), Failure> {
    let scene = stage.controller(Setup::new(dstores, dstores).timeout(SHORT))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    hush(&scene);
    client.send("REMOVE a");
    for &port in &holders {
        expect_asked(&scene, port, "a")?;
    }
    if let [first, _, ..] = holders[..] {
        scene.dstore(first)?.send("REMOVE_ACK a");
    }
    client.wire().expect_silence(SHORT + QUIET, "a holder has not acknowledged")?;
    Ok((scene, client))
}

fn nothing_is_said_at_the_timeout(stage: &mut Stage) -> Verdict {
    let (_scene, mut client) = time_out(stage, 2)?;
    // One reply per request: the next is another request's.
    let reply = client.ask("LOAD absent")?;
    claim(!begins(&reply, "REMOVE_COMPLETE"), "the reply to LOAD", reply)
}

fn the_entry_stays_in_progress(stage: &mut Stage) -> Verdict {
    let (_scene, mut client) = given(time_out(stage, 2))?;
    let listed = given(client.list())?;
    claim(listed.is_empty(), "`LIST`, with no file", listed.join(" "))?;
    let reply = client.ask("LOAD a")?;
    claim(!begins(&reply, "LOAD_FROM"), "no `LOAD_FROM` for a file that is being removed", reply)?;
    let reply = client.ask("STORE a 5")?;
    claim(!begins(&reply, "STORE_TO"), "no `STORE_TO` for a file that is being removed", reply)
}

fn no_late_reply(stage: &mut Stage) -> Verdict {
    let (scene, mut client) = given(time_out(stage, 1))?;
    // A client's requests are served one after another: once this one is, the REMOVE is over.
    given(client.ask("LOAD absent"))?;
    client.wire().expect_silence(SHORT, "no holder has acknowledged")?;
    scene.dstores[0].send("REMOVE_ACK a");
    client.expect_silence("its REMOVE has timed out")?;
    let reply = client.ask("LOAD absent")?;
    claim(!begins(&reply, "REMOVE_COMPLETE"), "the reply to LOAD", reply)
}

fn another_files_acknowledgement_does_not_count(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let (mut client, mut client2) = (scene.client()?, scene.client()?);
    given(scene.store(&mut client, "a", 5))?;
    given(scene.store(&mut client, "b", 5))?;
    hush(&scene);
    client.send("REMOVE a");
    client2.send("REMOVE b");
    expect_asked(&scene, scene.dstores[0].port, "a")?;
    expect_asked(&scene, scene.dstores[0].port, "b")?;
    scene.dstores[0].send("REMOVE_ACK b");
    client2.expect("REMOVE_COMPLETE")?;
    client.expect_silence("only b has been acknowledged")?;
    scene.dstores[0].send("REMOVE_ACK a");
    client.expect("REMOVE_COMPLETE")
}

fn a_holder_leaves_meanwhile(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    hush(&scene);
    client.send("REMOVE a");
    expect_asked(&scene, holders[1], "a")?;
    expect_asked(&scene, holders[0], "a")?;
    scene.dstore(holders[1])?.leave();
    scene.dstore(holders[0])?.send("REMOVE_ACK a");
    client.expect("REMOVE_COMPLETE")
}

/// A file is stored on two of four Dstores; one of them leaves, and the Controller has noticed.
fn after_a_holder_left(stage: &mut Stage) -> Result<(ControllerScene, Client), Failure> {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    scene.dstore(holders[0])?.leave();
    given(super::load::wait_until_not_offered(&mut client, stage, "a", holders[0]))?;
    Ok((scene, client))
}

fn a_holder_had_left_before(stage: &mut Stage) -> Verdict {
    let (_scene, mut client) = after_a_holder_left(stage)?;
    client.send("REMOVE a");
    // The text has a removal time out when a Dstore cannot be reached; a Controller that knows that it has gone need not wait.
    match client.wire().receive_reply(NO_TIMEOUT + Duration::from_secs(2)) {
        Heard::Nothing(_) => {}
        Heard::Line(line) if begins(&line, "REMOVE_COMPLETE") => {}
        came => return Err(client.wire().wrong("`REMOVE_COMPLETE`, or nothing", &came)),
    }
    let reply = client.ask("LOAD a")?;
    claim(!begins(&reply, "LOAD_FROM"), "no `LOAD_FROM` for a file that was removed", reply)
}

fn completes_without_a_holder_that_had_left(stage: &mut Stage) -> Verdict {
    let (_scene, mut client) = after_a_holder_left(stage)?;
    client.remove("a")
}

fn a_strangers_acknowledgement_does_not_count(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 2))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    hush(&scene);
    client.send("REMOVE a");
    expect_asked(&scene, holders[0], "a")?;
    for stranger in scene.dstores.iter().filter(|dstore| !holders.contains(&dstore.port)) {
        stranger.send("REMOVE_ACK a");
    }
    client.expect_silence("the holder has not acknowledged")?;
    scene.dstore(holders[0])?.send("REMOVE_ACK a");
    client.expect("REMOVE_COMPLETE")
}

fn two_acknowledgements_from_one_holder(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    hush(&scene);
    client.send("REMOVE a");
    expect_asked(&scene, holders[0], "a")?;
    scene.dstore(holders[0])?.send("REMOVE_ACK a");
    scene.dstore(holders[0])?.send("REMOVE_ACK a");
    client.expect_silence("one holder has not acknowledged")?;
    scene.dstore(holders[1])?.send("REMOVE_ACK a");
    client.expect("REMOVE_COMPLETE")
}
