//! What is in the folder after each thing that can happen to a file. (spec 5.1, 7.11, 7.12, 7.15, 7.17)

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::thread;

use kit::TempFolder;

use super::*;
use crate::protocol::content::CopyError;

/// A Dstore's folder inside a temporary one, which goes at the end.
struct Fixture {
    root: TempFolder,
    path: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let root = TempFolder::new();
        let path = root.path().join("files");
        Self { root, path }
    }

    fn open(&self) -> Folder {
        Folder::open_empty(&self.path, false).unwrap()
    }

    /// The same, or `None` where the file system has no attributes.
    fn open_to_verify(&self) -> Option<Folder> {
        let folder = Some(self.open()).filter(|folder| folder.has_checksums);
        if folder.is_none() {
            eprintln!("SKIPPED: the file system of {} has no extended attributes", self.root.path().display());
        }
        folder
    }

    /// Everything that is there, hidden or not.
    fn names(&self) -> Vec<String> {
        kit::folder::names(&self.path)
    }

    fn content(&self, name: &str) -> String {
        fs::read_to_string(self.path.join(name)).unwrap()
    }
}

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

fn read(file: &mut StoredFile) -> Result<String, CopyError<Defect>> {
    let mut content = Vec::new();
    file.read(&mut |bytes| content.write_all(bytes))?;
    Ok(String::from_utf8(content).unwrap())
}

/// Begins to take in a file, and has all of its content come.
fn arrive<'a>(folder: &'a Folder, file: &str, content: &str) -> Incoming<'a> {
    let mut incoming = folder.receive(&name(file)).unwrap();
    incoming.write_all(content.as_bytes()).unwrap();
    incoming
}

fn store(folder: &Folder, file: &str, content: &str) {
    assert!(arrive(folder, file, content).keep().unwrap());
}

#[test]
fn a_missing_folder_is_made_with_all_above_it() {
    // spec 5.1, 5.3
    let fixture = Fixture::new();
    let deep = fixture.path.join("a/b");
    Folder::open_empty(&deep, false).unwrap();
    assert!(deep.is_dir());
}

#[test]
fn whatever_lies_in_the_folder_is_gone_after_the_start() {
    // spec 5.1
    let fixture = Fixture::new();
    fs::create_dir(&fixture.path).unwrap();
    for file in ["f", ".hidden", ".incoming 7", "two words"] {
        fs::write(fixture.path.join(file), "old").unwrap();
    }
    let outside = fixture.root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&outside, fixture.path.join("link")).unwrap();
    let folder = fixture.open();
    assert_eq!(fixture.names(), [""; 0]);
    assert_eq!(folder.list().unwrap(), []);
    assert!(outside.join("precious").exists(), "a link goes, and not what it points to");
}

/// What was moved out of the folder, with the content of each file.
fn set_aside(fixture: &Fixture, number: u32) -> Vec<(String, String)> {
    let aside = fixture.root.path().join(format!("files.set-aside-{number}"));
    let Ok(entries) = fs::read_dir(aside) else { return Vec::new() };
    let read = |entry: fs::DirEntry| {
        let content = fs::read_to_string(entry.path()).unwrap_or_default();
        (entry.file_name().into_string().unwrap(), content)
    };
    let mut files: Vec<_> = entries.map(|entry| read(entry.unwrap())).collect();
    files.sort();
    files
}

#[test]
fn what_a_dstore_has_written_goes_and_what_it_has_not_is_moved() {
    // spec 5.1, 7.15: by what a file carries, and not by its name
    let fixture = Fixture::new();
    let Some(folder) = fixture.open_to_verify() else { return };
    store(&folder, "ours", "content");
    let half = arrive(&folder, "half", "con");
    std::mem::forget(half); // its Dstore is killed
    drop(folder);
    fs::write(fixture.path.join("photo"), "mine").unwrap();
    fs::write(fixture.path.join(".incoming photo"), "mine, too").unwrap();
    let folder = fixture.open();
    assert_eq!(fixture.names(), [""; 0]);
    let moved = [(".incoming photo", "mine, too"), ("photo", "mine")].map(|(n, c)| (n.to_owned(), c.to_owned()));
    assert_eq!(set_aside(&fixture, 1), moved);
    drop(folder);

    fs::write(fixture.path.join("photo"), "another").unwrap();
    drop(fixture.open());
    assert_eq!(set_aside(&fixture, 1), moved, "untouched from then on");
    assert_eq!(set_aside(&fixture, 2), [("photo".to_owned(), "another".to_owned())]);

    drop(fixture.open());
    assert_eq!(set_aside(&fixture, 3), [], "nothing to move, no folder");
}

