//! Rebalancing, for real: the files in the folders after failures and joins. (spec 4.6)

use std::thread;
use std::time::Duration;

use super::super::checks;
use super::super::controller::rebalance::JOINS_AND_REQUESTS;
use crate::stage::client::Client;
use crate::stage::failure::{Failure, Verdict, claim, given};
use crate::stage::system_scene::SystemScene;
use crate::stage::{LARGE, LONG, NO_TIMEOUT, SOON, Setup, Stage, content};

checks! { System "spread":
    [Spread REBALANCED "4.6.3"] a_join_spreads_the_files "After a join, files are spread over all Dstores: R copies of each, floor(RF/N) to ceil(RF/N) on each, the bytes unharmed"
    [Spread REBALANCED "4.6.3"] a_failure_and_a_join "After a failure and a join, every file has R copies again, evenly spread"
        after (&["system/failures/one-failure-loses-nothing"])
    [Spread REBALANCED "4.6.3"] a_failure_and_the_period "After a failure, the next periodic rebalance restores R copies of every file, evenly spread"
        after (&["system/failures/one-failure-loses-nothing"])
    [Spread REBALANCED "4.6.3"] two_failures_and_two_joins "After N - R failures and as many joins, every file has R copies again, evenly spread"
        after (&["system/failures/one-failure-loses-nothing"])
    [Spread REBALANCE_DSTORE "4.6"] loads_after_a_rebalance "After a rebalance every file is still loaded, with its bytes"
    [Spread REBALANCE_QUEUE "4.6"] files_go_on_after_a_rebalance "After a rebalance files are stored and removed as before"
    [Concurrent REBALANCE_QUEUE "4.6"] clients_work_during_rebalances "Clients that store and load while Dstores join lose nothing"
        after (&[&JOINS_AND_REQUESTS[..], &["dstore/list/what-is-stored", "system/spread/loads-after-a-rebalance", SPREADS]].concat())
    [Spread REBALANCE_STORE "4.6"] files_of_99_kb_move "Files of 99 kB are moved whole"
    [Robustness "4.6"] large_files_move "Files of 5 MB are moved whole"
    [Robustness "5.1"] nothing_else_in_the_folders "After a rebalance the folders hold whole files of the system and nothing else"
}

type Files = Vec<(String, Vec<u8>)>;

/// Where a Dstore joins afterwards, the client goes before: that neither is in the other's way has checks of its own.
fn store(scene: &SystemScene, count: u64, size: usize) -> Result<(Client, Files), Failure> {
    let files: Files = (0..count).map(|number| (format!("file{number}"), content(number + 1, size))).collect();
    let mut client = scene.client()?;
    for (name, bytes) in &files {
        given(client.store(name, bytes))?;
    }
    Ok((client, files))
}

fn a_join_spreads_the_files(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 2).period(SOON))?;
    let (client, files) = store(&scene, 9, 3_000)?;
    drop(client);
    stage.join(&mut scene)?;
    scene.expect_files(&files, true, LONG)
}

fn a_failure_and_a_join(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 3).period(SOON))?;
    let (client, files) = store(&scene, 9, 3_000)?;
    drop(client);
    scene.kill(0);
    given(scene.client()?.ask("LIST"))?;
    stage.join(&mut scene)?;
    scene.expect_files(&files, true, LONG)
}

fn a_failure_and_the_period(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 4).period(2))?;
    let (mut client, files) = store(&scene, 9, 3_000)?;
    scene.kill(3);
    given(client.ask("LIST"))?;
    scene.expect_files(&files, true, LONG)
}

fn two_failures_and_two_joins(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(3, 5).period(SOON))?;
    let (client, files) = store(&scene, 8, 3_000)?;
    drop(client);
    scene.kill(1);
    scene.kill(4);
    stage.join(&mut scene)?;
    stage.join(&mut scene)?;
    scene.expect_files(&files, true, LONG)
}

/// The check of whether a rebalance spreads the files.
const SPREADS: &str = "system/spread/a-join-spreads-the-files";

