//! What each request does.

use std::cmp;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use depot::client::{Content, CopyOptions, DstoreState, Error, ListOptions, MoveOptions, PutOptions, Source};
use depot::namespace::change::{Condition, Details, Refusal, RemovalExtent, Replicas};
use depot::namespace::listing::{Kind, Stat};
use depot::path::Path;
use hyper::StatusCode;
use socket2::SockRef;
use stevedore::complaint::complain;
use stevedore::socket::{Incoming, Wait};

use super::Shared;
use super::frame::{Request, answer, escaped, unescaped};
use super::ports::Port;
use super::transfer::{Blocks, dial};
use crate::monitoring::Noted;
use crate::server::pace::Pace;

/// How long a client may take none of an answer, or send none of a request that it has begun.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer fits one segment of this size if the kernel does not say how large one is: Ethernet's, with time stamps.
const SEGMENT: usize = 1_448;

/// What can be asked for.
const KINDS: &[&str] = &["init", "crf", "rdf", "wrf", "rmf", "inf", "cpf", "mvf", "opdir", "rddir", "mkdir", "rmdir"];

/// What a client is told in place of a port.
const REFUSED: &str = "0000";

/// So many names are tried where one is taken.
const MOST_NAMES: u32 = 10_000;

/// Serves a session until its client leaves. It may be idle for as long as it likes.
pub(super) fn serve(shared: &Shared, stream: Arc<TcpStream>) {
    let Some(_seat) = shared.sessions.take() else { return };
    let Ok(peer) = stream.peer_addr() else { return };
    let client = peer.ip().to_canonical();
    let (here, request) = (Path::root(), String::new());
    let mut session =
        Session { shared, stream: &stream, peer, client, here, request, came: Instant::now(), waited: None };
    if let Err(error) = session.serve() {
        complain(format_args!("names: {peer}: session closed: {error}"));
    }
}

/// One client's shell.
struct Session<'a> {
    shared: &'a Shared,
    stream: &'a Arc<TcpStream>,
    peer: SocketAddr,
    client: IpAddr,
    /// Its current directory.
    here: Path,
    /// For the log.
    request: String,
    /// When the request came; how long it took until its answer began.
    came: Instant,
    waited: Option<Duration>,
}

/// What a request is answered with.
enum Reply {
    /// A frame.
    Frame(String),
    /// What is to be said was said already.
    Said,
    /// The client leaves.
    End,
}

impl From<&str> for Reply {
    fn from(body: &str) -> Self {
        Self::Frame(body.to_owned())
    }
}

