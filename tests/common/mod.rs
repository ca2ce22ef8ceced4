//! What several test programs need. Each uses some of it, hence:
#![allow(dead_code)]

pub mod program;
pub mod system;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use stevedore::client::Client;
use stevedore::controller::{self, Status};
use stevedore::dstore;

/// Long enough for anything that a loaded machine does; waited for only by what fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A Controller and its Dstores in this process; all of it ends when dropped.
pub struct Cluster {
    // Dropped in this order: Dstores that leave an ended Controller would only complain.
    dstores: Vec<Dstore>,
    pub controller: controller::Handle,
}

/// One Dstore of a cluster. Its folder outlives it.
pub struct Dstore {
    // Dropped in this order: a folder that is still written to cannot be removed.
    handle: Option<dstore::Handle>,
    pub folder: TempFolder,
    pub port: u16,
}

impl Cluster {
    /// Starts a Controller with R = `replicas` and as many Dstores, all of them patient, and waits until it is ready.
    pub fn start(replicas: usize, dstores: usize) -> Self {
        Self::start_with(controller::Config { timeout: PATIENCE, ..controller::Config::new(replicas) }, dstores)
    }

    /// The same with other settings; the Dstores get the Controller's timeout.
    pub fn start_with(config: controller::Config, dstores: usize) -> Self {
        let timeout = config.timeout;
        let mut cluster = Self { dstores: Vec::new(), controller: controller::start(config).unwrap() };
        for _ in 0..dstores {
            cluster.join(timeout);
        }
        cluster
    }

    /// One more Dstore joins; waits until the rebalance that this causes has ended. Returns its number.
    pub fn join(&mut self, timeout: Duration) -> usize {
        let folder = TempFolder::new();
        let config = dstore::Config { timeout, ..dstore::Config::new(self.port(), folder.path()) };
        let handle = dstore::start(config).unwrap();
        let port = handle.listening_on().unwrap().port();
        let address = handle.address().clone();
        self.dstores.push(Dstore { port, folder, handle: Some(handle) });
        self.wait_until(|status| status.is_at_rest && status.members.iter().any(|member| member.address == address));
        self.dstores.len() - 1
    }

    /// Ends a Dstore, to the others as if its process had died, and waits until the Controller has noticed.
    pub fn kill(&mut self, number: usize) {
        let handle = self.dstores[number].handle.take().expect("it lives");
        let address = handle.address().clone();
        drop(handle);
        self.wait_until(|status| status.members.iter().all(|member| member.address != address));
    }

    /// A patient client.
    pub fn client(&self) -> Client {
        Client::connect(self.address(), PATIENCE).unwrap()
    }

    /// Where the Controller listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()))
    }

    /// All Dstores that there have ever been.
    pub fn dstores(&self) -> &[Dstore] {
        &self.dstores
    }

    /// The copies of a file that lie in the Dstores' folders.
    pub fn copies(&self, name: &str) -> Vec<Vec<u8>> {
        self.dstores.iter().filter_map(|dstore| fs::read(dstore.folder.path().join(name)).ok()).collect()
    }

    /// Waits for the Controller to come to a state.
    pub fn wait_until(&self, condition: impl Fn(&Status) -> bool) -> Status {
        let awaited = self.controller.wait_until(PATIENCE, condition);
        awaited.unwrap_or_else(|| panic!("waited in vain: {:?}", self.controller.status()))
    }

    fn port(&self) -> u16 {
        self.controller.address().unwrap().port()
    }
}

/// Waits until something is so that nobody tells of.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(PATIENCE, condition), "not in time: {what}");
}

/// The same with other patience; false if it does not come true.
pub fn comes_true(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Where nobody accepts connections, and where they are not refused either. Lasts as long as what is returned first.
pub fn full_listener() -> (Full, u16) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(1).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut accepted = Vec::new(); // by the kernel, until it has enough
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        accepted.push(stream);
        assert!(accepted.len() < 1000, "this kernel accepts without end");
    }
    (Full { _listener: listener, _accepted: accepted }, address.port())
}

/// See [`full_listener`].
pub struct Full {
    _listener: Socket,
    _accepted: Vec<TcpStream>,
}

/// Whether there is a connection to `port` that has not come about yet: in Linux's list, of state 2.
pub fn is_connecting_to(port: u16) -> bool {
    let list = fs::read_to_string("/proc/self/net/tcp").unwrap();
    list.lines().any(|line| {
        let mut words = line.split_whitespace().skip(2);
        words.next().is_some_and(|remote| remote.ends_with(&format!(":{port:04X}"))) && words.next() == Some("02")
    })
}

/// A folder of its own for a test, removed at the end.
pub struct TempFolder(PathBuf);

impl TempFolder {
    /// Makes a fresh one.
    pub fn new() -> Self {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("stevedore-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Everything in it, hidden or not, in order.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `size` bytes that look random and are the same for the same seed.
pub fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}
