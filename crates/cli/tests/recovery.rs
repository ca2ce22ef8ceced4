//! How a store comes back: backups, restores, and recoveries, with real processes. (depot 2.2, 4.3, 4.9)

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use common::{User, Whole, spawn, start, text};
use kit::{Rng, bytes, eventually};

const FILES: u64 = 12;

fn content(number: u64) -> Vec<u8> {
    bytes(number, [0, 5, 70_000, 2 << 20][number as usize % 4])
}

fn put(user: &User, path: &str, content: &[u8]) {
    let output = user.with_input(&["put", "-", path], content);
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Puts files that the store is to have after all that happens to it.
fn put_files(user: &User) {
    (0..FILES).for_each(|number| put(user, &format!("/kept/{number}"), &content(number)));
}

#[track_caller]
fn check_files(user: &User) {
    for number in 0..FILES {
        let output = user.run(&["cat", &format!("/kept/{number}")]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && output.stdout == content(number), "/kept/{number}: {said}");
    }
}

fn end(store: &mut Whole) {
    store.server.signal("TERM");
    assert!(store.server.wait_for_exit().success());
}

/// Starts a store that is not to start; what it says last.
#[track_caller]
fn refuses_to_start(store: &Whole) -> String {
    let mut server = spawn(&store.words());
    assert_eq!(server.wait_for_exit().code(), Some(1));
    assert!(server.comes_to_log("stevedore: "));
    let said = server.log_so_far();
    said.iter().rfind(|line| line.contains("stevedore: ")).expect("it came").clone()
}

/// The command that a message says to type: from its name to the message's end.
#[track_caller]
fn words_to_type<'a>(said: &'a str, command: &str) -> Vec<&'a str> {
    let at = said.rfind(command).unwrap_or_else(|| panic!("no {command:?} in {said:?}"));
    said[at..].split(' ').skip(1).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in kit::folder::names(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[test]
fn a_store_comes_back_from_its_dstores_alone() {
    let mut store = Whole::start(3, "never");
    put_files(&store.user);
    store.end_and_start(); // a backup goes out
    // An unclean end without syncs begins a history, which the Dstores follow, and no backup knows of.
    store.kill_and_start();
    store.user.ok(&["ls", "/kept"]);
    store.server.kill();
    // Its log, its cluster.toml, and a third of all copies.
    let disk1 = store.local("disk1");
    fs::remove_dir_all(&disk1).unwrap();
    let (disk2, disk3) = (store.local("disk2"), store.local("disk3"));
    let words = ["recover", "--data", text(&disk1), "--from", text(&disk2), text(&disk3)];
    let (_, said) = store.user.fails(&words);
    assert!(said.contains("--new-secret"), "{said}");
    let told = store.user.ok(&[&words[..], &["--new-secret"]].concat());
    assert!(told.contains("newest backup") && told.contains("stevedore serve"), "{told}");
    store.kill_and_start();
    check_files(&store.user);
    put(&store.user, "/later", b"more");
    assert_eq!(store.user.ok(&["cat", "/later"]), "more");
    eventually("all Dstores are there, and one of them is new", || {
        let status = store.user.json(&["status", "--json"]);
        let states = status["dstores"].as_array().expect("a list").iter().map(|dstore| dstore["state"].clone());
        states.filter(|state| state == "present").count() == 3
    });
}

#[test]
fn a_controller_on_a_machine_of_its_own_is_replaced() {
    let folder = kit::TempFolder::new();
    let (data, disk) = (folder.path().join("controller"), folder.path().join("disk"));
    let mut controller = start(&["controller", "--port", "0", "--replicas", "1", "--data", text(&data)]);
    let user = User { cluster: data.clone() };
    fs::create_dir(&disk).unwrap();
    fs::copy(data.join("cluster.toml"), disk.join("cluster.toml")).unwrap();
    let address = |user: &User| {
        user.json(&["status", "--json"])["controllers"][0]["address"].as_str().expect("an address").to_owned()
    };
    let start_dstore = |controllers: &str| {
        let mut dstore = spawn(&["dstore", "--port", "0", "--controllers", controllers, "--data", text(&disk)]);
        dstore.wait_for_log("Dstore of the store");
        dstore
    };
    let mut dstore = start_dstore(&address(&user));
    put_files(&user);
    controller.signal("TERM");
    assert!(controller.wait_for_exit().success());
    fs::remove_dir_all(&data).unwrap();
    // The Dstore goes on running meanwhile, and has the secret.
    let recover = ["recover", "--data", text(&data), "--from", text(&disk)];
    user.ok(&recover);
    // As if a kill had come before its last step: the same words finish it.
    fs::remove_file(data.join("cluster.toml")).unwrap();
    let mut refused = spawn(&["controller", "--port", "0", "--data", text(&data)]);
    assert_eq!(refused.wait_for_exit().code(), Some(1));
    assert!(refused.comes_to_log("stevedore recover --data"));
    user.ok(&recover);
    let _controller = start(&["controller", "--port", "0", "--data", text(&data)]);
    dstore.signal("TERM");
    assert!(dstore.wait_for_exit().success());
    let _dstore = start_dstore(&address(&user));
    check_files(&user);
}

#[test]
fn a_lost_log_is_replaced_by_the_words_of_the_message() {
    let mut store = Whole::start(3, "never");
    put_files(&store.user);
    end(&mut store);
    fs::remove_dir_all(store.local("disk1/controller")).unwrap();
    let said = refuses_to_start(&store);
    store.user.ok(&words_to_type(&said, "stevedore recover"));
    // What it has is newer than any backup now.
    assert!(store.user.fails(&words_to_type(&said, "stevedore recover")).1.contains("there is a log"));
    store.kill_and_start();
    check_files(&store.user);
    // The history is a new one, and what descends from it is followed.
    store.end_and_start();
    check_files(&store.user);
}

#[test]
fn an_old_copy_is_refused_and_serves_again_once_recovered() {
    let mut store = Whole::start(2, "never");
    put_files(&store.user);
    end(&mut store);
    let (log, old) = (store.local("disk1/controller"), store.local("old"));
    copy_folder(&log, &old);
    store.kill_and_start();
    put(&store.user, "/lost", b"in the time that the copy knows nothing of");
    // An unclean end without syncs begins a history that the copy knows nothing of either.
    store.kill_and_start();
    end(&mut store);
    fs::remove_dir_all(&log).unwrap();
    fs::rename(&old, &log).unwrap();
    let said = refuses_to_start(&store);
    assert!(said.contains("old copy") && said.contains("--history"), "{said}");
    let words = words_to_type(&said, "stevedore recover");
    let (_, asked) = store.user.fails(&words);
    assert!(asked.contains("what was changed later is lost") && asked.contains("--yes"), "{asked}");
    assert!(refuses_to_start(&store).contains("old copy"), "nothing was done");
    store.user.ok(&[&words[..], &["--yes"]].concat());
    store.kill_and_start();
    check_files(&store.user);
    assert_eq!(store.user.fails(&["stat", "/lost"]).0, 3);
    put(&store.user, "/next", b"content");
    store.end_and_start();
    assert_eq!(store.user.ok(&["cat", "/next"]), "content");
}

#[test]
fn a_damaged_log_goes_on_up_to_the_damage() {
    let mut store = Whole::start(1, "always");
    put_files(&store.user);
    for number in 0..5 {
        put(&store.user, &format!("/late/{number}"), b"x");
    }
    store.server.kill(); // a clean end would write a snapshot, which covers the damage
    let controller = store.local("disk1/controller");
    let name = kit::folder::names(&controller).into_iter().rfind(|name| name.starts_with("log-")).unwrap();
    let mut log = fs::read(controller.join(&name)).unwrap();
    let place = log.windows(7).position(|window| window == b"/late/3").expect("the change");
    log[place] ^= 1;
    fs::write(controller.join(&name), log).unwrap();
    let said = refuses_to_start(&store);
    assert!(said.contains("the log is damaged"), "{said}");
    let words = words_to_type(&said, "stevedore recover");
    let (_, asked) = store.user.fails(&words);
    assert!(asked.contains("damaged at byte") && asked.contains("at least, are lost"), "{asked}");
    store.user.ok(&[&words[..], &["--yes"]].concat());
    store.kill_and_start();
    check_files(&store.user);
    assert_eq!(store.user.ok(&["ls", "/late"]).lines().collect::<Vec<_>>(), ["0", "1", "2"]);
    assert!(kit::folder::names(&controller).iter().any(|kept| kept.starts_with("before-") && kept.ends_with(&name)));
}

#[test]
fn a_backup_is_restored_in_its_place_and_elsewhere() {
    let mut store = Whole::start(2, "never");
    put_files(&store.user);
    let backup = store.local("store.backup");
    let said = store.user.ok(&["backup", text(&backup)]);
    assert!(said.contains("13 entries") && said.contains("10 minutes"), "{said}");
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600, "all names are in it");
    let piped = store.user.run(&["backup", "-"]).stdout;
    assert!(piped == fs::read(&backup).unwrap(), "nothing has changed since");
    put(&store.user, "/later", b"x");
    store.user.ok(&["rm", "/kept/1"]);
    let disk1 = store.local("disk1");
    let restore = ["restore", "--from", text(&backup), "--data", text(&disk1)];
    assert!(store.user.fails(&restore).1.contains("is used by another process"));
    end(&mut store);
    let (_, asked) = store.user.fails(&restore);
    assert!(asked.contains("the store goes back to change"), "{asked}");
    store.user.ok(&[&restore[..], &["--yes"]].concat());
    store.kill_and_start();
    check_files(&store.user);
    assert_eq!(store.user.fails(&["stat", "/later"]).0, 3);
    // Its object is kept, as another backup may know it, until an operator says that it can go.
    let unclaimed = || store.user.json(&["status", "--json"])["healing"]["unclaimed"].as_u64();
    eventually("the object of the lost time is reported", || unclaimed() == Some(1));
    assert!(store.user.ok(&["check"]).contains("1 unclaimed object (1 B)"));
    assert_eq!(store.user.fails(&["collect"]).0, 2, "it is to be said what");
    let (_, asked) = store.user.fails(&["collect", "--unclaimed"]);
    assert!(asked.contains("1 unclaimed object (1 B)") && asked.contains("--yes"), "{asked}");
    assert_eq!(unclaimed(), Some(1));
    store.user.ok(&["collect", "--unclaimed", "--yes"]);
    assert_eq!(unclaimed(), Some(0));
    assert!(store.user.ok(&["collect", "--unclaimed"]).contains("no unclaimed objects"));
    end(&mut store);
    // A second time, elsewhere: the Dstores have followed a history that the backup does not know.
    let elsewhere = store.local("elsewhere");
    let restore = ["restore", "--from", text(&backup), "--data", text(&elsewhere)];
    assert!(store.user.fails(&restore).1.contains("--cluster"));
    let cluster = disk1.join("cluster.toml");
    let with_cluster = [&["--cluster", text(&cluster)], &restore[..]].concat();
    let said = store.user.ok(&with_cluster);
    assert!(said.contains("stevedore controller --data"), "{said}");
    let controller = start(&["controller", "--port", "0", "--data", text(&elsewhere)]);
    let user = User { cluster: elsewhere };
    assert_eq!(user.json(&["status", "--json"])["entries"], FILES + 1);
    drop(controller);
}