impl Session<'_> {
    fn serve(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        self.stream.set_write_timeout(Some(PATIENCE))?;
        SockRef::from(&**self.stream).set_keepalive(true)?;
        let mut incoming = Incoming::new(Arc::clone(self.stream));
        loop {
            incoming.wait = Wait::Forever;
            let mut begins = Begins { incoming: &mut incoming };
            let Some(request) = Request::read(&mut begins)? else { return Ok(()) };
            self.request = format!("{} {}", request.kind, request.arguments.join(" "));
            log::debug!("names: {}: {}", self.client, self.request);
            (self.came, self.waited) = (Instant::now(), None);
            let reply = self.answer(&request, &mut incoming)?;
            let said = match &reply {
                Reply::Frame(body) => {
                    self.send(&answer(&request.kind, body))?;
                    body.as_str()
                }
                Reply::Said => REFUSED,
                Reply::End => return Ok(()),
            };
            self.record(&request, said);
        }
    }

    /// Notes how a request was answered.
    fn record(&self, request: &Request, said: &str) {
        let label = KINDS.iter().find(|kind| **kind == request.kind).unwrap_or(&"other");
        let what = request.arguments.first().map_or("-", String::as_str);
        let sent = match said.strip_suffix(" bytes sent").and_then(|sent| sent.parse().ok()) {
            Some(content) if request.kind == "rdf" => content,
            _ => said.len() as u64,
        };
        let waited = self.waited.unwrap_or_else(|| self.came.elapsed());
        let (request, status) = ((&*request.kind, what, "NAMES"), status(said));
        self.shared.record.note(&Noted { peer: self.peer, label, request, status, sent, waited });
    }

    /// In one write: the client takes it with one `recv`.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waited.get_or_insert(self.came.elapsed());
        (&**self.stream).write_all(bytes)
    }

    fn answer(&mut self, request: &Request, incoming: &mut Incoming) -> io::Result<Reply> {
        let arguments: Vec<&str> = request.arguments.iter().map(String::as_str).collect();
        Ok(match (request.kind.as_str(), &arguments[..]) {
            ("init", []) => self.format(),
            ("crf", [name]) => self.create(name),
            ("rdf", [name]) => self.read(name, incoming)?,
            ("wrf", [name, size]) => self.write(name, size, incoming)?,
            ("rmf", [name]) => self.remove(name),
            ("inf", [name]) => self.inform(name),
            ("cpf", [name, to]) => self.place(name, to, false),
            ("mvf", [name, to]) => self.place(name, to, true),
            ("opdir", [name]) => self.change_directory(name),
            ("rddir", []) => Reply::Frame(self.list()),
            ("mkdir", [name]) => self.make_directory(name),
            ("rmdir", [name]) => self.remove_directory(name),
            ("exit", []) => Reply::End,
            _ => "Error".into(),
        })
    }

    /// Where a name leads: from the current directory, or from the root if it begins with `/`.
    fn resolve(&self, text: &str) -> Option<Path> {
        let mut path = if text.starts_with('/') { Path::root() } else { self.here.clone() };
        for component in text.split('/') {
            path = match component {
                "" | "." => path,
                ".." => path.split_last()?.0,
                name => path.join(&unescaped(name)).ok()?,
            };
        }
        Some(path)
    }

    fn stat(&self, path: Option<&Path>) -> Option<Stat> {
        self.shared.files.stat(path?).map_err(|error| self.note(&error)).ok()
    }

    /// A file and its size.
    fn file(&self, name: &str) -> Option<(Path, u64)> {
        let path = self.resolve(name)?;
        match self.stat(Some(&path))?.kind {
            Kind::File { size, .. } => Some((path, size)),
            Kind::Directory { .. } => None,
        }
    }

    fn is_directory(&self, path: Option<&Path>) -> bool {
        self.stat(path).is_some_and(|stat| matches!(stat.kind, Kind::Directory { .. }))
    }

    /// Says in the log why something was not done, where the client is told little.
    fn note(&self, error: &dyn std::fmt::Display) {
        log::info!("names: {}: {:?}: {error}", self.client, self.request);
    }

    /// Empties what the façade offers, and says what storages there are.
    fn format(&mut self) -> Reply {
        if !self.shared.allows_format {
            return "Not allowed: the gateway was started without --allow-format".into();
        }
        match self.empty().and_then(|()| self.shared.files.status()) {
            Ok(status) => {
                self.here = Path::root();
                let present = status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Present);
                let host = |address: &str| address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
                let line = |address: &str, free| format!("storage {} {}\n", host(address), rounded(free));
                Reply::Frame(present.map(|dstore| line(&dstore.address, dstore.free_bytes)).collect())
            }
            Err(error) => self.failed(&error),
        }
    }

    fn empty(&self) -> Result<(), Error> {
        let mut options = ListOptions::default();
        loop {
            let page = self.shared.files.list(&Path::root(), &options)?;
            for entry in &page.entries {
                let path = Path::root().join(entry.name.trim_end_matches('/'));
                let path = path.map_err(|_| Error::Refused(Refusal::InvalidPath))?;
                match entry.stat.kind {
                    Kind::File { .. } => self.shared.files.remove(&path, Condition::Any)?,
                    Kind::Directory { .. } => {
                        self.shared.files.remove_directory(&path, Condition::Any, RemovalExtent::Tree)?
                    }
                };
            }
            // A page may be empty although others follow.
            match page.after {
                Some(after) => options.after = after,
                None => return Ok(()),
            }
        }
    }

    fn failed(&self, error: &Error) -> Reply {
        complain(format_args!("names: {}: {:?}: {error}", self.client, self.request));
        "Error".into()
    }

    fn create(&self, name: &str) -> Reply {
        let Some(path) = self.resolve(name) else { return "Error".into() };
        match self.shared.files.put(&path, Source::Once(&mut io::empty()), &new_file()) {
            Ok(_) => "File created".into(),
            Err(Error::Refused(Refusal::AlreadyExists | Refusal::IsADirectory)) => "File already exists".into(),
            Err(error) => self.failed(&error),
        }
    }

    fn read(&mut self, name: &str, incoming: &mut Incoming) -> io::Result<Reply> {
        const MISSING: &str = "0][0";
        let Some((path, _)) = self.file(name) else { return Ok(MISSING.into()) };
        let mut content = match self.shared.files.get(&path, Condition::Any) {
            Ok(content) => content,
            Err(error) => {
                self.note(&error);
                return Ok(MISSING.into());
            }
        };
        let Some(port) = self.shared.ports.take(self.client) else { return Ok(Reply::End) };
        self.send(&answer("rdf", &format!("{}][{}", port.number, content.size())))?;
        expect(incoming, b'y')?;
        let sent = self.send_content(&mut *content, port).unwrap_or_else(|error| {
            complain(format_args!("names: {}: {:?}: {error}", self.client, self.request));
            0
        });
        Ok(Reply::Frame(format!("{sent} bytes sent")))
    }

    /// Sends content to the client's port, and closes the connection; how many bytes the client's kernel has.
    fn send_content(&self, content: &mut dyn Content, port: Port) -> io::Result<u64> {
        let stream = Arc::new(dial(self.client, port.number)?);
        let _tracked = self.shared.threads.track(&stream);
        let mut blocks = Blocks::to(&stream, self.pace())?;
        let size = content.size();
        let sent = content.copy_to(0..size, &mut blocks).map_err(|error| io::Error::other(error.to_string()));
        if let Err(error) = sent.and_then(|()| blocks.finish()) {
            complain(format_args!("names: {}: {:?}: {error}", self.client, self.request));
        }
        Ok(blocks.sent)
    }

    fn write(&mut self, name: &str, size: &str, incoming: &mut Incoming) -> io::Result<Reply> {
        let (Some(path), Ok(size)) = (self.resolve(name), size.parse::<u64>()) else {
            return self.refuse(&"no name, or no size");
        };
        if let Err(error) = self.shared.files.check_put(&path, &new_file()) {
            return self.refuse(&error);
        }
        let Some(port) = self.shared.ports.take(self.client) else { return Ok(Reply::End) };
        self.send(format!("{:04}", port.number).as_bytes())?;
        expect(incoming, b'e')?;
        let received = self.receive_content(&path, size, port).map(|()| size).unwrap_or_else(|error| {
            complain(format_args!("names: {}: {:?}: {error}", self.client, self.request));
            0
        });
        Ok(Reply::Frame(format!("{received} bytes recieved"))) // as the original spells it
    }

    fn refuse(&mut self, why: &dyn std::fmt::Display) -> io::Result<Reply> {
        self.note(why);
        self.send(REFUSED.as_bytes()).map(|()| Reply::Said)
    }

    /// Takes content from the client's port, and closes the connection.
    fn receive_content(&self, path: &Path, size: u64, port: Port) -> io::Result<()> {
        let stream = Arc::new(dial(self.client, port.number)?);
        let _tracked = self.shared.threads.track(&stream);
        let mut incoming = Incoming::new(Arc::clone(&stream));
        let mut content = Exactly { from: &mut incoming, left: size, pace: self.pace() };
        let put = self.shared.files.put(path, Source::Once(&mut content), &new_file());
        put.map(drop).map_err(|error| io::Error::other(error.to_string()))
    }

    /// How slowly a client may send or take content.
    fn pace(&self) -> Pace {
        Pace::new(self.shared.limits.stall, self.shared.limits.slowest_rate)
    }

    fn remove(&self, name: &str) -> Reply {
        let Some((path, _)) = self.file(name) else { return "No such file".into() };
        match self.shared.files.remove(&path, Condition::Any) {
            Ok(_) => "Done".into(),
            Err(Error::Refused(Refusal::NotFound | Refusal::IsADirectory)) => "No such file".into(),
            Err(error) => self.failed(&error),
        }
    }

    fn inform(&self, name: &str) -> Reply {
        const MISSING: &str = "No such file exist";
        let Some((path, size)) = self.file(name) else { return MISSING.into() };
        let copies = match self.shared.files.copies(&path) {
            Ok(copies) => copies,
            Err(Error::Refused(Refusal::NotFound)) => return MISSING.into(),
            Err(error) => return self.failed(&error),
        };
        let good = copies.iter().map(|object| {
            object.copies.iter().filter(|copy| copy.is_present && copy.is_certain && !copy.is_damaged).count()
        });
        // No byte of an empty file can be lost: the namespace alone has it.
        let replicas = good.min().unwrap_or_else(|| self.dstores());
        Reply::Frame(format!("size={size} replicas={replicas}"))
    }

    fn dstores(&self) -> usize {
        let is_there = |status: depot::client::Status| {
            status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Present).count()
        };
        self.shared.files.status().map_or(0, is_there)
    }

    /// Copies or moves a file to where `to` leads: onto no other file, but beside it under another name.
    fn place(&self, name: &str, to: &str, is_moved: bool) -> Reply {
        let Some((from, _)) = self.file(name) else { return "No such file exist".into() };
        let (_, own_name) = from.split_last().expect("a file is not the root");
        let names_a_directory = matches!(to.rsplit('/').next(), Some("" | "." | ".."));
        let target = self.resolve(to).and_then(|to| if names_a_directory { to.join(own_name).ok() } else { Some(to) });
        let Some((directory, wanted)) = target.as_ref().and_then(Path::split_last) else { return "Error".into() };
        for number in 0..MOST_NAMES {
            let Ok(target) = directory.join(&numbered(wanted, number)) else { break };
            let options = MoveOptions { to_condition: Condition::Absent, ..MoveOptions::default() };
            let placed = match is_moved {
                true => self.shared.files.rename(&from, &target, &options),
                false => {
                    let options = CopyOptions { placing: options, ..CopyOptions::default() };
                    self.shared.files.copy(&from, &target, &options)
                }
            };
            match placed {
                Ok(_) => return "Done".into(),
                Err(Error::Refused(Refusal::AlreadyExists | Refusal::ConditionFailed | Refusal::IsADirectory)) => {}
                // A file within itself, as it seems to the store: the name is taken.
                Err(Error::Refused(Refusal::InvalidPath)) if target == from => {}
                Err(error) => return self.failed(&error),
            }
        }
        "Error".into()
    }

    fn change_directory(&mut self, name: &str) -> Reply {
        match self.resolve(name).filter(|path| self.is_directory(Some(path))) {
            Some(path) => {
                self.here = path;
                "Done".into()
            }
            None => "No such directory".into(),
        }
    }

    /// An entry a line. What does not fit one segment is left out: the client would take it for the next answer.
    fn list(&self) -> String {
        const MORE: &str = "... and more\n";
        let segment = SockRef::from(&**self.stream).tcp_mss().map_or(SEGMENT, |mss| mss as usize);
        let most = cmp::max(segment, SEGMENT) - answer("rddir", "").len() - 20 - MORE.len();
        let mut body = String::new();
        let mut options = ListOptions::default();
        loop {
            let page = match self.shared.files.list(&self.here, &options) {
                Ok(page) => page,
                Err(error) => {
                    self.note(&error);
                    return body;
                }
            };
            for entry in &page.entries {
                let (name, end) = entry.name.strip_suffix('/').map_or((&*entry.name, ""), |name| (name, "/"));
                let line = format!("{}{end}\n", escaped(name));
                if body.len() + line.len() > most {
                    return body + MORE;
                }
                body += &line;
            }
            match page.after {
                Some(after) => options.after = after,
                None => return body,
            }
        }
    }

    fn make_directory(&self, name: &str) -> Reply {
        let path = self.resolve(name);
        if self.is_directory(path.as_ref()) {
            return "done".into();
        }
        let Some(path) = path else { return "Error".into() };
        match self.shared.files.make_directory(&path, false, &Details::default(), None) {
            Ok(_) => "done".into(),
            Err(error) => self.failed(&error),
        }
    }

    fn remove_directory(&self, name: &str) -> Reply {
        const MISSING: &str = "No such directory";
        let Some(path) = self.resolve(name).filter(|path| !path.is_root()) else { return MISSING.into() };
        match self.shared.files.remove_directory(&path, Condition::Any, RemovalExtent::Empty) {
            Ok(_) => "Done".into(),
            Err(Error::Refused(Refusal::NotEmpty)) => "Directory is not empty".into(),
            Err(Error::Refused(Refusal::NotFound | Refusal::NotADirectory)) => MISSING.into(),
            Err(error) => self.failed(&error),
        }
    }
}

