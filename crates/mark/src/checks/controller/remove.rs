//! REMOVE. (spec 4.4)

use super::super::checks;
use crate::stage::controller_scene::{ControllerScene, Habits, OnRemove};
use crate::stage::failure::{Verdict, claim};
use crate::stage::{QUIET, SHORT, Setup, Stage, wait_until};

checks! { Controller "remove":
    [Sequential "4.4"] asks_every_holder_and_no_other "REMOVE is sent to every holder of the file, and to no other Dstore"
    [Sequential "4.4"] completes_on_the_last_acknowledgement "REMOVE_COMPLETE comes after the last holder's REMOVE_ACK, not before"
    [Sequential "4.4"] a_holder_without_the_file_counts "ERROR_FILE_DOES_NOT_EXIST from a holder counts as its acknowledgement"
    [Sequential "4.4"] then_the_file_is_gone "After REMOVE_COMPLETE the file is not listed, loaded or removed, and the name is free"
    [Sequential "4.4"] nothing_is_said_at_the_timeout "If not every holder acknowledges in time, nothing is said to the client"
    [Sequential "4.4"] the_entry_stays_in_progress "If not every holder acknowledges in time, the file stays as remove in progress"
    [Sequential "6.1"] no_late_reply "A REMOVE_ACK after the timeout brings no late REMOVE_COMPLETE"
    [Sequential "4.4"] another_files_acknowledgement_does_not_count "A REMOVE_ACK counts for the file that it names and no other"
    [OneFailure "4.4"] a_holder_leaves_meanwhile "A holder that leaves during the wait is no longer waited for"
    [OneFailure "4.4"] a_holder_had_left_before "A file of which a holder has left is removed from the others"
    [Robustness "7.6"] a_strangers_acknowledgement_does_not_count "A REMOVE_ACK from a Dstore that was not asked does not count"
    [Robustness "4.4"] two_acknowledgements_from_one_holder "Two acknowledgements from one holder count as one"
}

fn hush(scene: &ControllerScene) {
    for dstore in &scene.dstores {
        dstore.behave(Habits { remove: OnRemove::Silence, ..Habits::default() });
    }
}

fn asks_every_holder_and_no_other(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    client.asks("REMOVE a", "REMOVE_COMPLETE")?;
    for dstore in &scene.dstores {
        match holders.contains(&dstore.port) {
            true => _ = dstore.wait_for("REMOVE a", 0)?,
            false => dstore.expect_not_heard("REMOVE", 0, "it does not have the file")?,
        }
    }
    scene.expect_no_complaints()
}

fn completes_on_the_last_acknowledgement(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    hush(&scene);
    client.send("REMOVE a");
    for (acknowledged, &port) in holders.iter().enumerate() {
        scene.dstore(port)?.wait_for("REMOVE a", 0)?;
        let because = format!("{acknowledged} of 3 holders have acknowledged");
        client.expect_silence(&because)?;
        scene.dstore(port)?.send("REMOVE_ACK a");
    }
    client.expect("REMOVE_COMPLETE")
}

fn a_holder_without_the_file_counts(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    scene.dstore(holders[0])?.loses("a"); // so that it answers ERROR_FILE_DOES_NOT_EXIST a
    client.asks("REMOVE a", "REMOVE_COMPLETE")
}

fn then_the_file_is_gone(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 5)?;
    scene.store(&mut client, "b", 6)?;
    client.asks("REMOVE a", "REMOVE_COMPLETE")?;
    client.expect_listed(&["b"])?;
    client.asks("LOAD a", "ERROR_FILE_DOES_NOT_EXIST")?;
    client.asks("REMOVE a", "ERROR_FILE_DOES_NOT_EXIST")?;
    let holders = scene.store(&mut client, "a", 7)?;
    let port = client.load_from("LOAD a", 7)?;
    claim(holders.contains(&port), format!("LOAD_FROM with one of {holders:?}"), port)
}

