//! Which Dstores belong to the system, from when on, and until when. (spec 1.5, 3.3, 4.1)

use std::thread;
use std::time::Duration;

use super::super::checks;
use crate::stage::client::Client;
use crate::stage::controller_scene::ControllerScene;
use crate::stage::failure::{Failure, Verdict, claim, given};
use crate::stage::wire::begins;
use crate::stage::{QUIET, REACTION, SHORT, SOON, Setup, Stage, wait_until};

checks! { Controller "join":
    [Sequential ARGUMENTS "5"] listens_on_its_port "A Controller that is started listens on its port"
    [Sequential NOT_SERVED_BEFORE_R "1.5"] enough_dstores "Requests are served once R Dstores have joined"
    [Sequential TOO_FEW_STORE "3.3"] too_few_dstores_for_a_store "With fewer than R Dstores, STORE gets ERROR_NOT_ENOUGH_DSTORES"
    [Sequential TOO_FEW_LIST "3.3"] too_few_dstores_for_a_list "With fewer than R Dstores, LIST gets ERROR_NOT_ENOUGH_DSTORES"
    [OneFailure DSTORE_DROPPED "3.3"] too_few_again "When one of R Dstores leaves, STORE, LOAD and REMOVE get ERROR_NOT_ENOUGH_DSTORES again"
    [OneFailure TOO_FEW_LIST "3.3"] too_few_again_for_a_list "When one of R Dstores leaves, LIST gets ERROR_NOT_ENOUGH_DSTORES again"
    [OneFailure NEW_DSTORES "4.1"] a_new_dstore_is_as_good "When a new Dstore joins after one has left, requests are served again"
    [Sequential TIMEOUT_ONLY_FOR_REPLIES "2.7"] idle_dstores_and_clients_stay "Neither a Dstore with no work nor a silent client is timed out"
    [Spread NEW_DSTORES "4.1"] a_dstore_that_joins_later_gets_files "A Dstore that joins a running system is used for stores"
        after (&["controller/store/one-copy-evenly"])
    [Sequential DSTORE_CONNECTS "4.1"] a_join_gets_no_answer "A JOIN is not answered"
    [OneFailure DSTORE_DROPPED "4.1"] nothing_is_stored_on_a_dstore_that_left "A Dstore that has left gets no more files"
    [Robustness "3.3, 7.1"] too_few_comes_before_the_files_state "ERROR_NOT_ENOUGH_DSTORES comes before whatever else is wrong with a request"
    [Robustness "4.1"] a_dstore_comes_back "A Dstore that was killed and is started again on its port is a member like any other"
    [Robustness "2.1"] a_join_in_pieces "A JOIN may come in pieces, and end in \\r\\n"
    [Robustness "7.7"] a_second_join_with_the_same_port "A second JOIN with the port of a member harms no client"
    [Robustness "2.6"] malformed_joins "A JOIN without a proper port is ignored"
}

const TOO_FEW: &str = "ERROR_NOT_ENOUGH_DSTORES";

fn listens_on_its_port(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 0))?;
    scene.client().map(|_| ())
}

fn enough_dstores(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 1))?;
    scene.join()?;
    scene.wait_to_be_served().map_err(|not_served| not_served.failure)?;
    // More of them do no harm, started one after another as by a script.
    for _ in 0..3 {
        scene.join()?;
        thread::sleep(REACTION / 2);
    }
    scene.wait_to_be_served().map(|_| ()).map_err(|not_served| not_served.failure)
}

fn too_few_dstores_for_a_store(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 2))?;
    scene.client()?.asks("STORE a 5", TOO_FEW)
}

fn too_few_dstores_for_a_list(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 2))?;
    scene.client()?.asks("LIST", TOO_FEW)
}

/// A file is stored on the two Dstores that there are, R = 2, and one of them leaves. Before the second joined, a request has got
/// ERROR_NOT_ENOUGH_DSTORES, as another check has it: here it is about what a departure changes.
fn one_of_two_leaves(
    stage: &mut Stage,
    request: &str,
    judge: &'static str,
) -> Result<(ControllerScene, Client), Failure> {
    let mut scene = stage.controller(Setup::new(2, 1))?;
    let refused = scene.client()?.asks(request, TOO_FEW);
    given(refused.map_err(|failure| failure.judged_by(judge)))?;
    scene.join()?;
    let mut client = given(scene.wait_to_be_served().map_err(|not_served| not_served.failure))?;
    given(scene.store(&mut client, "a", 5))?;
    scene.dstores[0].leave();
    Ok((scene, client))
}

/// Waits until a request is answered by ERROR_NOT_ENOUGH_DSTORES: the Controller may take a moment to notice.
fn wait_for_too_few(client: &mut Client, stage: &Stage, request: &str) -> Verdict {
    let mut reply = String::new();
    wait_until(stage.patience, || {
        reply = client.ask(request).unwrap_or_else(|failure| failure.came);
        begins(&reply, TOO_FEW).then_some(())
    });
    let failure = Failure::new(format!("`{TOO_FEW}`, once the Dstore has gone"), format!("`{reply}`"));
    if begins(&reply, TOO_FEW) { Ok(()) } else { Err(failure.judged_by("controller/join/too-few-again")) }
}

fn too_few_again(stage: &mut Stage) -> Verdict {
    let (_scene, mut client) = one_of_two_leaves(stage, "STORE z 5", "controller/join/too-few-dstores-for-a-store")?;
    wait_for_too_few(&mut client, stage, "LOAD a")?;
    client.asks("STORE b 5", TOO_FEW)?;
    client.asks("REMOVE a", TOO_FEW)
}

