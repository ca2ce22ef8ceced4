//! One client at a time, and the known set-ups. (spec 4, 5.3, 6)

use std::time::Duration;

use super::super::{Category, Check, Role, checks};
use crate::stage::failure::Verdict;
use crate::stage::{NO_PERIOD, NO_TIMEOUT, Setup, Stage, content};

/// These, and one for each size of note.
pub fn checks() -> Vec<Check> {
    let mut checks = acts();
    for (name, bytes) in
        [("0 bytes", 0), ("1 byte", 1), ("8191 to 8193 bytes", 8_191), ("100 kB", 100_000), ("50 MB", 50_000_000)]
    {
        let claim = format!("A file of {name} is stored on R Dstores, and loaded with the same bytes");
        let id = format!("a-file-of-{}", name.replace(' ', "-"));
        let play = move |stage: &mut Stage| there_and_back(stage, bytes);
        checks.push(Check::new(Role::System, "sequential", Category::Sequential, "4.2", &id, claim, play));
    }
    checks
}

checks! { System "sequential" as acts:
    [Sequential "5.3"] the_official_validation "The official validation's set-up: R = 3, timeout 100 ms, three Dstores back to back, a store, a load, a list, a remove"
    [Sequential "5.3"] three_of_three "The other known set-up: R = N = 3, timeout 1000 ms"
    [Sequential "4"] a_whole_life "Files are stored, listed, loaded, removed and stored again with other content"
    [Sequential "4.4"] removed_from_every_folder "When REMOVE_COMPLETE comes, no Dstore has the file"
    [Sequential "5.1"] only_whole_files_in_the_folders "After a store, the R Dstores' folders hold the file under its name, and nothing else"
    [Sequential "6.6"] the_official_clients_wrong_store "The official client's wrong store: no transfer, no reply, no file, and the connection goes on"
    [Sequential "6.6"] the_official_clients_wrong_load "The official client's wrong load: R different ports, then ERROR_LOAD, and the connection goes on"
    [Sequential "5.1"] nothing_is_kept_between_runs "Files from an earlier run are gone"
    [Replication "4.2"] replicated_and_even "Twelve files on five Dstores, R = 3: three copies of each, and each Dstore has seven or eight"
    [Replication "4.2"] a_single_copy "With R = 1, each file is on one Dstore, evenly"
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
    let mut files = Vec::new();
    client.asks("LIST", "LIST")?;
    for (name, size) in [("empty", 0), ("small.txt", 5), ("large.bin", 100_000)] {
        let bytes = content(stage.seed + size, size as usize);
        scene.store_patiently(&mut client, name, &bytes)?;
        client.load(name, &bytes)?;
        files.push((name.to_owned(), bytes));
    }
    client.expect_listed(&["empty", "small.txt", "large.bin"])?;
    scene.expect_files(&files, true, stage.patience)
}

fn a_whole_life(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    let (first, second) = (content(1, 5_000), content(2, 100));
    client.store("a", &first, 2)?;
    client.store("b", &first, 2)?;
    client.asks("STORE a 5", "ERROR_FILE_ALREADY_EXISTS")?;
    client.expect_listed(&["a", "b"])?;
    client.load("a", &first)?;
    client.asks("REMOVE a", "REMOVE_COMPLETE")?;
    client.expect_listed(&["b"])?;
    client.asks("LOAD a", "ERROR_FILE_DOES_NOT_EXIST")?;
    client.asks("REMOVE a", "ERROR_FILE_DOES_NOT_EXIST")?;
    client.store("a", &second, 2)?;
    client.load("a", &second)?;
    client.load("b", &first)?;
    scene.expect_files(&[("a".into(), second), ("b".into(), first)], false, stage.patience)
}

fn removed_from_every_folder(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(3, 4))?;
    let mut client = scene.client()?;
    client.store("a", b"hello", 3)?;
    client.asks("REMOVE a", "REMOVE_COMPLETE")?;
    scene.expect_files(&[], false, Duration::ZERO)
}

fn only_whole_files_in_the_folders(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    let bytes = content(stage.seed, 70_000);
    client.store("data.bin", &bytes, 2)?;
    scene.expect_files(&[("data.bin".into(), bytes)], true, Duration::ZERO)
}

fn the_official_clients_wrong_store(stage: &mut Stage) -> Verdict {
    let timeout = Duration::from_millis(1_000);
    let scene = stage.system(Setup::new(3, 3).timeout(timeout))?;
    let mut client = scene.client()?;
    for size in [100, 0] {
        client.begin_store("wrong", size, 3)?;
        client.wire().expect_silence(timeout + Duration::from_millis(300), "no Dstore was contacted")?;
        client.asks("LIST", "LIST")?;
    }
    let bytes = content(stage.seed, 1_000);
    scene.store_patiently(&mut client, "right", &bytes)?;
    client.load("right", &bytes)
}

fn the_official_clients_wrong_load(stage: &mut Stage) -> Verdict {
    let scene = stage.system(Setup::new(3, 4))?;
    let mut client = scene.client()?;
    let bytes = content(stage.seed, 1_000);
    let holders = client.store("a", &bytes, 3)?;
    let mut offered = Vec::new();
    for request in ["LOAD a", "RELOAD a", "RELOAD a"] {
        offered.push(client.load_from(request, 1_000)?);
    }
    offered.sort_unstable();
    let mut expected = holders;
    expected.sort_unstable();
    crate::stage::failure::claim(offered == expected, format!("{expected:?}, each once"), format!("{offered:?}"))?;
    client.asks("RELOAD a", "ERROR_LOAD")?;
    client.load("a", &bytes)
}

fn nothing_is_kept_between_runs(stage: &mut Stage) -> Verdict {
    let mut scene = stage.system(Setup::new(1, 2))?;
    scene.client()?.store("from-before", b"hello", 1)?;
    stage.restart(&mut scene)?;
    let mut client = scene.client()?;
    client.expect_listed(&[])?;
    client.asks("LOAD from-before", "ERROR_FILE_DOES_NOT_EXIST")?;
    scene.expect_files(&[], false, stage.patience)
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
        client.store(name, bytes, setup.replicas)?;
    }
    scene.expect_files(&files, true, Duration::ZERO)
}

fn there_and_back(stage: &mut Stage, bytes: usize) -> Verdict {
    let scene = stage.system(Setup::new(2, 3).timeout(NO_TIMEOUT))?;
    let mut client = scene.client()?;
    // Around a buffer's size, both sides of it.
    let sizes = if bytes == 8_191 { vec![8_191, 8_192, 8_193] } else { vec![bytes] };
    let mut files = Vec::new();
    for size in sizes {
        let (name, bytes) = (format!("file-of-{size}"), content(stage.seed, size));
        client.store(&name, &bytes, 2)?;
        client.load(&name, &bytes)?;
        files.push((name, bytes));
    }
    scene.expect_files(&files, false, Duration::ZERO)
}
