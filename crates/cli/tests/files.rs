//! The commands for files, against a store in memory.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path as LocalPath;
use std::time::{Duration, UNIX_EPOCH};

use argh::FromArgs;
use cli::Arguments;
use cli::session::Session;
use cli::words::prepare;
use depot::client::memory::Memory;
use depot::client::{Files, ListOptions};
use depot::namespace::change::{Condition, Settings};
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use kit::TempFolder;
use stevedore::program::{Failure, exit_code};

const DOES_NOT_EXIST: Result<(), u8> = Err(exit_code::DOES_NOT_EXIST);
const ALREADY_EXISTS: Result<(), u8> = Err(exit_code::ALREADY_EXISTS);
const FAILED: Result<(), u8> = Err(exit_code::FAILED);
const USAGE: Result<(), u8> = Err(exit_code::USAGE);

fn store() -> Memory {
    Memory::new("test").expect("random bytes")
}

fn path(text: &str) -> Path {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// Does what these words say; the exit code if it fails.
fn run(store: &Memory, words: &[&str]) -> Result<(), u8> {
    try_run(store, words).map_err(|failure| failure.code)
}

fn try_run(store: &Memory, words: &[&str]) -> Result<(), Failure> {
    let words = prepare(words.iter().map(|word| (*word).to_owned()).collect());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let arguments = Arguments::from_args(&["stevedore"], &words)
        .map_err(|exit| if exit.status.is_err() { Failure::usage(exit.output) } else { Failure::new(exit.output) })?;
    arguments.command.run_in(&Session::new(store))
}

fn content(store: &Memory, at: &str) -> Vec<u8> {
    let mut file = store.get(&path(at), Condition::Any).unwrap_or_else(|error| panic!("{at}: {error}"));
    let mut bytes = Vec::new();
    let size = file.size();
    file.copy_to(0..size, &mut bytes).expect("memory can be read");
    bytes
}

fn names(store: &Memory, at: &str) -> Vec<String> {
    let options = ListOptions { is_recursive: true, ..ListOptions::default() };
    store.list(&path(at), &options).expect("a directory").entries.into_iter().map(|listed| listed.name).collect()
}

fn stat(store: &Memory, at: &str) -> Stat {
    store.stat(&path(at)).unwrap_or_else(|error| panic!("{at}: {error}"))
}

/// Everything below a local folder: content, permissions, time; directories without content.
fn look(folder: &LocalPath) -> BTreeMap<String, (Option<Vec<u8>>, u32, u64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_symlink() {
                continue;
            }
            let content = metadata.is_file().then(|| fs::read(&path).unwrap());
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            found.insert(name, (content, metadata.mode() & 0o777, metadata.mtime() as u64));
            if metadata.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

fn set_time(path: &LocalPath, seconds: u64) {
    let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(seconds));
    File::open(path).unwrap().set_times(times).unwrap();
}

/// A tree with names that are awkward anywhere, empty files and directories, permissions and times of its own.
fn tree() -> TempFolder {
    let folder = TempFolder::new();
    let at = |name: &str| folder.path().join(name);
    for directory in ["deep/er/est", "empty", "with blank", "%41", "-dash"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    let files = [
        ("nothing", 0),
        ("one", 1),
        ("deep/a", 64 << 10),
        ("deep/er/b", (64 << 10) + 1),
        ("deep/er/est/c", (1 << 20) + 1),
        ("with blank/two  blanks", 3),
        ("%41/100%", 4),
        ("-dash/-f", 5),
        ("naïve 日本", 6),
        ("new\nline", 7),
        ("back\\slash \"quoted\"", 8),
    ];
    for (number, (name, size)) in files.iter().enumerate() {
        fs::write(at(name), kit::bytes(number as u64, *size)).unwrap();
        set_time(&at(name), 1_000_000_000 + number as u64);
    }
    fs::set_permissions(at("one"), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(at("nothing"), Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(at("empty"), Permissions::from_mode(0o700)).unwrap();
    for (number, name) in ["deep/er/est", "deep/er", "deep", "empty", "with blank", "%41", "-dash"].iter().enumerate() {
        set_time(&at(name), 1_100_000_000 + number as u64);
    }
    folder
}

fn text(path: &LocalPath) -> &str {
    path.to_str().expect("a path of ours")
}

#[test]
fn a_tree_comes_back_with_permissions_and_times() {
    let (store, from, to) = (store(), tree(), TempFolder::new());
    // Several chunks, and no file of a chunk's size only.
    store.set(&Settings { chunk_bytes: 100_000, ..store.settings().unwrap() }).unwrap();
    assert_eq!(run(&store, &["put", "-r", text(from.path()), "/docs"]), Ok(()));
    assert_eq!(stat(&store, "/docs/one").details.attributes["mode"], "755");
    assert_eq!(stat(&store, "/docs/empty").modified_ms, 1_100_000_003_000);
    let target = to.path().join("copy");
    assert_eq!(run(&store, &["get", "-r", "/docs", text(&target)]), Ok(()));
    assert_eq!(look(&target), look(from.path()));
}

#[test]
fn what_is_there_already_is_not_sent_again() {
    let (store, from, to) = (store(), tree(), TempFolder::new());
    let put = ["put", "-r", "--jobs", "3", text(from.path()), "/docs"];
    assert_eq!(run(&store, &put), Ok(()));
    let before = store.status().unwrap().version;
    assert_eq!(run(&store, &put), Ok(()));
    assert_eq!(store.status().unwrap().version, before, "nothing has changed");
    // A part of it is lost, and a file of the same size has other content.
    assert_eq!(run(&store, &["rm", "-r", "-y", "/docs/deep"]), Ok(()));
    let one = stat(&store, "/docs/naïve 日本").version;
    fs::write(from.path().join("one"), b"!").unwrap();
    assert_eq!(run(&store, &put), Ok(()));
    assert_eq!(content(&store, "/docs/one"), b"!");
    assert_eq!(stat(&store, "/docs/naïve 日本").version, one, "not put again");
    // The same on the way back: the inode of a file that is there stays.
    let get = ["get", "-r", "/docs", text(to.path())];
    assert_eq!(run(&store, &get), Ok(()));
    let inode = |name| fs::metadata(to.path().join(name)).unwrap().ino();
    let before = (inode("deep/a"), inode("one"));
    fs::write(to.path().join("one"), b"?").unwrap();
    assert_eq!(run(&store, &get), Ok(()));
    assert_eq!(inode("deep/a"), before.0, "it was there already");
    assert_ne!(inode("one"), before.1, "it was replaced as a whole");
    assert_eq!(look(to.path()), look(from.path()));
}

#[test]
fn words_say_where_a_file_goes_as_cp_has_them() {
    let (store, folder) = (store(), TempFolder::new());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("a"), "A").unwrap();
    fs::write(at("b"), "B").unwrap();
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/c"), "C").unwrap();
    for (words, expected) in [
        (vec!["put", &at("a"), "/x/new"], vec!["x/", "x/new"]),
        (vec!["put", &at("a"), "/x/"], vec!["x/", "x/a", "x/new"]),
        (vec!["put", &at("b"), "/x"], vec!["x/", "x/a", "x/b", "x/new"]),
        (vec!["put", "-r", &at("dir"), "/y"], vec!["y/", "y/c"]),
        (vec!["put", "-r", &at("dir"), "/y"], vec!["y/", "y/c"]),
        (vec!["put", "-r", &at("dir"), "/y/"], vec!["y/", "y/c", "y/dir/", "y/dir/c"]),
        (vec!["put", "-r", &at("dir"), &at("a"), "/z"], vec!["z/", "z/a", "z/dir/", "z/dir/c"]),
    ] {
        assert_eq!(run(&store, &words), Ok(()), "{words:?}");
        let top = expected[0].trim_end_matches('/');
        let there: Vec<_> = names(&store, "/").into_iter().filter(|name| name.starts_with(top)).collect();
        assert_eq!(there, expected, "{words:?}");
    }
    for (words, expected) in [
        (vec!["get", "/x/a", &at("got")], "got"),
        (vec!["get", "/x/a", &at("dir")], "dir/a"),
        (vec!["get", "/x/new", &at("dir/")], "dir/new"),
        (vec!["get", "/x/a", &at("made/on the way/")], "made/on the way/a"),
        (vec!["get", "-r", "/y", &at("tree")], "tree/dir/c"),
        (vec!["get", "-r", "/y", &at("tree/")], "tree/y/dir/c"),
        (vec!["get", "-r", "/y", "/x/a", &at("many")], "many/y/c"),
    ] {
        fs::create_dir_all(at("many")).unwrap();
        assert_eq!(run(&store, &words), Ok(()), "{words:?}");
        assert!(LocalPath::new(&at(expected)).is_file(), "{words:?}: no {expected}");
    }
}

#[test]
fn a_failure_is_told_by_its_exit_code_and_the_others_go_on() {
    let (store, folder) = (store(), TempFolder::new());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("a"), "A").unwrap();
    symlink("a", at("link")).unwrap();
    assert_eq!(run(&store, &["put", &at("missing"), &at("a"), "/x"]), FAILED);
    assert_eq!(content(&store, "/x/a"), b"A", "the other one is put");
    assert_eq!(run(&store, &["put", folder.path().to_str().unwrap(), "/y"]), FAILED, "a directory needs -r");
    assert_eq!(run(&store, &["put", "--no-replace", &at("a"), "/x/b"]), Ok(()));
    fs::write(at("a"), "B").unwrap();
    assert_eq!(run(&store, &["put", "--no-replace", &at("a"), "/x/b"]), ALREADY_EXISTS);
    assert_eq!(content(&store, "/x/b"), b"A");
    assert_eq!(run(&store, &["put", &at("a"), "/x/b/c"]), FAILED, "a file is on the way");
    assert_eq!(run(&store, &["put", &at("a"), &at("a"), "/same"]), USAGE, "two of one name");
    assert_eq!(run(&store, &["put", "-r", text(folder.path()), "/links"]), Ok(()), "a link is no failure");
    assert_eq!(names(&store, "/links"), ["a"]);
    assert_eq!(run(&store, &["get", "/nowhere", &at("x")]), DOES_NOT_EXIST);
    assert_eq!(run(&store, &["get", "/nowhere", "/x/a", text(folder.path())]), DOES_NOT_EXIST);
    assert_eq!(fs::read(at("a")).unwrap(), b"A", "the other one is there");
    assert_eq!(run(&store, &["get", "/x", &at("y")]), FAILED, "a directory needs -r");
    for words in [&["put"][..], &["put", "x"], &["get"], &["put", &at("a"), "relative"], &["ls", "relative"]] {
        assert_eq!(run(&store, words), USAGE, "{words:?}");
    }
    assert_eq!(run(&store, &["ls", "/nowhere"]), DOES_NOT_EXIST);
    assert_eq!(run(&store, &["stat", "/nowhere"]), DOES_NOT_EXIST);
    assert_eq!(run(&store, &["cat", "/x"]), FAILED);
}

#[test]
fn an_unfinished_get_leaves_no_file() {
    let (store, folder) = (store(), TempFolder::new());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("a"), "A").unwrap();
    fs::create_dir(at("taken")).unwrap();
    run(&store, &["put", &at("a"), "/taken"]).unwrap();
    run(&store, &["put", &at("a"), "/other"]).unwrap();
    // The file cannot have the directory's name.
    assert_eq!(run(&store, &["get", "/taken", "/other", text(folder.path())]), FAILED);
    assert_eq!(folder.names(), ["a", "other", "taken"]);
}

#[test]
fn a_get_replaces_files_only_and_leaves_links_where_they_are() {
    let (store, folder) = (store(), TempFolder::new());
    let [from, real, link, pipe] = ["from", "real", "link", "pipe"].map(|name| folder.path().join(name));
    fs::write(&from, "content").unwrap();
    run(&store, &["put", text(&from), "/a"]).unwrap();
    fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    run(&store, &["get", "/a", text(&link)]).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "the link stays");
    assert_eq!(fs::read_to_string(&real).unwrap(), "content");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(run(&store, &["get", "/a", text(&pipe)]), FAILED);
    assert!(!fs::symlink_metadata(&pipe).unwrap().is_file(), "the pipe is a pipe still");
    assert_eq!(run(&store, &["put", text(&pipe), "/b"]), FAILED, "nor is it waited for");
}

