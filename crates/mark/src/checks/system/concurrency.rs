//! Ten clients and more, for real. (spec 5.3)

use std::sync::Barrier;
use std::thread;

use super::super::checks;
use crate::stage::failure::{Failure, Verdict, claim};
use crate::stage::system_scene::SystemScene;
use crate::stage::wire::Heard;
use crate::stage::{Setup, Stage, content};

checks! { System "concurrency":
    [Concurrent "4.2"] ten_clients_store "Ten clients store five files each at the same time: all complete, replicated, with the right bytes"
    [Concurrent "4.3"] ten_clients_load "Ten clients load the same files at the same time"
    [Concurrent "4"] ten_clients_do_everything "Ten clients store, load, list and remove at the same time, and get the right reply to everything"
    [Concurrent "3.2"] one_name_from_twelve_clients "Twelve clients store the same name at once: one wins, and its bytes are what is loaded"
    [Concurrent "4.4"] stored_and_removed_again_and_again "Ten clients store and remove files again and again: nothing is left"
    [Concurrent "4.2"] large_files_at_once "Ten clients store 2 MB each at the same time"
}

/// Lets `clients` clients work at the same time; the first failure is everybody's.
fn together(
    scene: &SystemScene,
    clients: usize,
    work: impl Fn(usize, &mut crate::stage::client::Client) -> Verdict + Sync,
) -> Verdict {
    let all = (0..clients).map(|_| scene.client()).collect::<Result<Vec<_>, Failure>>()?;
    let start = Barrier::new(clients);
    thread::scope(|scope| {
        let (work, start) = (&work, &start);
        let working: Vec<_> = all
            .into_iter()
            .enumerate()
            .map(|(number, mut client)| {
                scope.spawn(move || {
                    start.wait();
                    work(number, &mut client)
                })
            })
            .collect();
        working.into_iter().try_for_each(|thread| thread.join().expect("no panic in a client"))
    })
}

fn name(client: usize, file: usize) -> String {
    format!("file{client}-{file}")
}

fn bytes(client: usize, file: usize) -> Vec<u8> {
    content((client * 100 + file + 1) as u64, 2_000 + 37 * file)
}

fn ten_clients_store(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 4))?;
    together(&scene, 10, |number, client| {
        (0..5).try_for_each(|file| client.store(&name(number, file), &bytes(number, file), 2).map(|_| ()))
    })?;
    let all = (0..10).flat_map(|number| (0..5).map(move |file| (name(number, file), bytes(number, file))));
    let files: Vec<_> = all.collect();
    scene.client()?.expect_listed(&files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())?;
    scene.expect_files(&files, false, stage.patience)
}

fn ten_clients_load(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    let mut first = scene.client()?;
    for file in 0..5 {
        first.store(&name(0, file), &bytes(0, file), 2)?;
    }
    together(&scene, 10, |_, client| (0..5).try_for_each(|file| client.load(&name(0, file), &bytes(0, file))))
}

fn ten_clients_do_everything(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 4))?;
    together(&scene, 10, |number, client| {
        for file in 0..4 {
            client.store(&name(number, file), &bytes(number, file), 2)?;
            client.load(&name(number, file), &bytes(number, file))?;
            let listed = client.list()?;
            claim(listed.contains(&name(number, file)), "the file, listed", listed.join(" "))?;
            client.asks(&format!("STORE {} 5", name(number, file)), "ERROR_FILE_ALREADY_EXISTS")?;
            if file % 2 == 0 {
                client.asks(&format!("REMOVE {}", name(number, file)), "REMOVE_COMPLETE")?;
                client.asks(&format!("LOAD {}", name(number, file)), "ERROR_FILE_DOES_NOT_EXIST")?;
            }
        }
        Ok(())
    })?;
    let all = (0..10).flat_map(|number| [1, 3].map(|file| (name(number, file), bytes(number, file))));
    scene.expect_files(&all.collect::<Vec<_>>(), false, stage.patience)
}

fn one_name_from_twelve_clients(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    let winners = std::sync::Mutex::new(Vec::new());
    together(&scene, 12, |number, client| {
        let content = bytes(number, 0);
        let reply = client.ask(&format!("STORE same {}", content.len()))?;
        if reply == "ERROR_FILE_ALREADY_EXISTS" {
            return Ok(());
        }
        for port in client.store_to(&reply, 2)? {
            client.send_copy(port, "same", &content)?;
        }
        match client.wire().receive(stage.patience) {
            Heard::Line(line) if line == "STORE_COMPLETE" => {}
            came => return Err(client.wire().wrong("`STORE_COMPLETE`", &came)),
        }
        winners.lock().expect("no panic in a client").push(content);
        Ok(())
    })?;
    let winners = winners.into_inner().expect("no panic in a client");
    claim(winners.len() == 1, "one STORE_TO among twelve clients", winners.len())?;
    scene.expect_files(&[("same".into(), winners[0].clone())], false, stage.patience)?;
    scene.client()?.load("same", &winners[0])
}

fn stored_and_removed_again_and_again(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    together(&scene, 10, |number, client| {
        (0..6).try_for_each(|round| {
            client.store(&name(number, 0), &bytes(number, round), 2)?;
            client.asks(&format!("REMOVE {}", name(number, 0)), "REMOVE_COMPLETE")
        })
    })?;
    scene.client()?.expect_listed(&[])?;
    scene.expect_files(&[], false, stage.patience)
}

fn large_files_at_once(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    let large = |number: usize| content(number as u64 + 1, 2_000_000);
    together(&scene, 10, |number, client| {
        client.store(&name(number, 0), &large(number), 2)?;
        client.load(&name(number, 0), &large(number))
    })?;
    let files: Vec<_> = (0..10).map(|number| (name(number, 0), large(number))).collect();
    scene.expect_files(&files, false, stage.patience)
}
