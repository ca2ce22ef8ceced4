//! LIST, from the Controller. (spec 4.6)

use super::super::checks;
use crate::stage::failure::Verdict;
use crate::stage::{NO_TIMEOUT, Stage};

checks! { Dstore "list":
    [Sequential "4.6.1"] nothing_at_first "With no files, LIST is answered by LIST alone"
    [Sequential "4.6.1"] what_is_stored "LIST is answered by LIST and all files that are stored"
    [Sequential "4.6.1"] whole_files_only "A file that is being stored is not listed"
    [Robustness "4.6.1"] unusual_names "Files whose names begin with a dot, or hold unusual characters, are listed like any other"
    [Sequential "4.6.1"] a_hundred_files "LIST shows a hundred files on one line"
}

fn nothing_at_first(stage: &mut Stage) -> Verdict {
    stage.dstore(NO_TIMEOUT)?.asks("LIST", "LIST")
}

fn what_is_stored(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.store("b", b"hello")?;
    scene.store("empty", b"")?;
    scene.store("a.txt", b"hello")?;
    scene.expect_listed(&["a.txt", "b", "empty"])?;
    scene.expect_listed(&["a.txt", "b", "empty"])
}

fn whole_files_only(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.store("whole", b"hello")?;
    let mut client = scene.connect()?;
    client.send("STORE half 10");
    client.expect("ACK", stage.patience)?;
    client.send_content(b"01234");
    scene.expect_listed(&["whole"])?;
    client.send_content(b"56789");
    scene.expect("STORE_ACK half")?;
    scene.expect_listed(&["half", "whole"])
}

fn unusual_names(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let names = [".hidden", "a.b.c", "100%", "it's", "a+b=c", "~", "-rf"];
    for name in names {
        scene.store(name, b"hello")?;
    }
    scene.expect_listed(&names)?;
    names.iter().try_for_each(|name| scene.expect_content(name, b"hello"))
}

fn a_hundred_files(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let names: Vec<String> = (0..100).map(|number| format!("file{number}")).collect();
    for name in &names {
        scene.store(name, b"hello")?;
    }
    scene.expect_listed(&names.iter().map(String::as_str).collect::<Vec<_>>())
}