#[test]
fn what_replaces_or_removes_much_is_refused_without_yes() {
    let store = store();
    let folder = TempFolder::new();
    let file = folder.path().join("f");
    fs::write(&file, "F").unwrap();
    for at in ["/a/x", "/b/y", "/c"] {
        run(&store, &["put", text(&file), at]).unwrap();
    }
    let before = names(&store, "/");
    // A test has no terminal.
    assert_eq!(run(&store, &["rm", "-r", "/a"]), FAILED);
    assert_eq!(run(&store, &["rmdir", "-r", "/a"]), FAILED);
    assert_eq!(run(&store, &["rmdir", "/a"]), FAILED);
    assert_eq!(run(&store, &["rm", "/a"]), FAILED);
    assert_eq!(run(&store, &["mv", "/c", "/a/x"]), ALREADY_EXISTS);
    assert_eq!(run(&store, &["cp", "/c", "/a/x"]), ALREADY_EXISTS);
    assert_eq!(run(&store, &["mv", "--replace", "/a", "/b"]), ALREADY_EXISTS);
    assert_eq!(run(&store, &["format", "test"]), FAILED);
    assert_eq!(run(&store, &["format", "--yes", "other"]), FAILED);
    assert_eq!(names(&store, "/"), before);
    assert_eq!(run(&store, &["mv", "--replace", "--yes", "/a", "/b"]), Ok(()));
    assert_eq!(names(&store, "/"), ["b/", "b/x", "c"]);
    assert_eq!(run(&store, &["mv", "/b", "/c", "/d/"]), Ok(()));
    assert_eq!(run(&store, &["mv", "--yes", "/d/c", "/d/b/x"]), Ok(()));
    assert_eq!(names(&store, "/"), ["d/", "d/b/", "d/b/x"]);
    assert_eq!(run(&store, &["rm", "-r", "--yes", "/d"]), Ok(()));
    assert_eq!(names(&store, "/"), [""; 0]);
    run(&store, &["put", text(&file), "/a/x"]).unwrap();
    assert_eq!(run(&store, &["format", "--yes", "test"]), Ok(()));
    assert_eq!(names(&store, "/"), [""; 0]);
}

