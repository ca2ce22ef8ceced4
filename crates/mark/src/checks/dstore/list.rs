//! LIST, from the Controller. (spec 4.6)

use super::super::checks;
use crate::stage::failure::{Verdict, given};
use crate::stage::{NO_TIMEOUT, Stage};

checks! { Dstore "list":
    [Spread REBALANCE_LIST "4.6.1"] nothing_at_first "With no files, LIST is answered by LIST alone"
    [Spread REBALANCE_LIST "4.6.1"] what_is_stored "LIST is answered by LIST and all files that are stored"
    [Spread REBALANCE_LIST "4.6.1"] a_hundred_files "LIST shows a hundred files on one line"
    [Robustness "4.6.1"] single_spaces "LIST has single spaces between its words"
    [Robustness "4.6.1"] whole_files_only "A file that is being stored is not listed"
    [Robustness "4.6.1"] unusual_names "Files whose names begin with a dot, or hold unusual characters, are listed like any other"
}

fn nothing_at_first(stage: &mut Stage) -> Verdict {
    stage.dstore(NO_TIMEOUT)?.expect_listed(&[])
}

fn what_is_stored(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("b", b"hello"))?;
    given(scene.store("a.txt", b"hello, too"))?;
    scene.expect_listed(&["a.txt", "b"])?;
    scene.expect_listed(&["a.txt", "b"])
}

fn a_hundred_files(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let names: Vec<String> = (0..100).map(|number| format!("file{number}")).collect();
    for name in &names {
        given(scene.store(name, b"hello"))?;
    }
    scene.expect_listed(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn single_spaces(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"hello"))?;
    scene.controller.send("LIST");
    scene.expect_exactly("LIST a")
}

fn whole_files_only(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("whole", b"hello"))?;
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
        given(scene.store(name, b"hello"))?;
    }
    scene.expect_listed(&names)?;
    names.iter().try_for_each(|name| scene.expect_content(name, b"hello"))
}
