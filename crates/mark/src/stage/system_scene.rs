//! A whole system under test: a Controller, N Dstores, and clients, which we play.
//!
//! The Dstores reach the Controller through a relay of ours, one for each, that passes every byte on and records the
//! lines: the transcript shows both sides of the system. A JOIN is passed on once its Dstore listens: many Dstores open their
//! listening socket one statement after they have said JOIN, and no other Dstore is so quick.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::client::{self, Client, OF_A_SYSTEM};
use super::failure::{Failure, Verdict, claim, given};
use super::recorder::{KILLED, Recorder};
use super::wire::{Heard, begins};
use super::{
    CONTROLLER_STARTS, DSTORE_STARTS, SETTLING, Setup, SharedProcess, Stage, dstore_name, last_lines, ports,
    wait_until, wait_until_calm,
};

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
    start_patience: Duration,
    clients: AtomicUsize,
    /// The one that has seen that the Controller serves, until a check takes it.
    first_client: Mutex<Option<Client>>,
}

impl Stage {
    /// Starts the Controller and, back to back, the Dstores. (spec 5.3)
    pub fn system(&mut self, setup: Setup) -> Result<SystemScene, Failure> {
        given(self.system_as_it_comes(setup))
    }

    fn system_as_it_comes(&mut self, setup: Setup) -> Result<SystemScene, Failure> {
        let (process, port) = self.start_controller(setup)?;
        let mut scene = SystemScene {
            port,
            dstores: Vec::new(),
            process,
            setup,
            recorder: self.recorder.clone(),
            patience: self.patience,
            start_patience: self.start_patience,
            clients: AtomicUsize::new(0),
            first_client: Mutex::new(None),
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
        scene.first_client = Mutex::new(None);
        let old = std::mem::take(&mut scene.dstores);
        (scene.process, scene.port) = self.start_controller(scene.setup)?;
        for dstore in old {
            let relay = Relay::start(dstore.port, scene.port, &self.recorder)?;
            let folder = format!("{}{}", super::FOLDER, dstore.port);
            let process = self.start_dstore(dstore.port, relay.port, scene.setup.timeout, &folder)?;
            let folder = dstore.folder.clone();
            scene.dstores.push(RealDstore { port: dstore.port, process, folder, relay, is_dead: false });
        }
        scene.settle()
    }

    /// Starts one more Dstore, and waits until it has said JOIN.
    pub fn join(&mut self, scene: &mut SystemScene) -> Verdict {
        given(self.add_dstore(scene).and_then(|()| scene.dstores.last().map_or(Ok(()), |new| scene.wait_to_join(new))))
    }

    fn add_dstore(&mut self, scene: &mut SystemScene) -> Verdict {
        let port = self.port();
        let folder = format!("{}{port}", super::FOLDER);
        let relay = Relay::start(port, scene.port, &self.recorder)?;
        let process = self.start_dstore(port, relay.port, scene.setup.timeout, &folder)?;
        let folder = self.folder.join(folder);
        scene.dstores.push(RealDstore { port, process, folder, relay, is_dead: false });
        Ok(())
    }
}

impl SystemScene {
    /// One more client.
    pub fn client(&self) -> Result<Client, Failure> {
        if let Some(client) = self.first_client.lock().take() {
            return Ok(client);
        }
        let name = match self.clients.fetch_add(1, Ordering::Relaxed) {
            0 => "client".into(),
            number => format!("client {}", number + 1),
        };
        let client = Client::connect(&name, self.port, &self.recorder, self.patience, &OF_A_SYSTEM);
        given(client.map_err(|failure| failure.judged_by("system/sequential/two-clients-one-after-the-other")))
    }

    /// Waits until every Dstore has joined and the Controller has taken note: it asks for their lists, or, if it does not
    /// rebalance when a Dstore joins, has had a second and a half.
    pub fn settle(&self) -> Verdict {
        for dstore in self.living() {
            self.wait_to_join(dstore)?;
        }
        let deadline = Instant::now() + SETTLING;
        for dstore in self.living() {
            dstore.relay.wait_for("LIST", deadline);
        }
        wait_until_calm(|| self.living().map(|dstore| dstore.relay.heard.lock().len()).sum());
        let served = client::wait_to_be_served(|| self.client(), &self.recorder, self.patience * 3);
        let client = served.map_err(|came| came.failure.judged_by(CONTROLLER_STARTS))?;
        *self.first_client.lock() = Some(client);
        Ok(())
    }

    fn wait_to_join(&self, dstore: &RealDstore) -> Verdict {
        let joined = wait_until(self.start_patience, || {
            let end = dstore.process.lock().end();
            end.map(Err).or_else(|| dstore.relay.has_heard("JOIN").then_some(Ok(())))
        });
        let name = dstore_name(dstore.port);
        let came = match joined {
            Some(Ok(())) => return Ok(()),
            Some(Err(end)) => {
                format!("it has ended ({end}); it printed: {}", last_lines(&dstore.process.lock().printed()))
            }
            None => "nothing".into(),
        };
        self.recorder.missing(&name, "controller", "JOIN: missing");
        Err(Failure::new(format!("`JOIN {}`", dstore.port), came).marked().judged_by(DSTORE_STARTS))
    }

    /// The Dstores that have not been killed.
    pub fn living(&self) -> impl Iterator<Item = &RealDstore> {
        self.dstores.iter().filter(|dstore| !dstore.is_dead)
    }

    /// Kills a Dstore without warning.
    pub fn kill(&mut self, dstore: usize) {
        let dstore = &mut self.dstores[dstore];
        let name = dstore_name(dstore.port);
        self.recorder.note(&name, &name, KILLED);
        dstore.process.lock().kill();
        dstore.is_dead = true;
    }

