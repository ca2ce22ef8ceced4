//! A Dstore's part in a rebalance: it sends, it removes, it reports, and it is sent to. (spec 4.6.4, 4.6.5)

use std::thread;

use super::super::checks;
use crate::stage::dstore_scene::{DstoreScene, FakePeer};
use crate::stage::failure::{Verdict, claim, given};
use crate::stage::wire::Heard;
use crate::stage::{NO_TIMEOUT, QUIET, SHORT, Stage, content};

checks! { Dstore "rebalance":
    [Spread REBALANCE_DSTORE "4.6.4"] nothing_to_do "REBALANCE 0 0 is answered by REBALANCE_COMPLETE"
    [Spread REBALANCE_STORE "4.6.5"] one_file_to_one_dstore "REBALANCE with one file for one Dstore: it gets REBALANCE_STORE, says ACK, gets the content; then REBALANCE_COMPLETE"
    [Spread REBALANCE_ORDER "4.6.5"] one_file_to_two_dstores "A file for two Dstores goes to both"
    [Spread REBALANCE_ORDER "4.6.5"] several_files "Several files for several Dstores all arrive, the right ones at the right Dstore"
    [Spread REBALANCE_DSTORE "4.6.4"] only_removes "REBALANCE with files to remove and none to send removes them"
    [Spread REBALANCE_DSTORE "4.6.5"] sends_before_it_removes "A file that is to be sent and removed is sent first"
    [Spread REBALANCE_ORDER "4.6.4"] the_specs_example "The example of the spec: send f1 to p1 and p2, f2 to p3; remove f2 and f3"
    [Robustness "4.6.5"] an_empty_file "A file of 0 bytes is sent like any other"
    [Robustness "4.6.5"] a_large_file "A file of 5 MB is sent whole"
    [Spread REBALANCE_STORE "4.6.5"] waits_for_the_ack "Content is not sent before the receiver has said ACK"
    [Spread REBALANCE_DSTORE "4.6.5"] reports_after_it_has_sent "REBALANCE_COMPLETE comes after the files have been sent, not before"
    [Spread REBALANCE_STORE "4.6.5"] receives_a_copy "REBALANCE_STORE gets ACK, and the content is stored and listed"
    [Spread REBALANCE_STORE "4.6.5"] a_received_copy_is_not_acknowledged "A copy that came by REBALANCE_STORE is not reported to the Controller"
    [Robustness "2.3"] a_short_copy_is_no_file "A copy whose content ends early is not stored"
    [Robustness "2.3"] a_copy_together_with_its_line "The content of a copy that arrives in the same packet as the line is not lost"
    [Spread REBALANCE_DSTORE "4.6"] one_rebalance_after_another "Three rebalances one after another are each carried out and reported"
    [Robustness "7.17"] a_receiver_that_is_not_there "A file that cannot be sent is kept, although it was to be removed, and the Dstore goes on"
    [Robustness "2.7"] a_receiver_that_hangs "A receiver that never says ACK does not stop the Dstore"
    [Robustness "7.17"] a_file_it_does_not_have "An order to send a file that is not there does not stop the Dstore"
    [Robustness "4.6"] work_goes_on_meanwhile "Clients are served while a rebalance is under way"
}

/// The check of whether a Dstore takes a copy from another.
const RECEIVES: &str = "dstore/rebalance/receives-a-copy";

fn nothing_to_do(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"hello"))?;
    scene.asks("REBALANCE 0 0", "REBALANCE_COMPLETE")?;
    scene.expect_content("a", b"hello")
}

fn one_file_to_one_dstore(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, 10_000);
    given(scene.store("a", &bytes))?;
    let peer = scene.peer()?;
    scene.controller.send(&format!("REBALANCE 1 a 1 {} 0", peer.port));
    peer.expect_copy("a", &bytes)?;
    scene.expect("REBALANCE_COMPLETE")?;
    scene.expect_content("a", &bytes)
}

fn one_file_to_two_dstores(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, 10_000);
    given(scene.store("a", &bytes))?;
    let (one, two) = (scene.peer()?, scene.peer()?);
    scene.controller.send(&format!("REBALANCE 1 a 2 {} {} 0", one.port, two.port));
    expect_copies(&[(&one, "a", &bytes), (&two, "a", &bytes)])?;
    scene.expect("REBALANCE_COMPLETE")?;
    scene.expect_content("a", &bytes)
}

fn several_files(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let files: Vec<_> = (0..6).map(|number| (format!("file{number}"), content(number + 1, 3_000))).collect();
    for (name, bytes) in &files {
        given(scene.store(name, bytes))?;
    }
    let peers = files.iter().map(|_| scene.peer()).collect::<Result<Vec<_>, _>>()?;
    let sends: String = files.iter().zip(&peers).map(|((name, _), peer)| format!(" {name} 1 {}", peer.port)).collect();
    scene.controller.send(&format!("REBALANCE 6{sends} 0"));
    let copies = files.iter().zip(&peers).map(|((name, bytes), peer)| (peer, name.as_str(), bytes.as_slice()));
    expect_copies(&copies.collect::<Vec<_>>())?;
    scene.expect("REBALANCE_COMPLETE")
}

