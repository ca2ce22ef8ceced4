//! Answers each request with what it knows from the start, and tells a client when its file's last copy is there.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use super::{MOST_CLIENTS, NAME_BYTES, holders, number, say_listening};

struct Controller {
    replicas: usize,
    size: usize,
    list: Vec<u8>,
    /// In order of joining, each with its port.
    dstores: OnceLock<Vec<(TcpStream, usize)>>,
    /// By number.
    clients: Vec<Client>,
}

/// A client, with at most one operation in progress.
#[derive(Default)]
struct Client {
    stream: OnceLock<TcpStream>,
    acknowledgements: AtomicUsize,
}

pub fn run(listener: &TcpListener, dstores: usize, replicas: usize, size: usize, list_bytes: usize) -> io::Result<()> {
    say_listening(listener)?;
    let clients = (0..MOST_CLIENTS).map(|_| Client::default()).collect();
    let list = [b"LIST".as_slice(), &vec![b' '; list_bytes - 5], b"\n"].concat();
    let controller = Arc::new(Controller { replicas, size, list, dstores: OnceLock::new(), clients });
    let mut joined = Vec::new();
    for _ in 0..dstores {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut join = [0; 64];
        let _ = stream.read(&mut join)?;
        joined.push((stream, number(&join["JOIN ".len()..])));
    }
    for (stream, _) in &joined {
        let (controller, stream) = (Arc::clone(&controller), stream.try_clone()?);
        thread::spawn(move || controller.hear(stream));
    }
    let _ = controller.dstores.set(joined);
    for stream in listener.incoming() {
        let (controller, stream) = (Arc::clone(&controller), stream?);
        thread::spawn(move || controller.serve(stream));
    }
    Ok(())
}

impl Controller {
    /// A client's requests: each arrives as one piece.
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let dstores = self.dstores.get().expect("all have joined");
        let mut request = [0; 256];
        let mut reply = Vec::new();
        loop {
            let length = stream.read(&mut request)?;
            let request = &request[..length];
            reply.clear();
            match request {
                [] => return Ok(()),
                [b'S', ..] => {
                    let name = &request["STORE ".len()..];
                    self.client(name).stream.get_or_init(|| stream.try_clone().expect("a descriptor"));
                    reply.extend(b"STORE_TO");
                    for (_, port) in holders(dstores, self.replicas, name) {
                        write!(reply, " {port}")?;
                    }
                    reply.push(b'\n');
                }
                [b'L', b'O', ..] => {
                    let name = &request["LOAD ".len()..];
                    let (_, port) = holders(dstores, 1, name).next().expect("at least one");
                    writeln!(reply, "LOAD_FROM {port} {}", self.size)?;
                }
                [b'R', ..] => {
                    for (dstore, _) in holders(dstores, self.replicas, &request["REMOVE ".len()..]) {
                        (&mut &*dstore).write_all(request)?;
                    }
                    continue;
                }
                _ => {
                    stream.write_all(&self.list)?;
                    continue;
                }
            }
            stream.write_all(&reply)?;
        }
    }

    /// A Dstore's acknowledgements: STORE_ACK or REMOVE_ACK and a name.
    fn hear(&self, mut stream: TcpStream) -> io::Result<()> {
        const STORE: usize = "STORE_ACK ".len();
        const REMOVE: usize = "REMOVE_ACK ".len();
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            heard.extend_from_slice(&buffer[..read]);
            let mut done = 0;
            while heard.len() - done > REMOVE + NAME_BYTES || heard.len() - done == STORE + NAME_BYTES + 1 {
                let message = &heard[done..];
                let (at, complete): (_, &[u8]) =
                    if message[0] == b'S' { (STORE, b"STORE_COMPLETE\n") } else { (REMOVE, b"REMOVE_COMPLETE\n") };
                let client = self.client(&message[at..]);
                if client.acknowledgements.fetch_add(1, Ordering::AcqRel) + 1 == self.replicas {
                    client.acknowledgements.store(0, Ordering::Release);
                    let mut stream = client.stream.get().expect("it has stored");
                    stream.write_all(complete)?;
                }
                done += at + NAME_BYTES + 1;
            }
            heard.drain(..done);
        }
    }

    fn client(&self, name: &[u8]) -> &Client {
        &self.clients[number(&name["file-".len()..])]
    }
}
