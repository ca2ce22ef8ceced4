//! STORE. (spec 4.2)

use std::collections::{BTreeMap, BTreeSet};

use super::super::checks;
use crate::stage::client::Client;
use crate::stage::controller_scene::ControllerScene;
use crate::stage::failure::{Failure, Verdict, claim, given};
use crate::stage::wire::{Heard, begins};
use crate::stage::{QUIET, SHORT, Setup, Stage, wait_until};

checks! { Controller "store":
    [Sequential STORE_TO "4.2"] is_answered_by_store_to "STORE is answered by STORE_TO with ports of Dstores that have joined"
    [Replication STORE_TO "4.2"] names_r_different_dstores "STORE_TO names R different Dstores"
    [Sequential STORE_COMPLETE "4.2"] completes_on_the_last_acknowledgement "STORE_COMPLETE comes after the last acknowledgement, not before"
    [Sequential STORE_COMPLETE "4.2"] acknowledgements_in_any_order "Acknowledgements count in whatever order they come"
    [Concurrent STORE_COMPLETE "4.2"] another_files_acknowledgement_does_not_count "A STORE_ACK counts for the file that it names and no other"
    [Sequential STORE_TIMEOUT "4.2"] too_few_acknowledgements_leave_nothing "With one acknowledgement missing at the timeout nothing is said and nothing is listed"
    [Sequential STORE_FORGOTTEN "4.2, 5"] the_timeout_is_in_milliseconds "The timeout is in milliseconds: after 1000 of them a STORE without acknowledgements is over"
    [Sequential STORE_TIMEOUT "6.6"] store_without_transfer_is_forgotten "A STORE that contacts no Dstore gets no reply, leaves no file, and the connection goes on"
    [Sequential STORE_FORGOTTEN "4.2"] a_forgotten_name_can_be_stored_again "After a STORE that timed out the name is free again"
    [Sequential STORE_FORGOTTEN "6.1"] no_late_reply "A STORE_ACK after the timeout brings no late STORE_COMPLETE"
    [Sequential LOAD_FROM "4.2"] sizes_are_remembered "LOAD_FROM tells the size that STORE announced, from 1 to 99999"
    [Sequential LIST "2.2"] names_are_kept_as_they_are "Names that differ in case only are different files, and are shown as they were given"
    [Sequential SEQUENTIAL_REQUESTS "4.2"] one_after_another "A client stores many files on one connection"
    [Replication EVEN_STORES "4.2"] one_copy_evenly "With R = 1, N = 4, stores leave each Dstore with between floor(RF/N) and ceil(RF/N) of F files"
        after (&["controller/store/completes-on-the-last-acknowledgement"])
    [Replication EVEN_STORES "4.2"] two_copies_evenly "With R = 2, N = 3, stores leave each Dstore with between floor(RF/N) and ceil(RF/N) of F files"
        after (&["controller/store/completes-on-the-last-acknowledgement"])
    [Replication EVEN_STORES "4.2"] three_copies_evenly "With R = 3, N = 5, stores leave each Dstore with between floor(RF/N) and ceil(RF/N) of F files"
        after (&["controller/store/completes-on-the-last-acknowledgement"])
    [Replication REPLICATED "4.2"] as_many_dstores_as_copies "With R = N, every Dstore gets every file"
        after (&["controller/store/completes-on-the-last-acknowledgement"])
    [OneFailure STORE_TIMEOUT "4.2"] a_dstore_leaves_during_a_store "A STORE that waits for a Dstore that has left is never completed"
        after (&["controller/store/too-few-acknowledgements-leave-nothing"])
    [Robustness "6.6"] store_of_nothing_without_transfer_is_forgotten "A STORE of 0 bytes needs its acknowledgements like any other"
    [Robustness "4.2"] sizes_up_to_31_bits "LOAD_FROM tells the size that STORE announced, also 0, and up to 2147483647"
    [Robustness "7.13"] sizes_beyond_32_bits "Sizes up to 2^63-1 are accepted and remembered"
    [Robustness "7.25"] two_acknowledgements_from_one_dstore "Two acknowledgements from one Dstore count as one"
    [Robustness "7.6"] an_acknowledgement_from_a_stranger "An acknowledgement from a Dstore that was not asked does not count"
    [Robustness "7.2"] concurrent_stores_spread "Stores in progress count for the spread"
}

fn is_answered_by_store_to(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let ports = scene.client()?.begin_store("notes.txt", 5)?;
    ports.iter().try_for_each(|&port| scene.dstore(port).map(|_| ()))
}