/// A file that is put on all Dstores, and replaces none.
fn new_file() -> PutOptions {
    let details = Details { replicas: Some(Replicas::All), ..Details::default() };
    PutOptions { condition: Condition::Absent, details, ..PutOptions::default() }
}

/// What HTTP would have said in place of this.
fn status(said: &str) -> StatusCode {
    match said {
        REFUSED | "File already exists" | "Directory is not empty" => StatusCode::CONFLICT,
        "0][0" | "No such file" | "No such file exist" | "No such directory" => StatusCode::NOT_FOUND,
        "Error" => StatusCode::INTERNAL_SERVER_ERROR,
        _ if said.starts_with("Not allowed") => StatusCode::FORBIDDEN,
        _ => StatusCode::OK,
    }
}

/// The name with a number before its extension; as it is for 0.
fn numbered(name: &str, number: u32) -> String {
    if number == 0 {
        return name.to_owned();
    }
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem}({number}).{extension}"),
        _ => format!("{name}({number})"),
    }
}

/// As `df -h` shows it: rounded up, with one digit behind the point if there is one before it.
fn rounded(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["", "K", "M", "G", "T", "P", "E"] {
        if value.ceil() < 1_024.0 {
            let tenths = (value * 10.0).ceil() / 10.0;
            let is_short = !unit.is_empty() && tenths < 10.0;
            return if is_short { format!("{tenths:.1}{unit}") } else { format!("{:.0}{unit}", value.ceil()) };
        }
        value /= 1_024.0;
    }
    format!("{bytes}")
}

