//! The processes of the demonstration, in a temporary folder: all of them end, whatever becomes of it.
//!
//! Each is this program in another role. Its stdin is a pipe from this process, and it ends when that does: so none is left even
//! where this process is killed.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use depot::disk::{Folder, RealFolder};
use depot::wire::Address;
use indicatif::HumanBytes;
use parking_lot::Mutex;
use stevedore::program::Failure;

use crate::cluster::VARIABLE;
use crate::servers::announced;

/// How long a server may take to start, on a machine that has much else to do.
pub const STARTING: Duration = Duration::from_secs(60);

/// How often it is looked whether something has come about.
pub const PERIOD: Duration = Duration::from_millis(50);

/// Processes in a folder of their own. They are killed, and the folder goes, at [`end`](Self::end).
pub struct Processes {
    folder: PathBuf,
    is_kept: bool,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    running: Vec<Process>,
    is_over: bool,
}

struct Process {
    /// What the demonstration calls it.
    name: String,
    child: Child,
    log: PathBuf,
}

impl Processes {
    /// Makes the folder, if there is room for so many bytes in it, and for what servers leave free on any disk.
    pub fn new(bytes: u64, is_kept: bool) -> Result<Self, Failure> {
        /// With fewer bytes free, or a smaller part of the disk, servers take nothing more.
        const LEAST_FREE_BYTES: u64 = 1 << 30;
        const LEAST_FREE_PART: u64 = 20;
        let place = std::env::temp_dir();
        let cannot_use = |error: io::Error| Failure::new(format!("cannot use {}: {error}", place.display()));
        let space = RealFolder::new(&place).and_then(|folder| folder.space()).map_err(cannot_use)?;
        let needed = bytes.saturating_add(LEAST_FREE_BYTES.max(space.total / LEAST_FREE_PART));
        if space.available < needed {
            return Err(Failure::new(format!(
                "the demo needs {} of room in {}, and there are {}; TMPDIR=DIR names another place",
                HumanBytes(needed),
                place.display(),
                HumanBytes(space.available)
            )));
        }
        let folder = place.join(format!("stevedore-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder).map_err(cannot_use)?;
        Ok(Self { folder, is_kept, all: Mutex::default() })
    }

    /// Where everything of them is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts one with these words of a command line; what it says goes to a log in the folder.
    pub fn start(&self, name: &str, words: &[&str]) -> Result<(), Failure> {
        let log = self.log_of(name);
        let started = (|| {
            let output = File::create(&log)?;
            let mut command = Command::new(std::env::current_exe()?);
            command.args(words).arg("--ends-with-stdin").env_remove(VARIABLE);
            command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
            let mut all = self.all.lock();
            if all.is_over {
                return Err(io::Error::other("the demo is about to end"));
            }
            let child = command.spawn()?;
            all.running.push(Process { name: name.to_owned(), child, log: log.clone() });
            Ok(())
        })();
        started.map_err(|error| Failure::new(format!("{name} does not start: {error}")))
    }

    /// Where a Controller listens, once it does.
    pub fn address_of(&self, name: &str) -> Result<Address, Failure> {
        let log = self.log_of(name);
        let mut address = None;
        self.wait_until(STARTING, &format!("{name} listens"), || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            address = said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).find_map(announced);
            address.is_some()
        })?;
        Ok(address.expect("awaited above"))
    }

    /// Waits until this is so. A failure if it is not within so long, or if a process ends that was not killed.
    pub fn wait_until(&self, patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + patience;
        while !is_so() {
            self.check()?;
            if Instant::now() >= deadline {
                return Err(Failure::new(format!(
                    "{} s have passed, and it is not so that {what}",
                    patience.as_secs()
                )));
            }
            thread::sleep(PERIOD);
        }
        Ok(())
    }

    /// Kills one as `kill -9` does; the number that the system knew it by.
    pub fn kill(&self, name: &str) -> Result<u32, Failure> {
        let mut all = self.all.lock();
        let at = all.running.iter().position(|process| process.name == name);
        let mut process = all.running.remove(at.ok_or_else(|| Failure::new(format!("{name} does not run")))?);
        process.kill();
        Ok(process.child.id())
    }

    /// A failure if one has ended by itself.
    fn check(&self) -> Result<(), Failure> {
        let mut all = self.all.lock();
        let ended = all.running.iter_mut().find_map(|process| match process.child.try_wait() {
            Ok(Some(status)) => Some((status, process)),
            _ => None,
        });
        let Some((status, Process { name, log, .. })) = ended else { return Ok(()) };
        let said = fs::read_to_string(log).unwrap_or_default();
        let last = said.lines().last().unwrap_or("it has said nothing");
        Err(Failure::new(format!("{name} has ended by itself ({status}): {last}")))
    }

    /// Whether all are to end: nothing that fails now is news.
    pub fn is_over(&self) -> bool {
        self.all.lock().is_over
    }

    /// Kills all of them, waits until they have ended, and removes the folder unless it is to be kept.
    pub fn end(&self) -> Result<(), Failure> {
        let mut all = self.all.lock();
        all.is_over = true;
        all.running.drain(..).for_each(|mut process| process.kill());
        if self.is_kept {
            return Ok(());
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::new(format!("cannot remove {}: {error}", self.folder.display())))
            }
            _ => Ok(()),
        }
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}.log", folder_name(name)))
    }
}

/// What a process's folder and log are called.
pub fn folder_name(name: &str) -> String {
    name.to_lowercase().replace(' ', "-")
}

impl Process {
    fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
