//! STORE. (spec 4.2)

use std::collections::BTreeMap;

use super::super::checks;
use crate::stage::failure::{Failure, Verdict, claim};
use crate::stage::{QUIET, SHORT, Setup, Stage, wait_until};

checks! { Controller "store":
    [Sequential "4.2"] names_r_different_dstores "STORE is answered by STORE_TO with R different ports of Dstores that have joined"
    [Sequential "4.2"] completes_on_the_last_acknowledgement "STORE_COMPLETE comes after the last of R acknowledgements, not before"
    [Sequential "4.2"] acknowledgements_in_any_order "Acknowledgements count in whatever order they come"
    [Sequential "4.2"] another_files_acknowledgement_does_not_count "A STORE_ACK counts for the file that it names and no other"
    [Sequential "4.2"] too_few_acknowledgements_leave_nothing "With one acknowledgement missing at the timeout nothing is said and nothing is listed"
    [Sequential "4.2, 5"] the_timeout_is_in_milliseconds "The timeout is in milliseconds: after 1000 of them a STORE without acknowledgements is over"
    [Sequential "6.6"] store_without_transfer_is_forgotten "A STORE that contacts no Dstore gets no reply, leaves no file, and the connection goes on"
    [Sequential "6.6"] store_of_nothing_without_transfer_is_forgotten "A STORE of 0 bytes needs its acknowledgements like any other"
    [Sequential "4.2"] a_forgotten_name_can_be_stored_again "After a STORE that timed out the name is free again"
    [Sequential "6.1"] no_late_reply "A STORE_ACK after the timeout brings no late STORE_COMPLETE"
    [Sequential "4.2"] sizes_are_remembered "LOAD_FROM tells the size that STORE announced, from 0 to 2147483647"
    [Sequential "2.2"] names_are_kept_as_they_are "Names that differ in case only are different files, and are shown as they were given"
    [Robustness "7.13"] sizes_beyond_32_bits "Sizes up to 2^63-1 are accepted and remembered"
    [Sequential "4.2"] one_after_another "A client stores many files on one connection"
    [Replication "4.2"] one_copy_evenly "With R = 1, N = 4, stores spread so that no Dstore has two files more than another"
    [Replication "4.2"] two_copies_evenly "With R = 2, N = 3, each Dstore has between floor(RF/N) and ceil(RF/N) of F files at any time"
    [Replication "4.2"] three_copies_evenly "With R = 3, N = 5, each Dstore has between floor(RF/N) and ceil(RF/N) of F files at any time"
    [Replication "4.2"] as_many_dstores_as_copies "With R = N, every Dstore gets every file"
    [OneFailure "4.2"] a_dstore_leaves_during_a_store "A STORE that waits for a Dstore that has left is never completed"
    [Robustness "7.25"] two_acknowledgements_from_one_dstore "Two acknowledgements from one Dstore count as one"
    [Robustness "7.6"] an_acknowledgement_from_a_stranger "An acknowledgement from a Dstore that was not asked does not count"
    [Robustness "7.2"] concurrent_stores_spread "Stores in progress count for the spread"
}

fn names_r_different_dstores(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let ports = scene.client()?.begin_store("notes.txt", 5, 2)?;
    ports.iter().try_for_each(|&port| scene.dstore(port).map(|_| ()))
}

fn completes_on_the_last_acknowledgement(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3))?;
    let mut client = scene.client()?;
    let ports = client.begin_store("notes.txt", 5, 3)?;
    for &port in &ports[..2] {
        scene.dstore(port)?.acknowledge_store("notes.txt");
        client.expect_silence("not all of R Dstores have acknowledged")?;
    }
    scene.dstore(ports[2])?.acknowledge_store("notes.txt");
    client.expect("STORE_COMPLETE")?;
    client.expect_listed(&["notes.txt"])
}

fn acknowledgements_in_any_order(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3))?;
    let mut client = scene.client()?;
    let ports = client.begin_store("notes.txt", 5, 3)?;
    for &port in ports.iter().rev() {
        scene.dstore(port)?.acknowledge_store("notes.txt");
    }
    client.expect("STORE_COMPLETE")
}

