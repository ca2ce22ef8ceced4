//! A Dstore under test, with a scripted Controller, clients, and other Dstores.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use super::failure::{Failure, Verdict, claim, given};
use super::recorder::Recorder;
use super::wire::{Heard, Wire, words};
use super::{DSTORE_STARTS, QUIET, REACTION, SharedProcess, Stage, dstore_name, last_lines, ports, wait_until};

/// A Dstore under test that has joined the scripted Controller.
pub struct DstoreScene {
    /// Where the Dstore listens.
    pub port: u16,
    /// Its connection to the Controller, which we are.
    pub controller: Wire,
    /// Its process.
    pub process: SharedProcess,
    folder: PathBuf,
    listener: TcpListener,
    recorder: Recorder,
    patience: Duration,
    start_patience: Duration,
}

/// The checks whose claims the steps of a scene are, by id.
mod judges {
    pub const STORE: &str = "dstore/store/acknowledges-to-both";
    pub const LOAD: &str = "dstore/load/sends-the-content";
    pub const REMOVE: &str = "dstore/remove/removes-and-acknowledges";
    pub const LIST: &str = "dstore/list/what-is-stored";
}

/// A Dstore that we play, to be sent files in a rebalance.
pub struct FakePeer {
    /// Where it listens.
    pub port: u16,
    listener: TcpListener,
    from: String,
    recorder: Recorder,
    patience: Duration,
}

impl Stage {
    /// Starts a Dstore, and waits until it has joined and listens, in whatever order. (spec 4.1)
    pub fn dstore(&mut self, timeout: Duration) -> Result<DstoreScene, Failure> {
        self.dstore_with(timeout, &[])
    }

    /// Starts a Dstore whose folder holds files from before.
    pub fn dstore_with(&mut self, timeout: Duration, left_over: &[&str]) -> Result<DstoreScene, Failure> {
        given(self.joined(timeout, left_over).map_err(|failure| failure.judged_by(DSTORE_STARTS)).and_then(|scene| {
            scene.wait_to_listen().map_err(|failure| failure.judged_by(super::DSTORE_LISTENS))?;
            scene.recorder.set_up();
            Ok(scene)
        }))
    }

    /// Starts a Dstore, and waits for its JOIN and nothing more.
    pub fn joined(&mut self, timeout: Duration, left_over: &[&str]) -> Result<DstoreScene, Failure> {
        let port = self.port();
        let name = dstore_name(port);
        let folder_name = format!("{}{port}", super::FOLDER);
        let folder = self.folder.join(&folder_name);
        let _ = fs::create_dir_all(&folder);
        for file in left_over {
            let _ = fs::write(folder.join(file), "left over");
        }
        let listener = super::ports::listen()?;
        let controller_port = listener.local_addr().map_or(0, |address| address.port());
        let process = self.start_dstore(port, controller_port, timeout, &folder_name)?;
        let accepted = accept(&listener, self.start_patience, || process.lock().end().is_some());
        let Some(stream) = accepted else {
            self.recorder.missing(&name, "controller", "JOIN: missing");
            let mut process = process.lock();
            let printed = last_lines(&process.printed());
            let end = process.end().map_or("it has not".into(), |end| format!("it has ended ({end})"));
            return Err(
                Failure::new("the Dstore connects to the Controller", format!("{end}; it printed: {printed}")).marked()
            );
        };
        let mut controller = Wire::over(stream, "controller", &name, &self.recorder);
        controller.expect(&format!("JOIN {port}"), self.patience)?;
        let (recorder, patience, start_patience) = (self.recorder.clone(), self.patience, self.start_patience);
        Ok(DstoreScene { port, controller, process, folder, listener, recorder, patience, start_patience })
    }
}

impl DstoreScene {
    /// Waits until the Dstore listens. Asks the kernel, so that the Dstore notices nothing.
    fn wait_to_listen(&self) -> Verdict {
        let name = dstore_name(self.port);
        let listens = wait_until(self.start_patience, || ports::is_listened_to(self.port).then_some(()));
        listens.ok_or_else(|| {
            self.recorder.missing(&name, &name, "does not listen");
            Failure::new(format!("{name} listens on its port"), "it does not").marked()
        })
    }

    /// A client's connection for one transfer. (spec 2.5)
    pub fn connect(&self) -> Result<Wire, Failure> {
        self.connect_as("client")
    }

    /// A connection for one transfer, from the party of this name.
    pub fn connect_as(&self, name: &str) -> Result<Wire, Failure> {
        Wire::connect(name, &dstore_name(self.port), self.port, &self.recorder)
    }

