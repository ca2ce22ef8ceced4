//! Lines, words, and what is none of them. (spec 2.1, 2.6, 7.12)

use std::fs;
use std::thread;
use std::time::Duration;

use super::super::checks;
use crate::stage::failure::{Verdict, claim};
use crate::stage::{NO_TIMEOUT, QUIET, SHORT, Stage};

checks! { Dstore "wire":
    [Robustness "2.6"] nonsense_from_the_controller "Malformed lines from the Controller are ignored, and the connection goes on"
    [Robustness "2.6"] nonsense_from_a_client "Malformed lines from a client harm no other client"
    [Robustness "2.6"] nonsense_before_a_transfer "Malformed lines on a transfer's connection get no answer, and a transfer may still follow"
    [Robustness "7.13"] sizes_beyond_32_bits "A size beyond 32 bits is no malformed one"
    [Robustness "5.2"] content_is_not_logged "Messages are logged, content never is"
    [Robustness "2.1"] carriage_returns "Lines may end in \\r\\n, and content after that begins at the right byte"
    [Robustness "2.1"] lines_in_pieces "A line may come in pieces"
    [Robustness "2.1"] names_in_other_scripts "Names are UTF-8"
    [Robustness "2.5"] clients_that_say_nothing "A hundred connections that say nothing harm no other client"
    [Robustness "7.12"] names_that_lead_elsewhere "A name that leads out of the folder is never written to"
    [Robustness "2.6"] an_endless_line_harms_nobody "A line without end from one client harms no other"
}

fn nonsense_from_the_controller(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.store("a", b"hello")?;
    for line in ["NONSENSE", "", "REMOVE", "REBALANCE", "REBALANCE x", "REBALANCE 1 a", "STORE_COMPLETE", "JOIN 5"] {
        scene.controller.send(line);
        scene.expect_listed(&["a"])?;
    }
    scene.expect_content("a", b"hello")
}

fn nonsense_from_a_client(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    for line in ["NONSENSE", "", "STORE", "STORE a", "STORE a five", "STORE a -5", "LOAD_DATA", "REBALANCE_STORE a"] {
        scene.connect_as("muddled client")?.send(line);
    }
    scene.store("b", b"hello")?;
    scene.expect_listed(&["b"])?;
    scene.expect_content("b", b"hello")
}

fn nonsense_before_a_transfer(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut client = scene.connect()?;
    for line in ["NONSENSE", "STORE a", "LIST"] {
        client.send(line);
    }
    client.expect_silence(QUIET, "malformed lines get no answer")?;
    client.send("STORE a 5");
    client.expect("ACK", stage.patience)?;
    client.send_content(b"hello");
    scene.expect("STORE_ACK a")
}

fn sizes_beyond_32_bits(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(SHORT)?;
    let mut client = scene.connect()?;
    client.send("STORE huge 5000000000");
    client.expect("ACK", stage.patience)?;
    client.send_content(b"the first bytes of many");
    client.close();
    scene.expect_silence("nearly all of the content is missing")?;
    scene.expect_listed(&[])
}

fn content_is_not_logged(stage: &mut Stage) -> Verdict {
    let secret = "a-secret-that-is-nobodys-business";
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.store("diary", secret.as_bytes())?;
    scene.expect_content("diary", secret.as_bytes())?;
    thread::sleep(QUIET); // for what it prints to arrive
    let is_logged = scene.process.lock().printed().contains(secret);
    claim(!is_logged, "no content in what it prints", "the content")
}

fn carriage_returns(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut client = scene.connect()?;
    client.send_raw(b"STORE a 5\r\n");
    client.expect("ACK", stage.patience)?;
    client.send_content(b"hello");
    scene.expect("STORE_ACK a")?;
    scene.expect_content("a", b"hello")?;
    scene.controller.send_raw(b"LIST\r\n");
    scene.expect("LIST a")
}

fn lines_in_pieces(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut client = scene.connect()?;
    for piece in ["STO", "RE a", " ", "5", "\n"] {
        client.send_raw(piece.as_bytes());
        thread::sleep(Duration::from_millis(20)); // so that it is a packet of its own
    }
    client.expect("ACK", stage.patience)?;
    client.send_content(b"hello");
    scene.expect("STORE_ACK a")
}

fn names_in_other_scripts(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    scene.store("naïve-файл-文件", b"hello")?;
    scene.expect_listed(&["naïve-файл-文件"])?;
    scene.expect_content("naïve-файл-文件", b"hello")
}

fn clients_that_say_nothing(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let silent: Result<Vec<_>, _> = (0..100).map(|_| scene.connect_as("silent client")).collect();
    let _silent = silent?;
    scene.store("a", b"hello")?;
    scene.expect_content("a", b"hello")
}

fn names_that_lead_elsewhere(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    for name in ["../escaped", "..", "sub/../../escaped"] {
        let mut client = scene.connect_as("sly client")?;
        client.send(&format!("STORE {name} 5"));
        client.receive(Duration::from_millis(500));
        client.send_content(b"hello");
    }
    scene.store("a", b"hello")?;
    let escaped = fs::metadata(scene.outside().join("escaped")).is_ok();
    claim(!escaped, "nothing outside the folder", "a file was written beside it")
}

fn an_endless_line_harms_nobody(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let flood = scene.connect_as("flooding client")?;
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..32 {
        if !flood.send_content(&megabyte) {
            break; // it has been shut out, which is as good
        }
    }
    scene.store("a", b"hello")?;
    scene.expect_content("a", b"hello")
}