#[test]
#[cfg(unix)]
fn what_is_moved_out_of_the_folder_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt;

    let fixture = Fixture::new();
    fs::create_dir(&fixture.path).unwrap();
    fs::write(fixture.path.join("diary"), "dear").unwrap();
    drop(fixture.open());
    let aside = fixture.root.path().join("files.set-aside-1");
    assert_eq!(fs::metadata(aside).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn force_deletes_what_would_be_moved() {
    // spec 7.15
    let fixture = Fixture::new();
    fs::create_dir(&fixture.path).unwrap();
    fs::write(fixture.path.join("old"), "").unwrap();
    drop(Folder::open_empty(&fixture.path, true).unwrap());
    assert_eq!(fixture.names(), [""; 0]);
    assert_eq!(set_aside(&fixture, 1), []);
}

#[test]
fn a_folder_with_subfolders_is_refused_untouched_unless_forced() {
    // spec 7.15
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path.join("photos/summer")).unwrap();
    fs::write(fixture.path.join("a letter"), "dear").unwrap();
    fs::write(fixture.path.join("photos/sea"), "blue").unwrap();

    let Err(error) = Folder::open_empty(&fixture.path, false) else { panic!("opened") };
    assert!(matches!(&error, StartError::FolderInUse { inner, .. } if *inner == fixture.path.join("photos")));
    assert!(error.to_string().contains("photos"), "{error}");
    assert_eq!(fixture.names(), ["a letter", "photos"]);
    assert_eq!(fixture.content("photos/sea"), "blue");

    Folder::open_empty(&fixture.path, true).unwrap();
    assert_eq!(fixture.names(), [""; 0]);
}

#[test]
fn what_is_no_folder_cannot_be_opened_as_one() {
    let fixture = Fixture::new();
    fs::write(&fixture.path, "a file").unwrap();
    assert!(matches!(Folder::open_empty(&fixture.path, true), Err(StartError::Folder { .. })));
    assert_eq!(fs::read_to_string(&fixture.path).unwrap(), "a file");
}

#[test]
fn a_file_appears_under_its_name_only_once_it_is_whole() {
    // spec 5.1, 7.11
    let fixture = Fixture::new();
    let folder = fixture.open();
    let incoming = arrive(&folder, "f", "hello");
    assert_eq!(fixture.names(), [".incoming 1"], "a name that no client can use");
    assert_eq!(folder.list().unwrap(), []);
    assert!(matches!(folder.open(&name("f")), Err(Defect::Missing)));
    assert!(incoming.keep().unwrap());
    assert_eq!(fixture.names(), ["f"]);
    assert_eq!(fixture.content("f"), "hello");
    assert_eq!(folder.open(&name("f")).unwrap().size(), 5);
}

#[test]
fn an_abandoned_arrival_changes_nothing_in_the_folder() {
    // spec 7.11
    let fixture = Fixture::new();
    let folder = fixture.open();
    store(&folder, "f", "first");
    drop(arrive(&folder, "f", "half of the sec"));
    drop(folder.receive(&name("g")).unwrap());
    assert_eq!(fixture.names(), ["f"]);
    assert_eq!(fixture.content("f"), "first");
    assert!(folder.state.lock().newest.is_empty(), "nothing is remembered for ever");
}

