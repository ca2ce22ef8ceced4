//! LOAD and RELOAD. (spec 4.3)

use std::collections::BTreeSet;

use super::super::checks;
use crate::stage::client::Client;
use crate::stage::failure::{Failure, Verdict, claim, given};
use crate::stage::wire::{begins, words};
use crate::stage::{Setup, Stage, wait_until};

checks! { Controller "load":
    [Sequential LOAD_FROM "4.3"] names_a_holder_and_the_size "LOAD is answered by LOAD_FROM with a Dstore that has the file, and its size"
    [Sequential RELOAD "4.3"] reload_offers_every_holder_once "RELOAD after RELOAD offers each of the R holders once, and then ERROR_LOAD comes"
    [Sequential RELOAD "4.3"] reload_never_offers_others "RELOAD never offers a Dstore without the file"
    [Sequential LOAD_FROM "4.3"] load_forgets_what_was_tried "A new LOAD begins with all holders again"
    [Sequential RELOAD "4.3"] any_other_request_forgets_what_was_tried "After other requests, a LOAD begins with all holders again"
    [Sequential SEQUENTIAL_REQUESTS "6.6"] stopped_half_way "A load that is stopped half way leaves nothing owed: the next request gets its own reply"
    [Sequential RELOAD "4.3"] loads_of_several_files "Each file is loaded from its own holders"
    [Concurrent RELOAD "4.3"] two_clients_reload_independently "What one client has tried is nothing to another"
        after (&["controller/load/reload-offers-every-holder-once"])
    [OneFailure DSTORE_DROPPED "4.1"] a_dstore_that_left_is_not_offered "A Dstore that has left is not offered any more"
        after (&["controller/load/load-forgets-what-was-tried", "controller/load/reload-offers-every-holder-once"])
    [OneFailure RELOAD "4.3"] reload_after_a_holder_left "After a holder has left, RELOAD goes through the others and ends with ERROR_LOAD"
        after (&["controller/load/reload-offers-every-holder-once"])
    [Robustness "7.4"] reload_after_the_end "RELOAD after ERROR_LOAD gets ERROR_LOAD again, until the next LOAD"
    [Robustness "7.23"] reload_without_load "RELOAD with no LOAD before it is like a LOAD"
    [Robustness "2.6"] nonsense_forgets_nothing "What is no request does not make the Controller forget what has been tried"
}

/// The check of whether a Dstore that has left is forgotten.
const FORGETS: &str = "controller/load/a-dstore-that-left-is-not-offered";

fn names_a_holder_and_the_size(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "notes.txt", 12_345))?;
    let port = client.load_from("LOAD notes.txt", 12_345)?;
    claim(holders.contains(&port), format!("LOAD_FROM with one of {holders:?}"), port)
}

/// LOAD and then RELOADs as many as there are holders: they must be offered once each, and then ERROR_LOAD.
fn expect_every_holder_once(client: &mut Client, first: &str, name: &str, size: usize, holders: &[u16]) -> Verdict {
    let mut offered = Vec::new();
    for turn in 0..holders.len() {
        // That LOAD is answered at all has a check of its own.
        let port = match turn {
            0 => given(client.load_from(first, size))?,
            _ => client.load_from(&format!("RELOAD {name}"), size)?,
        };
        let is_new = holders.contains(&port) && !offered.contains(&port);
        claim(is_new, format!("another of the holders {holders:?}; offered so far: {offered:?}"), port)?;
        offered.push(port);
    }
    client.asks(&format!("RELOAD {name}"), "ERROR_LOAD")
}

fn reload_offers_every_holder_once(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)
}

fn reload_never_offers_others(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 5))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)
}

fn load_forgets_what_was_tried(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    given(expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders))?;
    for _ in 0..3 {
        client.load_from("LOAD a", 5)?;
    }
    client.load_from("RELOAD a", 5)?;
    client.load_from("LOAD a", 5).map(|_| ())
}

fn any_other_request_forgets_what_was_tried(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    let other = given(scene.store(&mut client, "b", 6))?;
    given(client.load_from("LOAD a", 5))?;
    given(client.load_from("RELOAD a", 5))?;
    given(client.list())?;
    expect_every_holder_once(&mut client, "LOAD b", "b", 6, &other)?;
    given(client.ask("STORE a 5"))?;
    expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)
}

