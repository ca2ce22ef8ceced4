//! The server of HTTP/1.1 with façades that do what the real ones should not.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use common::{SOON, Served};
use gateway::server::{Facade, Limits, Reply, Request, Server};
use hyper::Response;

/// Does what the path says.
struct Odd;

impl Facade for Odd {
    fn serve(&self, mut request: Request, reply: Reply) {
        match request.head.uri.path() {
            "/echo" => {
                // Both ways at a time: a piece of the body, a piece of the answer.
                let mut answer = reply.begin(Response::builder(), None);
                let mut buffer = [0; 10_000];
                while let Ok(read @ 1..) = request.body.read(&mut buffer) {
                    answer.write_all(&buffer[..read]).unwrap();
                }
                answer.finish();
            }
            "/cut" => reply.begin(Response::builder(), None).write_all(b"half").unwrap(),
            "/short" => reply.begin(Response::builder(), Some(5)).write_all(b"half").unwrap(),
            "/panic" => panic!("a façade with a defect, on purpose"),
            _ => drop(reply),
        }
    }
}

/// All that is answered to this, until the connection ends.
fn said(server: &Server, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address().unwrap()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said); // a reset is an end, too
    String::from_utf8(said).unwrap()
}

fn odd() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Server::start(listener, None, Limits::default(), Arc::new(Odd)).unwrap()
}

#[test]
fn an_answer_may_be_made_while_the_body_comes() {
    let request = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let said = said(&odd(), request.as_bytes());
    assert!(said.contains("transfer-encoding: chunked") && said.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{said}");
}

#[test]
fn an_answer_that_is_not_whole_does_not_look_so() {
    let server = odd();
    let cut = said(&server, b"GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(!cut.contains("\r\n0\r\n"), "the last chunk never comes: {cut}");
    let short = said(&server, b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(short.contains("content-length: 5") && !short.contains("HTTP/1.1 500"), "{short}");
}

#[test]
fn a_facade_with_a_defect_harms_no_other_connection() {
    let server = odd();
    assert!(said(&server, b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 500"));
    assert_eq!(said(&server, b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n"), "");
    assert!(said(&server, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").contains("hi"));
    server.stop(SOON);
}

#[test]
fn a_client_that_says_it_has_no_more_requests_gets_its_answer() {
    let served = Served::new();
    served.put("/large", &vec![7; 8 << 20]);
    let mut client = served.dial();
    client.send(&["GET /large"], b"");
    client.finish();
    let reply = client.reply(false);
    assert!(reply.status == 200 && reply.body == vec![7; 8 << 20]);
    assert_eq!(client.end(), b"", "and then the connection ends");
}
