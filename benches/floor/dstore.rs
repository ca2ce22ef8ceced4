//! Keeps what it is sent, sends what it has, and acknowledges.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{BUFFER_BYTES, NAME_BYTES, copy, number, say_listening};

/// Enough for all connections that there are at a time.
const THREADS: usize = 128;

struct Dstore {
    listener: TcpListener,
    folder: PathBuf,
    controller: TcpStream,
    arrivals: AtomicUsize,
}

pub fn run(listener: TcpListener, controller: u16, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let controller = TcpStream::connect((Ipv4Addr::LOCALHOST, controller))?;
    controller.set_nodelay(true)?;
    (&controller).write_all(format!("JOIN {}\n", listener.local_addr()?.port()).as_bytes())?;
    say_listening(&listener)?;
    let dstore = Arc::new(Dstore { listener, folder: folder.to_owned(), controller, arrivals: AtomicUsize::new(0) });
    // No thread hands a connection to another: each takes one, serves it, and takes the next.
    for _ in 0..THREADS {
        let dstore = Arc::clone(&dstore);
        thread::spawn(move || {
            let mut buffer = vec![0; BUFFER_BYTES];
            loop {
                let (stream, _) = dstore.listener.accept().expect("descriptors enough");
                let _ = dstore.serve(stream, &mut buffer);
            }
        });
    }
    dstore.obey()
}

impl Dstore {
    fn serve(&self, mut stream: TcpStream, buffer: &mut [u8]) -> io::Result<()> {
        stream.set_nodelay(true)?;
        // As much as real ones read ahead: all of a small file that comes with its STORE.
        let mut request = [0; 8 << 10];
        let mut keeps = false;
        loop {
            let mut length = stream.read(&mut request)?;
            if request[0] == b'K' {
                keeps = true;
                let greeting = "KEEP_ALIVE\n".len();
                request.copy_within(greeting..length, 0);
                length -= greeting;
            }
            if length == 0 {
                return Ok(());
            }
            if request[0] == b'S' {
                let request = &request["STORE ".len()..length];
                self.take_in(&mut stream, request, buffer)?;
                self.acknowledge(b"STORE_ACK ", request)?;
            } else if request[0] == b'R' {
                self.take_in(&mut stream, &request["REBALANCE_STORE ".len()..length], buffer)?;
            } else {
                let mut file = File::open(self.folder.join(text(&request["LOAD_DATA ".len()..])))?;
                let size = file.metadata()?.len() as usize;
                copy(&mut file, &mut stream, size, buffer)?;
            }
            if !keeps {
                return Ok(());
            }
        }
    }

    fn take_in(&self, stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> io::Result<()> {
        let incoming = self.folder.join(format!("incoming {}", self.arrivals.fetch_add(1, Ordering::Relaxed)));
        let mut file = File::create_new(&incoming)?;
        stream.write_all(b"ACK\n")?;
        let end = 1 + request.iter().position(|byte| *byte == b'\n').expect("a line");
        file.write_all(&request[end..])?;
        copy(stream, &mut file, number(&request[NAME_BYTES + 1..]) - (request.len() - end), buffer)?;
        fs::rename(incoming, self.folder.join(text(request)))
    }

    /// What the Controller has removed.
    fn obey(&self) -> io::Result<()> {
        let mut controller = &self.controller;
        loop {
            let mut order = [0; "REMOVE ".len() + NAME_BYTES + 1];
            controller.read_exact(&mut order)?;
            let name = &order["REMOVE ".len()..];
            fs::remove_file(self.folder.join(text(name)))?;
            self.acknowledge(b"REMOVE_ACK ", name)?;
        }
    }

    fn acknowledge(&self, what: &[u8], name: &[u8]) -> io::Result<()> {
        (&mut &self.controller).write_all(&[what, &name[..NAME_BYTES], b"\n"].concat())
    }
}

fn text(name: &[u8]) -> &str {
    std::str::from_utf8(&name[..NAME_BYTES]).expect("names are ASCII")
}
