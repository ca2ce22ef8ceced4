//! REMOVE, from the Controller. (spec 4.4)

use super::super::checks;
use crate::stage::failure::{Verdict, claim, given};
use crate::stage::wire::Heard;
use crate::stage::{NO_TIMEOUT, Stage};

checks! { Dstore "remove":
    [Sequential REMOVE "4.4"] removes_and_acknowledges "REMOVE removes the file, and is answered by REMOVE_ACK and its name"
    [Sequential REMOVE_ABSENT_ON_DSTORE "4.4"] a_file_that_is_not_there "REMOVE of a file that is not there is answered by ERROR_FILE_DOES_NOT_EXIST and its name"
    [Sequential REMOVE "4.4"] then_it_is_gone "A removed file is neither listed nor in the folder"
    [Sequential LOAD_DATA_ABSENT "4.3, 4.4"] then_it_is_not_loaded "A removed file is not loaded"
    [Sequential REMOVE "4.4"] only_that_file "REMOVE removes that file only"
    [Sequential STORE_ON_DSTORE "4.4"] stored_again "A file can be stored again after it was removed, with other content"
    [Robustness "2.4"] many_removes_at_once "Twenty REMOVEs that come in one packet are each acknowledged"
}

fn removes_and_acknowledges(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"hello"))?;
    scene.controller.send("REMOVE a");
    scene.expect_exactly("REMOVE_ACK a")
}

fn a_file_that_is_not_there(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.asks("REMOVE absent", "ERROR_FILE_DOES_NOT_EXIST absent")?;
    given(scene.store("a", b"hello"))?;
    given(scene.remove("a"))?;
    scene.asks("REMOVE a", "ERROR_FILE_DOES_NOT_EXIST a")
}

fn then_it_is_gone(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"hello"))?;
    given(scene.remove("a"))?;
    claim(!scene.keeps(b"hello"), "no such file in the folder any more when REMOVE_ACK comes", "it is there")?;
    let listed = given(scene.list())?;
    claim(listed.is_empty(), "`LIST`, with no file", listed.join(" "))
}

fn then_it_is_not_loaded(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"hello"))?;
    given(scene.remove("a"))?;
    let came = scene.load("a", 5)?;
    claim(came != b"hello", "no content", "what was removed")
}

fn only_that_file(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    for name in ["a", "ab", "b"] {
        given(scene.store(name, name.as_bytes()))?;
    }
    given(scene.remove("a"))?;
    for name in ["ab", "b"] {
        scene.expect_content(name, name.as_bytes())?;
    }
    Ok(())
}

fn stored_again(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"the first content, which is longer"))?;
    given(scene.remove("a"))?;
    scene.store("a", b"the second")?;
    scene.expect_content("a", b"the second")
}

fn many_removes_at_once(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    for number in 0..20 {
        given(scene.store(&format!("file{number}"), b"hello"))?;
    }
    let lines: String = (0..20).map(|number| format!("REMOVE file{number}\n")).collect();
    scene.controller.send_raw(lines.as_bytes());
    let mut answers = Vec::new();
    for _ in 0..20 {
        match scene.controller.receive(stage.patience) {
            Heard::Line(line) => answers.push(line),
            came => return Err(scene.controller.wrong("`REMOVE_ACK` for each of 20 files", &came)),
        }
    }
    answers.sort();
    let mut expected: Vec<String> = (0..20).map(|number| format!("REMOVE_ACK file{number}")).collect();
    expected.sort();
    claim(answers == expected, format!("{expected:?}"), format!("{answers:?}"))?;
    scene.expect_folder(&[])
}
