//! Who is a Dstore, from when on, and until when. (spec 1.5, 3.3, 4.1)

use std::thread;
use std::time::Duration;

use super::super::checks;
use crate::stage::client::Client;
use crate::stage::failure::{Verdict, claim};
use crate::stage::{QUIET, SHORT, Setup, Stage, wait_until};

checks! { Controller "join":
    [Sequential "3.3"] too_few_dstores_for_anything "With fewer than R Dstores, STORE, LOAD, REMOVE and LIST get ERROR_NOT_ENOUGH_DSTORES"
    [Sequential "1.5"] enough_dstores "Requests are served as soon as R Dstores have joined"
    [OneFailure "3.3"] too_few_again "When one of R Dstores leaves, requests get ERROR_NOT_ENOUGH_DSTORES again"
    [OneFailure "3.3, 7.1"] too_few_comes_before_the_files_state "ERROR_NOT_ENOUGH_DSTORES comes before whatever else is wrong with a request"
    [OneFailure "4.1"] a_new_dstore_is_as_good "When a new Dstore joins after one has left, requests are served again"
    [Sequential "2.7"] idle_dstores_and_clients_stay "Neither a Dstore with no work nor a silent client is timed out"
    [Sequential "4.1"] a_dstore_that_joins_later_gets_files "A Dstore that joins a running system is used for stores"
    [Sequential "4.1"] a_join_gets_no_answer "A JOIN is not answered"
    [OneFailure "4.1"] nothing_is_stored_on_a_dstore_that_left "A Dstore that has left gets no more files"
    [OneFailure "4.1"] a_dstore_comes_back "A Dstore that was killed and is started again on its port is a member like any other"
    [Robustness "2.1"] a_join_in_pieces "A JOIN may come in pieces, and end in \\r\\n"
    [Robustness "7.7"] a_second_join_with_the_same_port "A second JOIN with the port of a member harms nobody"
    [Robustness "2.6"] malformed_joins "A JOIN without a proper port is ignored"
}

fn too_few_dstores_for_anything(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 2))?;
    let mut client = scene.client()?;
    for request in ["STORE a 5", "LOAD a", "REMOVE a", "LIST"] {
        client.asks(request, "ERROR_NOT_ENOUGH_DSTORES")?;
    }
    Ok(())
}

fn enough_dstores(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 1))?;
    let mut client = scene.client()?;
    client.asks("LIST", "ERROR_NOT_ENOUGH_DSTORES")?;
    scene.join()?;
    scene.settle()?;
    client.expect_listed(&[])?;
    scene.store(&mut client, "a", 5)?;
    client.expect_listed(&["a"])
}

fn too_few_again(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 5)?;
    scene.dstores[0].leave();
    let mut reply = String::new();
    wait_until(stage.patience, || {
        reply = client.ask("LIST").unwrap_or_else(|failure| failure.came);
        (reply == "ERROR_NOT_ENOUGH_DSTORES").then_some(())
    });
    claim(reply == "ERROR_NOT_ENOUGH_DSTORES", "`ERROR_NOT_ENOUGH_DSTORES`, once the Dstore has gone", reply)?;
    for request in ["STORE b 5", "LOAD a", "REMOVE a", "LIST"] {
        client.asks(request, "ERROR_NOT_ENOUGH_DSTORES")?;
    }
    Ok(())
}

fn too_few_comes_before_the_files_state(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 5)?;
    scene.dstores[0].leave();
    wait_until(stage.patience, || {
        client.ask("LIST").map_or(Some(()), |reply| (reply == "ERROR_NOT_ENOUGH_DSTORES").then_some(()))
    });
    for request in ["STORE a 5", "LOAD absent", "REMOVE absent"] {
        client.asks(request, "ERROR_NOT_ENOUGH_DSTORES")?;
    }
    Ok(())
}

fn a_new_dstore_is_as_good(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    scene.dstores[0].leave();
    wait_until(stage.patience, || {
        client.ask("LIST").map_or(Some(()), |reply| (reply == "ERROR_NOT_ENOUGH_DSTORES").then_some(()))
    });
    scene.join()?;
    let mut reply = String::new();
    wait_until(stage.patience, || {
        reply = client.ask("LIST").unwrap_or_else(|failure| failure.came);
        (reply != "ERROR_NOT_ENOUGH_DSTORES").then_some(())
    });
    claim(reply == "LIST", "`LIST`, with two Dstores again", reply)?;
    scene.store(&mut client, "a", 5).map(|_| ())
}