    /// Stores a file, the whole way. With a short timeout a busy machine may be too slow, and then the spec has the
    /// Controller say nothing and forget the file: the client asks again, as long as it has patience.
    pub fn store_patiently(&self, client: &mut Client, name: &str, content: &[u8]) -> Verdict {
        let deadline = Instant::now() + self.patience * 2;
        loop {
            let ports = client.begin_store(name, content.len())?;
            for port in ports {
                client.send_copy(port, name, content)?;
            }
            let wait = self.setup.timeout * 3 + Duration::from_millis(500);
            match client.wire().receive(wait) {
                Heard::Line(line) if begins(&line, "STORE_COMPLETE") => return Ok(()),
                Heard::Nothing(_) if Instant::now() < deadline => {}
                came => return Err(client.wire().wrong("`STORE_COMPLETE`", &came).judged_by(OF_A_SYSTEM.store)),
            }
        }
    }

    /// The names of the files in a Dstore's folder and below it.
    pub fn folder(&self, dstore: &RealDstore) -> Vec<String> {
        super::contents(&dstore.folder).into_iter().map(|(name, _)| name).collect()
    }

    /// Each file must be there on exactly R living Dstores, with the right bytes, in files of whatever name. If `is_even`, each has
    /// between floor(RF/N) and ceil(RF/N) of them. (spec 4.2, 4.6.3)
    pub fn expect_files(&self, files: &[(String, Vec<u8>)], is_even: bool, patience: Duration) -> Verdict {
        let held = self.held(files);
        let copies = |name| held.values().filter(|names| names.contains(&name)).count();
        let misses_copies = files.iter().any(|(name, _)| copies(name) < self.setup.replicas);
        let mut last = self.look_at_files(files, is_even);
        if last.is_ok() {
            return last; // what is there at once was not waited for
        }
        let wait = |most| {
            wait_until(most, || {
                last = self.look_at_files(files, is_even);
                last.is_ok().then_some(())
            })
        };
        let good = self.recorder.wait_for(super::task(misses_copies, is_even), patience, wait);
        if good.is_some() { Ok(()) } else { last }
    }

    /// No living Dstore may keep any of these files' bytes.
    pub fn expect_gone(&self, files: &[(String, Vec<u8>)], patience: Duration) -> Verdict {
        let kept = || {
            let held = self.held(files);
            held.iter().flat_map(|(port, names)| names.iter().map(move |name| format!("{name} on {port}"))).next()
        };
        match wait_until(patience, || kept().is_none().then_some(())) {
            Some(()) => Ok(()),
            None => Err(Failure::new("no Dstore keeps a file that was removed", kept().unwrap_or_default())),
        }
    }

    /// Which of the files each living Dstore keeps, by their bytes.
    fn held<'a>(&self, files: &'a [(String, Vec<u8>)]) -> BTreeMap<u16, Vec<&'a String>> {
        let held = |dstore: &RealDstore| {
            let contents = super::contents(&dstore.folder);
            let is_held = |content: &Vec<u8>| contents.iter().any(|(_, kept)| kept == content);
            let names = files.iter().filter(|(_, content)| is_held(content)).map(|(name, _)| name);
            (dstore.port, names.collect())
        };
        self.living().map(held).collect()
    }

    /// The same, now.
    pub fn look_at_files(&self, files: &[(String, Vec<u8>)], is_even: bool) -> Verdict {
        let replicas = self.setup.replicas;
        let held = self.held(files);
        let counts = || {
            let counts: Vec<_> = held.iter().map(|(port, names)| format!("{port}: {}", names.len())).collect();
            counts.join(", ")
        };
        for (name, content) in files {
            let copies = held.values().filter(|names| names.contains(&name)).count();
            claim(
                copies == replicas,
                format!("{replicas} copies of {name}, with its {} bytes", content.len()),
                format!("{copies} copies; files on the Dstores: {}", counts()),
            )?;
        }
        let sum = replicas * files.len();
        let (floor, ceil) = (sum / held.len(), sum.div_ceil(held.len()));
        claim(
            !is_even || held.values().all(|names| (floor..=ceil).contains(&names.len())),
            format!("between {floor} and {ceil} files on each Dstore"),
            counts(),
        )
    }
}

/// Stands between one Dstore and the Controller, and writes down what passes.
pub struct Relay {
    /// Where the Dstore is to find the Controller.
    pub port: u16,
    heard: Mutex<Vec<String>>,
    news: Condvar,
    is_over: AtomicBool,
}

impl Drop for RealDstore {
    fn drop(&mut self) {
        // Wakes the relay's listener, which then finds that it is no longer needed.
        self.relay.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.relay.port));
    }
}

/// So many lines are remembered.
const KEPT_LINES: usize = 10_000;

impl Relay {
    /// Listens for the Dstore, which itself is to listen on `dstore_port`.
    pub fn start(dstore_port: u16, controller_port: u16, recorder: &Recorder) -> Result<Arc<Self>, Failure> {
        let listener = super::ports::listen()?;
        let port = listener.local_addr().map_or(0, |address| address.port());
        let relay =
            Arc::new(Self { port, heard: Mutex::default(), news: Condvar::new(), is_over: AtomicBool::new(false) });
        let (dstore, recorder, heard_by) = (dstore_name(dstore_port), recorder.clone(), Arc::downgrade(&relay));
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
                thread::spawn(move || {
                    wait_until(super::START, || ports::is_listened_to(dstore_port).then_some(()));
                    to.pass_on(near, far, &name, "controller", &upward);
                });
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

    /// Whether one of the two has said a line that begins with this word.
    pub fn has_heard(&self, verb: &str) -> bool {
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
