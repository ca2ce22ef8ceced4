//! Lines, words, and what is none of them. (spec 2.1, 2.2, 2.6, 6.2, 6.3)

use super::super::checks;
use crate::stage::failure::{Verdict, claim, given};
use crate::stage::wire::Heard;
use crate::stage::{QUIET, Setup, Stage};

checks! { Controller "wire":
    [Sequential SEQUENTIAL_REQUESTS "2.4"] clients_come_and_go "After a client has gone, the next is served"
    [Sequential MALFORMED "6.2"] unknown_messages_get_no_reply "A line that is no message gets no reply, and the connection goes on"
    [Sequential MALFORMED "6.2"] requests_with_words_missing_get_no_reply "A request with a word missing gets no reply, and the connection goes on"
    [Sequential MALFORMED "2.6"] a_size_that_is_no_number_gets_no_reply "A STORE whose size is no number gets no reply and leaves no file"
    [Sequential LIST "6.3"] replies_have_single_spaces "LIST has single spaces between its words"
    [Robustness "2.6"] words_too_many_get_no_reply "A request with a word too many gets no reply"
    [Robustness "2.6"] negative_sizes_get_no_reply "A STORE with a negative size gets no reply and leaves no file"
    [Robustness "2.6"] nonsense_from_a_dstore "Malformed lines from a Dstore are ignored, and it stays a member"
    [Robustness "2.1"] carriage_returns "Lines may end in \\r\\n"
    [Robustness "2.1"] requests_in_pieces "A request may come in pieces"
    [Robustness "2.4"] requests_all_at_once "Requests that arrive together are served one after another"
    [Robustness "2.1"] an_unfinished_last_line "A last line without an ending is still a line"
    [Robustness "2.1"] names_in_other_scripts "Names are UTF-8"
    [Robustness "2.6"] an_endless_line_harms_nobody "A line without end from one client harms no other"
    [Robustness "2.4"] connections_that_say_nothing "A hundred connections that say nothing harm no other client"
    [Robustness "2.4"] clients_that_vanish "Clients that vanish in the middle of everything harm no other client"
    [Robustness "7.12"] names_that_lead_elsewhere "Names with / in them are malformed"
}

fn clients_come_and_go(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    for _ in 0..3 {
        scene.client()?.ask("LIST")?;
    }
    Ok(())
}

/// Sends lines that must get no reply, one after another on a connection that is in use, as the official client does.
fn ignores(stage: &mut Stage, lines: &[&str]) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    given(client.expect_listed(&[]))?;
    for line in lines {
        client.send(line);
        client.wire().expect_silence(QUIET / 3, "a malformed line gets no reply")?;
        client.expect_listed(&[])?;
    }
    given(scene.store(&mut client, "a", 5)).map(|_| ())
}

fn unknown_messages_get_no_reply(stage: &mut Stage) -> Verdict {
    ignores(stage, &["NONSENSE", "NONSENSE a b c", "42"])
}

fn requests_with_words_missing_get_no_reply(stage: &mut Stage) -> Verdict {
    ignores(stage, &["STORE", "STORE a", "LOAD", "RELOAD", "REMOVE"])
}

fn a_size_that_is_no_number_gets_no_reply(stage: &mut Stage) -> Verdict {
    ignores(stage, &["STORE a five", "STORE a 5x", "STORE a 1.5"])
}

fn words_too_many_get_no_reply(stage: &mut Stage) -> Verdict {
    ignores(stage, &["STORE a 5 6", "LOAD a b", "REMOVE a b", "LIST a"])
}

fn negative_sizes_get_no_reply(stage: &mut Stage) -> Verdict {
    ignores(stage, &["STORE a -1", "STORE a -2147483648"])
}

fn names_that_lead_elsewhere(stage: &mut Stage) -> Verdict {
    ignores(stage, &["STORE ../a 5", "STORE /tmp/a 5", "STORE .. 5", "STORE a/b 5"])
}

fn replies_have_single_spaces(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    given(scene.store(&mut client, "a", 5))?;
    given(scene.store(&mut client, "b", 5))?;
    let reply = client.ask("LIST")?;
    claim(!reply.contains("  ") && !reply.starts_with(' '), "single spaces", format!("`{reply}`"))
}

fn nonsense_from_a_dstore(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    for line in ["NONSENSE", "STORE_ACK", "STORE_ACK absent", "REMOVE_ACK absent", "ERROR_FILE_DOES_NOT_EXIST", ""] {
        scene.dstores[0].send(line);
    }
    client.asks("LIST", "LIST")?;
    scene.store(&mut client, "a", 5)?;
    client.asks("REMOVE a", "REMOVE_COMPLETE")
}

fn carriage_returns(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    client.wire().send_raw(b"LIST\r\n");
    client.expect("LIST")?;
    client.wire().send_raw(b"LOAD a\r\n");
    client.expect("ERROR_FILE_DOES_NOT_EXIST")?;
    client.expect_silence("\\r\\n is one ending")
}

fn requests_in_pieces(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    for piece in ["LO", "AD a", "bsent"] {
        client.wire().send_raw(piece.as_bytes());
        client.wire().expect_silence(QUIET / 3, "the line has not ended")?;
    }
    client.wire().send_raw(b"\n");
    client.expect("ERROR_FILE_DOES_NOT_EXIST")
}

fn requests_all_at_once(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    client.wire().send_raw(b"LIST\nLOAD a\nREMOVE a\nLIST\n");
    for reply in ["LIST", "ERROR_FILE_DOES_NOT_EXIST", "ERROR_FILE_DOES_NOT_EXIST", "LIST"] {
        client.expect(reply)?;
    }
    Ok(())
}

fn an_unfinished_last_line(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    client.wire().send_raw(b"LIST");
    client.wire().finish_sending();
    client.expect("LIST")
}

fn names_in_other_scripts(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "naïve-файл-文件", 5)?;
    client.expect_listed(&["naïve-файл-文件"])?;
    client.load_from("LOAD naïve-файл-文件", 5).map(|_| ())
}

fn an_endless_line_harms_nobody(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let flood = scene.connect("flooding client")?;
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..32 {
        if !flood.send_content(&megabyte) {
            break; // it has been shut out, which is as good
        }
    }
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 5)?;
    client.asks("LIST", "LIST a")
}

fn connections_that_say_nothing(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let silent: Result<Vec<_>, _> = (0..100).map(|_| scene.connect("silent client")).collect();
    let _silent = silent?;
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 5)?;
    client.asks("LIST", "LIST a")
}

fn clients_that_vanish(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 5)?;
    for request in ["STORE b 5", "LOAD a", "LIST", "STO"] {
        let mut vanishing = scene.connect("vanishing client")?;
        vanishing.send(request);
        if request == "STORE b 5" {
            // It has gone when its file is complete: the reply finds a closed connection.
            match vanishing.receive(stage.patience) {
                Heard::Line(_) => {}
                came => return Err(vanishing.wrong("`STORE_TO`", &came)),
            }
            vanishing.close();
            scene.dstores[0].acknowledge_store("b");
        } else {
            vanishing.close();
        }
    }
    scene.store(&mut client, "c", 5)?;
    client.load_from("LOAD a", 5).map(|_| ())
}
