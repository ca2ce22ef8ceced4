//! A store for benches: Controllers and Dstores in this process, over loopback.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use depot::client::{Cluster, ClusterOptions, ControllerRole, ControllerStatus, Files, SEARCH};
use depot::controller::{self, Beginning, HealingOptions};
use depot::dstore;
use depot::identity::ClusterId;
use depot::log::{ReplicaOptions, SyncMode};
use depot::namespace::change::Settings;
use depot::pack;
use depot::wire::{Address, ClientId, Secret};

const CLUSTER: ClusterId = ClusterId(0xbe);

/// The store.
pub struct Store {
    // Dropped in this order: the Dstores say goodbye to Controllers that are there.
    dstores: Vec<Option<dstore::Handle>>,
    controllers: Vec<controller::Handle>,
    addresses: Vec<Address>,
    secret: Secret,
    folder: PathBuf,
    options: StoreOptions,
}

/// How it is started.
#[derive(Clone, Copy)]
pub struct StoreOptions {
    /// How many Controllers. All of them vote before anything is measured.
    pub controllers: usize,
    /// How many Dstores, each on a machine of its own as far as the store knows.
    pub dstores: usize,
    /// When something that was written counts.
    pub sync: SyncMode,
    /// How it heals.
    pub healing: HealingOptions,
    /// In how much time Dstores verify all that they have.
    pub scrub_period: Duration,
    /// How many bytes a second each Dstore fetches from others.
    pub copy_rate: u64,
    /// The most bytes of objects that each Dstore takes; `None` for what its disk holds.
    pub capacity: Option<u64>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            controllers: 1,
            dstores: 3,
            sync: SyncMode::Never,
            healing: HealingOptions::default(),
            scrub_period: dstore::SCRUB_PERIOD,
            copy_rate: dstore::COPY_RATE,
            capacity: None,
        }
    }
}

impl Store {
    /// A new one, with all data below a folder.
    #[allow(dead_code, reason = "not every bench does")]
    pub fn start(folder: &std::path::Path, options: StoreOptions) -> Self {
        Self::start_behind(folder, options, &|address| address)
    }

    /// The same, but its last Dstore is not started yet.
    #[allow(dead_code, reason = "not every bench does")]
    pub fn start_all_but_one(folder: &std::path::Path, options: StoreOptions) -> Self {
        let mut store = Self::start(folder, StoreOptions { dstores: options.dstores - 1, ..options });
        store.dstores.push(None);
        store
    }

    /// Dstores that are started from now on verify all that they have in so much time.
    #[allow(dead_code, reason = "not every bench does")]
    pub fn set_scrub_period(&mut self, period: Duration) {
        self.options.scrub_period = period;
    }

    /// The same. Its Dstores are reached where `behind` says, given where they listen.
    pub fn start_behind(folder: &std::path::Path, options: StoreOptions, behind: &dyn Fn(Address) -> Address) -> Self {
        let secret = Secret::draw().expect("random bytes");
        let dstores = (0..options.dstores).map(|_| None).collect();
        let (controllers, addresses) = (Vec::new(), Vec::new());
        let mut store = Self { dstores, controllers, addresses, secret, folder: folder.to_owned(), options };
        (1..options.controllers).for_each(|_| store.start_controller(Beginning::Join));
        let ids = store.controllers.iter().map(|controller| controller.id().expect("it has started"));
        let others = ids.zip(store.addresses.iter().cloned()).collect();
        store.start_controller(Beginning::Create { others });
        let client = store.client();
        let votes = |it: &ControllerStatus| matches!(it.role, ControllerRole::Leader | ControllerRole::Follower);
        let voters = || client.status().map_or(0, |status| status.controllers.iter().filter(|it| votes(it)).count());
        kit::eventually("all Controllers vote", || voters() == options.controllers);
        (0..options.dstores).for_each(|number| store.start_dstore_behind(number, behind));
        store
    }

    fn start_controller(&mut self, beginning: Beginning) {
        let listener = listen();
        let address: Address = listener.local_addr().expect("bound").into();
        let mut replica = ReplicaOptions { sync: self.options.sync, ..ReplicaOptions::default() };
        replica.log.ballast_bytes = 0;
        let controller = controller::Handle::start(controller::Options {
            data: self.folder.join(format!("log-{}", self.controllers.len())),
            cluster: CLUSTER,
            name: "bench".into(),
            settings: Settings::default(),
            secret: self.secret.clone(),
            listener,
            address: address.clone(),
            replica,
            settling: controller::SETTLING,
            backup_period: controller::BACKUP_PERIOD,
            beginning,
            healing: self.options.healing,
        });
        self.controllers.push(controller.expect("a Controller"));
        self.addresses.push(address);
    }

    /// Starts a Dstore, on the data that it has.
    #[allow(dead_code, reason = "not every bench does")]
    pub fn start_dstore(&mut self, number: usize) {
        self.start_dstore_behind(number, &|address| address);
    }

    fn start_dstore_behind(&mut self, number: usize, behind: &dyn Fn(Address) -> Address) {
        let listener = listen();
        let own = behind(listener.local_addr().expect("bound").into());
        let dstore = dstore::Handle::start(dstore::Options {
            data: self.folder.join(format!("dstore-{number}")),
            cluster: CLUSTER,
            secret: self.secret.clone(),
            listener,
            address: own,
            controllers: self.addresses.clone(),
            host: format!("host-{number}"),
            zone: String::new(),
            disk: pack::Options {
                sync: self.options.sync,
                capacity: self.options.capacity,
                ..pack::Options::default()
            },
            scrub_period: self.options.scrub_period,
            gives_up_after: dstore::GIVES_UP_AFTER,
            copy_rate: self.options.copy_rate,
        });
        self.dstores[number] = Some(dstore.expect("a Dstore"));
    }

    /// Stops one.
    #[allow(dead_code, reason = "not every bench does")]
    pub fn stop_dstore(&mut self, number: usize) {
        self.dstores[number].take().expect("it runs").stop().expect("all is on its disk");
    }

    /// A client of it.
    pub fn client(&self) -> Cluster {
        self.client_of(self.addresses.clone())
    }

    /// One that asks this Controller what any of them can answer.
    #[allow(dead_code, reason = "not every bench does")]
    pub fn client_at(&self, controller: usize) -> Cluster {
        self.client_of(vec![self.addresses[controller].clone()])
    }

    fn client_of(&self, controllers: Vec<Address>) -> Cluster {
        Cluster::new(ClusterOptions { controllers, ..self.client_options() })
    }

    /// How a client reaches it.
    pub fn client_options(&self) -> ClusterOptions {
        let (client, controllers) = (ClientId(1), self.addresses.clone());
        ClusterOptions { controllers, cluster: CLUSTER, client, key: self.secret.client_key(client), search: SEARCH }
    }
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port")
}