fn idle_dstores_and_clients_stay(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2).timeout(SHORT))?;
    let mut client = scene.client()?;
    client.wire().expect_silence(SHORT * 3, "nobody has asked for anything")?;
    client.expect_listed(&[])?;
    scene.store(&mut client, "a", 5).map(|_| ())
}

fn a_dstore_that_joins_later_gets_files(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(1, 1))?;
    scene.join()?;
    scene.settle()?;
    let mut client = scene.client()?;
    for number in 0..4 {
        scene.store(&mut client, &format!("file{number}"), 5)?;
    }
    claim(scene.loads() == [2, 2], "two files of four on each of two Dstores", format!("{:?}", scene.loads()))
}

fn a_join_gets_no_answer(stage: &mut Stage) -> Verdict {
    // One Dstore of two: there is no rebalance, so nothing at all is to be said to it.
    let mut scene = stage.controller(Setup::new(2, 0))?;
    scene.join()?;
    thread::sleep(QUIET);
    let heard = scene.dstores[0].heard_since(0);
    claim(heard.is_empty(), "nothing to the Dstore", format!("`{}`", heard.join("`, `")))
}

fn nothing_is_stored_on_a_dstore_that_left(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 5)?;
    let (gone, staying) = (holders[0], holders[1]);
    scene.dstore(gone)?.leave();
    // Once it is not offered for loads any more, the Controller knows.
    let offers = |client: &mut Client| (0..4).filter_map(|_| client.load_from("LOAD a", 5).ok()).collect::<Vec<_>>();
    wait_until(stage.patience, || offers(&mut client).iter().all(|&port| port == staying).then_some(()));
    for number in 0..6 {
        let ports = client.begin_store(&format!("file{number}"), 5, 2)?;
        claim(!ports.contains(&gone), format!("`STORE_TO` without {gone}, which has left"), format!("{ports:?}"))?;
        for port in ports {
            scene.dstore(port)?.acknowledge_store(&format!("file{number}"));
        }
        client.expect("STORE_COMPLETE")?;
    }
    Ok(())
}

fn a_dstore_comes_back(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    scene.dstores[0].leave();
    wait_until(stage.patience, || {
        client.ask("LIST").map_or(Some(()), |reply| (reply == "ERROR_NOT_ENOUGH_DSTORES").then_some(()))
    });
    scene.come_back(0)?;
    let mut reply = String::new();
    wait_until(stage.patience, || {
        reply = client.ask("LIST").unwrap_or_else(|failure| failure.came);
        (reply != "ERROR_NOT_ENOUGH_DSTORES").then_some(())
    });
    claim(reply == "LIST", "`LIST`: there are two Dstores again", format!("`{reply}`"))?;
    scene.store(&mut client, "a", 5)?;
    client.asks("REMOVE a", "REMOVE_COMPLETE")
}

fn a_join_in_pieces(stage: &mut Stage) -> Verdict {
    // This Dstore lists nothing, so the rebalance ends with the timeout.
    let scene = stage.controller(Setup::new(1, 0).timeout(SHORT))?;
    let dstore = scene.connect("dstore 9")?;
    for piece in ["JO", "IN ", "9", "\r", "\n"] {
        dstore.send_raw(piece.as_bytes());
        thread::sleep(Duration::from_millis(20)); // so that it is several packets
    }
    let mut client = scene.client()?;
    let mut reply = String::new();
    wait_until(stage.patience, || {
        reply = client.ask("STORE a 5").unwrap_or_else(|failure| failure.came);
        (reply != "ERROR_NOT_ENOUGH_DSTORES").then_some(())
    });
    claim(reply == "STORE_TO 9", "`STORE_TO 9`", format!("`{reply}`"))
}

fn a_second_join_with_the_same_port(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 2).timeout(SHORT))?;
    let newer = scene.connect("newer")?;
    newer.send(&format!("JOIN {}", scene.dstores[0].port));
    let mut client = scene.client()?;
    let served = wait_until(stage.patience, || {
        client.send("LIST");
        client.reply().map_or(None, |reply| reply.starts_with("LIST").then_some(()))
    });
    claim(served.is_some(), "`LIST`: the others are served", "nothing")
}

fn malformed_joins(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 0))?;
    for line in ["JOIN", "JOIN port", "JOIN -5", "JOIN 70000"] {
        scene.connect("nobody")?.send(line);
    }
    let mut client = scene.client()?;
    client.expect_silence("it has not asked for anything")?;
    client.asks("LIST", "ERROR_NOT_ENOUGH_DSTORES")
}
