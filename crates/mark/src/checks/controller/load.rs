//! LOAD and RELOAD. (spec 4.3)

use std::collections::BTreeSet;

use super::super::checks;
use crate::stage::client::Client;
use crate::stage::failure::{Failure, Verdict, claim};
use crate::stage::{Setup, Stage, wait_until};

checks! { Controller "load":
    [Sequential "4.3"] names_a_holder_and_the_size "LOAD is answered by LOAD_FROM with a Dstore that has the file, and its size"
    [Sequential "4.3"] reload_offers_every_holder_once "RELOAD after RELOAD offers each of the R holders once, and then ERROR_LOAD comes"
    [Sequential "4.3"] reload_never_offers_others "RELOAD never offers a Dstore without the file"
    [Sequential "4.3"] load_forgets_what_was_tried "A new LOAD begins with all holders again"
    [Sequential "4.3"] any_other_request_forgets_what_was_tried "A request that is not a RELOAD makes the Controller forget what has been tried"
    [Sequential "6.6"] stopped_half_way "A load that is stopped half way leaves nothing owed: the next request gets its own reply"
    [Sequential "4.3"] loads_of_several_files "Each file is loaded from its own holders"
    [Concurrent "4.3"] two_clients_reload_independently "What one client has tried is nothing to another"
    [OneFailure "4.1"] a_dstore_that_left_is_not_offered "A Dstore that has left is not offered any more"
    [OneFailure "4.3"] reload_after_a_holder_left "After a holder has left, RELOAD goes through the others and ends with ERROR_LOAD"
    [Robustness "7.4"] reload_after_the_end "RELOAD after ERROR_LOAD gets ERROR_LOAD again, until the next LOAD"
    [Robustness "7.23"] reload_without_load "RELOAD with no LOAD before it is like a LOAD"
    [Robustness "2.6"] nonsense_forgets_nothing "What is no request does not make the Controller forget what has been tried"
}

fn names_a_holder_and_the_size(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "notes.txt", 12_345)?;
    let port = client.load_from("LOAD notes.txt", 12_345)?;
    claim(holders.contains(&port), format!("LOAD_FROM with one of {holders:?}"), port)
}

/// LOAD and then RELOADs as many as there are holders: they must be offered once each, and then ERROR_LOAD.
fn expect_every_holder_once(client: &mut Client, first: &str, name: &str, size: usize, holders: &[u16]) -> Verdict {
    let mut offered = Vec::new();
    for turn in 0..holders.len() {
        let request = if turn == 0 { first.to_owned() } else { format!("RELOAD {name}") };
        let port = client.load_from(&request, size)?;
        let is_new = holders.contains(&port) && !offered.contains(&port);
        claim(is_new, format!("another of the holders {holders:?}; offered so far: {offered:?}"), port)?;
        offered.push(port);
    }
    client.asks(&format!("RELOAD {name}"), "ERROR_LOAD")
}

fn reload_offers_every_holder_once(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)
}

fn reload_never_offers_others(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 5))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)
}

fn load_forgets_what_was_tried(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    for _ in 0..3 {
        expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)?;
    }
    client.load_from("LOAD a", 5)?;
    expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)
}

fn any_other_request_forgets_what_was_tried(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    let other = scene.store(&mut client, "b", 6)?;
    client.load_from("LOAD a", 5)?;
    client.load_from("RELOAD a", 5)?;
    client.expect_listed(&["a", "b"])?;
    expect_every_holder_once(&mut client, "LOAD b", "b", 6, &other)?;
    client.asks("STORE a 5", "ERROR_FILE_ALREADY_EXISTS")?;
    expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)
}

fn stopped_half_way(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 3))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 5)?;
    client.load_from("LOAD a", 5)?;
    client.load_from("RELOAD a", 5)?;
    client.expect_silence("every request has had its reply")?;
    client.expect_listed(&["a"])?;
    scene.store(&mut client, "b", 5)?;
    client.asks("REMOVE a", "REMOVE_COMPLETE")
}

fn loads_of_several_files(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 4))?;
    let mut client = scene.client()?;
    let mut holders = Vec::new();
    for number in 0..8 {
        holders.push(scene.store(&mut client, &format!("file{number}"), number)?);
    }
    for (number, holders) in holders.iter().enumerate().rev() {
        let name = format!("file{number}");
        expect_every_holder_once(&mut client, &format!("LOAD {name}"), &name, number, holders)?;
    }
    Ok(())
}

fn two_clients_reload_independently(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let (mut client, mut client2) = (scene.client()?, scene.client()?);
    scene.store(&mut client, "a", 5)?;
    let mut offers = [BTreeSet::new(), BTreeSet::new()];
    for request in ["LOAD a", "RELOAD a"] {
        offers[0].insert(client.load_from(request, 5)?);
        offers[1].insert(client2.load_from(request, 5)?);
    }
    let is_complete = offers.iter().all(|offered| offered.len() == 2);
    claim(is_complete, "both holders offered to each client", format!("{offers:?}"))?;
    client.asks("RELOAD a", "ERROR_LOAD")?;
    client2.asks("RELOAD a", "ERROR_LOAD")
}

fn a_dstore_that_left_is_not_offered(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    scene.dstore(holders[0])?.leave();
    // The Controller may take a moment to notice. Holders may be offered in turn, so one offer proves nothing.
    let mut offers = Vec::new();
    let gone = wait_until(stage.patience, || {
        offers = (0..4).filter_map(|_| client.load_from("LOAD a", 5).ok()).collect();
        offers.iter().all(|&port| port != holders[0]).then_some(())
    });
    claim(gone.is_some() && offers.len() == 4, format!("`LOAD_FROM {} 5`", holders[1]), format!("{offers:?}"))
}

fn reload_after_a_holder_left(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    scene.dstore(holders[0])?.leave();
    let mut last = Err(Failure::new("`LOAD_FROM`", "nothing"));
    let good = wait_until(stage.patience, || {
        last = expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders[1..]);
        last.is_ok().then_some(())
    });
    if good.is_some() { Ok(()) } else { last }
}

fn reload_after_the_end(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)?;
    client.asks("RELOAD a", "ERROR_LOAD")?;
    expect_every_holder_once(&mut client, "LOAD a", "a", 5, &holders)
}

fn reload_without_load(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    let mut other = scene.client()?;
    expect_every_holder_once(&mut other, "RELOAD a", "a", 5, &holders)?;
    other.asks("RELOAD absent", "ERROR_FILE_DOES_NOT_EXIST")
}

fn nonsense_forgets_nothing(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 5)?;
    client.load_from("LOAD a", 5)?;
    for line in ["NONSENSE", "LOAD", "STORE_ACK a"] {
        client.send(line);
    }
    client.asks("RELOAD a", "ERROR_LOAD")
}
