//! A whole system under test: a Controller, N Dstores, and clients, which we play.
//!
//! The Dstores reach the Controller through a relay of ours, one for each, that passes every byte on and records the
//! lines: the transcript shows both sides of the system.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::client::Client;
use super::failure::{Failure, Verdict, claim};
use super::recorder::Recorder;
use super::wire::{Heard, Wire};
use super::{Setup, SharedProcess, Stage, dstore_name, last_lines, wait_until};

/// A Dstore of the system.
pub struct RealDstore {
    /// Where it listens.
    pub port: u16,
    /// Its process.
    pub process: SharedProcess,
    folder: PathBuf,
    relay: Arc<Relay>,
    is_dead: bool,
}

/// A system under test.
pub struct SystemScene {
    /// Where the Controller listens.
    pub port: u16,
    /// The Dstores, also those that have been killed.
    pub dstores: Vec<RealDstore>,
    /// The Controller's process.
    pub process: SharedProcess,
    /// With what all of it was started.
    pub setup: Setup,
    recorder: Recorder,
    patience: Duration,
    clients: AtomicUsize,
}

impl Stage {
    /// Starts the Controller and, back to back, the Dstores. (spec 5.3)
    pub fn system(&mut self, setup: Setup) -> Result<SystemScene, Failure> {
        let (process, port) = self.start_controller(setup)?;
        let mut scene = SystemScene {
            port,
            dstores: Vec::new(),
            process,
            setup,
            recorder: self.recorder.clone(),
            patience: self.patience,
            clients: AtomicUsize::new(0),
        };
        for _ in 0..setup.dstores {
            self.add_dstore(&mut scene)?;
        }
        scene.settle()?;
        Ok(scene)
    }

    /// Kills everything, and starts it again: the Dstores with the same ports and folders.
    pub fn restart(&mut self, scene: &mut SystemScene) -> Verdict {
        for process in scene.dstores.iter().map(|dstore| &dstore.process).chain([&scene.process]) {
            process.lock().kill();
        }
        self.recorder.note("controller", "controller", "all are killed, and started again");
        let old = std::mem::take(&mut scene.dstores);
        (scene.process, scene.port) = self.start_controller(scene.setup)?;
        for dstore in old {
            let relay = Relay::start(&dstore_name(dstore.port), scene.port, &self.recorder)?;
            let folder = format!("{}{}", super::FOLDER, dstore.port);
            let process = self.start_dstore(dstore.port, relay.port, scene.setup.timeout, &folder)?;
            let folder = dstore.folder.clone();
            scene.dstores.push(RealDstore { port: dstore.port, process, folder, relay, is_dead: false });
        }
        scene.settle()
    }

    /// Starts one more Dstore; does not wait for what comes of it.
    pub fn add_dstore(&mut self, scene: &mut SystemScene) -> Verdict {
        let port = self.port();
        let folder = format!("{}{port}", super::FOLDER);
        let relay = Relay::start(&dstore_name(port), scene.port, &self.recorder)?;
        let process = self.start_dstore(port, relay.port, scene.setup.timeout, &folder)?;
        let folder = self.folder.join(folder);
        scene.dstores.push(RealDstore { port, process, folder, relay, is_dead: false });
        Ok(())
    }
}

impl SystemScene {
    /// One more client.
    pub fn client(&self) -> Result<Client, Failure> {
        let name = match self.clients.fetch_add(1, Ordering::Relaxed) {
            0 => "client".into(),
            number => format!("client {}", number + 1),
        };
        Client::connect(&name, self.port, &self.recorder, self.patience)
    }