#[test]
fn copies_of_any_size_are_made_without_moving_bytes() {
    let store = store();
    let folder = TempFolder::new();
    let file = folder.path().join("f");
    fs::write(&file, "F").unwrap();
    run(&store, &["put", text(&file), "/a/0"]).unwrap();
    for number in 1..10_100 {
        let copy = depot::client::CopyOptions::default();
        store.copy(&path("/a/0"), &path(&format!("/a/{number}")), &copy).unwrap();
    }
    run(&store, &["mkdir", "-p", "/a/empty/inner"]).unwrap();
    assert_eq!(run(&store, &["cp", "/a", "/b"]), FAILED, "a directory needs -r");
    assert_eq!(run(&store, &["cp", "-r", "/a", "/b"]), Ok(()), "more than one change may copy");
    let Kind::Directory { entries, .. } = stat(&store, "/b").kind else { panic!("a directory") };
    assert_eq!(entries, 10_101);
    assert_eq!(content(&store, "/b/10099"), b"F");
    assert!(matches!(stat(&store, "/b/empty/inner").kind, Kind::Directory { is_explicit: true, .. }));
    assert_eq!(store.status().unwrap().objects, 1);
    assert_eq!(run(&store, &["cp", "-r", "/a", "/a/inside"]), FAILED);
}