fn names_r_different_dstores(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let ports = given(scene.client()?.begin_store("notes.txt", 5))?;
    let different: BTreeSet<_> = ports.iter().collect();
    claim((ports.len(), different.len()) == (2, 2), "2 different ports", format!("{ports:?}"))
}

fn completes_on_the_last_acknowledgement(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3))?;
    let mut client = scene.client()?;
    let ports = given(client.begin_store("notes.txt", 5))?;
    for (acknowledged, &port) in ports.iter().enumerate() {
        client.expect_silence(&format!("{acknowledged} of {} Dstores have acknowledged", ports.len()))?;
        scene.dstore(port)?.acknowledge_store("notes.txt");
    }
    client.expect_exactly("STORE_COMPLETE")
}

fn acknowledgements_in_any_order(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3))?;
    let mut client = scene.client()?;
    let ports = given(client.begin_store("notes.txt", 5))?;
    for &port in ports.iter().rev() {
        scene.dstore(port)?.acknowledge_store("notes.txt");
    }
    client.expect("STORE_COMPLETE")
}

fn another_files_acknowledgement_does_not_count(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let (mut client, mut client2) = (scene.client()?, scene.client()?);
    given(client.begin_store("a", 5))?;
    given(client2.begin_store("b", 5))?;
    scene.dstores[0].acknowledge_store("b");
    client2.expect("STORE_COMPLETE")?;
    client.expect_silence("only b has been acknowledged")?;
    scene.dstores[0].acknowledge_store("a");
    client.expect("STORE_COMPLETE")
}

/// A STORE that some Dstores acknowledge, but not all: the timeout is over, and nothing has been said.
fn time_out(stage: &mut Stage, acknowledged: usize) -> Result<(ControllerScene, Client), Failure> {
    let scene = stage.controller(Setup::new(3, 3).timeout(SHORT))?;
    let mut client = scene.client()?;
    let ports = given(client.begin_store("wrong", 100))?;
    scene.acknowledge_all(&ports[..acknowledged], "wrong")?;
    client.wire().expect_silence(SHORT + QUIET, "not all Dstores have acknowledged")?;
    Ok((scene, client))
}

/// A file whose STORE has timed out is neither listed nor loaded.
fn expect_not_served(client: &mut Client) -> Verdict {
    let listed = given(client.list())?;
    claim(listed.is_empty(), "`LIST`, with no file", listed.join(" "))?;
    let reply = client.ask("LOAD wrong")?;
    claim(!begins(&reply, "LOAD_FROM"), "no `LOAD_FROM` for a file that was not stored", reply)
}

fn too_few_acknowledgements_leave_nothing(stage: &mut Stage) -> Verdict {
    let (_scene, mut client) = time_out(stage, 2)?;
    expect_not_served(&mut client)
}

fn store_without_transfer_is_forgotten(stage: &mut Stage) -> Verdict {
    let (scene, mut client) = time_out(stage, 0)?;
    expect_not_served(&mut client)?;
    given(scene.store(&mut client, "right", 5)).map(|_| ())
}

fn store_of_nothing_without_transfer_is_forgotten(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3).timeout(SHORT))?;
    let mut client = scene.client()?;
    client.begin_store("wrong", 0)?;
    client.wire().expect_silence(SHORT + QUIET, "no Dstore has acknowledged")?;
    expect_not_served(&mut client)
}

/// Asks to store until the name is free, which a Controller may take a moment to see to.
fn store_when_free(client: &mut Client, stage: &Stage) -> Result<Vec<u16>, Failure> {
    let mut reply = String::new();
    wait_until(stage.patience, || {
        reply = client.ask("STORE wrong 7").unwrap_or_else(|failure| failure.came);
        (!begins(&reply, "ERROR_FILE_ALREADY_EXISTS")).then_some(())
    });
    client.store_to(&reply)
}

/// A STORE without acknowledgements must be over within the patience, with a timeout much shorter than that.
pub fn expect_the_timeout_strikes(client: &mut Client, stage: &Stage) -> Verdict {
    let struck = client.begin_store("wrong", 7).and_then(|_| {
        client.wire().expect_silence(SHORT + QUIET, "no Dstore has acknowledged")?;
        store_when_free(client, stage)
    });
    // The second one is left to time out like the first.
    struck.map_err(|failure| failure.judged_by("controller/store/the-timeout-is-in-milliseconds"))?;
    client.expect_silence("no Dstore has acknowledged")
}

fn the_timeout_is_in_milliseconds(stage: &mut Stage) -> Verdict {
    let (_scene, mut client) = given(time_out(stage, 0))?;
    store_when_free(&mut client, stage).map(|_| ())
}

