//! STORE, from a client. (spec 4.2)

use std::thread;
use std::time::Duration;

use super::super::{Check, Role, basis, checks};
use crate::stage::dstore_scene::DstoreScene;
use crate::stage::failure::{Failure, Verdict, claim, given};
use crate::stage::wire::{Heard, Wire, begins};
use crate::stage::{LARGE, NO_TIMEOUT, QUIET, SHORT, Stage, content};

/// A byte, and both sides of every usual buffer's size, below the 100 kB that the coursework has at most.
const SIZES: [usize; 14] = [1, 2, 999, 1_000, 1_023, 1_024, 1_025, 4_096, 8_191, 8_192, 8_193, 65_535, 65_537, 99_999];

/// These, and one for each size of note.
pub fn checks() -> Vec<Check> {
    let mut checks = acts();
    let asked = || basis!(Sequential STORE_ON_DSTORE);
    let sizes = [
        ("1 byte", 1, asked()),
        ("99 kB", 99_000, asked()),
        ("0 bytes", 0, basis!(Robustness)),
        ("50 MB", 50_000_000, basis!(Robustness)),
    ];
    for (name, bytes, basis) in sizes {
        let claim = format!("A file of {name} is stored whole and loaded whole");
        let id = format!("a-file-of-{}", name.replace(' ', "-"));
        let play = move |stage: &mut Stage| there_and_back(stage, bytes);
        checks.push(Check::new(Role::Dstore, "store", basis, "2.3", &id, claim, play));
    }
    checks
}

checks! { Dstore "store" as acts:
    [Sequential STORE_ON_DSTORE "4.2"] acknowledges_to_both "STORE gets ACK, and once the content is stored the Controller gets STORE_ACK with the file's name"
    [Sequential STORE_ON_DSTORE "4.2"] no_acknowledgement_before_the_content "STORE_ACK does not come before all of the content has"
    [Sequential STORE_ON_DSTORE "4.2"] one_acknowledgement "One STORE brings one STORE_ACK"
    [Sequential FILE_FOLDER "5.1"] the_file_lies_in_the_folder "The bytes that were sent lie in the folder when STORE_ACK comes"
    [Sequential READS_ALL "2.3"] content_in_two_pieces "Content may come in two pieces"
    [Sequential READS_ALL "2.3"] every_byte_value "Content is bytes, not text: line endings and bytes above 127 come through"
    [Sequential READS_ALL "2.3"] sizes_around_buffers "Files of sizes just under and over those of buffers are stored whole"
    [Sequential STORE_ON_DSTORE "6.4"] nothing_but_ack "A client that stores gets ACK and nothing else"
    [Concurrent MANY_CLIENTS "4.2"] ten_clients_at_once "Ten clients store files at the same time"
    [Robustness "2.3"] nothing_is_waited_for "A file of 0 bytes is stored without waiting for content, or for the client to close"
    [Robustness "5.1"] the_file_has_its_own_name "The file lies in the folder under its own name, and nothing else does"
    [Robustness "2.3"] content_together_with_the_line "Content that arrives in the same packet as the STORE line is not lost"
    [Robustness "2.3"] content_in_small_pieces "Content may come in many small pieces"
    [Robustness "2.3"] a_short_content_is_no_file "Content that ends early is never a stored file, and is not acknowledged"
    [Robustness "4.2"] over_an_old_copy "A STORE of a file that the Dstore still has, from a store that was given up, replaces it"
    [Robustness "2.5"] a_slow_client_holds_up_nobody "A client that sends nothing after ACK holds up no other"
    [Robustness "5.1"] nothing_half_written_is_shown "A file that is being stored is not to be seen under its name before it is whole"
    [Robustness "7.11"] content_that_never_comes "When content stops coming, nothing is kept and nothing acknowledged"
    [Robustness "2.3"] surplus_content_is_not_stored "Bytes beyond the announced size are not part of the file"
}