    /// Waits until every Dstore has joined and the Controller has taken note: it asks for their lists, or, if it never
    /// rebalances, has had a second and a half.
    pub fn settle(&self) -> Verdict {
        for dstore in self.living() {
            let joined = wait_until(super::START, || {
                let end = dstore.process.lock().end();
                end.map(Err).or_else(|| dstore.relay.has_heard("JOIN").then_some(Ok(())))
            });
            let name = dstore_name(dstore.port);
            let came = match joined {
                Some(Ok(())) => continue,
                Some(Err(end)) => {
                    format!("it has ended ({end}); it printed: {}", last_lines(&dstore.process.lock().printed()))
                }
                None => "nothing".into(),
            };
            self.recorder.missing(&name, "controller", "JOIN: missing");
            return Err(Failure::new(format!("`JOIN {}`", dstore.port), came).marked());
        }
        let deadline = Instant::now() + Duration::from_millis(1_500);
        for dstore in self.living() {
            dstore.relay.wait_for("LIST", deadline);
        }
        let mut probe = Wire::connect("first client", "controller", self.port, &self.recorder)?;
        let heard = wait_until(self.patience, || {
            probe.send("LIST");
            match probe.receive(self.patience) {
                Heard::Line(line) if line == "ERROR_NOT_ENOUGH_DSTORES" => None,
                heard => Some(heard),
            }
        });
        match heard {
            Some(Heard::Line(_)) => Ok(()),
            other => {
                let came = other.unwrap_or(Heard::Line("ERROR_NOT_ENOUGH_DSTORES".into()));
                Err(probe.wrong("`LIST`, once enough Dstores have joined", &came))
            }
        }
    }

    /// The Dstores that have not been killed.
    pub fn living(&self) -> impl Iterator<Item = &RealDstore> {
        self.dstores.iter().filter(|dstore| !dstore.is_dead)
    }

    /// Kills a Dstore without warning.
    pub fn kill(&mut self, dstore: usize) {
        let dstore = &mut self.dstores[dstore];
        let name = dstore_name(dstore.port);
        self.recorder.note(&name, &name, "is killed");
        dstore.process.lock().kill();
        dstore.is_dead = true;
    }

    /// Stores a file, the whole way. With a short timeout a busy machine may be too slow, and then the spec has the
    /// Controller say nothing and forget the file: the client asks again, as long as it has patience.
    pub fn store_patiently(&self, client: &mut Client, name: &str, content: &[u8]) -> Verdict {
        let deadline = Instant::now() + self.patience * 2;
        loop {
            let ports = client.begin_store(name, content.len(), self.setup.replicas)?;
            for port in ports {
                client.send_copy(port, name, content)?;
            }
            let wait = self.setup.timeout * 3 + Duration::from_millis(500);
            match client.wire().receive(wait) {
                Heard::Line(line) if line == "STORE_COMPLETE" => return Ok(()),
                Heard::Nothing(_) if Instant::now() < deadline => {}
                came => return Err(client.wire().wrong("`STORE_COMPLETE`", &came)),
            }
        }
    }

    /// The names and sizes in a Dstore's folder.
    pub fn folder(&self, dstore: &RealDstore) -> BTreeMap<String, u64> {
        let Ok(entries) = fs::read_dir(&dstore.folder) else { return BTreeMap::new() };
        let look = |entry: fs::DirEntry| {
            Some((entry.file_name().to_string_lossy().into_owned(), entry.metadata().ok()?.len()))
        };
        entries.flatten().filter_map(look).collect()
    }

    /// Each file must be there on exactly R living Dstores, with the right bytes, and nothing else. If `is_even`, each has
    /// between floor(RF/N) and ceil(RF/N). (spec 4.2, 4.6.3, 5.1)
    pub fn expect_files(&self, files: &[(String, Vec<u8>)], is_even: bool, patience: Duration) -> Verdict {
        let mut last = Ok(());
        let good = wait_until(patience, || {
            last = self.look_at_files(files, is_even);
            last.is_ok().then_some(())
        });
        if good.is_some() { Ok(()) } else { last }
    }

    fn look_at_files(&self, files: &[(String, Vec<u8>)], is_even: bool) -> Verdict {
        let replicas = self.setup.replicas;
        let folders: Vec<_> = self.living().map(|dstore| (dstore, self.folder(dstore))).collect();
        for (name, content) in files {
            let holders: Vec<_> = folders.iter().filter(|(_, folder)| folder.contains_key(name)).collect();
            claim(
                holders.len() == replicas,
                format!("{replicas} copies of {name}"),
                format!("{} copies; in the folders: {}", holders.len(), in_words(&folders)),
            )?;
            for (dstore, _) in holders {
                let came = fs::read(dstore.folder.join(name)).unwrap_or_default();
                if let Some(difference) = super::difference(content, &came) {
                    let whose = format!("{name} in the folder of {}", dstore_name(dstore.port));
                    return Err(Failure::new(format!("{whose} with its {} bytes", content.len()), difference));
                }
            }
        }
        let known = |name: &String| files.iter().any(|(file, _)| file == name);
        for (dstore, folder) in &folders {
            if let Some(stranger) = folder.keys().find(|name| !known(name)) {
                let expected = format!("nothing but the files in the folder of {}", dstore_name(dstore.port));
                return Err(Failure::new(expected, stranger));
            }
        }
        let sum = replicas * files.len();
        let (floor, ceil) = (sum / folders.len(), sum.div_ceil(folders.len()));
        claim(
            !is_even || folders.iter().all(|(_, folder)| (floor..=ceil).contains(&folder.len())),
            format!("between {floor} and {ceil} files on each Dstore"),
            in_words(&folders),
        )
    }
}

