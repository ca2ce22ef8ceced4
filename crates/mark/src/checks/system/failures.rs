//! Dstores that are killed. (spec 4.1, 4.3)

use std::thread;
use std::time::Duration;

use super::super::checks;
use crate::stage::client::Client;
use crate::stage::failure::{Failure, Verdict, claim, given};
use crate::stage::system_scene::SystemScene;
use crate::stage::wire::{Heard, begins};
use crate::stage::{NO_TIMEOUT, QUIET, Setup, Stage, content, freeze, wait_until};

checks! { System "failures":
    [OneFailure ONE_FAILURE "4.3"] one_failure_loses_nothing "After one Dstore of four is killed, every file is still loaded"
    [OneFailure ONE_FAILURE "4.1, 4.2"] stores_go_on_after_one_failure "After one Dstore of four is killed, files are still stored"
    [OneFailure ONE_FAILURE "4.4"] removes_go_on_after_one_failure "After one Dstore of four is killed, a file is removed, or its removal times out; it is not served any more"
    [Robustness "3.3"] one_failure_of_r_stops_service "With N = R, one failure brings ERROR_NOT_ENOUGH_DSTORES"
    [OneFailure ONE_FAILURE "4.3"] a_failure_during_a_load "When the offered Dstore is dead, RELOAD leads to one that is not"
    [NrFailures NR_FAILURES "4.3"] two_failures_of_five "R = 3, N = 5, two killed one after the other: every file is still loaded"
    [NrFailures NR_FAILURES "4.3"] two_more_failures_at_once "R = 2, N = 5, one killed, then two at the same time: every file that is left is still loaded"
    [NrFailures NR_FAILURES "4.1, 4.2"] stores_go_on_after_nr_failures "R = 2, N = 4, two killed: files are still stored, on the two that are left"
    [NrFailures NR_FAILURES "4.4"] removes_go_on_after_nr_failures "R = 2, N = 4, two killed: a file that is left is removed, or its removal times out; it is not served any more"
    [Robustness "3.3"] one_more_failure_is_too_many "R = 2, N = 4: after three failures ERROR_NOT_ENOUGH_DSTORES comes"
    [Robustness "4.4"] removes_are_completed_after_a_failure "After one Dstore of four is killed, removals are completed by the other holders"
    [Robustness "2.7"] a_frozen_dstore_stops_only_its_files "While a Dstore hangs, files on the others are still loaded and listed"
}

type Files = Vec<(String, Vec<u8>)>;

fn files(count: u64) -> Files {
    (0..count).map(|number| (format!("file{number}"), content(number + 1, 3_000))).collect()
}

fn store_all(scene: &SystemScene, files: &Files) -> Result<Client, Failure> {
    let mut client = scene.client()?;
    for (name, bytes) in files {
        given(client.store(name, bytes))?;
    }
    Ok(client)
}

/// Every file is loaded, as the official client does it: with RELOAD when a Dstore cannot be reached.
fn load_all(client: &mut Client, files: &Files) -> Verdict {
    files.iter().try_for_each(|(name, bytes)| client.load(name, bytes))
}

/// Waits until the Controller has noticed that `dead` have gone: it offers them for none of the files any more.
fn wait_until_noticed(client: &mut Client, stage: &Stage, files: &Files, dead: &[u16]) -> Verdict {
    let noticed = wait_until(stage.patience, || {
        let mut offers = files.iter().flat_map(|(name, bytes)| {
            let load = client.load_from(&format!("LOAD {name}"), bytes.len());
            let reload = client.load_from(&format!("RELOAD {name}"), bytes.len());
            [load, reload]
        });
        (!offers.any(|offer| offer.is_ok_and(|port| dead.contains(&port)))).then_some(())
    });
    let failure = || Failure::new(format!("no LOAD_FROM with {dead:?}, which have left"), "they are offered");
    given(noticed.ok_or_else(|| failure().judged_by("controller/load/a-dstore-that-left-is-not-offered")))
}

