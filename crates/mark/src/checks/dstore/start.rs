//! How a Dstore starts and joins. (spec 4.1, 5.1)

use std::thread;

use super::super::checks;
use crate::stage::failure::{Verdict, claim};
use crate::stage::{NO_TIMEOUT, QUIET, SHORT, Stage, wait_until};

checks! { Dstore "start":
    [Sequential "4.1"] joins_first "The first thing on its connection to the Controller is JOIN and its port"
    [Sequential "4.1"] listens_when_it_joins "A Dstore that has joined accepts connections on its port"
    [Sequential "5.1"] empties_its_folder "A Dstore empties its folder when it starts"
    [Sequential "2.7"] idleness_is_no_fault "A Dstore with no work does not time out its Controller"
    [Robustness "2.4"] one_connection "A Dstore opens one connection to the Controller and none other"
    [Robustness "4.1"] no_second_join "When the Controller's connection drops, the Dstore does not connect again"
}

fn joins_first(stage: &mut Stage) -> Verdict {
    stage.dstore(NO_TIMEOUT).map(|_| ())
}

fn listens_when_it_joins(stage: &mut Stage) -> Verdict {
    let scene = stage.dstore(NO_TIMEOUT)?;
    scene.connect().map(|_| ())
}

fn empties_its_folder(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore_with(NO_TIMEOUT, &["from-last-time", "notes.txt"])?;
    scene.expect_listed(&[])?;
    scene.expect_folder(&[])?;
    scene.expect_no_content("notes.txt")
}

fn idleness_is_no_fault(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(SHORT)?;
    scene.controller.expect_silence(SHORT * 3, "nothing was asked")?;
    scene.expect_listed(&[])?;
    scene.store("a", b"after a long silence")?;
    scene.expect_listed(&["a"])
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