fn in_words(folders: &[(&RealDstore, BTreeMap<String, u64>)]) -> String {
    let counts: Vec<_> = folders.iter().map(|(dstore, files)| format!("{}: {}", dstore.port, files.len())).collect();
    counts.join(", ")
}

/// Stands between one Dstore and the Controller, and writes down what passes.
struct Relay {
    port: u16,
    heard: Mutex<Vec<String>>,
    news: Condvar,
    is_over: AtomicBool,
}

impl Drop for RealDstore {
    fn drop(&mut self) {
        // Wakes the relay's listener, which then finds that nobody needs it.
        self.relay.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.relay.port));
    }
}

/// So many lines are remembered.
const KEPT_LINES: usize = 10_000;

impl Relay {
    fn start(dstore: &str, controller_port: u16, recorder: &Recorder) -> Result<Arc<Self>, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| Failure::new("a free port", error))?;
        let port = listener.local_addr().map_or(0, |address| address.port());
        let relay =
            Arc::new(Self { port, heard: Mutex::default(), news: Condvar::new(), is_over: AtomicBool::new(false) });
        let (dstore, recorder, heard_by) = (dstore.to_owned(), recorder.clone(), Arc::downgrade(&relay));
        thread::spawn(move || {
            // A Dstore opens one connection. A second one is passed on as well; the transcript shows it.
            while let Ok((near, _)) = listener.accept() {
                if heard_by.upgrade().is_none_or(|relay| relay.is_over.load(Ordering::Relaxed)) {
                    return;
                }
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, controller_port)) else { continue };
                let Some(relay) = heard_by.upgrade() else { return };
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let (Ok(near_end), Ok(far_end)) = (near.try_clone(), far.try_clone()) else { continue };
                let (name, to, upward) = (dstore.clone(), Arc::clone(&relay), recorder.clone());
                thread::spawn(move || to.pass_on(near, far, &name, "controller", &upward));
                let (name, downward) = (dstore.clone(), recorder.clone());
                thread::spawn(move || relay.pass_on(far_end, near_end, "controller", &name, &downward));
            }
        });
        Ok(relay)
    }

    /// One direction of a connection, until it ends.
    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream, sender: &str, receiver: &str, recorder: &Recorder) {
        let mut line = Vec::new();
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            for &byte in &buffer[..read] {
                match byte {
                    b'\n' | b'\r' if line.is_empty() => {}
                    b'\n' | b'\r' => self.note(&std::mem::take(&mut line), sender, receiver, recorder),
                    _ if line.len() > 1 << 20 => {} // the rest of a flood is passed on, but not kept
                    _ => line.push(byte),
                }
            }
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        recorder.note(sender, receiver, "closes the connection");
        let _ = to.shutdown(Shutdown::Write);
        let _ = from.shutdown(Shutdown::Read);
    }

    fn note(&self, line: &[u8], sender: &str, receiver: &str, recorder: &Recorder) {
        let line = String::from_utf8_lossy(line).into_owned();
        recorder.line(sender, receiver, &line);
        let mut heard = self.heard.lock();
        if heard.len() < KEPT_LINES {
            heard.push(line);
        }
        self.news.notify_all();
    }

    fn has_heard(&self, verb: &str) -> bool {
        self.heard.lock().iter().any(|line| line.split(' ').next() == Some(verb))
    }

    fn wait_for(&self, verb: &str, deadline: Instant) {
        let mut heard = self.heard.lock();
        while !heard.iter().any(|line| line.split(' ').next() == Some(verb)) {
            if self.news.wait_until(&mut heard, deadline).timed_out() {
                return;
            }
        }
    }
}