fn a_forgotten_name_can_be_stored_again(stage: &mut Stage) -> Verdict {
    let (scene, mut client) = given(time_out(stage, 1))?;
    let ports = store_when_free(&mut client, stage)?;
    scene.acknowledge_all(&ports, "wrong")?;
    client.expect_stored()?;
    client.load_from("LOAD wrong", 7).map(|_| ())
}

fn no_late_reply(stage: &mut Stage) -> Verdict {
    let (scene, mut client) = given(time_out(stage, 0))?;
    // A client's requests are served one after another: once this one is, the STORE is over.
    given(client.ask("LOAD absent"))?;
    client.wire().expect_silence(SHORT, "no Dstore has acknowledged")?;
    for dstore in &scene.dstores {
        dstore.send("STORE_ACK wrong");
    }
    client.expect_silence("its STORE has timed out")?;
    let reply = client.ask("LOAD absent")?;
    claim(!begins(&reply, "STORE_COMPLETE"), "the reply to LOAD", reply)
}

fn remembers(stage: &mut Stage, sizes: &[usize]) -> Verdict {
    let scene = stage.controller(Setup::new(1, 2))?;
    let mut client = scene.client()?;
    for &size in sizes {
        let name = format!("file-of-{size}");
        scene.store(&mut client, &name, size)?;
        client.load_from(&format!("LOAD {name}"), size)?;
    }
    Ok(())
}

fn sizes_are_remembered(stage: &mut Stage) -> Verdict {
    remembers(stage, &[1, 9, 1_000, 65_536, 99_999])
}

fn sizes_up_to_31_bits(stage: &mut Stage) -> Verdict {
    remembers(stage, &[0, 100_000, 50_000_000, 2_147_483_647])
}

fn sizes_beyond_32_bits(stage: &mut Stage) -> Verdict {
    remembers(stage, &[2_147_483_648, 5_000_000_000, i64::MAX as usize])
}

fn names_are_kept_as_they_are(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "Notes.TXT", 5)?;
    scene.store(&mut client, "notes.txt", 6)?;
    client.expect_listed(&["Notes.TXT", "notes.txt"])?;
    client.load_from("LOAD Notes.TXT", 5).map(|_| ())
}

fn one_after_another(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    (0..30).try_for_each(|number| scene.store(&mut client, &format!("file{number}"), 10).map(|_| ()))
}

fn one_copy_evenly(stage: &mut Stage) -> Verdict {
    evenly(stage, 1, 4, 10)
}

fn two_copies_evenly(stage: &mut Stage) -> Verdict {
    evenly(stage, 2, 3, 10)
}

fn three_copies_evenly(stage: &mut Stage) -> Verdict {
    evenly(stage, 3, 5, 12)
}

fn as_many_dstores_as_copies(stage: &mut Stage) -> Verdict {
    evenly(stage, 3, 3, 5)
}

fn evenly(stage: &mut Stage, replicas: usize, dstores: usize, files: usize) -> Verdict {
    let scene = stage.controller(Setup::new(replicas, dstores))?;
    let mut client = scene.client()?;
    for stored in 1..=files {
        given(scene.store(&mut client, &format!("file{stored}"), 10))?;
    }
    is_even(&scene.loads(), replicas * files)
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
    let ports = given(client.begin_store("orphan", 5))?;
    let (leaving, others) = ports.split_last().expect("a port at least");
    scene.acknowledge_all(others, "orphan")?;
    scene.dstore(*leaving)?.leave();
    if let came @ Heard::Line(_) = client.wire().receive(SHORT + QUIET) {
        return Err(client.wire().wrong("nothing: not all Dstores have acknowledged", &came));
    }
    let listed = given(client.list())?;
    claim(listed.is_empty(), "`LIST`, with no file", listed.join(" "))
}

fn two_acknowledgements_from_one_dstore(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    let ports = given(client.begin_store("twice", 5))?;
    scene.dstore(ports[0])?.acknowledge_store("twice");
    scene.dstore(ports[0])?.acknowledge_store("twice");
    client.expect_silence("only one of two Dstores has acknowledged")?;
    scene.dstore(ports[1])?.acknowledge_store("twice");
    client.expect("STORE_COMPLETE")
}

fn an_acknowledgement_from_a_stranger(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    let ports = given(client.begin_store("odd", 5))?;
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
        for port in given(client.begin_store(&format!("file{number}"), 5))? {
            *loads.entry(port).or_default() += 1;
        }
        clients.push(client); // its STORE stays in progress
    }
    is_even(&loads.into_values().collect::<Vec<_>>(), 10)
}