/// Waits for the byte with which the client says that it goes on.
fn expect(incoming: &mut Incoming, expected: u8) -> io::Result<()> {
    incoming.wait = Wait::deadline(PATIENCE);
    let mut byte = [0];
    incoming.read_exact(&mut byte)?;
    if byte[0] == expected {
        return Ok(());
    }
    let (expected, came) = (char::from(expected), char::from(byte[0]));
    Err(io::Error::new(ErrorKind::InvalidData, format!("expected the byte {expected:?}, got {came:?}")))
}

/// A request may be waited for without end; but once it has begun, the rest has to come.
struct Begins<'a> {
    incoming: &'a mut Incoming,
}

impl Read for Begins<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.incoming.read(buffer)?;
        if matches!(self.incoming.wait, Wait::Forever) {
            self.incoming.wait = Wait::deadline(PATIENCE);
        }
        Ok(read)
    }
}

/// Content of a known size; fails if it ends early, or comes too slowly.
struct Exactly<'a> {
    from: &'a mut Incoming,
    left: u64,
    pace: Pace,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let since = Instant::now();
        self.from.wait = Wait::EachRead(self.pace.left());
        let read = self.from.read(&mut buffer[..wanted]);
        self.pace.spend(since.elapsed());
        match read? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                self.left -= read as u64;
                self.pace.earn(read as u64);
                Ok(read)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_goes_before_the_extension() {
        for (name, expected) in
            [("a.txt", "a(1).txt"), ("a", "a(1)"), ("a.tar.gz", "a.tar(1).gz"), (".rc", ".rc(1)"), ("a.", "a(1).")]
        {
            assert_eq!(numbered(name, 1), expected);
            assert_eq!(numbered(name, 0), name);
        }
    }

    #[test]
    fn free_space_is_said_as_df_says_it() {
        let table = [
            (0, "0"),
            (1_023, "1023"),
            (1_024, "1.0K"),
            (10_000, "9.8K"),
            (10 << 10, "10K"),
            ((10 << 20) + 1, "11M"),
            (3 << 29, "1.5G"),
            ((1 << 30) - 1, "1.0G"),
            (u64::MAX, "16E"),
        ];
        for (bytes, expected) in table {
            assert_eq!(rounded(bytes), expected, "{bytes}");
        }
    }
}