#[test]
fn nothing_is_remembered_of_files_that_have_come_and_gone() {
    let fixture = Fixture::new();
    let folder = fixture.open();
    store(&folder, "f", "1");
    folder.order_removal(&[name("f"), name("never-here")]);
    folder.remove_as_ordered(&name("f")).unwrap();
    folder.remove_as_ordered(&name("never-here")).unwrap();
    let incoming = arrive(&folder, "g", "2");
    folder.remove(&name("g")).unwrap();
    assert!(!incoming.keep().unwrap());
    let state = folder.state.lock();
    assert!(state.newest.is_empty() && state.to_remove.is_empty());
    drop(state);
    assert_eq!(fixture.names(), [""; 0]);
}

#[test]
fn the_newer_of_two_arrivals_wins_whichever_ends_first() {
    // spec 4.2, 7.5: the older one has been given up by the Controller
    let fixture = Fixture::new();
    let folder = fixture.open();
    let older = arrive(&folder, "f", "older");
    let newer = arrive(&folder, "f", "newer");
    assert!(newer.keep().unwrap());
    assert!(!older.keep().unwrap());
    assert_eq!(fixture.content("f"), "newer");

    let older = arrive(&folder, "f", "older still");
    let newer = arrive(&folder, "f", "newest");
    assert!(!older.keep().unwrap());
    assert_eq!(fixture.content("f"), "newer", "until the newest is whole");
    assert!(newer.keep().unwrap());
    assert_eq!(fixture.content("f"), "newest");
    assert_eq!(fixture.names(), ["f"]);
}

#[test]
fn a_remove_overtakes_an_arrival_that_began_before_it() {
    // spec 4.4
    let fixture = Fixture::new();
    let folder = fixture.open();
    let incoming = arrive(&folder, "f", "late");
    assert!(!folder.remove(&name("f")).unwrap(), "it is not there yet");
    assert!(!incoming.keep().unwrap());
    assert_eq!(fixture.names(), [""; 0]);

    store(&folder, "f", "anew");
    assert!(folder.remove(&name("f")).unwrap());
    assert!(!folder.remove(&name("f")).unwrap());
    assert_eq!(fixture.names(), [""; 0]);
}

#[test]
fn a_file_that_is_removed_while_it_is_read_is_read_to_its_end() {
    // spec 4.3, 4.4
    let fixture = Fixture::new();
    let folder = fixture.open();
    store(&folder, "f", "hello");
    let mut file = folder.open(&name("f")).unwrap();
    folder.remove(&name("f")).unwrap();
    assert_eq!(read(&mut file).unwrap(), "hello");
    assert_eq!(file.size(), 5);
}

#[test]
fn an_ordered_removal_is_undone_by_a_new_store_or_by_cancelling() {
    // spec 4.6.5, 7.17
    let fixture = Fixture::new();
    let folder = fixture.open();
    for file in ["goes", "anew", "arriving", "cancelled", "stays"] {
        store(&folder, file, "old");
    }
    let before_the_order = arrive(&folder, "arriving", "new");
    folder.order_removal(&[name("goes"), name("anew"), name("cancelled")]);
    store(&folder, "anew", "new");
    folder.cancel_removal(&name("cancelled"));
    for file in ["goes", "anew", "cancelled", "stays"] {
        folder.remove_as_ordered(&name(file)).unwrap();
    }
    assert!(before_the_order.keep().unwrap());
    assert_eq!(fixture.names(), ["anew", "arriving", "cancelled", "stays"]);
    assert_eq!(fixture.content("anew"), "new");
}

#[test]
fn an_ordered_removal_spares_a_file_that_is_on_its_way_anew() {
    // spec 4.6.5: its content has begun to come, and is not all there when the order is carried out
    let fixture = Fixture::new();
    let folder = fixture.open();
    store(&folder, "f", "old");
    folder.order_removal(&[name("f")]);
    let incoming = arrive(&folder, "f", "new");
    folder.remove_as_ordered(&name("f")).unwrap();
    assert!(incoming.keep().unwrap());
    assert_eq!(fixture.content("f"), "new");
}