fn one_failure_loses_nothing(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 4))?;
    let files = files(8);
    let mut client = store_all(&scene, &files)?;
    scene.kill(1);
    load_all(&mut client, &files)
}

/// Kills the first of these Dstores and, once the system has been seen to tolerate that, the others.
fn kill_one_after_another(
    scene: &mut SystemScene,
    client: &mut Client,
    stage: &Stage,
    files: &Files,
    dead: &[usize],
) -> Verdict {
    let ports: Vec<u16> = dead.iter().map(|&dstore| scene.dstores[dstore].port).collect();
    let (first, others) = dead.split_first().expect("one at least");
    scene.kill(*first);
    // It may be offered for none of the files anyway.
    thread::sleep(QUIET);
    wait_until_noticed(client, stage, files, &ports[..1])?;
    if others.is_empty() {
        return Ok(());
    }
    given(store_and_load(client, "after-one", 49).map_err(|failure| failure.judged_by(GOES_ON)))?;
    others.iter().for_each(|&dstore| scene.kill(dstore));
    thread::sleep(QUIET);
    wait_until_noticed(client, stage, files, &ports)
}

/// The check of whether stores go on after one failure.
const GOES_ON: &str = "system/failures/stores-go-on-after-one-failure";

/// The check of whether loads go on after one failure.
const LOSES_NOTHING: &str = "system/failures/one-failure-loses-nothing";

fn store_and_load(client: &mut Client, name: &str, seed: u64) -> Verdict {
    let bytes = content(seed, 2_000);
    client.store(name, &bytes)?;
    client.load(name, &bytes)
}

/// Files are stored and loaded after some Dstores were killed.
fn expect_stores_go_on(stage: &mut Stage, dead: &[usize], new: u64) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 4))?;
    let old = files(6);
    let mut client = store_all(&scene, &old)?;
    kill_one_after_another(&mut scene, &mut client, stage, &old, dead)?;
    (0..new).try_for_each(|number| store_and_load(&mut client, &format!("new{number}"), number + 50))
}

fn stores_go_on_after_one_failure(stage: &mut Stage) -> Verdict {
    expect_stores_go_on(stage, &[0], 6)
}

fn stores_go_on_after_nr_failures(stage: &mut Stage) -> Verdict {
    expect_stores_go_on(stage, &[0, 3], 4)
}

/// Stores files on four Dstores, kills some of these, and returns what is left on others.
fn after_failures(stage: &mut Stage, dead: &[usize]) -> Result<(SystemScene, Client, Files), Failure> {
    let mut scene = stage.system(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let ports: Vec<u16> = dead.iter().map(|&dstore| scene.dstores[dstore].port).collect();
    let mut left = Files::new();
    for (name, bytes) in files(8) {
        if given(client.store(&name, &bytes))?.iter().any(|port| !ports.contains(port)) {
            left.push((name, bytes));
        }
    }
    kill_one_after_another(&mut scene, &mut client, stage, &left, dead)?;
    Ok((scene, client, left))
}

/// A removal is completed, or times out. The coursework has it time out when a holder cannot be reached; a Controller that knows
/// that the holder has gone need not wait for it.
fn expect_removes_go_on(stage: &mut Stage, dead: &[usize]) -> Verdict {
    let (_scene, mut client, left) = after_failures(stage, dead)?;
    for (name, _) in left.iter().take(2) {
        client.send(&format!("REMOVE {name}"));
        match client.wire().receive_reply(NO_TIMEOUT + Duration::from_secs(2)) {
            Heard::Nothing(_) => {}
            Heard::Line(line) if begins(&line, "REMOVE_COMPLETE") => {}
            came => return Err(client.wire().wrong("`REMOVE_COMPLETE`, or nothing", &came)),
        }
        let reply = client.ask(&format!("LOAD {name}"))?;
        claim(!begins(&reply, "LOAD_FROM"), "no `LOAD_FROM` for a file that was removed", reply)?;
    }
    Ok(())
}

fn removes_go_on_after_one_failure(stage: &mut Stage) -> Verdict {
    expect_removes_go_on(stage, &[2])
}

fn removes_go_on_after_nr_failures(stage: &mut Stage) -> Verdict {
    expect_removes_go_on(stage, &[0, 1])
}

fn removes_are_completed_after_a_failure(stage: &mut Stage) -> Verdict {
    let (_scene, mut client, left) = after_failures(stage, &[2])?;
    left.iter().try_for_each(|(name, _)| client.remove(name))
}

fn expect_too_few(client: &mut Client, stage: &Stage) -> Verdict {
    let mut reply = String::new();
    wait_until(stage.patience, || {
        reply = client.ask("LOAD file0").unwrap_or_else(|failure| failure.came);
        begins(&reply, "ERROR_NOT_ENOUGH_DSTORES").then_some(())
    });
    claim(begins(&reply, "ERROR_NOT_ENOUGH_DSTORES"), "`ERROR_NOT_ENOUGH_DSTORES`", format!("`{reply}`"))?;
    client.asks("STORE new 5", "ERROR_NOT_ENOUGH_DSTORES")
}

fn one_failure_of_r_stops_service(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(3, 3))?;
    let mut client = store_all(&scene, &files(2))?;
    scene.kill(0);
    expect_too_few(&mut client, stage)
}