/// Each Dstore gets its copy, in whatever order the sender goes about it.
fn expect_copies(copies: &[(&FakePeer, &str, &[u8])]) -> Verdict {
    thread::scope(|scope| {
        let expect = |&(peer, name, bytes)| scope.spawn(move || FakePeer::expect_copy(peer, name, bytes));
        let receiving: Vec<_> = copies.iter().map(expect).collect();
        receiving.into_iter().try_for_each(|thread| thread.join().expect("no panic in a receiver"))
    })
}

fn only_removes(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    for name in ["a", "b", "c"] {
        given(scene.store(name, name.as_bytes()))?;
    }
    scene.asks("REBALANCE 0 2 a c", "REBALANCE_COMPLETE")?;
    for (name, is_kept) in [("a", false), ("b", true), ("c", false)] {
        scene.expect_kept(name.as_bytes(), is_kept)?;
    }
    Ok(())
}

fn sends_before_it_removes(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, 10_000);
    given(scene.store("a", &bytes))?;
    let peer = scene.peer()?;
    scene.controller.send(&format!("REBALANCE 1 a 1 {} 1 a", peer.port));
    peer.expect_copy("a", &bytes)?;
    scene.expect("REBALANCE_COMPLETE")?;
    scene.expect_kept(&bytes, false)
}

fn the_specs_example(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let files = [("f1", content(1, 100)), ("f2", content(2, 200)), ("f3", content(3, 300))];
    for (name, bytes) in &files {
        given(scene.store(name, bytes))?;
    }
    let (p1, p2, p3) = (scene.peer()?, scene.peer()?, scene.peer()?);
    let order = format!("REBALANCE 2 f1 2 {} {} f2 1 {} 2 f2 f3", p1.port, p2.port, p3.port);
    scene.controller.send(&order);
    expect_copies(&[(&p1, "f1", &files[0].1), (&p2, "f1", &files[0].1), (&p3, "f2", &files[1].1)])?;
    scene.expect("REBALANCE_COMPLETE")?;
    for ((_, bytes), is_kept) in files.iter().zip([true, false, false]) {
        scene.expect_kept(bytes, is_kept)?;
    }
    Ok(())
}

fn an_empty_file(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("empty", b""))?;
    let peer = scene.peer()?;
    scene.controller.send(&format!("REBALANCE 1 empty 1 {} 1 empty", peer.port));
    peer.expect_copy("empty", b"")?;
    scene.expect("REBALANCE_COMPLETE")?;
    scene.expect_folder(&[])
}

fn a_large_file(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, 5_000_000);
    given(scene.store("large", &bytes))?;
    let peer = scene.peer()?;
    scene.controller.send(&format!("REBALANCE 1 large 1 {} 0", peer.port));
    peer.expect_copy("large", &bytes)?;
    scene.expect("REBALANCE_COMPLETE")
}

fn waits_for_the_ack(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"hello"))?;
    let peer = scene.peer()?;
    scene.controller.send(&format!("REBALANCE 1 a 1 {} 1 a", peer.port));
    let mut wire = peer.accept()?;
    wire.expect("REBALANCE_STORE a 5", stage.patience)?;
    wire.expect_silence(QUIET, "ACK has not been said")?;
    wire.send("ACK");
    let came = wire.receive_content(5, stage.patience);
    claim(came == b"hello", "hello", String::from_utf8_lossy(&came))?;
    drop(wire);
    scene.expect("REBALANCE_COMPLETE")
}

fn reports_after_it_has_sent(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"hello"))?;
    let peer = scene.peer()?;
    scene.controller.send(&format!("REBALANCE 1 a 1 {} 0", peer.port));
    let mut wire = given(peer.accept().map_err(|failure| failure.judged_by(SENDS)))?;
    given(wire.expect("REBALANCE_STORE a", stage.patience).map_err(|failure| failure.judged_by(SENDS)))?;
    scene.expect_silence("the file has not been sent")?;
    wire.send("ACK");
    wire.receive_content(5, stage.patience);
    drop(wire);
    given(scene.expect("REBALANCE_COMPLETE").map_err(|failure| failure.judged_by("dstore/rebalance/nothing-to-do")))
}

/// The check of whether a Dstore sends a copy to another.
const SENDS: &str = "dstore/rebalance/one-file-to-one-dstore";

