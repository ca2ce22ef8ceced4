//! REMOVE, from the Controller. (spec 4.4)

use super::super::checks;
use crate::stage::failure::Verdict;
use crate::stage::{NO_TIMEOUT, Stage};

checks! { Dstore "remove":
    [Sequential "4.4"] removes_and_acknowledges "REMOVE removes the file, and is answered by REMOVE_ACK and its name"
    [Sequential "4.4"] a_file_that_is_not_there "REMOVE of a file that is not there is answered by ERROR_FILE_DOES_NOT_EXIST and its name"
    [Sequential "4.4"] then_it_is_gone "A removed file is neither listed nor loaded, and not in the folder"
    [Sequential "4.4"] only_that_file "REMOVE removes that file only"
    [Sequential "4.4"] stored_again "A file can be stored again after it was removed, with other content"
    [Concurrent "4.4"] many_removes_at_once "Twenty REMOVEs sent at once are each acknowledged"
}

fn removes_and_acknowledges(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.store("a", b"hello")?;
    scene.asks("REMOVE a", "REMOVE_ACK a")?;
    scene.expect_folder(&[])
}

fn a_file_that_is_not_there(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.asks("REMOVE absent", "ERROR_FILE_DOES_NOT_EXIST absent")?;
    scene.store("a", b"hello")?;
    scene.asks("REMOVE a", "REMOVE_ACK a")?;
    scene.asks("REMOVE a", "ERROR_FILE_DOES_NOT_EXIST a")
}

fn then_it_is_gone(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.store("a", b"hello")?;
    scene.asks("REMOVE a", "REMOVE_ACK a")?;
    scene.expect_listed(&[])?;
    scene.expect_no_content("a")?;
    scene.expect_folder(&[])
}

fn only_that_file(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    for name in ["a", "ab", "b"] {
        scene.store(name, name.as_bytes())?;
    }
    scene.asks("REMOVE a", "REMOVE_ACK a")?;
    scene.expect_listed(&["ab", "b"])?;
    scene.expect_folder(&[("ab", b"ab"), ("b", b"b")])
}

fn stored_again(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.store("a", b"the first content, which is longer")?;
    scene.asks("REMOVE a", "REMOVE_ACK a")?;
    scene.store("a", b"the second")?;
    scene.expect_content("a", b"the second")?;
    scene.expect_folder(&[("a", b"the second")])
}

fn many_removes_at_once(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    for number in 0..20 {
        scene.store(&format!("file{number}"), b"hello")?;
    }
    let lines: String = (0..20).map(|number| format!("REMOVE file{number}\n")).collect();
    scene.controller.send_raw(lines.as_bytes());
    let mut answers = Vec::new();
    for _ in 0..20 {
        match scene.controller.receive(stage.patience) {
            crate::stage::wire::Heard::Line(line) => answers.push(line),
            came => return Err(scene.controller.wrong("`REMOVE_ACK` for each of 20 files", &came)),
        }
    }
    answers.sort();
    let mut expected: Vec<String> = (0..20).map(|number| format!("REMOVE_ACK file{number}")).collect();
    expected.sort();
    crate::stage::failure::claim(answers == expected, format!("{expected:?}"), format!("{answers:?}"))?;
    scene.expect_folder(&[])
}
