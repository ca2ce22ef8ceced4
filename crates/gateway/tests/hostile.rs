//! Clients that are slow, silent, confused or hostile: each ends in time, and none harms another.

mod common;

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use common::{Client, SOON, Served};
use kit::eventually;

/// A limit that is soon over. What ends by another one does so only after [`SOON`], and its test fails.
const SHORT: Duration = Duration::from_millis(200);

/// Sends a byte now and then until the gateway takes none any more: how long that may go on is under test.
fn drip(client: &Client, byte: u8) -> thread::JoinHandle<()> {
    let mut stream = client.stream.try_clone().unwrap();
    thread::spawn(move || {
        while std::io::Write::write_all(&mut stream, &[byte]).is_ok() {
            thread::sleep(SHORT / 10);
        }
    })
}

#[test]
fn a_head_that_drips_in_is_ended_in_time() {
    let served = Served::with(|options| options.limits.head = SHORT);
    let mut client = served.dial();
    client.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    let dripping = drip(&client, b'x');
    let reply = client.reply(false);
    assert_eq!((reply.status, &*reply.error()), (408, "timed-out"));
    client.end();
    dripping.join().unwrap();
}

#[test]
fn half_a_head_is_not_waited_for_longer() {
    let served = Served::with(|options| options.limits.head = SHORT);
    let mut client = served.dial();
    client.send(&["GET /"], b"");
    assert_eq!(client.reply(false).status, 200);
    client.write(b"GET / HT");
    assert_eq!(client.reply(false).status, 408, "nor is one behind another request");
}

#[test]
fn a_silent_connection_ends_without_a_word() {
    let served = Served::with(|options| options.limits.idle = SHORT);
    assert_eq!(served.dial().end(), b"", "before its first request");
    let mut client = served.dial();
    client.send(&["GET /"], b"");
    assert_eq!(client.reply(false).status, 200);
    assert_eq!(client.end(), b"", "and after it");
}

#[test]
fn a_pause_between_requests_is_not_held_against_the_next_head() {
    let served = Served::with(|options| options.limits.head = SHORT);
    let mut client = served.dial();
    for _ in 0..3 {
        thread::sleep(SHORT * 2); // longer than a head may take: the time is under test
        client.write(b"GET / HTTP/1.1\r\n");
        thread::sleep(SHORT / 10);
        client.write(b"Host: localhost\r\n\r\n");
        assert_eq!(client.reply(false).status, 200);
    }
}

#[test]
fn a_body_that_drips_or_stops_is_ended_and_not_kept() {
    let served = Served::with(|options| {
        options.limits.stall = SHORT;
        options.limits.slowest_rate = 1 << 20;
    });
    for drips in [true, false] {
        let mut client = served.dial();
        client.send(&["PUT /a", "Content-Length: 1000000"], b"begun");
        let dripping = drips.then(|| drip(&client, b'x'));
        let reply = client.reply(false);
        assert_eq!((reply.status, &*reply.error()), (408, "timed-out"));
        client.end();
        if let Some(dripping) = dripping {
            dripping.join().unwrap();
        }
    }
    assert_eq!(served.content("/a"), None);
}

#[test]
fn a_client_that_stops_reading_is_let_go() {
    let served = Served::with(|options| {
        options.limits.stall = SHORT;
        options.limits.connections = 1;
    });
    served.put("/large", &vec![0; 64 << 20]);
    let mut client = served.dial();
    client.send(&["GET /large"], b"");
    assert!(client.receive(), "its answer has begun");
    // There is room for another one as soon as it has ended.
    eventually("it ends", || served.ask(&["GET /none"], b"").status == 404);
    let reply = client.reply(false);
    assert!(reply.status == 200 && reply.is_cut, "it sees that it has not got all");
}

#[test]
fn a_large_head_or_many_lines_are_refused() {
    let served = Served::new();
    let long = "x".repeat(40 << 10);
    for lines in [
        vec![format!("GET /{long}")],
        vec!["GET /".to_owned(), format!("X: {long}")],
        std::iter::once("GET /".to_owned()).chain((0..200).map(|line| format!("X{line}: 1"))).collect(),
    ] {
        let mut client = served.dial();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        client.send(&lines, b"");
        let reply = client.reply(false);
        assert!([414, 431].contains(&reply.status), "{reply:?}");
        client.end();
    }
    // One without an end is not collected for ever.
    let mut client = served.dial();
    while client.try_write(&[b'x'; 16 << 10]) {}
}