#[test]
fn a_backup_that_is_no_backup_is_refused() {
    let store = Whole::start(1, "never");
    put_files(&store.user);
    let (backup, data) = (store.local("backup"), store.local("data"));
    store.user.ok(&["backup", text(&backup)]);
    let mut altered = fs::read(&backup).unwrap();
    let place = altered.len() / 2;
    altered[place] ^= 1;
    fs::write(&backup, altered).unwrap();
    let words = ["restore", "--from", text(&backup), "--data", text(&data), "--new-secret"];
    assert!(store.user.fails(&words).1.contains("cannot be restored"));
    assert!(!data.exists(), "nothing was made");
    let other = Whole::start(1, "never");
    other.user.ok(&["backup", text(&backup)]);
    let cluster = store.local("disk1/cluster.toml");
    let (_, said) = store.user.fails(&[&["--cluster", text(&cluster)], &words[..5]].concat());
    assert!(said.contains("another store"), "{said}");
}

#[test]
fn a_kill_at_any_instant_leaves_the_old_store_or_the_new() {
    let mut store = Whole::start(1, "never");
    put_files(&store.user);
    let (backup, disk1) = (store.local("backup"), store.local("disk1"));
    store.user.ok(&["backup", text(&backup)]);
    let mut random = Rng::stream(7, 0);
    for round in 0..6 {
        put(&store.user, "/later", b"x");
        end(&mut store);
        let words = ["restore", "--yes", "--from", text(&backup), "--data", text(&disk1)];
        let mut restoring = store.user.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Time is under test: the kill comes at any instant.
        thread::sleep(random.duration(Duration::ZERO, Duration::from_millis(60)));
        let _ = restoring.kill();
        let was_done = restoring.wait().unwrap().success();
        store.kill_and_start();
        check_files(&store.user);
        let is_new = !store.user.run(&["stat", "/later"]).status.success();
        assert!(is_new || !was_done, "round {round}: it said that it was done");
    }
}
