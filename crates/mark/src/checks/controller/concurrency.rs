//! Many clients at once, and one that waits. (spec 3.2, 4)

use std::sync::{Arc, Barrier};
use std::thread;

use super::super::checks;
use crate::stage::client::Client;
use crate::stage::controller_scene::{Habits, OnRemove};
use crate::stage::failure::{Failure, Verdict, claim, given};
use crate::stage::wire::begins;
use crate::stage::{Setup, Stage};

checks! { Controller "concurrency":
    [Concurrent DURING_STORE "3.2"] one_name_is_stored_once "Of 10 clients that store the same name at once, exactly one is accepted"
    [Concurrent DURING_REMOVE "3.2"] one_file_is_removed_once "Of 10 clients that remove the same file at once, exactly one is accepted"
        after (&["controller/remove/completes-on-the-last-acknowledgement"])
    [Concurrent MANY_CLIENTS "4.2"] ten_clients_store_at_once "Ten clients store ten files each at the same time, and all are complete"
    [Concurrent MANY_CLIENTS "4.2"] a_pending_store_holds_up_nobody "While a STORE waits for acknowledgements, other clients are served"
    [Concurrent MANY_CLIENTS "4.4"] a_pending_remove_holds_up_nobody "While a REMOVE waits for acknowledgements, other clients are served"
    [Concurrent STORE_COMPLETE "4.2"] acknowledgements_out_of_order "Two STOREs at once: each is complete with its own acknowledgements, in whatever order they come"
        after (&["controller/store/completes-on-the-last-acknowledgement"])
    [Concurrent MANY_CLIENTS "4.3"] ten_clients_load_at_once "Ten clients load ten files at the same time, each from its holders"
    [Robustness "4.1"] a_dstore_that_does_not_read_holds_up_nobody "A Dstore that says nothing at all holds up no client but those that need it"
}

/// So many clients at once the coursework has at most.
const CLIENTS: usize = 10;

/// Lets the clients ask the same at once; returns their replies.
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

/// One of the replies must be this, and no other.
fn one_of(replies: &[(Client, String)], accepted: &str) -> Verdict {
    let count = replies.iter().filter(|(_, reply)| begins(reply, accepted)).count();
    claim(count == 1, format!("one {accepted}"), format!("{count}, to {} clients", replies.len()))
}

fn one_name_is_stored_once(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut clients = (0..CLIENTS).map(|_| scene.client()).collect::<Result<Vec<_>, _>>()?;
    for round in 0..5 {
        let name = format!("same{round}");
        let mut replies = all_at_once(clients, &format!("STORE {name} 5"))?;
        one_of(&replies, "STORE_TO")?;
        for (client, reply) in &mut replies {
            if let Ok(ports) = client.store_to(reply) {
                scene.acknowledge_all(&ports, &name)?;
                given(client.expect_stored())?;
            }
        }
        clients = replies.into_iter().map(|(client, _)| client).collect();
    }
    Ok(())
}

fn one_file_is_removed_once(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut clients = (0..CLIENTS).map(|_| scene.client()).collect::<Result<Vec<_>, _>>()?;
    for round in 0..5 {
        let name = format!("same{round}");
        given(scene.store(&mut clients[0], &name, 5))?;
        let replies = all_at_once(clients, &format!("REMOVE {name}"))?;
        one_of(&replies, "REMOVE_COMPLETE")?;
        clients = replies.into_iter().map(|(client, _)| client).collect();
    }
    Ok(())
}

fn ten_clients_store_at_once(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut clients = (0..CLIENTS).map(|_| scene.client()).collect::<Result<Vec<_>, _>>()?;
    thread::scope(|scope| {
        let mut storing = Vec::new();
        for (number, client) in clients.iter_mut().enumerate() {
            let scene = &scene;
            storing.push(scope.spawn(move || {
                (0..10).try_for_each(|file| scene.store(client, &format!("file{number}-{file}"), 5).map(|_| ()))
            }));
        }
        storing.into_iter().try_for_each(|thread| thread.join().expect("no panic in a client"))
    })?;
    let names: Vec<String> =
        (0..CLIENTS).flat_map(|number| (0..10).map(move |file| format!("file{number}-{file}"))).collect();
    clients[0].expect_listed(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn ten_clients_load_at_once(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut clients = (0..CLIENTS).map(|_| scene.client()).collect::<Result<Vec<_>, _>>()?;
    let mut holders = Vec::new();
    for size in 1..=10 {
        holders.push(given(scene.store(&mut clients[0], &format!("file{size}"), size))?);
    }
    thread::scope(|scope| {
        let load = |client: &mut Client| {
            (1..=10).zip(&holders).try_for_each(|(size, holders)| {
                let port = client.load_from(&format!("LOAD file{size}"), size)?;
                claim(holders.contains(&port), format!("LOAD_FROM with one of {holders:?}"), port)
            })
        };
        let loading: Vec<_> = clients.iter_mut().map(|client| scope.spawn(move || load(client))).collect();
        loading.into_iter().try_for_each(|thread| thread.join().expect("no panic in a client"))
    })
}

fn a_pending_store_holds_up_nobody(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let (mut waiting, mut client) = (scene.client()?, scene.client()?);
    given(waiting.begin_store("slow", 5))?;
    scene.store(&mut client, "quick", 5)?;
    client.load_from("LOAD quick", 5)?;
    client.list()?;
    client.remove("quick")?;
    scene.dstores[0].acknowledge_store("slow");
    waiting.expect_stored()
}

fn a_pending_remove_holds_up_nobody(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let (mut waiting, mut client) = (scene.client()?, scene.client()?);
    given(scene.store(&mut waiting, "slow", 5))?;
    let dstore = &scene.dstores[0];
    dstore.behave(Habits { remove: OnRemove::Silence, ..Habits::default() });
    waiting.send("REMOVE slow");
    given(dstore.wait_for("REMOVE slow", 0).map_err(|failure| failure.judged_by(super::remove::ASKS)))?;
    scene.store(&mut client, "quick", 5)?;
    client.load_from("LOAD quick", 5)?;
    client.list()?;
    dstore.send("REMOVE_ACK slow");
    waiting.expect("REMOVE_COMPLETE")
}

fn acknowledgements_out_of_order(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let (mut client, mut client2) = (scene.client()?, scene.client()?);
    given(client.begin_store("a", 5))?;
    given(client2.begin_store("b", 6))?;
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
        stored.push((format!("file{number}"), given(scene.store(&mut client, &format!("file{number}"), 5))?));
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