#[test]
fn a_request_that_two_servers_could_read_differently_is_refused() {
    let served = Served::new();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Content-Length: -1",
        "Content-Length: ",
        "Content-Length: 99999999999999999999999",
        "Content-Length : 5",
        " Content-Length: 5",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: \x0bchunked",
        "X: a\0b",
        "X: a\rContent-Length: 5",
        "Host: localhost",
    ] {
        let mut client = served.dial();
        client.write(format!("PUT /a HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{smuggled}").as_bytes());
        assert_eq!(client.reply(false).status, 400, "{lines:?}");
        if lines != "Host: localhost" {
            assert_eq!(client.end(), b"", "nothing behind it is read as a request: {lines:?}");
        }
    }
    // Where both say a length, chunks count, as the RFC has it.
    let mut client = served.dial();
    let both = "PUT /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.write(format!("{both}5\r\nhello\r\n0\r\n\r\n").as_bytes());
    assert_eq!(client.reply(false).status, 201);
    assert_eq!(served.content("/b").as_deref(), Some(&b"hello"[..]));
    assert_eq!(served.content("/a"), None);
    for garbage in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n"]
    {
        let mut client = served.dial();
        client.write(garbage.as_bytes());
        assert_eq!(client.reply(false).status, 400, "{garbage:?}");
    }
    let mut client = served.dial();
    client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.finish();
    assert!(client.reply_or_end(false).is_none_or(|reply| reply.status == 400), "HTTP/2 is not spoken");
}

#[test]
fn one_connection_too_many_is_told_so() {
    let served = Served::with(|options| options.limits.connections = 2);
    let mut first = served.dial();
    let mut second = served.dial();
    for client in [&mut first, &mut second] {
        client.send(&["GET /"], b"");
        assert_eq!(client.reply(false).status, 200);
    }
    let reply = served.ask(&["GET /"], b"");
    assert_eq!((reply.status, &*reply.error()), (503, "too-many-connections"));
    assert!(reply.header("retry-after").is_some() && reply.header("connection") == Some("close"));
    second.send(&["GET /"], b"");
    assert_eq!(second.reply(false).status, 200, "the others go on");
    drop(first);
    eventually("there is room again", || served.ask(&["GET /"], b"").status == 200);
}

#[test]
fn uploads_wait_for_memory_and_are_refused_in_the_end() {
    let served = Served::with(|options| options.upload_memory = 1 << 20);
    let mut hog = served.dial();
    hog.send(&["PUT /hog", "Content-Length: 2000000"], &[0; 1 << 20]);
    // It has all the memory once another one gets none.
    eventually("the memory is used up", || {
        let reply = served.ask(&["PUT /a"], b"x");
        assert!(reply.status == 201 || reply.status == 200 || reply.error() == "too-many-uploads", "{reply:?}");
        reply.status == 503
    });
    drop(hog);
    eventually("it is given back", || served.ask(&["PUT /a"], &[0; 1 << 20]).status < 300);
}

#[test]
fn a_large_upload_takes_no_more_memory_than_a_chunk() {
    let served = Served::with(|options| options.upload_memory = 8 << 20);
    assert_eq!(served.ask(&["PUT /large"], &vec![0; 20 << 20]).status, 201);
}

#[test]
fn an_end_in_order_lets_requests_finish() {
    let served = Served::new();
    // Several: when the last one has its answer, the first ones have come to wait for the next request.
    let mut idle: Vec<Client> = (0..8).map(|_| served.dial()).collect();
    let mut busy = served.dial();
    for idle in &mut idle {
        idle.send(&["GET /"], b"");
        assert_eq!(idle.reply(false).status, 200);
    }
    busy.send(&["PUT /a", "Expect: 100-continue", "Content-Length: 5"], b"");
    assert_eq!(busy.reply(false).status, 100, "it is under way");
    let Served { store, gateway } = served;
    let address = gateway.address();
    let (done, is_done) = channel();
    let stopping = thread::spawn(move || {
        gateway.stop(SOON);
        done.send(()).unwrap();
    });
    for idle in &mut idle {
        assert_eq!(idle.end(), b"", "one between requests ends at once");
    }
    eventually("no connection is taken", || std::net::TcpStream::connect(address).is_err());
    assert!(is_done.try_recv().is_err(), "it waits for the one under way");
    busy.write(b"hello");
    let reply = busy.reply(false);
    assert_eq!((reply.status, reply.header("connection")), (201, Some("close")));
    assert_eq!(busy.end(), b"");
    stopping.join().unwrap();
    assert!(store.stat(&"/a".parse().unwrap()).is_ok());
}

#[test]
fn an_end_does_not_wait_for_the_slow_beyond_its_grace() {
    let served = Served::new();
    served.put("/large", &vec![0; 64 << 20]);
    let mut slow = served.dial();
    slow.send(&["GET /large"], b"");
    assert!(slow.receive());
    let mut silent = served.dial();
    let mut uploading = served.dial();
    uploading.send(&["PUT /a", "Content-Length: 5"], b"h");
    served.gateway.stop(SHORT);
    assert!(slow.reply(false).is_cut);
    silent.end();
    uploading.end();
}