#[test]
fn directories_are_made_with_those_on_the_way() {
    let store = store();
    assert_eq!(run(&store, &["mkdir", "/a/b"]), DOES_NOT_EXIST);
    assert_eq!(run(&store, &["mkdir", "-p", "/a/b"]), Ok(()));
    assert_eq!(run(&store, &["mkdir", "-p", "/a/b"]), Ok(()));
    assert_eq!(run(&store, &["mkdir", "/a/b"]), ALREADY_EXISTS);
    assert_eq!(run(&store, &["rmdir", "/a/b"]), Ok(()));
    assert_eq!(run(&store, &["rmdir", "/a/b"]), DOES_NOT_EXIST);
}

#[test]
fn every_command_teaches_itself() {
    let commands = [
        "put",
        "get",
        "cat",
        "ls",
        "tree",
        "find",
        "du",
        "stat",
        "rm",
        "mv",
        "cp",
        "mkdir",
        "rmdir",
        "watch",
        "shell",
        "status",
        "set",
        "format",
        "serve",
        "controller",
        "dstore",
        "gateway",
        "user",
    ];
    let store = store();
    for command in commands {
        let help = try_run(&store, &[command, "--help"]).expect_err("help ends it").message;
        let example = help.split_once("Examples:").map(|(_, examples)| examples).unwrap_or_default();
        assert!(example.contains(&format!("stevedore {command}")), "{command} has no example:\n{help}");
    }
}