fn acknowledges_to_both(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut client = scene.connect()?;
    client.send("STORE notes.txt 5");
    client.expect_exactly("ACK", stage.patience)?;
    client.send_content_and_close(b"hello");
    scene.expect_exactly("STORE_ACK notes.txt")
}

fn no_acknowledgement_before_the_content(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let client = given(begin(&scene, stage, "a", 10))?;
    scene.expect_silence("no content has come")?;
    client.send_content(b"01234");
    scene.expect_silence("half of the content has come")?;
    client.send_content_and_close(b"56789");
    given(scene.expect("STORE_ACK a"))
}

/// A client that has sent STORE and got its ACK.
fn begin(scene: &DstoreScene, stage: &Stage, name: &str, size: usize) -> Result<Wire, Failure> {
    let mut client = scene.connect()?;
    client.send(&format!("STORE {name} {size}"));
    client.expect("ACK", stage.patience).map_err(|failure| failure.judged_by("dstore/store/acknowledges-to-both"))?;
    Ok(client)
}

fn one_acknowledgement(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"hello"))?;
    scene.expect_silence("it has been acknowledged already")
}

fn the_file_lies_in_the_folder(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, 90_000);
    given(scene.store("large.bin", &bytes))?;
    // Not a moment later: the acknowledgement says that it is there.
    claim(scene.keeps(&bytes), "a file with these 90000 bytes in the folder", "none")
}

fn nothing_is_waited_for(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let _client = given(begin(&scene, stage, "empty", 0))?;
    scene.expect("STORE_ACK empty")
}

fn the_file_has_its_own_name(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("large.bin", b"hello"))?;
    scene.expect_folder(&[("large.bin", b"hello")])
}

fn content_in_two_pieces(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, 90_000);
    let client = given(begin(&scene, stage, "a", bytes.len()))?;
    let (first, second) = bytes.split_at(50_000);
    client.send_content(first);
    thread::sleep(Duration::from_millis(50)); // so that it is read as it comes
    client.send_content_and_close(second);
    scene.expect("STORE_ACK a")?;
    scene.expect_content("a", &bytes)
}

fn content_together_with_the_line(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut client = scene.connect()?;
    client.send_raw(b"STORE a 12\nhello\nworld\n");
    client.expect("ACK", stage.patience)?;
    scene.expect("STORE_ACK a")?;
    scene.expect_content("a", b"hello\nworld\n")
}

fn content_in_small_pieces(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, 200);
    let mut client = scene.connect()?;
    client.send("STORE a 200");
    client.expect("ACK", stage.patience)?;
    for piece in bytes.chunks(7) {
        client.send_content(piece);
        thread::sleep(Duration::from_millis(2)); // so that it is a packet of its own
    }
    scene.expect("STORE_ACK a")?;
    scene.expect_content("a", &bytes)
}

fn every_byte_value(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes: Vec<u8> = (0..=255).chain([b'\r', b'\n', b'\n', b'\r', 0xFF, 0xFE, 0]).collect();
    scene.store("bytes", &bytes)?;
    scene.expect_content("bytes", &bytes)
}

fn sizes_around_buffers(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    for size in SIZES {
        let (name, bytes) = (format!("file-of-{size}"), content(stage.seed + size as u64, size));
        scene.store(&name, &bytes)?;
        scene.expect_content(&name, &bytes)?;
    }
    Ok(())
}

fn there_and_back(stage: &mut Stage, size: usize) -> Verdict {
    let mut scene = stage.dstore(if size > 1_000_000 { LARGE } else { NO_TIMEOUT })?;
    let bytes = content(stage.seed, size);
    scene.store("file", &bytes)?;
    scene.expect_content("file", &bytes)?;
    scene.expect_kept(&bytes, true)
}

