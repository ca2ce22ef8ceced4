//! The program for other programs: exit codes, JSON, servers that start and end.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{Lone, User, spawn, start, text};
use kit::TempFolder;

#[test]
fn every_listing_is_json_for_programs() {
    let store = Lone::start();
    let user = &store.user;
    user.ok(&["mkdir", "-p", "/a b/c\n", "/z"]);
    let names = |lines: Vec<serde_json::Value>| -> Vec<String> {
        lines.iter().map(|line| line["path"].as_str().expect("a path").to_owned()).collect()
    };
    assert_eq!(names(user.json_lines(&["ls", "--json"])), ["/a b", "/z"]);
    assert_eq!(names(user.json_lines(&["tree", "--json"])), ["/a b", "/a b/c\n", "/z"]);
    assert_eq!(names(user.json_lines(&["find", "--json", "?"])), ["/z"]);
    assert_eq!(names(user.json_lines(&["find", "--json", "c", "/a b"])), ["/a b/c\n"]);
    let stat = &user.json_lines(&["stat", "--json", "/z"])[0];
    assert_eq!((&stat["kind"], &stat["entries"]), (&"directory".into(), &0.into()));
    assert_eq!(user.json(&["du", "--json"])["directories"], 3);
    assert_eq!(user.json(&["set", "--json"])["replicas"], "3");
    let status = user.json(&["status", "--json"]);
    assert_eq!(status["name"], "depot");
    assert!(!status["problems"].as_array().expect("a list").is_empty(), "there is no Dstore: {status}");
    let seen = stat["version"].as_str().expect("a version").to_owned();
    user.ok(&["rmdir", "/z"]);
    let told = &user.json_lines(&["watch", "--json", "--count", "1", "--after", &seen])[0];
    assert_eq!((&told["verb"], &told["paths"][0]), (&"remove-directory".into(), &"/z".into()));
}

#[test]
fn exit_codes_tell_a_script_what_went_wrong() {
    let store = Lone::start();
    let user = &store.user;
    user.ok(&["mkdir", "/a"]);
    for (words, code, says) in [
        (&["ls", "/none"][..], 3, "not found"),
        (&["mkdir", "/a"], 4, "exists already"),
        (&["put", "Cargo.toml", "/a/"], 5, "not enough Dstores"),
        (&["mkdir", "a"], 2, "begins with /"),
        (&["colour"], 2, "see stevedore --help"),
        (&["mv", "/a"], 2, "where?"),
        (&["rm", "-r", "/a"], 1, "--yes"),
        (&["--cluster", "/nowhere", "ls"], 1, "client.toml"),
    ] {
        let (found, said) = user.fails(words);
        assert_eq!(found, code, "{words:?}: {said}");
        assert!(said.starts_with("stevedore: ") && said.contains(says), "{words:?}: {said}");
    }
    let (code, said) = User { cluster: "".into() }.fails(&["ls"]);
    assert!(code == 2 && said.contains("STEVEDORE_CLUSTER"), "{said}");
}

#[test]
fn settings_are_changed_one_by_one_and_stay() {
    let mut store = Lone::start();
    let user = &store.user;
    user.ok(&["set", "chunk-size", "8M"]);
    user.ok(&["set", "read-only", "on"]);
    assert_eq!(user.fails(&["set", "write-quorum", "9"]).0, 2);
    assert!(user.fails(&["mkdir", "/a"]).1.contains("set read-only off"), "it says what to do");
    store.server.signal("TERM");
    assert!(store.server.wait_for_exit().success());
    let data = store.folder.path().join("data");
    let _again = start(&["controller", "--port", "0", "--data", text(&data)]);
    let settings = store.user.json(&["set", "--json"]);
    assert_eq!((&settings["chunk_bytes"], &settings["is_read_only"]), (&(8 << 20).into(), &true.into()));
}

#[test]
fn a_controller_killed_at_any_time_has_all_that_it_acknowledged() {
    let folder = TempFolder::new();
    let data = folder.path().join("data");
    let user = User { cluster: data.clone() };
    let mut made = Vec::new();
    for round in 0..3 {
        let mut server = start(&["controller", "--port", "0", "--data", text(&data)]);
        for number in 0..5 {
            let path = format!("/{round}-{number}");
            user.ok(&["mkdir", &path]);
            made.push(format!("{}/", &path[1..]));
        }
        server.kill();
    }
    let _server = start(&["controller", "--port", "0", "--data", text(&data)]);
    assert_eq!(user.ok(&["ls"]).lines().collect::<Vec<_>>(), made);
}

#[test]
fn a_second_process_on_a_folder_is_refused() {
    let store = Lone::start();
    let data = store.folder.path().join("data");
    let mut second = spawn(&["controller", "--port", "0", "--data", text(&data)]);
    assert_eq!(second.wait_for_exit().code(), Some(1));
    assert!(second.comes_to_log("is used by another process"));
    store.user.ok(&["mkdir", "/a"]);
}

#[test]
fn a_taken_port_is_told_with_the_way_out() {
    let store = Lone::start();
    let address =
        store.user.json(&["status", "--json"])["controllers"][0]["address"].as_str().expect("text").to_owned();
    let port = address.rsplit(':').next().expect("a port").to_owned();
    let other = store.folder.path().join("other");
    let mut second = spawn(&["controller", "--port", &port, "--data", text(&other)]);
    assert_eq!(second.wait_for_exit().code(), Some(1));
    assert!(second.comes_to_log("--port 0 takes a free one"));
}

#[test]
fn the_files_that_hold_keys_are_for_their_owner_only() {
    let store = Lone::start();
    for name in ["cluster.toml", "client.toml"] {
        let path = store.folder.path().join("data").join(name);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    // Another store's key opens nothing.
    let other = Lone::start();
    let stolen = store.folder.path().join("stolen");
    fs::create_dir(&stolen).unwrap();
    let ours = fs::read_to_string(store.user.cluster.join("client.toml")).unwrap();
    let theirs = fs::read_to_string(other.user.cluster.join("client.toml")).unwrap();
    let line = |text: &str, name: &str| text.lines().find(|line| line.starts_with(name)).expect("a line").to_owned();
    let forged = ours.replace(&line(&ours, "key"), &line(&theirs, "key"));
    fs::write(stolen.join("client.toml"), forged).unwrap();
    let (code, said) = User { cluster: stolen }.fails(&["ls"]);
    assert!(code == 1 && said.contains("not permitted"), "{said}");
}