/// Files are stored, a Dstore joins, and a rebalance has spread them.
fn after_a_join(stage: &mut Stage, setup: Setup, count: u64) -> Result<(SystemScene, Files), Failure> {
    let mut scene = stage.system(setup.period(SOON))?;
    let (client, files) = store(&scene, count, 3_000)?;
    drop(client);
    stage.join(&mut scene)?;
    given(scene.expect_files(&files, true, LONG).map_err(|failure| failure.judged_by(SPREADS)))?;
    Ok((scene, files))
}

fn loads_after_a_rebalance(stage: &mut Stage) -> Verdict {
    let (scene, files) = after_a_join(stage, Setup::new(1, 2), 8)?;
    let mut client = scene.client()?;
    files.iter().try_for_each(|(name, bytes)| client.load(name, bytes))
}

fn files_go_on_after_a_rebalance(stage: &mut Stage) -> Verdict {
    let (scene, files) = after_a_join(stage, Setup::new(2, 3), 6)?;
    let mut client = scene.client()?;
    for (number, (name, _)) in (0..3).zip(&files) {
        client.remove(name)?;
        let (new, bytes) = (format!("new{number}"), content(number + 70, 2_000));
        client.store(&new, &bytes)?;
        client.load(&new, &bytes)?;
    }
    Ok(())
}

fn clients_work_during_rebalances(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 2).period(1))?;
    let (mut first, before) = store(&scene, 6, 3_000)?;
    let mut clients = (0..4).map(|_| scene.client()).collect::<Result<Vec<_>, _>>()?;
    let mut files = before.clone();
    let working: Vec<_> = clients
        .drain(..)
        .enumerate()
        .map(|(number, mut client)| {
            let before = before.clone();
            thread::spawn(move || {
                let mut stored = Files::new();
                for file in 0..12 {
                    let new = (format!("new{number}-{file}"), content(number as u64 * 100 + file, 2_000));
                    client.store(&new.0, &new.1)?;
                    stored.push(new);
                    let (name, bytes) = &before[file as usize % before.len()];
                    client.load(name, bytes)?;
                }
                Ok::<_, Failure>((client, stored))
            })
        })
        .collect();
    let joins = (0..2).try_for_each(|_| stage.join(&mut scene));
    let mut stay = Vec::new();
    for thread in working {
        let (client, stored) = thread.join().expect("no panic in a client")?;
        stay.push(client);
        files.extend(stored);
    }
    given(joins)?;
    files.iter().try_for_each(|(name, bytes)| first.load(name, bytes))
}

fn files_of_99_kb_move(stage: &mut Stage) -> Verdict {
    moves(stage, 99_000, NO_TIMEOUT)
}

fn large_files_move(stage: &mut Stage) -> Verdict {
    moves(stage, 5_000_000, LARGE)
}

fn moves(stage: &mut Stage, size: usize, timeout: Duration) -> Verdict {
    let mut scene = stage.system(Setup::new(1, 1).timeout(timeout).period(SOON))?;
    let (client, files) = store(&scene, 4, size)?;
    drop(client);
    stage.join(&mut scene)?;
    scene.expect_files(&files, true, LONG)
}

fn nothing_else_in_the_folders(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(2, 3).period(2))?;
    let (client, mut files) = store(&scene, 8, 3_000)?;
    drop(client);
    let mut client = scene.client()?;
    for _ in 0..4 {
        let (name, _) = files.remove(0);
        given(client.remove(&name))?;
    }
    drop(client);
    stage.join(&mut scene)?;
    scene.expect_files(&files, true, LONG)?;
    let is_ours = |name: &String| files.iter().any(|(file, _)| file == name);
    let mut in_folders = scene.living().flat_map(|dstore| scene.folder(dstore));
    match in_folders.find(|name| !is_ours(name)) {
        None => Ok(()),
        Some(stranger) => claim(false, "nothing but the files in the folders", stranger),
    }
}
