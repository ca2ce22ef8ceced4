//! One client at a time, and the known set-ups. (spec 4, 5.3, 6)

use std::time::Duration;

use super::super::{Check, Role, basis, checks};
use crate::stage::failure::{Verdict, claim, given};
use crate::stage::wire::begins;
use crate::stage::{LARGE, NO_PERIOD, NO_TIMEOUT, Setup, Stage, content};

/// These, and one for each size of note.
pub fn checks() -> Vec<Check> {
    let mut checks = acts();
    let asked = || basis!(Sequential LOAD_DATA);
    let sizes = [
        ("1 byte", 1, asked()),
        ("8191 to 8193 bytes", 8_191, asked()),
        ("99 kB", 99_000, asked()),
        ("0 bytes", 0, basis!(Robustness)),
        ("50 MB", 50_000_000, basis!(Robustness)),
    ];
    for (name, bytes, basis) in sizes {
        let claim = format!("A file of {name} is stored on R Dstores, and loaded with the same bytes");
        let id = format!("a-file-of-{}", name.replace(' ', "-"));
        let play = move |stage: &mut Stage| there_and_back(stage, bytes);
        checks.push(Check::new(Role::System, "sequential", basis, "4.2", &id, claim, play));
    }
    checks
}

checks! { System "sequential" as acts:
    [Sequential STORE_COMPLETE "4.2"] a_store "A file is stored"
    [Sequential LOAD_DATA "4.3"] a_store_and_a_load "A file is stored and loaded"
    [Sequential SEQUENTIAL_REQUESTS "2.4"] two_clients_one_after_the_other "After a client has gone, the next one loads what it has stored"
    [Sequential SEQUENTIAL_REQUESTS "5.3"] the_official_validation "The official validation's set-up: R = 3, timeout 100 ms, three Dstores back to back, a store, a load, a list"
    [Sequential SEQUENTIAL_REQUESTS "5.3"] three_of_three "The other known set-up: R = N = 3, timeout 1000 ms"
    [Sequential SEQUENTIAL_REQUESTS "4"] a_whole_life "Files are stored, listed, loaded, removed and stored again with other content"
    [Sequential REMOVE "4.4"] removed_from_every_folder "When REMOVE_COMPLETE comes, no Dstore has the file"
    [Sequential STORE_TIMEOUT "6.6"] the_official_clients_wrong_store "The official client's wrong store: no transfer, no reply, no file, and the connection goes on"
    [Sequential RELOAD "6.6"] the_official_clients_wrong_load "The official client's wrong load: the holders' ports, each once, then ERROR_LOAD, and the connection goes on"
    [Sequential FOLDER_EMPTIED "5.1"] nothing_is_kept_between_runs "Files from an earlier run are gone"
    [Replication REPLICATED "4.2"] replicated "With R = 2, a file is on two of three Dstores when STORE_COMPLETE comes"
    [Replication EVEN_STORES "4.2"] replicated_and_even "Twelve files on five Dstores, R = 3: three copies of each, and each Dstore has seven or eight"
    [Replication EVEN_STORES "4.2"] a_single_copy "With R = 1, each file is on one Dstore, evenly"
    [Robustness "5.1"] only_whole_files_in_the_folders "After a store, the R Dstores' folders hold the file under its name, and nothing else"
    [Robustness "6.6"] the_official_clients_wrong_store_of_nothing "The official client's wrong store of 0 bytes: no reply, no file, and the connection goes on"
}

fn a_store(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    scene.client()?.store("a", b"hello").map(|_| ())
}

fn a_store_and_a_load(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    given(client.store("a", b"hello"))?;
    client.load("a", b"hello")
}

fn two_clients_one_after_the_other(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    given(scene.client()?.store("a", b"hello"))?;
    scene.client()?.load("a", b"hello")
}

fn the_official_validation(stage: &mut Stage) -> Verdict {
    let setup = Setup::new(3, 3).timeout(Duration::from_millis(100)).period(NO_PERIOD);
    short_life(stage, setup)
}

fn three_of_three(stage: &mut Stage) -> Verdict {
    short_life(stage, Setup::new(3, 3).timeout(Duration::from_millis(1_000)))
}

fn short_life(stage: &mut Stage, setup: Setup) -> Verdict {
    let scene = stage.system(setup)?;
    let mut client = scene.client()?;
    for (name, size) in [("small.txt", 5), ("large.bin", 90_000)] {
        let bytes = content(stage.seed + size, size as usize);
        scene.store_patiently(&mut client, name, &bytes)?;
        client.load(name, &bytes)?;
    }
    client.expect_listed(&["small.txt", "large.bin"])
}

