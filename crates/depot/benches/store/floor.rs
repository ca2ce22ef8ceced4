//! Programs that move the same bytes, append and sync the same amounts, and decide nothing. (depot 11)
//!
//! A request is a line, which says how many bytes follow and how many come back. A server appends what it has received to
//! one file, syncs it together with what others have appended meanwhile, and answers. A long answer is read from that file.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use stevedore::server::{Server as Acceptor, ThreadGroup};
use stevedore::sync::group_commit::GroupCommit;

/// Three Dstores and a Controller.
pub struct Floor {
    pub dstores: Vec<Server>,
    pub controller: Server,
}

pub struct Server {
    address: SocketAddr,
    threads: Arc<ThreadGroup>,
    _acceptor: Acceptor,
}

struct Kept {
    file: Mutex<File>,
    sync: Option<GroupCommit>,
}

impl Floor {
    pub fn start(folder: &Path, syncs: bool) -> Self {
        let server = |name: &str| Server::start(&folder.join(name), syncs);
        Self { dstores: ["a", "b", "c"].map(server).into(), controller: server("controller") }
    }
}

impl Server {
    fn start(path: &Path, syncs: bool) -> Self {
        let file = OpenOptions::new().create(true).append(true).read(true).open(path).expect("a file");
        let kept = Kept { file: Mutex::new(file), sync: syncs.then(GroupCommit::default) };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let threads = ThreadGroup::new("floor");
        let serve = move |stream: Arc<TcpStream>| {
            let _ = kept.serve(&stream); // it ends when the client does
        };
        Self { address, _acceptor: Acceptor::start(listener, &threads, None, serve).expect("threads"), threads }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self._acceptor.stop();
        self.threads.stop();
    }
}

impl Kept {
    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        let mut buffer = vec![0; 256 << 10];
        let answer = vec![b'x'; 256 << 10];
        while reader.read_line({
            line.clear();
            &mut line
        })? > 0
        {
            let mut words = line.split_whitespace().map(|word| word.parse().unwrap_or(0));
            let (mut coming, mut due): (usize, usize) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
            if coming > 0 {
                while coming > 0 {
                    let piece = coming.min(buffer.len());
                    reader.read_exact(&mut buffer[..piece])?;
                    self.file.lock().expect("no panic").write_all(&buffer[..piece])?;
                    coming -= piece;
                }
                if let Some(sync) = &self.sync {
                    let file = self.file.lock().expect("no panic").try_clone()?;
                    sync.commit(|| file.sync_data())?;
                }
            }
            if due > answer.len() {
                let file = self.file.lock().expect("no panic").try_clone()?;
                let mut at = 0;
                while due > answer.len() {
                    file.read_exact_at(&mut buffer, at)?;
                    (&*stream).write_all(&buffer)?;
                    due -= buffer.len();
                    at += buffer.len() as u64;
                }
            }
            let mut last = answer[..due].to_vec();
            last.push(b'\n');
            (&*stream).write_all(&last)?;
        }
        Ok(())
    }
}

/// A connection of a client.
pub struct Connection {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn to(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address).expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let reader = BufReader::with_capacity(256 << 10, stream.try_clone().expect("a descriptor"));
        Self { stream, reader }
    }

    pub fn send(&mut self, content: &[u8], due: usize) {
        let mut bytes = format!("{} {due}\n", content.len()).into_bytes();
        if content.len() <= 64 << 10 {
            bytes.extend_from_slice(content);
            self.stream.write_all(&bytes).expect("it reads");
        } else {
            self.stream.write_all(&bytes).expect("it reads");
            self.stream.write_all(content).expect("it reads");
        }
    }

    pub fn receive(&mut self, due: usize) {
        self.receive_into(due, |_| ());
    }

    /// Hands over what comes, and the line's end behind it.
    pub fn receive_into(&mut self, due: usize, mut sink: impl FnMut(&[u8])) {
        let mut left = due + 1;
        while left > 0 {
            let bytes = self.reader.fill_buf().expect("it answers");
            let count = bytes.len().min(left);
            assert!(count > 0, "the floor has gone");
            sink(&bytes[..count]);
            self.reader.consume(count);
            left -= count;
        }
    }
}