fn another_files_acknowledgement_does_not_count(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let (mut client, mut client2) = (scene.client()?, scene.client()?);
    client.begin_store("a", 5, 1)?;
    client2.begin_store("b", 5, 1)?;
    scene.dstores[0].acknowledge_store("b");
    client2.expect("STORE_COMPLETE")?;
    client.expect_silence("only b has been acknowledged")?;
    scene.dstores[0].acknowledge_store("a");
    client.expect("STORE_COMPLETE")
}

fn too_few_acknowledgements_leave_nothing(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2).timeout(SHORT))?;
    let mut client = scene.client()?;
    let ports = client.begin_store("notes.txt", 5, 2)?;
    scene.dstore(ports[0])?.acknowledge_store("notes.txt");
    // One reply per request: this is LIST's, or a STORE_COMPLETE that should not be.
    client.expect_listed(&[])
}

fn the_timeout_is_in_milliseconds(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1).timeout(SHORT))?;
    scene.client()?.begin_store("a", 5, 1)?;
    // The name is free again once the timeout is over.
    let mut client = scene.client()?;
    let free = wait_until(stage.patience, || {
        let reply = client.ask("STORE a 5");
        (!matches!(&reply, Ok(reply) if reply == "ERROR_FILE_ALREADY_EXISTS")).then_some(())
    });
    claim(free.is_some(), "the STORE is over after 1000 ms", format!("it goes on for {:?}", stage.patience))
}

fn store_without_transfer_is_forgotten(stage: &mut Stage) -> Verdict {
    forgotten(stage, 100)
}

fn store_of_nothing_without_transfer_is_forgotten(stage: &mut Stage) -> Verdict {
    forgotten(stage, 0)
}

fn forgotten(stage: &mut Stage, size: usize) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3).timeout(SHORT))?;
    let mut client = scene.client()?;
    client.begin_store("wrong", size, 3)?;
    client.wire().expect_silence(SHORT + QUIET, "no Dstore has acknowledged")?;
    client.expect_listed(&[])?;
    client.asks("LOAD wrong", "ERROR_FILE_DOES_NOT_EXIST")
}

fn a_forgotten_name_can_be_stored_again(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2).timeout(SHORT))?;
    scene.client()?.begin_store("again", 5, 2)?;
    let mut client = scene.client()?;
    let mut reply = String::new();
    wait_until(stage.patience, || {
        reply = client.ask("STORE again 7").unwrap_or_else(|failure| failure.came);
        (reply != "ERROR_FILE_ALREADY_EXISTS").then_some(())
    });
    let ports = client.store_to(&reply, 2)?;
    for port in ports {
        scene.dstore(port)?.acknowledge_store("again");
    }
    client.expect("STORE_COMPLETE")?;
    client.load_from("LOAD again", 7).map(|_| ())
}

fn no_late_reply(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1).timeout(SHORT))?;
    let (mut client, mut other) = (scene.client()?, scene.client()?);
    client.begin_store("late", 5, 1)?;
    // The entry has gone once another client may use the name.
    let gone = wait_until(stage.patience, || {
        let reply = other.ask("STORE late 6");
        (!matches!(&reply, Ok(reply) if reply == "ERROR_FILE_ALREADY_EXISTS")).then_some(())
    });
    claim(gone.is_some(), "the entry is removed when the timeout is over", "ERROR_FILE_ALREADY_EXISTS, still")?;
    // The other's STORE takes this acknowledgement; the first client must hear nothing of it.
    scene.dstores[0].acknowledge_store("late");
    client.expect_silence("its STORE has timed out")?;
    client.send("LIST");
    let reply = client.reply()?;
    claim(reply.starts_with("LIST"), "the reply to LIST", reply)
}

fn sizes_are_remembered(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 2))?;
    let mut client = scene.client()?;
    for size in [0, 1, 1_000, 100_000, 50_000_000, 2_147_483_647] {
        let name = format!("file-of-{size}");
        let ports = scene.store(&mut client, &name, size)?;
        let port = client.load_from(&format!("LOAD {name}"), size)?;
        claim(ports == [port], format!("LOAD_FROM {}", ports[0]), port)?;
    }
    Ok(())
}