fn a_whole_life(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    let (first, second) = (content(1, 5_000), content(2, 100));
    client.store("a", &first)?;
    client.store("b", &first)?;
    client.expect_listed(&["a", "b"])?;
    client.load("a", &first)?;
    client.remove("a")?;
    client.expect_listed(&["b"])?;
    client.store("a", &second)?;
    client.load("a", &second)?;
    client.load("b", &first)
}

fn removed_from_every_folder(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(3, 4))?;
    let mut client = scene.client()?;
    given(client.store("a", b"hello"))?;
    given(client.remove("a"))?;
    scene.expect_gone(&[("a".into(), b"hello".to_vec())], Duration::ZERO)
}

fn only_whole_files_in_the_folders(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    let bytes = content(stage.seed, 70_000);
    given(scene.client()?.store("data.bin", &bytes))?;
    let in_folders: Vec<String> = scene.living().flat_map(|dstore| scene.folder(dstore)).collect();
    claim(in_folders == ["data.bin", "data.bin"], "data.bin in two folders, and nothing else", in_folders.join(", "))?;
    scene.look_at_files(&[("data.bin".into(), bytes)], true)
}

fn the_official_clients_wrong_store(stage: &mut Stage) -> Verdict {
    wrong_store(stage, 100)
}

fn the_official_clients_wrong_store_of_nothing(stage: &mut Stage) -> Verdict {
    wrong_store(stage, 0)
}

fn wrong_store(stage: &mut Stage, size: usize) -> Verdict {
    let timeout = Duration::from_millis(1_000);
    let scene = stage.system(Setup::new(3, 3).timeout(timeout))?;
    let mut client = scene.client()?;
    given(client.begin_store("wrong", size))?;
    client.wire().expect_silence(timeout + Duration::from_millis(300), "no Dstore was contacted")?;
    let listed = given(client.list())?;
    claim(listed.is_empty(), "`LIST`, with no file", listed.join(" "))?;
    let bytes = content(stage.seed, 1_000);
    given(scene.store_patiently(&mut client, "right", &bytes))
}

fn the_official_clients_wrong_load(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(3, 4))?;
    let mut client = scene.client()?;
    let bytes = content(stage.seed, 1_000);
    let mut holders = given(client.store("a", &bytes))?;
    let mut offered = vec![given(client.load_from("LOAD a", 1_000))?];
    for _ in 1..holders.len() {
        offered.push(client.load_from("RELOAD a", 1_000)?);
    }
    offered.sort_unstable();
    holders.sort_unstable();
    claim(offered == holders, format!("{holders:?}, each once"), format!("{offered:?}"))?;
    client.asks("RELOAD a", "ERROR_LOAD")?;
    given(client.load("a", &bytes))
}

fn nothing_is_kept_between_runs(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(1, 2))?;
    let file = ("from-before".to_owned(), content(stage.seed, 1_000));
    given(scene.client()?.store(&file.0, &file.1))?;
    given(stage.restart(&mut scene))?;
    let mut client = scene.client()?;
    let listed = given(client.list())?;
    claim(listed.is_empty(), "`LIST`, with no file", listed.join(" "))?;
    let reply = client.ask("LOAD from-before")?;
    claim(!begins(&reply, "LOAD_FROM"), "no `LOAD_FROM` for a file from before", reply)?;
    scene.expect_gone(&[file], stage.patience)
}

fn replicated(stage: &mut Stage) -> Verdict {
    spread(stage, Setup::new(2, 3), 1)
}

fn replicated_and_even(stage: &mut Stage) -> Verdict {
    spread(stage, Setup::new(3, 5), 12)
}

fn a_single_copy(stage: &mut Stage) -> Verdict {
    spread(stage, Setup::new(1, 4), 10)
}

fn spread(stage: &mut Stage, setup: Setup, files: u64) -> Verdict {
    let scene = stage.system(setup)?;
    let mut client = scene.client()?;
    let files: Vec<_> = (0..files).map(|number| (format!("file{number}"), content(number + 1, 1_000))).collect();
    for (name, bytes) in &files {
        given(client.store(name, bytes))?;
    }
    scene.look_at_files(&files, true)
}

fn there_and_back(stage: &mut Stage, bytes: usize) -> Verdict {
    let timeout = if bytes > 1_000_000 { LARGE } else { NO_TIMEOUT };
    let scene = stage.system(Setup::new(2, 3).timeout(timeout))?;
    let mut client = scene.client()?;
    // Around a buffer's size, both sides of it.
    let sizes = if bytes == 8_191 { vec![8_191, 8_192, 8_193] } else { vec![bytes] };
    for size in sizes {
        let (name, bytes) = (format!("file-of-{size}"), content(stage.seed, size));
        given(client.store(&name, &bytes))?;
        client.load(&name, &bytes)?;
    }
    Ok(())
}
