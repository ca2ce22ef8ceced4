//! `controller`: the servers of a store. (depot 10)

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use argh::FromArgs;
use crossbeam_channel::Receiver;
use depot::controller;
use depot::log::{ReplicaOptions, SyncMode};
use depot::namespace::change::{Replicas, Settings};
use depot::wire::Address;
use stevedore::program::output::say;
use stevedore::program::signals::{self, Signal};
use stevedore::program::{self, Failure};

use crate::cluster::{ClusterFile, VARIABLE};
use crate::commands::put::replicas as read_replicas;
use crate::folder::{DataFolder, store_in};

/// Run a store's Controller alone.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "controller",
    note = "It decides, and keeps the log of all changes; Dstores keep the bytes. Each needs a copy of its\ncluster.toml.",
    example = "stevedore controller --data /srv/controller --listen 10.0.0.1\nscp /srv/controller/cluster.toml other:/srv/dstore/\nssh other stevedore dstore --data /srv/dstore --controllers 10.0.0.1:7000 --listen 10.0.0.2"
)]
pub struct RunController {
    /// folder of the log; the first start makes the store
    #[argh(option, arg_name = "DIR")]
    pub data: PathBuf,
    /// name of a new store (default: depot)
    #[argh(option, default = "\"depot\".to_owned()")]
    pub name: String,
    /// on how many Dstores a new store keeps a file: a number, or all (default 3)
    #[argh(option, arg_name = "R", default = "Replicas::Number(3)", from_str_fn(read_replicas))]
    pub replicas: Replicas,
    /// port (default 7000); 0 takes a free one
    #[argh(option, default = "CONTROLLER_PORT")]
    pub port: u16,
    /// address to listen on (default 127.0.0.1: this machine only)
    #[argh(option, arg_name = "ADDRESS", default = "LOOPBACK")]
    pub listen: IpAddr,
    /// host that others reach this machine by, if it listens on all its addresses
    #[argh(option, arg_name = "HOST")]
    pub advertise: Option<String>,
    /// when a change counts as kept: always (once it is on the disk; default), interval (it is within a second), never
    #[argh(option, default = "SyncMode::Always", from_str_fn(sync_mode))]
    pub sync: SyncMode,
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const CONTROLLER_PORT: u16 = 7000;

/// For argh.
fn sync_mode(word: &str) -> Result<SyncMode, String> {
    match word {
        "always" => Ok(SyncMode::Always),
        "interval" => Ok(SyncMode::Interval),
        "never" => Ok(SyncMode::Never),
        _ => Err("expected always, interval or never".into()),
    }
}

impl RunController {
    /// Serves until a signal asks to end.
    pub fn run(&self) -> Result<(), Failure> {
        let _log = program::start_log("warn")?;
        let end = signals::requests_to_end()?;
        let folder = DataFolder::claim(&self.data)?;
        let new = NewStore { name: &self.name, replicas: self.replicas };
        let place = Place { listen: self.listen, advertise: self.advertise.as_deref() };
        let folders = [folder];
        let (controller, file) = start_controller(&folders, &new, &place, self.port, self.sync, "--port")?;
        let servers = Servers { controller };
        let client = file.write_client(folders[0].path())?;
        let (address, cluster) = (&file.controllers[0], folders[0].cluster_file());
        say(format_args!("Controller of the store {:?} at {address}", file.name))?;
        say(format_args!("Each Dstore needs a copy of {} in its folder DIR, then:", cluster.display()))?;
        say(format_args!("  stevedore dstore --data DIR --controllers {address}"))?;
        say_next(&client)?;
        servers.wait(&end)
    }
}

fn say_next(client: &Path) -> Result<(), Failure> {
    say(format_args!("In another terminal, or on another machine with a copy of that file:"))?;
    say(format_args!("  export {VARIABLE}={}", crate::words::quote(&client.display().to_string())))?;
    say(format_args!("  stevedore put -r ~/Documents /docs"))?;
    say(format_args!("  stevedore status"))
}

/// What a store is made as.
struct NewStore<'a> {
    name: &'a str,
    replicas: Replicas,
}

/// Where servers listen, and where others reach them.
struct Place<'a> {
    listen: IpAddr,
    advertise: Option<&'a str>,
}

impl Place<'_> {
    fn bind(&self, port: u16, what: &str, option: &str) -> Result<(TcpListener, Address), Failure> {
        let wanted = SocketAddr::new(self.listen, port);
        let listener = stevedore::server::listen(Some(self.listen), port).map_err(|error| {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("; another process has that port, perhaps another store: {option} 0 takes a free one")
                }
                _ => String::new(),
            };
            Failure::new(format!("the {what} cannot listen on {wanted}: {error}{advice}"))
        })?;
        let bound = listener.local_addr().map_err(Failure::new)?;
        let address = match self.advertise {
            None if self.listen.is_unspecified() => {
                return Err(Failure::usage(
                    "--listen on all addresses needs --advertise HOST: where others reach this machine",
                ));
            }
            None => Address::from(bound),
            Some(host) => {
                let is_v6 = host.contains(':') && !host.starts_with('[');
                let host = if is_v6 { format!("[{host}]") } else { host.to_owned() };
                let address = format!("{host}:{}", bound.port()).parse();
                address.map_err(|error| Failure::usage(format!("--advertise {host}: {error}")))?
            }
        };
        Ok((listener, address))
    }
}

/// Starts the Controller of the store in these folders, or of a new one.
fn start_controller(
    folders: &[DataFolder],
    new: &NewStore<'_>,
    place: &Place<'_>,
    port: u16,
    sync: SyncMode,
    port_option: &str,
) -> Result<(controller::Handle, ClusterFile), Failure> {
    let mut file = store_in(folders, new.name)?;
    let (listener, address) = place.bind(port, "Controller", port_option)?;
    file.controllers = vec![address.clone()];
    // Before there is a log: a log without its file would be taken for a loss.
    file.write(&folders[0].cluster_file())?;
    let options = controller::Options {
        data: folders[0].log(),
        cluster: file.cluster,
        name: file.name.clone(),
        settings: Settings { replicas: new.replicas, ..Settings::default() },
        secret: file.secret.clone(),
        listener,
        address,
        replica: ReplicaOptions { sync, ..ReplicaOptions::default() },
        settling: controller::SETTLING,
    };
    let controller = controller::Handle::start(options)
        .map_err(|error| Failure::new(format!("the Controller does not start: {error}")))?;
    Ok((controller, file))
}

/// What runs in this process.
struct Servers {
    controller: controller::Handle,
}

impl Servers {
    /// Waits for a signal, or for a server that cannot go on, and ends all of them in order.
    fn wait(self, end: &Receiver<Signal>) -> Result<(), Failure> {
        /// How often servers are asked whether they can go on.
        const PERIOD: Duration = Duration::from_millis(500);
        let failure = loop {
            match end.recv_timeout(PERIOD) {
                Err(error) if error.is_timeout() => {
                    if let Some(failure) = self.failure() {
                        break Some(failure);
                    }
                }
                _ => break None,
            }
        };
        let closed = self.controller.stop();
        match failure {
            Some(failure) => Err(Failure::new(failure)),
            None => closed.map_err(|error| Failure::new(format!("the log was not closed in order: {error}"))),
        }
    }

    fn failure(&self) -> Option<String> {
        self.controller.failure()
    }
}