fn receives_a_copy(stage: &mut Stage) -> Verdict {
    let scene = stage.dstore(NO_TIMEOUT)?;
    let bytes = content(stage.seed, 99_000);
    let mut sender = scene.connect_as("another dstore")?;
    sender.send("REBALANCE_STORE a 99000");
    sender.expect("ACK", stage.patience)?;
    sender.send_content_and_close(&bytes);
    scene.expect_kept(&bytes, true)?;
    scene.expect_content_soon("a", &bytes)
}

fn a_received_copy_is_not_acknowledged(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let mut sender = scene.connect_as("another dstore")?;
    sender.send("REBALANCE_STORE a 5");
    given(sender.expect("ACK", stage.patience).map_err(|failure| failure.judged_by(RECEIVES)))?;
    sender.send_content_and_close(b"hello");
    scene.expect_kept(b"hello", true)?;
    scene.expect_silence("REBALANCE_STORE is between two Dstores")
}

fn a_short_copy_is_no_file(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(SHORT)?;
    let mut sender = scene.connect_as("another dstore")?;
    sender.send("REBALANCE_STORE short 1000");
    sender.expect("ACK", stage.patience)?;
    sender.send_content(&[7; 500]);
    sender.close();
    scene.expect_silence("half of the copy is missing")?;
    scene.expect_listed(&[])?;
    scene.expect_folder(&[])
}

fn a_copy_together_with_its_line(stage: &mut Stage) -> Verdict {
    let scene = stage.dstore(NO_TIMEOUT)?;
    let mut sender = scene.connect_as("another dstore")?;
    sender.send_raw(b"REBALANCE_STORE a 6\nhe\nllo");
    sender.expect("ACK", stage.patience)?;
    scene.expect_folder(&[("a", b"he\nllo")])
}

fn one_rebalance_after_another(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    let peer = scene.peer()?;
    for round in 0..3 {
        let (name, bytes) = (format!("file{round}"), content(round + 1, 1_000));
        given(scene.store(&name, &bytes))?;
        given(scene.list())?;
        scene.controller.send(&format!("REBALANCE 1 {name} 1 {} 1 {name}", peer.port));
        peer.expect_copy(&name, &bytes)?;
        scene.expect("REBALANCE_COMPLETE")?;
        scene.expect_kept(&bytes, false)?;
    }
    Ok(())
}

/// LIST goes on being answered; a report may come or not.
fn expect_it_goes_on(scene: &mut DstoreScene, stage: &Stage, files: &[&str]) -> Verdict {
    scene.controller.send("LIST");
    loop {
        match scene.controller.receive(stage.patience) {
            Heard::Line(line) if line == "REBALANCE_COMPLETE" => {}
            Heard::Line(line) => {
                let mut listed: Vec<&str> = line.split(' ').skip(1).collect();
                listed.sort_unstable();
                let expected = format!("`LIST {}`", files.join(" "));
                return claim(line.starts_with("LIST") && listed == files, expected, format!("`{line}`"));
            }
            came => return Err(scene.controller.wrong("an answer to LIST", &came)),
        }
    }
}

fn a_receiver_that_is_not_there(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(SHORT)?;
    given(scene.store("a", b"hello"))?;
    let absent = scene.peer()?.port; // closed again at once
    scene.controller.send(&format!("REBALANCE 1 a 1 {absent} 1 a"));
    expect_it_goes_on(&mut scene, stage, &["a"])?;
    scene.expect_content("a", b"hello")
}

fn a_receiver_that_hangs(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(SHORT)?;
    given(scene.store("a", b"hello"))?;
    let peer = scene.peer()?;
    scene.controller.send(&format!("REBALANCE 1 a 1 {} 0", peer.port));
    let mut wire = peer.accept()?;
    wire.expect("REBALANCE_STORE a 5", stage.patience)?;
    expect_it_goes_on(&mut scene, stage, &["a"])?;
    scene.expect_content("a", b"hello")
}

fn a_file_it_does_not_have(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(SHORT)?;
    given(scene.store("a", b"hello"))?;
    let peer = scene.peer()?;
    scene.controller.send(&format!("REBALANCE 1 absent 1 {} 1 absent", peer.port));
    expect_it_goes_on(&mut scene, stage, &["a"])?;
    scene.expect_content("a", b"hello")
}

fn work_goes_on_meanwhile(stage: &mut Stage) -> Verdict {
    let mut scene = stage.dstore(NO_TIMEOUT)?;
    given(scene.store("a", b"hello"))?;
    let peer = scene.peer()?;
    scene.controller.send(&format!("REBALANCE 1 a 1 {} 0", peer.port));
    let mut wire = peer.accept()?;
    wire.expect("REBALANCE_STORE a 5", stage.patience)?;
    scene.expect_content("a", b"hello")?;
    wire.send("ACK");
    claim(wire.receive_content(5, stage.patience) == b"hello", "hello", "other content")?;
    drop(wire);
    scene.expect("REBALANCE_COMPLETE")
}