#[test]
fn the_list_shows_stored_files_in_order_and_nothing_else() {
    // spec 4.6.1, 7.12
    let fixture = Fixture::new();
    let folder = fixture.open();
    for file in ["b", "a", ".hidden", "naïve", "B"] {
        store(&folder, file, "");
    }
    let _incoming = arrive(&folder, "c", "half");
    fs::create_dir(fixture.path.join("folder")).unwrap();
    fs::write(fixture.path.join("two words"), "").unwrap();
    fs::write(fixture.path.join("back\\slash"), "").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        fs::write(fixture.path.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "").unwrap();
    }
    let names: Vec<_> = folder.list().unwrap().iter().map(|name| name.to_string()).collect();
    assert_eq!(names, [".hidden", "B", "a", "b", "naïve"]);
}

#[test]
fn a_folder_that_has_gone_is_an_error_and_no_panic() {
    let fixture = Fixture::new();
    let folder = fixture.open();
    let incoming = arrive(&folder, "f", "hello");
    fs::remove_dir_all(&fixture.path).unwrap();
    assert!(incoming.keep().is_err());
    assert!(folder.receive(&name("g")).is_err());
    assert!(folder.list().is_err());
    assert!(!folder.remove(&name("f")).unwrap());
    assert!(folder.state.lock().newest.is_empty(), "nothing is remembered of what failed");
}

#[test]
fn many_at_once_leave_one_whole_file_and_nothing_else() {
    // spec 5.1, 7.11: each arrival is kept, given up, or overtaken by another or by a remove
    let fixture = Fixture::new();
    let folder = fixture.open();
    thread::scope(|scope| {
        for thread in 0..8 {
            let folder = &folder;
            scope.spawn(move || {
                for turn in 0..200 {
                    let incoming = arrive(folder, "f", &format!("{thread} {turn}\n").repeat(50));
                    match (thread + turn) % 5 {
                        0 => drop(incoming),
                        1 => {
                            folder.remove(&name("f")).unwrap();
                            incoming.keep().unwrap();
                        }
                        _ => drop(incoming.keep().unwrap()),
                    }
                }
            });
        }
    });
    store(&folder, "f", "the last");
    assert_eq!(fixture.names(), ["f"]);
    assert_eq!(fixture.content("f"), "the last");
    assert!(folder.state.lock().newest.is_empty());
}