fn nothing_is_said_at_the_timeout(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2).timeout(SHORT))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    hush(&scene);
    client.send("REMOVE a");
    scene.dstore(holders[0])?.wait_for("REMOVE a", 0)?;
    scene.dstore(holders[0])?.send("REMOVE_ACK a");
    client.wire().expect_silence(SHORT + QUIET, "one holder has not acknowledged")?;
    // One reply per request: the next is LIST's.
    client.expect_listed(&[])
}

fn the_entry_stays_in_progress(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2).timeout(SHORT))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 5)?;
    hush(&scene);
    client.send("REMOVE a");
    client.wire().expect_silence(SHORT + QUIET, "no holder has acknowledged")?;
    client.asks("STORE a 5", "ERROR_FILE_ALREADY_EXISTS")?;
    client.asks("LOAD a", "ERROR_FILE_DOES_NOT_EXIST")?;
    client.asks("REMOVE a", "ERROR_FILE_DOES_NOT_EXIST")?;
    client.expect_listed(&[])
}

fn no_late_reply(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1).timeout(SHORT))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 5)?;
    hush(&scene);
    client.send("REMOVE a");
    // Served only when the REMOVE is over, since a client's requests are served one after another.
    client.expect_listed(&[])?;
    client.wire().expect_silence(SHORT, "no holder has acknowledged")?;
    scene.dstores[0].send("REMOVE_ACK a");
    client.expect_silence("its REMOVE has timed out")?;
    client.send("LIST");
    let reply = client.reply()?;
    claim(reply.starts_with("LIST"), "the reply to LIST", reply)
}

fn another_files_acknowledgement_does_not_count(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let (mut client, mut client2) = (scene.client()?, scene.client()?);
    scene.store(&mut client, "a", 5)?;
    scene.store(&mut client, "b", 5)?;
    hush(&scene);
    client.send("REMOVE a");
    client2.send("REMOVE b");
    scene.dstores[0].wait_for("REMOVE a", 0)?;
    scene.dstores[0].wait_for("REMOVE b", 0)?;
    scene.dstores[0].send("REMOVE_ACK b");
    client2.expect("REMOVE_COMPLETE")?;
    client.expect_silence("only b has been acknowledged")?;
    scene.dstores[0].send("REMOVE_ACK a");
    client.expect("REMOVE_COMPLETE")
}

fn a_holder_leaves_meanwhile(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    hush(&scene);
    client.send("REMOVE a");
    scene.dstore(holders[1])?.wait_for("REMOVE a", 0)?;
    scene.dstore(holders[0])?.wait_for("REMOVE a", 0)?;
    scene.dstore(holders[1])?.leave();
    scene.dstore(holders[0])?.send("REMOVE_ACK a");
    client.expect("REMOVE_COMPLETE")
}

fn a_holder_had_left_before(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    scene.dstore(holders[0])?.leave();
    // Once it is not offered any more, the Controller knows.
    wait_until(stage.patience, || {
        let offers: Vec<_> = (0..4).filter_map(|_| client.load_from("LOAD a", 5).ok()).collect();
        (!offers.contains(&holders[0])).then_some(())
    });
    client.asks("REMOVE a", "REMOVE_COMPLETE")?;
    scene.dstore(holders[1])?.wait_for("REMOVE a", 0).map(|_| ())
}

fn a_strangers_acknowledgement_does_not_count(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 2))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    hush(&scene);
    client.send("REMOVE a");
    scene.dstore(holders[0])?.wait_for("REMOVE a", 0)?;
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
    let holders = scene.store(&mut client, "a", 5)?;
    hush(&scene);
    client.send("REMOVE a");
    scene.dstore(holders[0])?.wait_for("REMOVE a", 0)?;
    scene.dstore(holders[0])?.send("REMOVE_ACK a");
    scene.dstore(holders[0])?.send("REMOVE_ACK a");
    client.expect_silence("one holder has not acknowledged")?;
    scene.dstore(holders[1])?.send("REMOVE_ACK a");
    client.expect("REMOVE_COMPLETE")
}
