//! A façade by one: a store over Gopher (RFC 1436), to be read. (docs/gateway.md)
//!
//! A Gopher client connects, sends one line, the *selector*, and reads until the end. A folder is a menu: a line for each
//! entry, which says its kind, its name, and where to ask for it. A file is its bytes.
//!
//! ```console
//! $ cargo run -p cli --example gopher -- ~/store/client.toml
//! $ curl gopher://127.0.0.1:7070/1/docs
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use depot::client::{Error, Files, ListOptions};
use depot::namespace::change::Condition;
use depot::namespace::listing::Kind;
use depot::path::Path;
use gateway::facade::{Acting, Facade, Running};
use gateway::{Gateway, Options};
use stevedore::server::{Server, ThreadGroup};

/// The longest selector.
const LONGEST: u64 = 8 << 10;

/// How long a client may be silent, or take nothing of its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The façade while it runs.
pub struct Gopher {
    server: Server,
    threads: Arc<ThreadGroup>,
    address: SocketAddr,
}

impl Gopher {
    /// Answers from `store`, which is bounded to what clients may read.
    pub fn start(listener: TcpListener, store: Arc<dyn Files>) -> io::Result<Box<dyn Running>> {
        let threads = ThreadGroup::new("gopher");
        let address = listener.local_addr()?;
        let serve = move |stream: Arc<TcpStream>| {
            if let Err(error) = answer(&stream, &*store) {
                log::info!("gopher: {:?}: {error}", stream.peer_addr());
            }
        };
        let server = Server::start(listener, &threads, Some(PATIENCE), serve)?;
        Ok(Box::new(Self { server, threads, address }))
    }
}

impl Running for Gopher {
    fn places(&self) -> String {
        self.address.to_string()
    }

    /// Answers are short: none is waited for.
    fn stop(self: Box<Self>, _grace: Duration) {}
}

impl Drop for Gopher {
    fn drop(&mut self) {
        self.server.stop();
        self.threads.stop();
    }
}

fn answer(mut stream: &TcpStream, store: &dyn Files) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut selector = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut selector)?;
    let path = selector.trim_end_matches(['\r', '\n', '/']);
    let path = if path.is_empty() { Ok(Path::root()) } else { path.parse::<Path>() };
    let Ok(path) = path else { return stream.write_all(b"3no path\t\terror\t0\r\n.\r\n") };
    match send(stream, store, &path) {
        Err(Error::Sink(error)) => Err(error),
        Err(error) => write!(stream, "3{path}: {error}\t\terror\t0\r\n.\r\n"),
        Ok(()) => Ok(()),
    }
}

/// Sends a file's bytes, or the menu of a folder.
fn send(mut stream: &TcpStream, store: &dyn Files, path: &Path) -> Result<(), Error> {
    if let Kind::File { size, .. } = store.stat(path)?.kind {
        return store.get(path, Condition::Any)?.copy_to(0..size, &mut stream);
    }
    let here = stream.local_addr().map_err(Error::Sink)?;
    let mut options = ListOptions::default();
    loop {
        let page = store.list(path, &options)?;
        for entry in &page.entries {
            // What has a tab or a line break in its name cannot be said.
            let name = entry.name.trim_end_matches('/');
            let Ok(path) = path.join(name) else { continue };
            let kind = if entry.name.ends_with('/') { 1 } else { 9 };
            if !name.contains(['\t', '\r', '\n']) {
                write!(stream, "{kind}{name}\t{path}\t{}\t{}\r\n", here.ip(), here.port()).map_err(Error::Sink)?;
            }
        }
        match page.after {
            Some(after) => options.after = after,
            None => return stream.write_all(b".\r\n").map_err(Error::Sink),
        }
    }
}

/// Runs a gateway that has this façade beside HTTP, for the store whose `client.toml` is named.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cluster = std::env::args_os().nth(1).map(std::path::PathBuf::from);
    let store = cli::cluster::connect(cluster.as_deref()).map_err(|failure| failure.message)?;
    let listener = TcpListener::bind("127.0.0.1:7070")?;
    let starter = Box::new(|store, _| Gopher::start(listener, store));
    let facades = vec![Facade { name: "Gopher", acting: Acting::anonymous(true), starter }];
    let options = Options { facades, ..Options::new(TcpListener::bind("127.0.0.1:0")?) };
    let gateway = Gateway::start(options, Arc::new(store))?;
    gateway.facades().for_each(|(name, places)| println!("{name} {places}"));
    loop {
        std::thread::park();
    }
}
