//! Dstores that are killed. (spec 4.1, 4.3)

use super::super::checks;
use crate::stage::client::Client;
use crate::stage::failure::{Failure, Verdict, claim};
use crate::stage::system_scene::SystemScene;
use crate::stage::{Setup, Stage, content, freeze, wait_until};

checks! { System "failures":
    [OneFailure "4.3"] one_failure_loses_nothing "After one Dstore of four is killed, every file is still loaded"
    [OneFailure "4.1, 4.2"] stores_go_on_after_one_failure "After one Dstore of four is killed, files are still stored"
    [OneFailure "4.4"] removes_go_on_after_one_failure "After one Dstore of four is killed, files are still removed"
    [OneFailure "3.3"] one_failure_of_r_stops_service "With N = R, one failure brings ERROR_NOT_ENOUGH_DSTORES"
    [OneFailure "4.3"] a_failure_during_a_load "When the offered Dstore is dead, RELOAD leads to one that is not"
    [NrFailures "4.3"] two_failures_of_five "R = 3, N = 5, two killed one after the other: every file is still loaded"
    [NrFailures "4.3"] two_failures_at_once "R = 3, N = 5, two killed at the same time: every file is still loaded"
    [NrFailures "4.1, 4.2"] stores_go_on_after_nr_failures "R = 2, N = 4, two killed: files are still stored, on the two that are left"
    [NrFailures "4.4"] removes_go_on_after_nr_failures "R = 2, N = 4, two killed: a file that is left is still removed"
    [NrFailures "3.3"] one_more_failure_is_too_many "R = 2, N = 4: after three failures ERROR_NOT_ENOUGH_DSTORES comes"
    [Robustness "2.7"] a_frozen_dstore_stops_only_its_files "While a Dstore hangs, files on the others are still loaded and listed"
}

type Files = Vec<(String, Vec<u8>)>;

fn files(count: u64) -> Files {
    (0..count).map(|number| (format!("file{number}"), content(number + 1, 3_000))).collect()
}

fn store_all(scene: &SystemScene, files: &Files) -> Result<Client, Failure> {
    let mut client = scene.client()?;
    for (name, bytes) in files {
        client.store(name, bytes, scene.setup.replicas)?;
    }
    Ok(client)
}

/// Every file is loaded, as the official client does it: with RELOAD when a Dstore cannot be reached.
fn load_all(client: &mut Client, files: &Files) -> Verdict {
    files.iter().try_for_each(|(name, bytes)| client.load(name, bytes))
}

/// Waits until the Controller has noticed that `dead` has gone: it offers it for none of the files any more.
fn wait_until_noticed(scene: &SystemScene, stage: &Stage, files: &Files, dead: &[u16]) -> Verdict {
    let mut client = scene.client()?;
    let noticed = wait_until(stage.patience, || {
        let mut offers = files.iter().flat_map(|(name, bytes)| {
            let load = client.load_from(&format!("LOAD {name}"), bytes.len());
            let reload = client.load_from(&format!("RELOAD {name}"), bytes.len());
            [load, reload]
        });
        (!offers.any(|offer| offer.is_ok_and(|port| dead.contains(&port)))).then_some(())
    });
    claim(noticed.is_some(), format!("no LOAD_FROM with {dead:?}, which has left"), "it is offered")
}

fn one_failure_loses_nothing(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 4))?;
    let files = files(8);
    let mut client = store_all(&scene, &files)?;
    scene.kill(1);
    load_all(&mut client, &files)?;
    client.expect_listed(&files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
}

fn stores_go_on_after_one_failure(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 4))?;
    let old = files(4);
    let mut client = store_all(&scene, &old)?;
    scene.kill(0);
    wait_until_noticed(&scene, stage, &old, &[scene.dstores[0].port])?;
    for number in 0..6 {
        let (name, bytes) = (format!("new{number}"), content(number + 50, 2_000));
        client.store(&name, &bytes, 2)?;
        client.load(&name, &bytes)?;
    }
    Ok(())
}

fn removes_go_on_after_one_failure(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 4))?;
    let files = files(8);
    let mut client = store_all(&scene, &files)?;
    scene.kill(2);
    wait_until_noticed(&scene, stage, &files, &[scene.dstores[2].port])?;
    for (name, _) in &files {
        client.asks(&format!("REMOVE {name}"), "REMOVE_COMPLETE")?;
    }
    client.expect_listed(&[])?;
    scene.expect_files(&[], false, stage.patience)
}

fn expect_too_few(client: &mut Client, stage: &Stage) -> Verdict {
    let mut reply = String::new();
    wait_until(stage.patience, || {
        reply = client.ask("LIST").unwrap_or_else(|failure| failure.came);
        (reply == "ERROR_NOT_ENOUGH_DSTORES").then_some(())
    });
    claim(reply == "ERROR_NOT_ENOUGH_DSTORES", "`ERROR_NOT_ENOUGH_DSTORES`", format!("`{reply}`"))?;
    for request in ["STORE new 5", "LOAD file0", "REMOVE file0"] {
        client.asks(request, "ERROR_NOT_ENOUGH_DSTORES")?;
    }
    Ok(())
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
    client.store("a", &bytes, 3)?;
    let offered = client.load_from("LOAD a", bytes.len())?;
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
    for dead in [3, 0] {
        scene.kill(dead);
        load_all(&mut client, &files)?;
    }
    client.expect_listed(&files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
}

fn two_failures_at_once(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(3, 5))?;
    let files = files(8);
    let mut client = store_all(&scene, &files)?;
    scene.kill(1);
    scene.kill(2);
    load_all(&mut client, &files)
}

fn stores_go_on_after_nr_failures(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 4))?;
    let old = files(6);
    let mut client = store_all(&scene, &old)?;
    scene.kill(0);
    scene.kill(3);
    wait_until_noticed(&scene, stage, &old, &[scene.dstores[0].port, scene.dstores[3].port])?;
    for number in 0..4 {
        let (name, bytes) = (format!("new{number}"), content(number + 50, 2_000));
        client.store(&name, &bytes, 2)?;
        client.load(&name, &bytes)?;
    }
    Ok(())
}

fn removes_go_on_after_nr_failures(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let ports: Vec<u16> = scene.dstores.iter().map(|dstore| dstore.port).collect();
    let (dead, live) = ports.split_at(2);
    let mut stored = Vec::new();
    for (name, bytes) in files(8) {
        if client.store(&name, &bytes, 2)?.iter().any(|port| live.contains(port)) {
            stored.push((name, bytes));
        }
    }
    scene.kill(0);
    scene.kill(1);
    wait_until_noticed(&scene, stage, &stored, dead)?;
    for (name, _) in &stored {
        client.asks(&format!("REMOVE {name}"), "REMOVE_COMPLETE")?;
        client.asks(&format!("LOAD {name}"), "ERROR_FILE_DOES_NOT_EXIST")?;
    }
    Ok(())
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
        if client.store(&name, &bytes, 1)? != [frozen] {
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