fn stopped_half_way(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3))?;
    let mut client = scene.client()?;
    given(scene.store(&mut client, "a", 5))?;
    given(client.load_from("LOAD a", 5))?;
    given(client.load_from("RELOAD a", 5))?;
    client.expect_silence("every request has had its reply")?;
    let reply = client.ask("LOAD absent")?;
    claim(!reply.starts_with("LOAD_FROM"), "the reply to LOAD of another file, which does not exist", reply)?;
    given(scene.store(&mut client, "b", 5)).map(|_| ())
}

fn loads_of_several_files(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 4))?;
    let mut client = scene.client()?;
    let mut holders = Vec::new();
    for number in 1..=8 {
        holders.push(given(scene.store(&mut client, &format!("file{number}"), number))?);
    }
    for (number, holders) in (1..9).zip(&holders).rev() {
        let name = format!("file{number}");
        expect_every_holder_once(&mut client, &format!("LOAD {name}"), &name, number, holders)?;
    }
    Ok(())
}

fn two_clients_reload_independently(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let (mut client, mut client2) = (scene.client()?, scene.client()?);
    let holders = given(scene.store(&mut client, "a", 5))?;
    let mut offers = [BTreeSet::new(), BTreeSet::new()];
    for turn in 0..holders.len() {
        let request = if turn == 0 { "LOAD a" } else { "RELOAD a" };
        offers[0].insert(client.load_from(request, 5)?);
        offers[1].insert(client2.load_from(request, 5)?);
    }
    let is_complete = offers.iter().all(|offered| offered.len() == holders.len());
    claim(is_complete, "all holders offered to each client", format!("{offers:?}"))
}

/// Waits until a Dstore that has left is not offered any more. Some Controllers always offer the same holder first, so only the
/// RELOADs after a LOAD show all of them.
pub fn wait_until_not_offered(client: &mut Client, stage: &Stage, name: &str, gone: u16) -> Verdict {
    let mut offers = Vec::new();
    let forgotten = wait_until(stage.patience, || {
        let requests = ["LOAD", "RELOAD", "RELOAD", "RELOAD"];
        offers = requests.iter().filter_map(|verb| client.load_from(&format!("{verb} {name}"), 5).ok()).collect();
        (!offers.contains(&gone)).then_some(())
    });
    match forgotten {
        Some(()) => Ok(()),
        None => {
            let failure = Failure::new(format!("no `LOAD_FROM {gone} 5`: it has left"), format!("{offers:?}"));
            Err(failure.judged_by(FORGETS))
        }
    }
}

fn a_dstore_that_left_is_not_offered(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    scene.dstore(holders[0])?.leave();
    wait_until_not_offered(&mut client, stage, "a", holders[0])?;
    let port = client.load_from("LOAD a", 5)?;
    // Perhaps one that did not have it then: a Controller may have made the loss good already.
    let has_file = scene.dstore(port).is_ok_and(|dstore| dstore.files().contains("a"));
    claim(has_file, "`LOAD_FROM` with a Dstore that has the file", port)
}

fn reload_after_a_holder_left(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    scene.dstore(holders[0])?.leave();
    given(wait_until_not_offered(&mut client, stage, "a", holders[0]))?;
    let mut offered = vec![given(client.load_from("LOAD a", 5))?];
    loop {
        let reply = client.ask("RELOAD a")?;
        if begins(&reply, "ERROR_LOAD") {
            return Ok(());
        }
        // A Controller may have made the loss good already: then another Dstore has the file, too.
        let port = words(&reply).nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
        let has_file = scene.dstore(port).is_ok_and(|dstore| dstore.files().contains("a"));
        let expected = format!("`ERROR_LOAD`, or another Dstore with the file than {offered:?}");
        claim(has_file && !offered.contains(&port), expected, format!("`{reply}`"))?;
        offered.push(port);
    }
}

fn reload_after_the_end(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)?;
    client.asks("RELOAD a", "ERROR_LOAD")?;
    expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)
}

fn reload_without_load(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    let holders = given(scene.store(&mut client, "a", 5))?;
    let mut other = scene.client()?;
    expect_every_holder_once(&mut other, "RELOAD a", "a", 5, &holders)?;
    other.asks("RELOAD absent", "ERROR_FILE_DOES_NOT_EXIST")
}

fn nonsense_forgets_nothing(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    given(scene.store(&mut client, "a", 5))?;
    given(client.load_from("LOAD a", 5))?;
    for line in ["NONSENSE", "LOAD", "STORE_ACK a"] {
        client.send(line);
    }
    client.asks("RELOAD a", "ERROR_LOAD")
}
