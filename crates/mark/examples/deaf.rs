//! A submission that runs and listens, and never says more than it must to be taken for one: how long is it marked?
//!
//! `deaf controller PORT` accepts every connection and says nothing. `deaf dstore PORT CONTROLLER_PORT` joins, and then does the same.

use std::env;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().collect();
    let port = |at: usize| words.get(at).and_then(|word| word.parse::<u16>().ok()).unwrap_or(0);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port(2)))?;
    if words.get(1).is_some_and(|role| role == "dstore") {
        let mut controller = TcpStream::connect((Ipv4Addr::LOCALHOST, port(3)))?;
        controller.write_all(format!("JOIN {}\n", port(2)).as_bytes())?;
        thread::spawn(|| listen_to(controller));
    }
    for connection in listener.incoming() {
        let connection = connection?;
        thread::spawn(|| listen_to(connection));
    }
    Ok(())
}

/// Until the other side ends.
fn listen_to(mut connection: TcpStream) {
    while let Ok(1..) = connection.read(&mut [0; 4096]) {}
}
