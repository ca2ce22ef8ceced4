//! LIST. (spec 4.5)

use super::super::checks;
use crate::stage::controller_scene::ControllerScene;
use crate::stage::failure::{Verdict, given};
use crate::stage::{Setup, Stage};

checks! { Controller "list":
    [Sequential LIST "4.5"] nothing_at_first "With no files, LIST gets LIST alone"
    [Sequential LIST "4.5"] complete_files "LIST shows the files that are stored"
    [Concurrent DURING_STORE "4.5"] complete_files_only "LIST shows no file that is being stored"
        after (&["controller/store/completes-on-the-last-acknowledgement"])
    [Sequential LIST "4.5"] a_hundred_files "LIST shows a hundred files on one line"
    [Sequential SEQUENTIAL_REQUESTS "2.4"] many_requests_on_one_connection "A client sends any number of requests on one connection, and gets one reply to each"
    [Robustness "4.5"] five_hundred_files "LIST shows five hundred files on one line"
}

fn nothing_at_first(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    scene.client()?.expect_listed(&[])
}

fn complete_files(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    given(scene.store(&mut client, "b", 5))?;
    client.expect_listed(&["b"])?;
    given(scene.store(&mut client, "a", 5))?;
    client.expect_listed(&["a", "b"])
}

fn complete_files_only(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3))?;
    let (mut client, mut other) = (scene.client()?, scene.client()?);
    given(scene.store(&mut client, "a", 5))?;
    let ports = given(other.begin_store("c", 5))?;
    given(scene.acknowledge_all(&ports[1..], "c"))?;
    client.expect_listed(&["a"])?;
    given(scene.acknowledge_all(&ports[..1], "c"))?;
    given(other.expect_stored())?;
    client.expect_listed(&["a", "c"])
}

fn a_hundred_files(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 2))?;
    many_files(&scene, 100)
}

fn five_hundred_files(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 2))?;
    many_files(&scene, 500)
}

fn many_files(scene: &ControllerScene, files: usize) -> Verdict {
    let mut client = scene.client()?;
    let names: Vec<String> = (0..files).map(|number| format!("a-file-with-a-name-{number}")).collect();
    for name in &names {
        given(scene.store(&mut client, name, 5))?;
    }
    client.expect_listed(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn many_requests_on_one_connection(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    for _ in 0..50 {
        client.ask("LIST")?;
        client.ask("LOAD absent")?;
    }
    client.expect_silence("every request has had its reply")
}