type Damage = (&'static str, fn(&Path));

/// What can befall the file at a path, to leave another than was stored.
const DAMAGES: [Damage; 6] = [
    ("a bit is flipped at the beginning", |path| flip_bit(path, 0)),
    ("a bit is flipped at the end", |path| flip_bit(path, fs::metadata(path).unwrap().len() - 1)),
    ("it is cut short", |path| set_length(path, |length| length - 1)),
    ("it is emptied", |path| set_length(path, |_| 0)),
    ("it is longer", |path| set_length(path, |length| length + 1)),
    ("it is another stored file", |path| fs::rename(path.with_file_name("other"), path).unwrap()),
];

fn flip_bit(path: &Path, at: u64) {
    let mut content = fs::read(path).unwrap();
    content[at as usize] ^= 0x10;
    fs::write(path, content).unwrap(); // into the same file
}

fn set_length(path: &Path, change: impl Fn(u64) -> u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(change(file.metadata().unwrap().len())).unwrap();
}

#[test]
fn a_damaged_copy_is_never_read_to_its_end_and_then_is_missing() {
    // spec 4.3: its size is what the Controller has said, at most, so that a client takes it for what it is
    for (damage, inflict) in DAMAGES {
        for size in [1, 10, 700_000] {
            let fixture = Fixture::new();
            let Some(folder) = fixture.open_to_verify() else { return };
            store(&folder, "f", &"x".repeat(size));
            store(&folder, "other", &"y".repeat(size));
            inflict(&fixture.path.join("f"));
            let mut given = 0;
            if let Ok(mut file) = folder.open(&name("f")) {
                let outcome = file.read(&mut |bytes| {
                    given += bytes.len();
                    Ok(())
                });
                assert!(outcome.is_err(), "{damage}, {size} bytes");
                assert_eq!(fixture.names().first().map(String::as_str), Some("f"), "nothing is removed on suspicion");
                folder.examine(&file);
            }
            assert!(given < size, "{damage}, {size} bytes: all is given away");
            assert!(!fixture.path.join("f").exists(), "{damage}, {size} bytes");
            assert!(!folder.list().unwrap().contains(&name("f")));
            assert!(matches!(folder.open(&name("f")), Err(Defect::Missing)));
        }
    }
}

#[test]
fn a_copy_with_another_files_checksum_is_bad() {
    let fixture = Fixture::new();
    let Some(folder) = fixture.open_to_verify() else { return };
    store(&folder, "f", "content");
    store(&folder, "g", "content");
    let of_g = checksum::Checksum::of(&File::open(fixture.path.join("g")).unwrap()).unwrap().unwrap();
    of_g.attach(&File::open(fixture.path.join("f")).unwrap()).unwrap();
    let mut file = folder.open(&name("f")).unwrap();
    assert!(matches!(read(&mut file), Err(CopyError::Source(Defect::Altered(_)))));
    folder.examine(&file);
    assert_eq!(fixture.names(), ["g"]);
}

#[test]
fn an_empty_file_is_verified_too() {
    let fixture = Fixture::new();
    let Some(folder) = fixture.open_to_verify() else { return };
    store(&folder, "f", "");
    store(&folder, "g", "");
    assert_eq!(read(&mut folder.open(&name("f")).unwrap()).unwrap(), "");
    fs::rename(fixture.path.join("g"), fixture.path.join("f")).unwrap();
    assert!(read(&mut folder.open(&name("f")).unwrap()).is_err());
}

#[test]
fn what_carries_no_checksum_is_read_as_it_is() {
    // spec 5.1: a file system has no attributes, or a file was put there by hand
    let fixture = Fixture::new();
    let mut folder = fixture.open();
    fs::write(fixture.path.join("by-hand"), "as it is").unwrap();
    assert_eq!(read(&mut folder.open(&name("by-hand")).unwrap()).unwrap(), "as it is");
    folder.has_checksums = false;
    store(&folder, "f", "content");
    assert!(checksum::Checksum::of(&File::open(fixture.path.join("f")).unwrap()).unwrap().is_none());
    flip_bit(&fixture.path.join("f"), 0);
    assert_eq!(read(&mut folder.open(&name("f")).unwrap()).unwrap(), "sontent");
}

#[test]
fn examining_a_replaced_or_removed_file_harms_no_newer_one() {
    // spec 4.2, 4.4
    let fixture = Fixture::new();
    let Some(folder) = fixture.open_to_verify() else { return };
    store(&folder, "f", "old");
    flip_bit(&fixture.path.join("f"), 0);
    let mut bad = folder.open(&name("f")).unwrap();
    let Err(CopyError::Source(defect)) = read(&mut bad) else { panic!("it is bad") };
    folder.remove(&name("f")).unwrap();
    folder.examine(&bad);
    store(&folder, "f", "new");
    folder.examine(&bad);
    folder.take_out(&bad, &defect); // the name has changed hands since it was looked at
    assert_eq!(read(&mut folder.open(&name("f")).unwrap()).unwrap(), "new");
}

#[test]
fn a_copy_that_was_misread_once_stays() {
    let fixture = Fixture::new();
    let folder = fixture.open();
    store(&folder, "f", "content");
    folder.examine(&folder.open(&name("f")).unwrap());
    assert_eq!(read(&mut folder.open(&name("f")).unwrap()).unwrap(), "content");
}

#[test]
fn an_unreadable_copy_is_withheld_but_kept_until_replaced() {
    let fixture = Fixture::new();
    let folder = fixture.open();
    let unreadable = Defect::Unreadable(io::Error::other("I/O error"));
    for file in ["f", "g", "h"] {
        store(&folder, file, "old");
        folder.take_out(&folder.open(&name(file)).unwrap(), &unreadable);
    }
    assert_eq!(folder.list().unwrap(), []);
    assert!(matches!(folder.open(&name("f")), Err(Defect::Missing)));
    assert_eq!(fixture.names(), ["f", "g", "h"]);
    store(&folder, "f", "new");
    assert!(folder.remove(&name("g")).unwrap());
    folder.order_removal(&[name("h")]);
    folder.remove_as_ordered(&name("h")).unwrap();
    store(&folder, "g", "newer");
    assert_eq!(folder.list().unwrap(), [name("f"), name("g")]);
    assert_eq!(read(&mut folder.open(&name("f")).unwrap()).unwrap(), "new");
    assert!(folder.state.lock().withheld.is_empty(), "nothing is remembered for ever");
}

#[test]
fn concurrent_readers_of_bad_copies_get_only_stored_content() {
    // spec 4.2, 4.3: bad copies are found by several at once while the file is stored anew, again and again
    let fixture = Fixture::new();
    let Some(folder) = fixture.open_to_verify() else { return };
    let contents: BTreeSet<_> = (0..200).map(|turn| format!("{turn} ").repeat(2_000)).collect();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(mut file) = folder.open(&name("f")) else { continue };
                    match read(&mut file) {
                        Ok(content) => assert!(contents.contains(&content)),
                        Err(_) => folder.examine(&file),
                    }
                }
            });
        }
        for content in &contents {
            store(&folder, "f", content);
            // Through a descriptor of its own: by name it might hit the next one.
            let file = OpenOptions::new().write(true).open(fixture.path.join("f")).unwrap();
            (&file).write_all(b"bad").unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    store(&folder, "f", "the last");
    assert_eq!(read(&mut folder.open(&name("f")).unwrap()).unwrap(), "the last");
}