fn names_are_kept_as_they_are(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "Notes.TXT", 5)?;
    scene.store(&mut client, "notes.txt", 6)?;
    client.expect_listed(&["Notes.TXT", "notes.txt"])?;
    client.load_from("LOAD Notes.TXT", 5).map(|_| ())
}

fn sizes_beyond_32_bits(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    for size in [2_147_483_648, 5_000_000_000, i64::MAX as usize] {
        let name = format!("file-of-{size}");
        scene.store(&mut client, &name, size)?;
        client.load_from(&format!("LOAD {name}"), size)?;
    }
    Ok(())
}

fn one_after_another(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    let names: Vec<String> = (0..30).map(|number| format!("file{number}")).collect();
    for name in &names {
        scene.store(&mut client, name, 10)?;
    }
    client.expect_listed(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn one_copy_evenly(stage: &mut Stage) -> Verdict {
    evenly(stage, 1, 4, 10)
}

fn two_copies_evenly(stage: &mut Stage) -> Verdict {
    evenly(stage, 2, 3, 12)
}

fn three_copies_evenly(stage: &mut Stage) -> Verdict {
    evenly(stage, 3, 5, 20)
}

fn as_many_dstores_as_copies(stage: &mut Stage) -> Verdict {
    evenly(stage, 3, 3, 5)
}

fn evenly(stage: &mut Stage, replicas: usize, dstores: usize, files: usize) -> Verdict {
    let scene = stage.controller(Setup::new(replicas, dstores))?;
    let mut client = scene.client()?;
    for stored in 1..=files {
        scene.store(&mut client, &format!("file{stored}"), 10)?;
        is_even(&scene.loads(), replicas * stored)?;
    }
    Ok(())
}

/// Each Dstore has between floor and ceil of its share.
fn is_even(loads: &[usize], copies: usize) -> Verdict {
    let (floor, ceil) = (copies / loads.len(), copies.div_ceil(loads.len()));
    claim(
        loads.iter().all(|load| (floor..=ceil).contains(load)),
        format!("{copies} copies on {} Dstores: {floor} to {ceil} on each", loads.len()),
        format!("{loads:?}"),
    )
}

fn a_dstore_leaves_during_a_store(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3).timeout(SHORT))?;
    let mut client = scene.client()?;
    let ports = client.begin_store("orphan", 5, 2)?;
    scene.dstore(ports[0])?.acknowledge_store("orphan");
    scene.dstore(ports[1])?.leave();
    client.expect_listed(&[])
}

fn two_acknowledgements_from_one_dstore(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    let ports = client.begin_store("twice", 5, 2)?;
    scene.dstore(ports[0])?.acknowledge_store("twice");
    scene.dstore(ports[0])?.acknowledge_store("twice");
    client.expect_silence("only one of two Dstores has acknowledged")?;
    scene.dstore(ports[1])?.acknowledge_store("twice");
    client.expect("STORE_COMPLETE")
}

fn an_acknowledgement_from_a_stranger(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    let ports = client.begin_store("odd", 5, 2)?;
    let stranger = scene.dstores.iter().find(|dstore| !ports.contains(&dstore.port));
    let stranger = stranger.ok_or_else(|| Failure::new("one Dstore is not asked", "all are"))?;
    scene.dstore(ports[0])?.acknowledge_store("odd");
    stranger.send("STORE_ACK odd");
    client.expect_silence("only one of the two that were asked has acknowledged")?;
    scene.dstore(ports[1])?.acknowledge_store("odd");
    client.expect("STORE_COMPLETE")
}

fn concurrent_stores_spread(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 5))?;
    let mut loads: BTreeMap<u16, usize> = scene.dstores.iter().map(|dstore| (dstore.port, 0)).collect();
    let mut clients = Vec::new();
    for number in 0..10 {
        let mut client = scene.client()?;
        for port in client.begin_store(&format!("file{number}"), 5, 1)? {
            *loads.entry(port).or_default() += 1;
        }
        clients.push(client); // its STORE stays in progress
    }
    is_even(&loads.into_values().collect::<Vec<_>>(), 10)
}