    /// The next thing that the Dstore tells the Controller must begin with these words.
    pub fn expect(&mut self, beginning: &str) -> Verdict {
        self.controller.expect(beginning, self.patience)
    }

    /// The next thing that the Dstore tells the Controller must be exactly this.
    pub fn expect_exactly(&mut self, line: &str) -> Verdict {
        self.controller.expect_exactly(line, self.patience)
    }

    /// The Controller says something, and the answer must begin with these words.
    pub fn asks(&mut self, line: &str, beginning: &str) -> Verdict {
        self.controller.send(line);
        self.expect(beginning)
    }

    /// The Controller has a file removed. (spec 4.4)
    pub fn remove(&mut self, name: &str) -> Verdict {
        let removed = self.asks(&format!("REMOVE {name}"), &format!("REMOVE_ACK {name}"));
        removed.map_err(|failure| failure.judged_by(judges::REMOVE))
    }

    /// The Dstore tells the Controller nothing for a while.
    pub fn expect_silence(&mut self, because: &str) -> Verdict {
        self.controller.expect_silence(QUIET, because)
    }

    /// What the Dstore lists, sorted. (spec 4.6)
    pub fn list(&mut self) -> Result<Vec<String>, Failure> {
        self.controller.send("LIST");
        let came = self.controller.receive_due("LIST", self.patience);
        if let Heard::Line(line) = &came {
            let mut words = words(line).map(str::to_owned);
            if words.next().as_deref() == Some("LIST") {
                let mut names: Vec<String> = words.collect();
                names.sort();
                return Ok(names);
            }
        }
        Err(self.controller.wrong("`LIST` and the files", &came).judged_by(judges::LIST))
    }

    /// LIST must show exactly these, in any order.
    pub fn expect_listed(&mut self, files: &[&str]) -> Verdict {
        let listed = self.list()?;
        let mut files = files.to_vec();
        files.sort_unstable();
        if listed == files {
            return Ok(());
        }
        self.recorder.mark_wrong(&dstore_name(self.port), "controller");
        let failure = Failure::new(format!("`LIST {}`", files.join(" ")), format!("`LIST {}`", listed.join(" ")));
        Err(failure.marked().judged_by(judges::LIST))
    }

    /// A client stores a file, acknowledgement to the Controller included. (spec 4.2)
    pub fn store(&mut self, name: &str, content: &[u8]) -> Verdict {
        self.store_as_it_comes(name, content).map_err(|failure| failure.judged_by(judges::STORE))
    }

    fn store_as_it_comes(&mut self, name: &str, content: &[u8]) -> Verdict {
        let mut client = self.connect()?;
        client.send(&format!("STORE {name} {}", content.len()));
        client.expect("ACK", self.patience)?;
        client.send_content_and_close(content);
        self.expect(&format!("STORE_ACK {name}"))
    }

    /// What LOAD_DATA yields. (spec 4.3)
    pub fn load(&self, name: &str, size: usize) -> Result<Vec<u8>, Failure> {
        let mut client = self.connect()?;
        client.send(&format!("LOAD_DATA {name}"));
        Ok(client.receive_content(size, self.patience))
    }

    /// LOAD_DATA must yield exactly this.
    pub fn expect_content(&self, name: &str, content: &[u8]) -> Verdict {
        let came = self.load(name, content.len())?;
        match super::difference(content, &came) {
            None => Ok(()),
            Some(difference) => {
                self.recorder.mark_wrong(&dstore_name(self.port), "client");
                let failure = Failure::new(format!("{name} with its {} bytes", content.len()), difference).marked();
                Err(failure.judged_by(judges::LOAD))
            }
        }
    }

    /// LOAD_DATA must come to yield exactly this. No message says when a copy from another Dstore is stored, and a file may get
    /// its name some time after its content.
    pub fn expect_content_soon(&self, name: &str, content: &[u8]) -> Verdict {
        let is_there = || self.load(name, content.len()).is_ok_and(|came| came == content);
        wait_until(self.patience, || is_there().then_some(()));
        self.expect_content(name, content)
    }

    /// LOAD_DATA of what is not there: the connection closes. (spec 4.3)
    pub fn expect_no_content(&self, name: &str) -> Verdict {
        let mut client = self.connect()?;
        client.send(&format!("LOAD_DATA {name}"));
        client.expect_end(self.patience)
    }

