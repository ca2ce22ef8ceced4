//! What several test programs need: the workspace's test kit, and clusters of Stevedore's own.
#![allow(dead_code, unused_imports, reason = "no test program uses all of it")]

pub mod system;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

pub use kit::{PATIENCE, Rng, TempFolder, bytes, comes_true, eventually, hunt, program};
use socket2::{Domain, Socket, Type};
use stevedore::client::Client;
use stevedore::controller::{self, Status};
use stevedore::dstore;

/// A Controller and its Dstores in this process; all of it ends when dropped.
pub struct Cluster {
    // Dropped in this order: Dstores would only log that their Controller has ended.
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

    /// Ends a Dstore as if its process had died, and waits until the Controller has noticed.
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

/// A port where connections are neither accepted nor refused, as long as the first returned value lives.
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