fn too_few_again_for_a_list(stage: &mut Stage) -> Verdict {
    let (_scene, mut client) = one_of_two_leaves(stage, "LIST", "controller/join/too-few-dstores-for-a-list")?;
    given(wait_for_too_few(&mut client, stage, "LOAD a"))?;
    client.asks("LIST", TOO_FEW)
}

fn too_few_comes_before_the_files_state(stage: &mut Stage) -> Verdict {
    let (_scene, mut client) = one_of_two_leaves(stage, "STORE z 5", "controller/join/too-few-dstores-for-a-store")?;
    given(wait_for_too_few(&mut client, stage, "LOAD a"))?;
    for request in ["STORE a 5", "LOAD absent", "REMOVE absent"] {
        client.asks(request, TOO_FEW)?;
    }
    Ok(())
}

/// Asks to store until enough Dstores have joined, and stores.
fn store_when_served(scene: &ControllerScene, client: &mut Client, stage: &Stage) -> Verdict {
    let mut reply = String::new();
    wait_until(stage.patience, || {
        reply = client.ask("STORE b 5").unwrap_or_else(|failure| failure.came);
        (!begins(&reply, TOO_FEW)).then_some(())
    });
    scene.acknowledge_all(&client.store_to(&reply)?, "b")?;
    client.expect_stored()
}

fn a_new_dstore_is_as_good(stage: &mut Stage) -> Verdict {
    let (mut scene, mut client) = one_of_two_leaves(stage, "STORE z 5", "controller/join/too-few-dstores-for-a-store")?;
    given(wait_for_too_few(&mut client, stage, "LOAD a"))?;
    drop(client);
    scene.join()?;
    store_when_served(&scene, &mut scene.client()?, stage)
}

fn a_dstore_comes_back(stage: &mut Stage) -> Verdict {
    let (mut scene, mut client) = one_of_two_leaves(stage, "STORE z 5", "controller/join/too-few-dstores-for-a-store")?;
    given(wait_for_too_few(&mut client, stage, "LOAD a"))?;
    scene.come_back(0)?;
    store_when_served(&scene, &mut client, stage)?;
    client.remove("b")
}

fn idle_dstores_and_clients_stay(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2).timeout(SHORT))?;
    let mut client = scene.client()?;
    given(scene.store(&mut client, "a", 5))?;
    client.wire().expect_silence(SHORT * 3, "nothing has been asked for")?;
    client.ask("LIST")?;
    scene.store(&mut client, "b", 5).map(|_| ())
}

fn a_dstore_that_joins_later_gets_files(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(1, 1).period(SOON))?;
    drop(scene.client()?);
    let new = scene.join()?;
    // Some Controllers take it in when it joins, others at their next rebalance.
    given(scene.dstores[new].wait_for("LIST", 0))?;
    let mut client = scene.client()?;
    for number in 0..4 {
        given(scene.store(&mut client, &format!("file{number}"), 5))?;
    }
    let files = scene.dstores[new].files().len();
    claim(files > 0, "one of four files at least is stored on the new Dstore", "none")
}

fn a_join_gets_no_answer(stage: &mut Stage) -> Verdict {
    // One Dstore of two: nothing at all need be said to it. A rebalance would be no answer.
    let mut scene = stage.controller(Setup::new(2, 0))?;
    scene.join()?;
    thread::sleep(QUIET);
    let mut heard = scene.dstores[0].heard_since(0);
    heard.retain(|line| !begins(line, "LIST") && !begins(line, "REBALANCE"));
    claim(heard.is_empty(), "nothing to the Dstore", format!("`{}`", heard.join("`, `")))
}

fn nothing_is_stored_on_a_dstore_that_left(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4))?;
    let mut client = scene.client()?;
    let gone = given(scene.store(&mut client, "a", 5))?[0];
    scene.dstore(gone)?.leave();
    given(super::load::wait_until_not_offered(&mut client, stage, "a", gone))?;
    for number in 0..6 {
        let name = format!("file{number}");
        let ports = given(client.begin_store(&name, 5))?;
        claim(!ports.contains(&gone), format!("`STORE_TO` without {gone}, which has left"), format!("{ports:?}"))?;
        given(scene.acknowledge_all(&ports, &name))?;
        given(client.expect_stored())?;
    }
    Ok(())
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
        (!begins(&reply, TOO_FEW)).then_some(())
    });
    claim(reply == "STORE_TO 9", "`STORE_TO 9`", format!("`{reply}`"))
}

fn a_second_join_with_the_same_port(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 2).timeout(SHORT))?;
    let newer = scene.connect("newer")?;
    newer.send(&format!("JOIN {}", scene.dstores[0].port));
    let mut client = scene.client()?;
    let served =
        wait_until(stage.patience, || client.ask("LIST").map_or(None, |reply| begins(&reply, "LIST").then_some(())));
    claim(served.is_some(), "`LIST`: the others are served", "nothing")
}

fn malformed_joins(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 0))?;
    for line in ["JOIN", "JOIN port", "JOIN -5", "JOIN 70000"] {
        scene.connect("stranger")?.send(line);
    }
    let mut client = scene.client()?;
    client.expect_silence("it has not asked for anything")?;
    client.asks("LIST", TOO_FEW)
}
