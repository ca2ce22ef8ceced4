//! Ten clients and more, for real. (spec 5.3)

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use super::super::checks;
use crate::stage::failure::{Failure, Verdict, claim, given};
use crate::stage::system_scene::SystemScene;
use crate::stage::wire::begins;
use crate::stage::{LARGE, NO_TIMEOUT, Setup, Stage, content};

checks! { System "concurrency":
    [Concurrent MANY_CLIENTS "4.2"] ten_clients_store "Ten clients store five files each at the same time: all complete, with the right bytes"
    [Concurrent MANY_CLIENTS "4.3"] ten_clients_load "Ten clients load the same files at the same time"
    [Concurrent MANY_CLIENTS "4"] ten_clients_do_everything "Ten clients store, load, list and remove at the same time, and get the right reply to everything"
    [Concurrent DURING_STORE "3.2"] one_name_from_ten_clients "Ten clients store the same name at once: one wins, and its bytes are what is loaded"
    [Concurrent MANY_CLIENTS "4.4"] stored_and_removed_again_and_again "Ten clients store and remove files again and again: nothing is left"
    [Concurrent MANY_CLIENTS "4.2"] large_files_at_once "Ten clients store 99 kB each at the same time"
    [Robustness "4.2"] larger_files_at_once "Ten clients store 2 MB each at the same time"
}

/// Lets `clients` clients work at the same time; the first failure is that of all. They stay connected until they are dropped.
fn together(
    scene: &SystemScene,
    clients: usize,
    work: impl Fn(usize, &mut crate::stage::client::Client) -> Verdict + Sync,
) -> Result<Vec<crate::stage::client::Client>, Failure> {
    let mut all = (0..clients).map(|_| scene.client()).collect::<Result<Vec<_>, Failure>>()?;
    let start = Barrier::new(clients);
    thread::scope(|scope| {
        let (work, start) = (&work, &start);
        let working: Vec<_> = all
            .iter_mut()
            .enumerate()
            .map(|(number, client)| {
                scope.spawn(move || {
                    start.wait();
                    work(number, client)
                })
            })
            .collect();
        working.into_iter().try_for_each(|thread| thread.join().expect("no panic in a client"))
    })?;
    Ok(all)
}

fn name(client: usize, file: usize) -> String {
    format!("file{client}-{file}")
}

fn bytes(client: usize, file: usize) -> Vec<u8> {
    content((client * 100 + file + 1) as u64, 2_000 + 37 * file)
}

fn ten_clients_store(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 4))?;
    let _clients = together(&scene, 10, |number, client| {
        (0..5).try_for_each(|file| client.store(&name(number, file), &bytes(number, file)).map(|_| ()))
    })?;
    let mut client = scene.client()?;
    let all = (0..10).flat_map(|number| (0..5).map(move |file| (name(number, file), bytes(number, file))));
    let files: Vec<_> = all.collect();
    client.expect_listed(&files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())?;
    files.iter().try_for_each(|(name, bytes)| client.load(name, bytes))
}

fn ten_clients_load(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    let mut first = scene.client()?;
    for file in 0..5 {
        given(first.store(&name(0, file), &bytes(0, file)))?;
    }
    let _clients =
        together(&scene, 10, |_, client| (0..5).try_for_each(|file| client.load(&name(0, file), &bytes(0, file))))?;
    Ok(())
}

fn ten_clients_do_everything(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 4))?;
    let _clients = together(&scene, 10, |number, client| {
        for file in 0..4 {
            client.store(&name(number, file), &bytes(number, file))?;
            client.load(&name(number, file), &bytes(number, file))?;
            let listed = client.list()?;
            claim(listed.contains(&name(number, file)), "the file, listed", listed.join(" "))?;
            if file % 2 == 0 {
                client.remove(&name(number, file))?;
                let listed = client.list()?;
                claim(!listed.contains(&name(number, file)), "the file, not listed any more", listed.join(" "))?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn one_name_from_ten_clients(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    let winners = std::sync::Mutex::new(Vec::new());
    let _clients = together(&scene, 10, |number, client| {
        let content = bytes(number, 0);
        let reply = client.ask(&format!("STORE same {}", content.len()))?;
        if !begins(&reply, "STORE_TO") {
            return Ok(());
        }
        winners.lock().expect("no panic in a client").push(content.clone());
        for port in client.store_to(&reply)? {
            client.send_copy(port, "same", &content)?;
        }
        client.expect_stored()
    })?;
    let winners = winners.into_inner().expect("no panic in a client");
    claim(winners.len() == 1, "one STORE_TO among ten clients", winners.len())?;
    scene.client()?.load("same", &winners[0])
}

fn stored_and_removed_again_and_again(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    let _clients = together(&scene, 10, |number, client| {
        (0..6).try_for_each(|round| {
            client.store(&name(number, 0), &bytes(number, round))?;
            client.remove(&name(number, 0))
        })
    })?;
    scene.client()?.expect_listed(&[])
}

fn large_files_at_once(stage: &mut Stage) -> Verdict {
    at_once(stage, 99_000, NO_TIMEOUT)
}

fn larger_files_at_once(stage: &mut Stage) -> Verdict {
    at_once(stage, 2_000_000, LARGE)
}

fn at_once(stage: &mut Stage, size: usize, timeout: Duration) -> Verdict {
    let scene = stage.system(Setup::new(2, 3).timeout(timeout))?;
    let file = |number: usize| content(number as u64 + 1, size);
    let _clients = together(&scene, 10, |number, client| {
        client.store(&name(number, 0), &file(number))?;
        client.load(&name(number, 0), &file(number))
    })?;
    Ok(())
}
