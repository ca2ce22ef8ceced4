//! STORE, from a client. (spec 4.2)

use std::thread;

use super::super::{Category, Check, Role, checks};
use crate::stage::failure::{Verdict, claim};
use crate::stage::wire::Heard;
use crate::stage::{NO_TIMEOUT, QUIET, SHORT, Stage, content};

/// Nothing, a byte, both sides of every usual buffer's size, and more than fits any.
const SIZES: [usize; 16] =
    [0, 1, 2, 999, 1_000, 1_023, 1_024, 1_025, 4_096, 8_191, 8_192, 8_193, 65_535, 65_537, 100_000, 1_000_000];

/// These, and one for each size of note.
pub fn checks() -> Vec<Check> {
    let mut checks = acts();
    for (name, bytes) in [("0 bytes", 0), ("1 byte", 1), ("100 kB", 100_000), ("50 MB", 50_000_000)] {
        let claim = format!("A file of {name} is stored whole and loaded whole");
        let id = format!("a-file-of-{}", name.replace(' ', "-"));
        let play = move |stage: &mut Stage| there_and_back(stage, bytes);
        checks.push(Check::new(Role::Dstore, "store", Category::Sequential, "2.3", &id, claim, play));
    }
    checks
}

checks! { Dstore "store" as acts:
    [Sequential "4.2"] acknowledges_to_both "STORE gets ACK, and once the content is stored the Controller gets STORE_ACK with the file's name"
    [Sequential "4.2"] no_acknowledgement_before_the_content "STORE_ACK does not come before all of the content has"
    [Sequential "4.2"] one_acknowledgement "One STORE brings one STORE_ACK"
    [Sequential "5.1"] the_file_lies_in_the_folder "The file lies in the folder under its own name, with the bytes that were sent, when STORE_ACK comes"
    [Sequential "2.3"] content_together_with_the_line "Content that arrives in the same packet as the STORE line is not lost"
    [Sequential "2.3"] content_in_small_pieces "Content may come in many small pieces"
    [Sequential "2.3"] every_byte_value "Content is bytes, not text: line endings and bytes above 127 come through"
    [Sequential "2.3"] sizes_around_buffers "Files of sizes just under and over those of buffers are stored whole"
    [Sequential "2.3"] a_short_content_is_no_file "Content that ends early is never a stored file, and is not acknowledged"
    [Sequential "4.2"] over_an_old_copy "A STORE of a file that the Dstore still has, from a store that was given up, replaces it"
    [Sequential "6.4"] nothing_but_ack "A client that stores gets ACK and nothing else"
    [Concurrent "4.2"] ten_clients_at_once "Ten clients store files at the same time"
    [Concurrent "2.5"] a_slow_client_holds_up_nobody "A client that sends nothing after ACK holds up no other"
    [Robustness "5.1"] nothing_half_written_is_shown "A file that is being stored is not to be seen under its name before it is whole"
    [Robustness "7.11"] content_that_never_comes "When content stops coming, nothing is kept and nothing acknowledged"
    [Robustness "2.3"] surplus_content_is_not_stored "Bytes beyond the announced size are not part of the file"
}

fn acknowledges_to_both(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.store("notes.txt", b"hello")?;
    scene.expect_content("notes.txt", b"hello")
}

fn no_acknowledgement_before_the_content(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut client = scene.connect()?;
    client.send("STORE a 10");
    client.expect("ACK", stage.patience)?;
    scene.expect_silence("no content has come")?;
    client.send_content(b"01234");
    scene.expect_silence("half of the content has come")?;
    client.send_content(b"56789");
    scene.expect("STORE_ACK a")
}

fn one_acknowledgement(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.store("a", b"hello")?;
    scene.expect_silence("it has been acknowledged already")?;
    scene.expect_listed(&["a"])
}

fn the_file_lies_in_the_folder(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, 300_000);
    let mut client = scene.connect()?;
    client.send("STORE large.bin 300000");
    client.expect("ACK", stage.patience)?;
    client.send_content(&bytes);
    scene.expect("STORE_ACK large.bin")?;
    // Not a moment later: the acknowledgement says that it is there.
    let folder = scene.folder();
    let size = folder.get("large.bin").map_or("no such file".into(), |stored| format!("{} bytes", stored.len()));
    claim(folder.get("large.bin") == Some(&bytes), "large.bin in the folder with its 300000 bytes", size)?;
    scene.expect_folder(&[("large.bin", &bytes)])
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
        thread::sleep(std::time::Duration::from_millis(2)); // so that it is a packet of its own
    }
    scene.expect("STORE_ACK a")?;
    scene.expect_content("a", &bytes)
}

fn every_byte_value(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes: Vec<u8> = (0..=255).chain([b'\r', b'\n', b'\n', b'\r', 0xFF, 0xFE, 0]).collect();
    scene.store("bytes", &bytes)?;
    scene.expect_content("bytes", &bytes)?;
    scene.expect_folder(&[("bytes", &bytes)])
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
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, size);
    scene.store("file", &bytes)?;
    scene.expect_content("file", &bytes)?;
    scene.expect_folder(&[("file", &bytes)])
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
    scene.store("again", b"what was stored first, and is longer")?;
    scene.store("again", b"what is stored now")?;
    scene.expect_content("again", b"what is stored now")?;
    scene.expect_folder(&[("again", b"what is stored now")])
}

fn nothing_but_ack(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut client = scene.connect()?;
    client.send("STORE a 5");
    client.expect("ACK", stage.patience)?;
    client.send_content(b"hello");
    scene.expect("STORE_ACK a")?;
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
    let mut clients = Vec::new();
    for (number, (name, _)) in files.iter().enumerate() {
        let mut client = scene.connect_as(&format!("client {}", number + 1))?;
        client.send(&format!("STORE {name} 50000"));
        client.expect("ACK", stage.patience)?;
        clients.push(client);
    }
    for half in [0..25_000, 25_000..50_000] {
        for (client, (_, bytes)) in clients.iter().zip(&files) {
            client.send_content(&bytes[half.clone()]);
        }
    }
    let mut acknowledged = Vec::new();
    for _ in &files {
        match scene.controller.receive(stage.patience) {
            Heard::Line(line) => acknowledged.push(line),
            came => return Err(scene.controller.wrong("`STORE_ACK` for each of ten files", &came)),
        }
    }
    acknowledged.sort();
    let expected: Vec<_> = files.iter().map(|(name, _)| format!("STORE_ACK {name}")).collect();
    claim(acknowledged == expected, format!("{expected:?}"), format!("{acknowledged:?}"))?;
    files.iter().try_for_each(|(name, bytes)| scene.expect_content(name, bytes))
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
