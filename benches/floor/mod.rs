//! The floor: what a STORE, a LOAD and a copy between Dstores cost when nothing is decided.
//!
//! Programs and a client that say the protocol's messages, byte for byte, over as many connections. They keep the same
//! files, each written under another name first. They have no index, take fields from fixed places instead of parsing,
//! and report no error. What they reach is what this machine gives to any implementation of the protocol with a thread
//! per connection.
//!
//! The client is a minimal one of the real protocol, so it works with real programs, too: then only the servers differ.

#![allow(dead_code, unused_imports, reason = "no bench uses all of it")]

mod client;
mod controller;
mod dstore;
mod sender;

pub use client::{Client, Style};

use std::env;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process;

/// As many as any bench starts.
pub const MOST_CLIENTS: usize = 1_000;

/// Names are `file-CCCC-NNNNNNNNNN`: 20 bytes, with the client that stores the file and a number.
pub const NAME_BYTES: usize = 20;

/// The name of a client's file.
pub fn name(client: usize, number: usize) -> String {
    format!("file-{client:04}-{number:010}")
}

/// The number in the decimal digits at this place of a text.
fn number(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))
}

/// On how many Dstores a file is kept, and on which: its last two digits say from where on.
fn holders<'a, T>(dstores: &'a [T], replicas: usize, name: &[u8]) -> impl Iterator<Item = &'a T> + use<'a, T> {
    let first = number(&name[NAME_BYTES - 2..NAME_BYTES]);
    (first..first + replicas).map(|at| &dstores[at % dstores.len()])
}

const OPTION: &str = "--floor";

/// The arguments that make this program the floor's Controller for `dstores` Dstores and files of `size` bytes; its LIST
/// has `list_bytes` bytes.
pub fn controller_arguments(dstores: usize, replicas: usize, size: usize, list_bytes: usize) -> Vec<String> {
    let numbers = [dstores, replicas, size, list_bytes].map(|number| number.to_string());
    [OPTION, "controller"].map(str::to_owned).into_iter().chain(numbers).collect()
}

/// The arguments that make this program a Dstore of the floor.
pub fn dstore_arguments(controller: u16, folder: &str) -> Vec<String> {
    vec![OPTION.into(), "dstore".into(), controller.to_string(), folder.into()]
}

/// The arguments that make this program send every file of `folder` to one of the Dstores at `ports`, which take turns.
/// It sends so many files at the same time, removes them afterwards if it `removes`, and then ends.
pub fn sender_arguments(folder: &str, senders: usize, removes: bool, ports: &[u16]) -> Vec<String> {
    let numbers = [senders, usize::from(removes)].into_iter().chain(ports.iter().map(|port| usize::from(*port)));
    [OPTION, "sender", folder].map(str::to_owned).into_iter().chain(numbers.map(|number| number.to_string())).collect()
}

/// Does what one of the functions above asks for, if this process was started with them. Ends with
/// the process.
pub fn serve_if_asked() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let Some((OPTION, arguments)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) else {
        return Ok(());
    };
    let number = |at: usize| number(arguments[at].as_bytes());
    if arguments[0] == "sender" {
        let ports: Vec<_> = (4..arguments.len()).map(|at| number(at) as u16).collect();
        sender::run(arguments[1].as_ref(), number(2), number(3) == 1, &ports)?;
        process::exit(0);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    match arguments[0].as_str() {
        "controller" => controller::run(&listener, number(1), number(2), number(3), number(4)),
        _ => dstore::run(listener, number(1) as u16, arguments[2].as_ref()),
    }
}

/// Says where it listens, as the real programs do.
fn say_listening(listener: &TcpListener) -> io::Result<()> {
    println!("listening on {}", listener.local_addr()?.port());
    io::stdout().flush()
}

/// How much is moved at once: see the bench `bulk`.
pub const BUFFER_BYTES: usize = 256 << 10;

/// Moves so many bytes, through a buffer that is there.
pub fn copy(from: &mut impl Read, to: &mut impl Write, bytes: usize, buffer: &mut [u8]) -> io::Result<()> {
    let mut remaining = bytes;
    while remaining > 0 {
        let most = remaining.min(buffer.len());
        match from.read(&mut buffer[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                to.write_all(&buffer[..read])?;
                remaining -= read;
            }
        }
    }
    Ok(())
}