fn a_short_content_is_no_file(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(SHORT)?;
    let mut client = scene.connect()?;
    client.send("STORE short 1000");
    client.expect("ACK", stage.patience)?;
    client.send_content(&[7; 999]);
    client.close();
    scene.expect_silence("a byte is missing")?;
    scene.expect_listed(&[])?;
    scene.expect_folder(&[])?;
    scene.expect_no_content("short")
}

fn over_an_old_copy(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    // Another Dstore failed, so the Controller forgot the file, and now it is stored again.
    given(scene.store("again", b"what was stored first, and is longer"))?;
    scene.store("again", b"what is stored now")?;
    scene.expect_content("again", b"what is stored now")?;
    scene.expect_folder(&[("again", b"what is stored now")])
}

fn nothing_but_ack(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut client = given(begin(&scene, stage, "a", 5))?;
    client.send_content(b"hello");
    client.finish_sending();
    given(scene.expect("STORE_ACK a"))?;
    match client.receive(QUIET) {
        Heard::Closed | Heard::Nothing(_) => Ok(()),
        came => {
            Err(client.wrong("nothing after ACK: an unread byte would turn the client's close into a reset", &came))
        }
    }
}

fn ten_clients_at_once(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let files: Vec<_> = (0..10).map(|number| (format!("file{number}"), content(number + 1, 50_000))).collect();
    thread::scope(|scope| {
        let (scene, stage) = (&scene, &*stage);
        let store = |(name, bytes): &(String, Vec<u8>)| begin(scene, stage, name, bytes.len())?.send_all(bytes);
        let storing: Vec<_> = files.iter().map(|file| scope.spawn(move || store(file))).collect();
        storing.into_iter().try_for_each(|thread| thread.join().expect("no panic in a client"))
    })?;
    let mut acknowledged = Vec::new();
    for _ in &files {
        match scene.controller.receive(stage.patience) {
            Heard::Line(line) => acknowledged.push(line),
            came => return Err(scene.controller.wrong("`STORE_ACK` for each of ten files", &came)),
        }
    }
    for (name, bytes) in &files {
        let acknowledgement = format!("STORE_ACK {name}");
        let came = acknowledged.iter().any(|line| begins(line, &acknowledgement));
        claim(came, format!("`{acknowledgement}`"), format!("{acknowledged:?}"))?;
        scene.expect_content(name, bytes)?;
    }
    Ok(())
}

fn a_slow_client_holds_up_nobody(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut slow = scene.connect_as("slow client")?;
    slow.send("STORE slow 5");
    slow.expect("ACK", stage.patience)?;
    let _silent = scene.connect_as("silent client")?;
    scene.store("quick", b"hello")?;
    scene.expect_content("quick", b"hello")?;
    scene.asks("REMOVE quick", "REMOVE_ACK quick")?;
    slow.send_content(b"12345");
    scene.expect("STORE_ACK slow")
}

fn nothing_half_written_is_shown(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut client = scene.connect()?;
    client.send("STORE half 200000");
    client.expect("ACK", stage.patience)?;
    client.send_content(&[7; 100_000]);
    thread::sleep(QUIET);
    let shown = scene.folder().contains_key("half");
    claim(!shown, "no file called half yet", "one is in the folder")?;
    client.send_content(&[7; 100_000]);
    scene.expect("STORE_ACK half")
}

fn content_that_never_comes(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(SHORT)?;
    let mut client = scene.connect()?;
    client.send("STORE never 1000");
    client.expect("ACK", stage.patience)?;
    client.send_content(&[7; 10]);
    client.expect_end(stage.patience)?;
    scene.expect_silence("the content has not come")?;
    scene.expect_listed(&[])?;
    scene.expect_folder(&[])
}

fn surplus_content_is_not_stored(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut client = scene.connect()?;
    client.send("STORE a 5");
    client.expect("ACK", stage.patience)?;
    client.send_content(b"hello, and more than was announced");
    scene.expect("STORE_ACK a")?;
    scene.expect_folder(&[("a", b"hello")])
}
