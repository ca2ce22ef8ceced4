//! What is the fastest way to move a file through a socket into another file on this machine?
//!
//! Bare threads, one to send and one to receive, over loopback, with files in memory: what a Dstore does when a client
//! loads, and when it stores, and nothing else. The bench `end_to_end` compares ours with the best of these.

mod common;
mod floor;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use common::{Run, Size, Table, digits, measure};
use kit::TempFolder;
use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::sendfile::sendfile;
use nix::unistd::pipe;

const BYTES: Size<usize> = Size { full: 64 << 20, tiny: 300_000 };
const ROUNDS: Size<usize> = Size { full: 9, tiny: 1 };

/// What the receiver does, or the sender.
#[derive(Clone, Copy)]
enum Way {
    /// read and write, by a buffer of so many bytes.
    Buffer(usize),
    /// sendfile (to send only).
    Sendfile,
    /// splice through a pipe of so many bytes (to receive only).
    Splice(usize),
}

fn main() -> io::Result<()> {
    let run = Run::new();
    let bytes = run.size(BYTES);
    let folder = TempFolder::in_memory();
    let source = folder.path().join("source");
    let content: Vec<u8> = (0..bytes).map(|at| ((at * 31) >> 5) as u8).collect();
    fs::write(&source, &content)?;
    let ways = [
        ("64 KiB, 64 KiB", Way::Buffer(64 << 10), Way::Buffer(64 << 10)),
        ("256 KiB, 256 KiB", Way::Buffer(256 << 10), Way::Buffer(256 << 10)),
        ("1 MiB, 1 MiB", Way::Buffer(1 << 20), Way::Buffer(1 << 20)),
        ("4 MiB, 4 MiB", Way::Buffer(4 << 20), Way::Buffer(4 << 20)),
        ("sendfile, 256 KiB", Way::Sendfile, Way::Buffer(256 << 10)),
        ("256 KiB, splice 1 MiB", Way::Buffer(256 << 10), Way::Splice(1 << 20)),
        ("sendfile, splice 1 MiB", Way::Sendfile, Way::Splice(1 << 20)),
    ];
    let figures = measure(run.size(ROUNDS), |clock| {
        for (at, (name, send_by, receive_by)) in ways.into_iter().enumerate() {
            let target = folder.path().join(at.to_string());
            clock.time(name, || transfer(&source, &target, bytes, send_by, receive_by)).expect("moved");
            assert!(fs::read(&target).expect("there") == content, "{name}");
            fs::remove_file(&target).expect("removed");
        }
    });
    let title = format!("{} MB from file to socket to file in {}", digits(bytes as f64 / 1e6), folder.path().display());
    let mut table = Table::new(title, &["sender, receiver", "MB/s", "of the first"]);
    for (name, ..) in ways {
        let ratio = figures[ways[0].0].over(&figures[name]);
        table.row([name.into(), figures[name].rate(bytes as f64 / 1e6).to_string(), ratio.brief()]);
    }
    table.print();
    Ok(())
}

fn transfer(
    source: &std::path::Path,
    target: &std::path::Path,
    bytes: usize,
    send_by: Way,
    receive_by: Way,
) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sending = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiving, _) = listener.accept()?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || send(&mut File::open(source)?, &mut sending, bytes, send_by));
        receive(&mut receiving, &mut File::create_new(target)?, bytes, receive_by)?;
        sender.join().expect("no panic")
    })
}

fn send(file: &mut File, socket: &mut TcpStream, bytes: usize, way: Way) -> io::Result<()> {
    let Way::Buffer(size) = way else {
        let mut left = bytes;
        while left > 0 {
            left -= sendfile(&*socket, &*file, None, left)?;
        }
        return Ok(());
    };
    copy(file, socket, bytes, size)
}

fn receive(socket: &mut TcpStream, file: &mut File, bytes: usize, way: Way) -> io::Result<()> {
    let size = match way {
        Way::Buffer(size) => return copy(socket, file, bytes, size),
        Way::Splice(size) => size,
        Way::Sendfile => unreachable!("no socket is sent from"),
    };
    let (from, into) = pipe()?;
    nix::fcntl::fcntl(&from, nix::fcntl::FcntlArg::F_SETPIPE_SZ(size as i32))?;
    let mut left = bytes;
    while left > 0 {
        let mut moved = splice(&*socket, None, &into, None, left.min(size), SpliceFFlags::SPLICE_F_MOVE)?;
        left -= moved;
        while moved > 0 {
            moved -= splice(&from, None, &*file, None, moved, SpliceFFlags::SPLICE_F_MOVE)?;
        }
    }
    Ok(())
}

fn copy(from: &mut impl Read, to: &mut impl Write, bytes: usize, buffer: usize) -> io::Result<()> {
    floor::copy(from, to, bytes, &mut vec![0; buffer])
}