    /// What lies in the folder: names and contents. (spec 5.1)
    pub fn folder(&self) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return BTreeMap::new() };
        let read = |entry: fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).unwrap_or_default())
        };
        entries.flatten().map(read).collect()
    }

    /// The folder's parent, where a Dstore has no business.
    pub fn outside(&self) -> PathBuf {
        self.folder.parent().unwrap_or(&self.folder).to_owned()
    }

    /// A content must come to lie in the folder, or to be gone, under whatever name: no edition says how files are named there.
    pub fn expect_kept(&self, content: &[u8], is_kept: bool) -> Verdict {
        let look = || self.keeps(content) == is_kept;
        if wait_until(self.patience, || look().then_some(())).is_some() {
            return Ok(());
        }
        let [expected, came] = if is_kept { ["in", "not in"] } else { ["not in", "in"] };
        let what = |place| format!("a file with these {} bytes {place} the folder", content.len());
        Err(Failure::new(what(expected), what(came)))
    }

    /// Whether a file in the folder, or below it, has this content.
    pub fn keeps(&self, content: &[u8]) -> bool {
        super::contents(&self.folder).iter().any(|(_, kept)| kept == content)
    }

    /// The folder must come to hold exactly these files, whole.
    pub fn expect_folder(&self, files: &[(&str, &[u8])]) -> Verdict {
        let is_so = || {
            let folder = self.folder();
            folder.len() == files.len()
                && files.iter().all(|(name, content)| folder.get(*name).is_some_and(|c| c == content))
        };
        if wait_until(self.patience, || is_so().then_some(())).is_some() {
            return Ok(());
        }
        let names = |files: &mut dyn Iterator<Item = (String, usize)>| {
            let files: Vec<_> = files.map(|(name, size)| format!("{name} ({size} bytes)")).collect();
            if files.is_empty() { "nothing".into() } else { files.join(", ") }
        };
        let expected = names(&mut files.iter().map(|(name, content)| ((*name).to_owned(), content.len())));
        let came = names(&mut self.folder().into_iter().map(|(name, content)| (name, content.len())));
        Err(Failure::new(format!("in the folder: {expected}"), format!("{came}, or other content")))
    }

    /// A Dstore of ours, for it to send to.
    pub fn peer(&self) -> Result<FakePeer, Failure> {
        let listener = super::ports::listen()?;
        let port = listener.local_addr().map_or(0, |address| address.port());
        let from = dstore_name(self.port);
        Ok(FakePeer { port, listener, from, recorder: self.recorder.clone(), patience: self.patience })
    }

    /// The Dstore must not have opened another connection to the Controller. (spec 2.4)
    pub fn expect_one_connection(&self) -> Verdict {
        let other = accept(&self.listener, Duration::ZERO, || false);
        claim(other.is_none(), "one connection to the Controller, and none other", "a second one")
    }
}

impl FakePeer {
    /// The Dstore under test connects.
    pub fn accept(&self) -> Result<Wire, Failure> {
        let name = dstore_name(self.port);
        let awaited = "a connection from a Dstore that is to send a file";
        match self.recorder.wait_for(awaited, self.patience, |most| accept(&self.listener, most, || false)) {
            Some(stream) => Ok(Wire::over(stream, &name, &self.from, &self.recorder)),
            None => {
                self.recorder.missing(&self.from, &name, "REBALANCE_STORE: missing");
                Err(Failure::new(format!("a connection to {name}, to send the file"), "none").marked())
            }
        }
    }

    /// The Dstore under test sends a file, as it must. (spec 4.6.5)
    pub fn expect_copy(&self, name: &str, content: &[u8]) -> Verdict {
        let mut wire = self.accept()?;
        wire.expect(&format!("REBALANCE_STORE {name} {}", content.len()), self.patience)?;
        std::thread::sleep(REACTION);
        wire.send("ACK");
        let came = wire.receive_content(content.len(), self.patience);
        if let Some(difference) = super::difference(content, &came) {
            self.recorder.mark_wrong(&self.from, &dstore_name(self.port));
            return Err(Failure::new(format!("{name} with its {} bytes", content.len()), difference).marked());
        }
        Ok(())
    }
}

/// The next connection, if one comes in time.
pub fn accept(
    listener: &TcpListener,
    patience: Duration,
    is_hopeless: impl Fn() -> bool,
) -> Option<std::net::TcpStream> {
    let _ = listener.set_nonblocking(true);
    let accepted = wait_until(patience, || match listener.accept() {
        Ok((stream, _)) => Some(Some(stream)),
        Err(_) if is_hopeless() => Some(None),
        Err(_) => None,
    });
    let stream = accepted.flatten()?;
    let _ = stream.set_nonblocking(false);
    Some(stream)
}
