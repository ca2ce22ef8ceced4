//! How a Dstore starts and joins. (spec 4.1, 5.1)

use std::thread;

use super::super::checks;
use crate::stage::failure::{Verdict, claim, given};
use crate::stage::{NO_TIMEOUT, QUIET, SHORT, Stage, ports, wait_until};

checks! { Dstore "start":
    [Sequential DSTORE_CONNECTS "4.1"] joins_first "The first thing on its connection to the Controller is JOIN and its port"
    [Sequential DSTORE_CONNECTS "4.1"] listens "A Dstore that has joined comes to listen on its port"
    [Sequential FOLDER_EMPTIED "5.1"] empties_its_folder "A Dstore empties its folder when it starts"
    [Sequential TIMEOUT_ONLY_FOR_REPLIES "2.7"] idleness_is_no_fault "A Dstore with no work does not time out its Controller"
    [Robustness "4.1"] listens_before_it_joins "A Dstore listens on its port before it says JOIN"
    [Robustness "2.4"] one_connection "A Dstore opens one connection to the Controller and none other"
    [Robustness "4.1"] no_second_join "When the Controller's connection drops, the Dstore does not connect again"
}

fn joins_first(stage: &mut Stage) -> Verdict {
    stage.joined(NO_TIMEOUT, &[]).map(|_| ())
}

fn listens(stage: &mut Stage) -> Verdict {
    let scene = stage.dstore(NO_TIMEOUT)?;
    scene.connect().map(|_| ())
}

fn listens_before_it_joins(stage: &mut Stage) -> Verdict {
    let scene = given(stage.joined(NO_TIMEOUT, &[]))?;
    let listens = ports::is_listened_to(scene.port);
    claim(listens, "it listens when its JOIN comes", "it does not yet")
}

fn empties_its_folder(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore_with(NO_TIMEOUT, &["from-last-time", "notes.txt"])?;
    let listed = given(scene.list())?;
    claim(listed.is_empty(), "`LIST`, with no file", listed.join(" "))?;
    let left = scene.folder();
    let left: Vec<_> = ["from-last-time", "notes.txt"].into_iter().filter(|name| left.contains_key(*name)).collect();
    claim(left.is_empty(), "a folder without the files from before", left.join(", "))
}

fn idleness_is_no_fault(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(SHORT)?;
    given(scene.store("a", b"before"))?;
    scene.controller.expect_silence(SHORT * 3, "nothing was asked")?;
    scene.store("b", b"after a long silence")?;
    scene.list().map(|_| ())
}

fn one_connection(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.store("a", b"hello")?;
    scene.asks("REMOVE a", "REMOVE_ACK a")?;
    scene.expect_listed(&[])?;
    scene.expect_one_connection()
}

fn no_second_join(stage: &mut Stage) -> Verdict {
    let scene = stage.dstore(SHORT)?;
    scene.controller.close();
    let ended = wait_until(SHORT * 2, || scene.process.lock().end());
    if ended.is_none() {
        thread::sleep(QUIET);
    }
    claim(scene.expect_one_connection().is_ok(), "no other connection to the Controller", "one")
}
