//! A whole store in one process, as its users have it: real files in and out, kills, restarts.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{User, Whole, spawn, start, text};
use kit::{bytes, eventually};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A tree with awkward names, and sizes around those at which something changes: blocks, packs, chunks.
fn make_tree(folder: &Path) {
    for directory in ["deep/er", "empty", "with blank", "%41"] {
        fs::create_dir_all(folder.join(directory)).unwrap();
    }
    let files = [
        ("nothing", 0),
        ("one", 1),
        ("deep/block", 64 * KIB),
        ("deep/block and one", 64 * KIB + 1),
        ("deep/er/small", MIB),
        ("deep/er/large", MIB + 1),
        ("with blank/chunks", 70 * MIB),
        ("%41/100%", 4),
        ("naïve 日本", 6),
        ("new\nline", 7),
    ];
    for (seed, (name, size)) in files.into_iter().enumerate() {
        fs::write(folder.join(name), bytes(seed as u64, size)).unwrap();
    }
}

/// The content of all files below a folder, and its directories.
fn look(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let content = path.is_file().then(|| fs::read(&path).unwrap());
            found.insert(path.strip_prefix(folder).unwrap().to_owned(), content);
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

fn bytes_below(folder: &Path) -> usize {
    let size = |content: &Option<Vec<u8>>| content.as_ref().map_or(0, Vec::len);
    look(folder).values().map(size).sum()
}

#[test]
fn a_tree_of_any_names_and_sizes_survives_restarts() {
    let mut store = Whole::start(3, "never");
    let said = store.server.log_so_far().join("\n");
    assert!(said.contains("It does not survive:") && said.contains("all Dstores are on one"), "{said}");
    let (from, to) = (store.local("from"), store.local("to"));
    make_tree(&from);
    let put = ["put", "-r", "--json", text(&from), "/docs"];
    let summary = store.user.json(&put);
    assert_eq!((&summary["files"], &summary["skipped"], &summary["failed"]), (&10.into(), &0.into(), &0.into()));
    store.end_and_start();
    let summary = store.user.json(&put);
    assert_eq!((&summary["files"], &summary["skipped"]), (&0.into(), &10.into()), "all of it was kept");
    store.kill_and_start();
    let summary = store.user.json(&["get", "-r", "--json", "/docs", text(&to)]);
    assert_eq!((&summary["files"], &summary["failed"]), (&10.into(), &0.into()));
    assert!(look(&to) == look(&from), "the tree has changed on its way");
    let status = store.user.json(&["status", "--json"]);
    assert_eq!(status["problems"].as_array().map(Vec::len), Some(0), "{status}");
    assert_eq!((&status["no_copy"], &status["too_few_copies"]), (&0.into(), &0.into()));
    for dstore in status["dstores"].as_array().expect("a list") {
        assert_eq!(dstore["state"], "present");
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let mut store = Whole::start(3, "never");
    let big = store.local("big");
    fs::write(&big, bytes(1, 80 * MIB)).unwrap();
    let mut kept = Vec::new();
    for round in 0..3 {
        let mut putting = store.user.command(&["put", text(&big), "/big"]);
        let mut putting = putting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let before = store.folder.path().join("disk1/dstore");
        let stored = bytes_below(&before);
        // Small files are acknowledged meanwhile.
        for number in 0..5 {
            let path = format!("/small/{round}-{number}");
            let output = store.user.with_input(&["put", "-", &path], &bytes(number, 1000 * number as usize));
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            kept.push((path, number));
        }
        eventually("a part of the large file is stored", || {
            bytes_below(&before) > stored + MIB || putting.try_wait().unwrap().is_some()
        });
        store.server.kill();
        let is_acknowledged = putting.wait().unwrap().success();
        store.kill_and_start();
        for (path, number) in &kept {
            let content = store.user.run(&["cat", path]);
            assert!(content.status.success() && content.stdout == bytes(*number, 1000 * *number as usize), "{path}");
        }
        let there = store.user.run(&["get", "/big", text(&store.local("got"))]);
        assert!(there.status.success() || !is_acknowledged, "an acknowledged file is lost");
        if there.status.success() {
            assert!(fs::read(store.local("got")).unwrap() == fs::read(&big).unwrap(), "half a file");
        }
    }
    store.user.ok(&["put", text(&big), "/big"]);
    store.user.ok(&["get", "/big", text(&store.local("got"))]);
    assert!(fs::read(store.local("got")).unwrap() == fs::read(&big).unwrap());
}

#[test]
fn an_interrupted_put_is_resumed_where_it_was() {
    let mut store = Whole::start(1, "never");
    let from = store.local("from");
    fs::create_dir(&from).unwrap();
    for number in 0..40 {
        fs::write(from.join(format!("{number:02}")), bytes(number, MIB)).unwrap();
    }
    let put = ["put", "-r", "--jobs", "1", text(&from), "/docs"];
    let mut putting = store.user.command(&put).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("some files are there", || {
        store.user.run(&["stat", "/docs/03"]).status.success() || putting.try_wait().unwrap().is_some()
    });
    let _ = putting.kill();
    let was_whole = putting.wait().unwrap().success();
    store.kill_and_start();
    let summary = store.user.json(&["put", "-r", "--json", text(&from), "/docs"]);
    let (files, skipped) = (summary["files"].as_u64().unwrap(), summary["skipped"].as_u64().unwrap());
    assert!(skipped >= 4 && files + skipped == 40, "{summary}");
    assert!(was_whole || files > 0, "{summary}");
}

#[test]
fn content_travels_through_pipes_and_in_ranges() {
    let store = Whole::start(1, "never");
    let content = bytes(7, 10 * MIB + 7);
    let output = store.user.with_input(&["put", "-", "/piped"], &content);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(store.user.run(&["cat", "/piped"]).stdout == content);
    assert!(store.user.run(&["get", "/piped", "-"]).stdout == content);
    for (range, expected) in [
        ("0-0", &content[..1]),
        ("65535-65536", &content[65535..65537]),
        ("8388607-8388609", &content[8 * MIB - 1..8 * MIB + 2]),
        ("10485760-", &content[10 * MIB..]),
        ("99999999-", &[]),
    ] {
        assert!(store.user.run(&["cat", "--range", range, "/piped"]).stdout == expected, "{range}");
    }
    let copies = &store.user.json_lines(&["stat", "--copies", "--json", "/piped"])[0]["objects"];
    assert!(copies.as_array().expect("a list").len() > 1, "several chunks: {copies}");
    assert_eq!(copies[0]["copies"][0]["is_present"], true, "{copies}");
}

#[test]
fn a_damaged_object_is_an_error_and_never_wrong_bytes() {
    let store = Whole::start(1, "never");
    let content = bytes(3, 3 * MIB);
    assert!(store.user.with_input(&["put", "-", "/victim"], &content).status.success());
    let objects = store.folder.path().join("disk1/dstore");
    let largest = look(&objects).into_iter().max_by_key(|(_, content)| content.as_ref().map_or(0, Vec::len));
    let (name, stored) = largest.expect("an object");
    let stored = stored.expect("a file");
    let at =
        stored.windows(16).position(|window| *window == content[2 * MIB..2 * MIB + 16]).expect("the content") as u64;
    let file = fs::OpenOptions::new().write(true).open(objects.join(name)).unwrap();
    file.write_at(&[!content[2 * MIB]], at).unwrap();
    let target = store.local("got");
    let (code, said) = store.user.fails(&["get", "/victim", text(&target)]);
    assert!(code == 1 && said.contains("damaged"), "{said}");
    assert!(!target.exists(), "half a file has appeared");
    let whole = store.user.run(&["cat", "--range", "0-99", "/victim"]);
    assert!(whole.stdout == content[..100], "what is not damaged can still be read");
    // Put again, it is sent again: once the damage is known, nothing counts as being there already.
    eventually("the Dstore has looked", || {
        let copies = store.user.json(&["stat", "--copies", "--json", "/victim"]);
        copies["objects"][0]["copies"][0]["is_damaged"] == true
    });
    let from = store.local("from");
    fs::write(&from, &content).unwrap();
    let again = store.user.json(&["put", "--json", text(&from), "/victim"]);
    assert_eq!((&again["files"], &again["skipped"]), (&1.into(), &0.into()));
    assert!(store.user.run(&["cat", "/victim"]).stdout == content, "it is healed");
    let again = store.user.json(&["put", "--json", text(&from), "/victim"]);
    assert_eq!((&again["files"], &again["skipped"]), (&0.into(), &1.into()), "a good copy is enough");
}

#[test]
fn an_interrupted_get_leaves_nothing_behind() {
    let store = Whole::start(1, "never");
    let (big, folder) = (store.local("big"), store.local("target"));
    fs::write(&big, bytes(1, 100 * MIB)).unwrap();
    fs::create_dir(&folder).unwrap();
    store.user.ok(&["put", text(&big), "/big"]);
    let target = folder.join("big");
    let mut command = store.user.command(&["get", "/big", text(&target)]);
    let mut getting = kit::Program::spawn({
        command.stdin(Stdio::null());
        command
    });
    eventually("it has begun", || fs::read_dir(&folder).unwrap().next().is_some());
    getting.signal("INT");
    let status = getting.wait_for_exit();
    let left = kit::folder::names(&folder);
    if status.success() {
        assert_eq!(left, ["big"], "it was faster than the signal");
    } else {
        assert_eq!(left, [""; 0], "{status}");
    }
}

#[test]
fn a_second_process_on_the_same_folders_is_refused() {
    let store = Whole::start(2, "never");
    let mut second = spawn(&store.words());
    assert_eq!(second.wait_for_exit().code(), Some(1));
    assert!(second.comes_to_log("is used by another process"));
    let disk2 = store.local("disk2");
    let mut third = spawn(&["serve", "--controller-port", "0", "--dstore-port", "0", text(&disk2)]);
    assert_eq!(third.wait_for_exit().code(), Some(1), "nor on one of them");
    assert_eq!(store.user.ok(&["ls"]), "");
}

#[test]
fn a_store_is_never_made_beside_data() {
    let mut store = Whole::start(2, "never");
    assert!(store.user.with_input(&["put", "-", "/a"], b"content").status.success());
    store.server.signal("TERM");
    store.server.wait_for_exit();
    let refused = |words: &[&str], says: &str| {
        let mut server = spawn(words);
        assert_eq!(server.wait_for_exit().code(), Some(1), "{words:?}");
        assert!(server.comes_to_log(says), "{says}: {:?}", server.log_so_far());
    };
    let (disk1, disk2) = (store.local("disk1"), store.local("disk2"));
    refused(
        &["serve", "--controller-port", "0", "--dstore-port", "0", text(&disk2), text(&disk1)],
        "name that folder first",
    );
    let (log, away) = (disk1.join("controller"), store.local("away"));
    fs::rename(&log, &away).unwrap();
    refused(&store.words(), "log is missing");
    fs::rename(&away, &log).unwrap();
    let (file, away) = (disk1.join("cluster.toml"), store.local("away.toml"));
    fs::rename(&file, &away).unwrap();
    refused(&store.words(), "no cluster.toml");
    fs::rename(&away, &file).unwrap();
    store.kill_and_start();
    assert_eq!(store.user.ok(&["cat", "/a"]), "content");
}

#[test]
fn an_older_copy_of_the_log_is_refused_before_it_serves() {
    // depot 2.2: also one of the same leadership, which knows of every start of the store.
    let mut store = Whole::start(1, "always");
    let disk = store.local("disk1");
    assert!(store.user.with_input(&["put", "-", "/old"], b"old").status.success());
    let (log, copy, newest) = (disk.join("controller"), store.local("copy"), store.local("newest"));
    fs::create_dir(&copy).unwrap();
    for (name, content) in look(&log) {
        fs::write(copy.join(name), content.expect("a file")).unwrap();
    }
    assert!(store.user.with_input(&["put", "-", "/new"], b"new").status.success());
    let version = store.user.json(&["status", "--json"])["version"].as_str().expect("text").to_owned();
    let sequence: u64 = version.split([' ', '.']).next_back().expect("a number").parse().expect("a number");
    eventually("the Dstore has heard of it", || {
        let identity = fs::read_to_string(disk.join("dstore/identity")).expect("text");
        let heard = identity.lines().find_map(|line| line.strip_prefix("sequence ")).expect("a number");
        heard.parse::<u64>().expect("a number") >= sequence
    });
    store.server.kill();
    fs::rename(&log, &newest).unwrap();
    fs::rename(&copy, &log).unwrap();
    let mut refused = spawn(&store.words());
    let (code, said) = store.user.fails(&["ls"]);
    assert!(code != 0 && !said.contains("/old"), "{said}");
    assert_eq!(refused.wait_for_exit().code(), Some(1));
    assert!(refused.comes_to_log("old copy"), "{:?}", refused.log_so_far());
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&newest, &log).unwrap();
    store.kill_and_start();
    assert_eq!(store.user.ok(&["cat", "/new"]), "new", "the newest is still taken");
}

#[test]
fn servers_also_run_as_processes_of_their_own() {
    let folder = kit::TempFolder::new();
    let data = folder.path().join("controller");
    let _controller = start(&["controller", "--port", "0", "--replicas", "2", "--data", text(&data)]);
    let user = User { cluster: data.clone() };
    let address = user.json(&["status", "--json"])["controllers"][0]["address"].as_str().expect("text").to_owned();
    let mut dstores = Vec::new();
    for number in 1..=2 {
        let own = folder.path().join(format!("dstore{number}"));
        let words = ["dstore", "--port", "0", "--controllers", &address, "--data", text(&own)];
        let mut without = spawn(&words);
        assert_eq!(without.wait_for_exit().code(), Some(1));
        assert!(without.comes_to_log("cluster.toml"), "it says what it needs");
        fs::copy(data.join("cluster.toml"), own.join("cluster.toml")).unwrap();
        let mut dstore = spawn(&words);
        dstore.wait_for_log("Dstore of the store");
        dstores.push(dstore);
    }
    eventually("both have joined", || {
        let status = user.json(&["status", "--json"]);
        let there = status["dstores"].as_array().expect("a list");
        there.iter().filter(|dstore| dstore["state"] == "present").count() == 2
    });
    let content = bytes(9, 100 * KIB);
    assert!(user.with_input(&["put", "-", "/a"], &content).status.success());
    dstores[0].signal("TERM");
    assert!(dstores[0].wait_for_exit().success());
    assert!(user.run(&["cat", "/a"]).stdout == content, "the other one has it, too");
}

#[test]
fn the_copies_of_a_dstore_that_dies_are_made_elsewhere() {
    let folder = kit::TempFolder::new();
    let place = |name: &str| folder.path().join(name);
    let log = place("c");
    let _controller = start(&["controller", "--data", text(&log), "--port", "0", "--replicas", "2", "--grace", "0"]);
    let user = User { cluster: place("c") };
    let mut dstores: Vec<_> = ["1", "2", "3"]
        .iter()
        .map(|name| {
            fs::create_dir(place(name)).unwrap();
            fs::copy(place("c").join("cluster.toml"), place(name).join("cluster.toml")).unwrap();
            let data = place(name);
            let mut dstore =
                spawn(&["dstore", "--data", text(&data), "--port", "0", "--host", name, "--copy-rate", "64M"]);
            dstore.wait_for_log("Dstore of the store");
            dstore
        })
        .collect();
    let there = || {
        let status = user.json(&["status", "--json"]);
        let is_there = |dstore: &&serde_json::Value| dstore["state"] == "present" && dstore["total_bytes"] != 0;
        status["dstores"].as_array().unwrap().iter().filter(is_there).count()
    };
    eventually("all have joined", || there() == 3);
    fs::create_dir(place("files")).unwrap();
    (0..20).for_each(|file| fs::write(place("files").join(file.to_string()), bytes(file, 100_000)).unwrap());
    user.ok(&["put", "-r", text(&place("files")), "/files"]);
    assert!(user.ok(&["check"]).contains("40 copies, all as they should be"));
    drop(dstores.pop());
    eventually("the store has noticed, and the two that are left have all", || {
        there() == 2 && user.run(&["check", "--deep"]).status.success()
    });
    user.ok(&["get", "-r", "/files", text(&place("copy"))]);
    assert!(look(&place("copy")) == look(&place("files")));
}

#[test]
fn a_disk_is_emptied_checked_and_taken_out() {
    let store = Whole::start(3, "never");
    let file = store.local("file");
    fs::write(&file, bytes(1, 3 * MIB)).unwrap();
    store.user.ok(&["set", "replicas", "2"]);
    store.user.ok(&["put", text(&file), "/a"]);
    let checked = store.user.ok(&["check", "--deep"]);
    assert!(checked.contains("all as they should be"), "{checked}");
    let (_, refused) = store.user.fails(&["dstore", "remove", "3", "--lost", "--yes"]);
    assert!(refused.contains("is there"), "{refused}");
    store.user.ok(&["drain", "3"]);
    eventually("Dstore 3 is empty", || {
        let status = store.user.json(&["status", "--json"]);
        let copies = store.user.json(&["stat", "--copies", "--json", "/a"]).to_string();
        status["dstores"][2]["duty"] == "draining"
            && status["dstores"][2]["objects"] == 0
            && !copies.contains("\"dstore\":3")
    });
    store.user.ok(&["dstore", "remove", "3"]);
    let status = store.user.json(&["status", "--json"]);
    assert_eq!(status["dstores"].as_array().map(Vec::len), Some(2), "{status}");
    let checked = store.user.json(&["check", "--deep", "--json", "/a"]);
    assert_eq!((&checked["files"], &checked["copies"], &checked["faulty"]), (&1.into(), &2.into(), &0.into()));
    store.user.ok(&["repair", "--all"]);
}
