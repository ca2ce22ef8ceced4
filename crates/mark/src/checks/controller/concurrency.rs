//! Many clients at once, and one that waits. (spec 3.2, 4)

use std::sync::{Arc, Barrier};
use std::thread;

use super::super::checks;
use crate::stage::client::Client;
use crate::stage::controller_scene::{Habits, OnRemove};
use crate::stage::failure::{Failure, Verdict, claim};
use crate::stage::{Setup, Stage};

checks! { Controller "concurrency":
    [Concurrent "3.2"] one_name_is_stored_once "Of 12 clients that store the same name at once, exactly one is accepted"
    [Concurrent "3.2"] one_file_is_removed_once "Of 12 clients that remove the same file at once, exactly one is accepted"
    [Concurrent "4.2"] ten_clients_store_at_once "Ten clients store ten files each at the same time, and all are complete"
    [Concurrent "4.2"] a_pending_store_holds_up_nobody "While a STORE waits for acknowledgements, other clients are served"
    [Concurrent "4.4"] a_pending_remove_holds_up_nobody "While a REMOVE waits for acknowledgements, other clients are served"
    [Concurrent "4.2"] acknowledgements_out_of_order "Two STOREs at once: each is complete with its own acknowledgements, in whatever order they come"
    [Concurrent "4.3"] ten_clients_load_at_once "Ten clients load ten files at the same time, each from its holders"
    [Robustness "4.1"] a_dstore_that_does_not_read_holds_up_nobody "A Dstore that says nothing at all holds up no client but those that need it"
}

/// Lets 12 clients ask the same at once; returns their replies.
fn all_at_once(clients: Vec<Client>, request: &str) -> Result<Vec<(Client, String)>, Failure> {
    let start = Arc::new(Barrier::new(clients.len()));
    let asking: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let (request, start) = (request.to_owned(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                client.ask(&request).map(|reply| (client, reply))
            })
        })
        .collect();
    let asked = asking.into_iter().map(|thread| thread.join().expect("no panic in a client"));
    asked.collect()
}

fn one_name_is_stored_once(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    for round in 0..5 {
        let name = format!("same{round}");
        let clients: Result<Vec<_>, _> = (0..12).map(|_| scene.client()).collect();
        let replies = all_at_once(clients?, &format!("STORE {name} 5"))?;
        let accepted = replies.iter().filter(|(_, reply)| reply.starts_with("STORE_TO ")).count();
        let refused = replies.iter().filter(|(_, reply)| reply == "ERROR_FILE_ALREADY_EXISTS").count();
        claim(
            (accepted, refused) == (1, 11),
            "one STORE_TO, and ERROR_FILE_ALREADY_EXISTS to the other 11",
            format!("{accepted} STORE_TO, {refused} ERROR_FILE_ALREADY_EXISTS"),
        )?;
        for (mut client, reply) in replies {
            if reply.starts_with("STORE_TO ") {
                for port in client.store_to(&reply, 2)? {
                    scene.dstore(port)?.acknowledge_store(&name);
                }
                client.expect("STORE_COMPLETE")?;
            }
        }
    }
    Ok(())
}

fn one_file_is_removed_once(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut first = scene.client()?;
    for round in 0..5 {
        let name = format!("same{round}");
        scene.store(&mut first, &name, 5)?;
        let clients: Result<Vec<_>, _> = (0..12).map(|_| scene.client()).collect();
        let replies = all_at_once(clients?, &format!("REMOVE {name}"))?;
        let done = replies.iter().filter(|(_, reply)| reply == "REMOVE_COMPLETE").count();
        let refused = replies.iter().filter(|(_, reply)| reply == "ERROR_FILE_DOES_NOT_EXIST").count();
        claim(
            (done, refused) == (1, 11),
            "one REMOVE_COMPLETE, and ERROR_FILE_DOES_NOT_EXIST to the other 11",
            format!("{done} REMOVE_COMPLETE, {refused} ERROR_FILE_DOES_NOT_EXIST"),
        )?;
    }
    first.expect_listed(&[])
}

