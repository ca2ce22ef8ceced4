//! LIST. (spec 4.5)

use super::super::checks;
use crate::stage::failure::Verdict;
use crate::stage::{Setup, Stage};

checks! { Controller "list":
    [Sequential "4.5"] nothing_at_first "With no files, LIST gets LIST alone"
    [Sequential "4.5"] complete_files_only "LIST shows the complete files, and none that is being stored"
    [Sequential "4.5"] a_thousand_files "LIST shows a thousand files on one line"
    [Sequential "2.4"] many_requests_on_one_connection "A client sends any number of requests on one connection, and gets one reply to each"
}

fn nothing_at_first(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    scene.client()?.asks("LIST", "LIST")
}

fn complete_files_only(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "b", 5)?;
    scene.store(&mut client, "a", 5)?;
    let mut other = scene.client()?;
    let ports = other.begin_store("c", 5, 2)?;
    scene.dstore(ports[0])?.acknowledge_store("c");
    client.expect_listed(&["a", "b"])?;
    scene.dstore(ports[1])?.acknowledge_store("c");
    other.expect("STORE_COMPLETE")?;
    client.expect_listed(&["a", "b", "c"])
}

fn a_thousand_files(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 2))?;
    let mut client = scene.client()?;
    let names: Vec<String> = (0..1_000).map(|number| format!("a-file-with-a-name-{number}")).collect();
    for name in &names {
        scene.store(&mut client, name, 5)?;
    }
    client.expect_listed(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn many_requests_on_one_connection(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    for _ in 0..50 {
        client.asks("LIST", "LIST")?;
        client.asks("LOAD absent", "ERROR_FILE_DOES_NOT_EXIST")?;
        client.asks("REMOVE absent", "ERROR_FILE_DOES_NOT_EXIST")?;
    }
    client.expect_silence("every request has had its reply")
}