fn a_failure_during_a_load(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(3, 4))?;
    let bytes = content(stage.seed, 50_000);
    let mut client = scene.client()?;
    given(client.store("a", &bytes))?;
    let offered = given(client.load_from("LOAD a", bytes.len()))?;
    let dead = scene.dstores.iter().position(|dstore| dstore.port == offered);
    let dead = dead.ok_or_else(|| Failure::new("the port of a Dstore that has joined", offered))?;
    scene.kill(dead);
    // As if the client had found out by connecting.
    let next = client.load_from("RELOAD a", bytes.len())?;
    claim(next != offered, "another Dstore", next)?;
    let came = client.fetch_from(next, "a", bytes.len())?;
    claim(came == bytes, "the content", format!("{} bytes, or others", came.len()))
}

fn two_failures_of_five(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(3, 5))?;
    let files = files(8);
    let mut client = store_all(&scene, &files)?;
    scene.kill(3);
    given(load_all(&mut client, &files).map_err(|failure| failure.judged_by(LOSES_NOTHING)))?;
    scene.kill(0);
    load_all(&mut client, &files)
}

fn two_more_failures_at_once(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 5))?;
    let mut client = scene.client()?;
    let dead: Vec<u16> = [1, 2, 3].map(|dstore: usize| scene.dstores[dstore].port).to_vec();
    let (mut all, mut left) = (Files::new(), Files::new());
    for (name, bytes) in files(10) {
        if given(client.store(&name, &bytes))?.iter().any(|port| !dead.contains(port)) {
            left.push((name.clone(), bytes.clone()));
        }
        all.push((name, bytes));
    }
    scene.kill(1);
    given(load_all(&mut client, &all).map_err(|failure| failure.judged_by(LOSES_NOTHING)))?;
    scene.kill(2);
    scene.kill(3);
    load_all(&mut client, &left)
}

fn one_more_failure_is_too_many(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 4))?;
    let mut client = store_all(&scene, &files(4))?;
    for dead in [0, 1, 2] {
        scene.kill(dead);
    }
    expect_too_few(&mut client, stage)
}

fn a_frozen_dstore_stops_only_its_files(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(1, 3))?;
    let mut client = scene.client()?;
    let frozen = scene.dstores[0].port;
    let mut others = Vec::new();
    for (name, bytes) in files(6) {
        if given(client.store(&name, &bytes))? != [frozen] {
            others.push((name, bytes));
        }
    }
    freeze(&scene.dstores[0].process, true);
    let outcome = load_all(&mut client, &others).and_then(|()| match client.ask("LIST") {
        Ok(reply) => claim(reply.starts_with("LIST "), "`LIST` with the files", reply),
        Err(failure) => Err(failure),
    });
    freeze(&scene.dstores[0].process, false);
    outcome
}