fn ten_clients_store_at_once(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let clients: Result<Vec<_>, _> = (0..10).map(|_| scene.client()).collect();
    let mut names = Vec::new();
    thread::scope(|scope| {
        let storing: Vec<_> = clients?
            .into_iter()
            .enumerate()
            .map(|(number, mut client)| {
                let files: Vec<String> = (0..10).map(|file| format!("file{number}-{file}")).collect();
                names.extend(files.clone());
                let scene = &scene;
                scope.spawn(move || files.iter().try_for_each(|file| scene.store(&mut client, file, 5).map(|_| ())))
            })
            .collect();
        storing.into_iter().try_for_each(|thread| thread.join().expect("no panic in a client"))
    })?;
    scene.client()?.expect_listed(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn ten_clients_load_at_once(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut first = scene.client()?;
    let mut holders = Vec::new();
    for file in 0..10 {
        holders.push(scene.store(&mut first, &format!("file{file}"), file)?);
    }
    let clients: Result<Vec<_>, _> = (0..10).map(|_| scene.client()).collect();
    thread::scope(|scope| {
        let load = |client: &mut Client| {
            holders.iter().enumerate().try_for_each(|(file, holders)| {
                let port = client.load_from(&format!("LOAD file{file}"), file)?;
                claim(holders.contains(&port), format!("LOAD_FROM with one of {holders:?}"), port)
            })
        };
        let loading: Vec<_> = clients?.into_iter().map(|mut client| scope.spawn(move || load(&mut client))).collect();
        loading.into_iter().try_for_each(|thread| thread.join().expect("no panic in a client"))
    })
}

fn a_pending_store_holds_up_nobody(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let (mut waiting, mut client) = (scene.client()?, scene.client()?);
    waiting.begin_store("slow", 5, 1)?;
    scene.store(&mut client, "quick", 5)?;
    client.load_from("LOAD quick", 5)?;
    client.expect_listed(&["quick"])?;
    client.asks("REMOVE quick", "REMOVE_COMPLETE")?;
    scene.dstores[0].acknowledge_store("slow");
    waiting.expect("STORE_COMPLETE")
}

fn a_pending_remove_holds_up_nobody(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let (mut waiting, mut client) = (scene.client()?, scene.client()?);
    scene.store(&mut waiting, "slow", 5)?;
    let dstore = &scene.dstores[0];
    dstore.behave(Habits { remove: OnRemove::Silence, ..Habits::default() });
    waiting.send("REMOVE slow");
    dstore.wait_for("REMOVE slow", 0)?;
    scene.store(&mut client, "quick", 5)?;
    client.load_from("LOAD quick", 5)?;
    client.expect_listed(&["quick"])?;
    dstore.send("REMOVE_ACK slow");
    waiting.expect("REMOVE_COMPLETE")
}

fn acknowledgements_out_of_order(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let (mut client, mut client2) = (scene.client()?, scene.client()?);
    client.begin_store("a", 5, 2)?;
    client2.begin_store("b", 6, 2)?;
    let [d1, d2] = [&scene.dstores[0], &scene.dstores[1]];
    d1.acknowledge_store("b");
    d2.acknowledge_store("a");
    d2.acknowledge_store("b");
    client2.expect("STORE_COMPLETE")?;
    client.expect_silence("a has one acknowledgement of two")?;
    d1.acknowledge_store("a");
    client.expect("STORE_COMPLETE")?;
    client.load_from("LOAD b", 6)?;
    client.load_from("LOAD a", 5).map(|_| ())
}

fn a_dstore_that_does_not_read_holds_up_nobody(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 2))?;
    let mut client = scene.client()?;
    let mut stored = Vec::new();
    for number in 0..4 {
        stored.push((format!("file{number}"), scene.store(&mut client, &format!("file{number}"), 5)?));
    }
    let dead = &scene.dstores[0];
    dead.behave(Habits { remove: OnRemove::Silence, ..Habits::default() });
    let mut waiting = Vec::new();
    for (name, holders) in &stored {
        let other = scene.client()?;
        if holders.contains(&dead.port) {
            other.send(&format!("REMOVE {name}"));
            waiting.push(other);
        }
    }
    for (name, holders) in &stored {
        if !holders.contains(&dead.port) {
            client.asks(&format!("REMOVE {name}"), "REMOVE_COMPLETE")?;
        }
    }
    Ok(())
}