/// Has a file arrive that gets its name while another sync holds up its own; does something meanwhile.
fn while_syncing<T>(folder: &Folder, name: &str, meanwhile: impl FnOnce() -> T) -> (io::Result<bool>, T) {
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let is_named = || fs::read_to_string(folder.path.join(name)).is_ok_and(|content| content == "older");
    thread::scope(|scope| {
        let occupied = scope.spawn(move || {
            folder.commits.as_ref().unwrap().commit(|| {
                begun.send(()).unwrap();
                let _ = may_go_on.recv();
                Ok(())
            })
        });
        has_begun.recv().unwrap();
        let keeping = scope.spawn(|| arrive(folder, name, "older").keep());
        while !is_named() && !keeping.is_finished() {
            thread::yield_now();
        }
        let outcome = meanwhile();
        assert!(!keeping.is_finished(), "it waits for a sync that began after it had its name");
        drop(go_on);
        occupied.join().unwrap().unwrap();
        (keeping.join().unwrap(), outcome)
    })
}

#[test]
fn what_is_overtaken_while_it_is_synced_is_not_acknowledged() {
    // spec 4.2, 4.4, 7.5: a thread that is told of a file must find it, and not what came after it
    let fixture = Fixture::new();
    let folder = fixture.open().synced().unwrap();
    assert!(while_syncing(&folder, "f", || ()).0.unwrap());
    assert!(!while_syncing(&folder, "g", || folder.remove(&name("g")).unwrap()).0.unwrap());
    let (kept, newer) = while_syncing(&folder, "h", || arrive(&folder, "h", "newer"));
    assert!(!kept.unwrap());
    assert!(newer.keep().unwrap());
    assert_eq!(fixture.names(), ["f", "h"]);
    assert_eq!(fixture.content("h"), "newer");
    assert!(folder.state.lock().newest.is_empty());
}

#[test]
fn nothing_is_acknowledged_after_a_sync_has_failed() {
    let fixture = Fixture::new();
    let folder = fixture.open().synced().unwrap();
    store(&folder, "f", "before");
    folder.commits.as_ref().unwrap().commit(|| Err(io::Error::other("broken"))).unwrap_err();
    assert!(arrive(&folder, "g", "after").keep().is_err());
    assert!(folder.sync().is_err());
    assert_eq!(read(&mut folder.open(&name("f")).unwrap()).unwrap(), "before", "what is there is served");
}
