//! Sends copies, as a Dstore does in a rebalance, a connection for each. (spec 4.6.5, 7.18)

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::client::{connect, take_ack};
use super::{BUFFER_BYTES, copy};

pub fn run(folder: &Path, senders: usize, removes: bool, ports: &[u16]) -> io::Result<()> {
    let files = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    let next = AtomicUsize::new(0);
    let send_many = || -> io::Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(at) else { return Ok(()) };
            send(file, ports[at % ports.len()], &mut buffer)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..senders).map(|_| scope.spawn(send_many)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })?;
    if removes { files.iter().try_for_each(fs::remove_file) } else { Ok(()) }
}

fn send(path: &PathBuf, port: u16, buffer: &mut [u8]) -> io::Result<()> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len() as usize;
    let name = path.file_name().expect("a file has one").to_string_lossy();
    let mut stream = connect(port)?;
    stream.write_all(format!("REBALANCE_STORE {name} {size}\n").as_bytes())?;
    take_ack(&mut stream)?;
    copy(&mut file, &mut stream, size, buffer)?;
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("expected the end of the stream")),
    }
}
