//! A whole distributed file store in one process, to try out and to break. See `cluster --help`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{self, ExitCode};
use std::time::Duration;

use argh::FromArgs;
use stevedore::client::{Client, NewFile};
use stevedore::controller;
use stevedore::program::cluster::{Cluster, Config, ShutdownHandle};
use stevedore::program::output::say;
use stevedore::program::signals::{self, Terminal};
use stevedore::program::{self, Failure, demo, milliseconds, positive, prompt};

/// A Controller and some Dstores in one process, with a prompt to use them, to look at them and to kill them. The
/// programs controller, dstore and client do the same as processes of their own.
#[derive(FromArgs)]
#[argh(
    note = "Nothing is logged but errors; RUST_LOG=info shows every message.",
    note = "SIGTERM and SIGINT (at the prompt Ctrl-C only drops the line) end it cleanly, with exit code 0.",
    example = "cluster\n  4 Dstores, 3 copies of each file; say help",
    example = "cluster --demo src README.md\n  stores these, kills a Dstore, and shows that nothing is lost",
    error_code(1, "it cannot start, or the demo has found something wrong"),
    error_code(2, "the command line makes no sense")
)]
struct Arguments {
    /// how many Dstores to start with (default 4)
    #[argh(option, from_str_fn(positive), default = "4")]
    dstores: usize,
    /// on how many Dstores each file is kept (default 3)
    #[argh(option, from_str_fn(positive), default = "3")]
    replicas: usize,
    /// address to listen on (default 127.0.0.1, for this machine only); 0.0.0.0 or :: for other machines too
    #[argh(option, from_str_fn(bind_address), default = "Ipv4Addr::LOCALHOST.into()")]
    bind: IpAddr,
    /// port of the Controller; any free one unless given
    #[argh(option, default = "0")]
    cport: u16,
    /// port of the first Dstore, the next following; any free ones unless given
    #[argh(option, default = "0")]
    dstore_port: u16,
    /// milliseconds to wait for replies, and for the whole of a store: large files need more (default 10000)
    #[argh(option, from_str_fn(milliseconds), default = "Duration::from_secs(10)")]
    timeout: Duration,
    /// seconds from one rebalance to the next (default 2); 0: only when a Dstore joins
    #[argh(option, default = "2")]
    period: u64,
    /// where the Dstores' folders are made; a temporary folder, removed at the end, unless given
    #[argh(option)]
    folder: Option<PathBuf>,
    /// store the files at PATHS, kill a Dstore, wait until the others have healed, compare what comes back, and exit
    #[argh(switch)]
    demo: bool,
    /// files and folders for --demo
    #[argh(positional)]
    paths: Vec<PathBuf>,
}

/// One through which the Dstores and the prompt reach the Controller, too: they look for it at 127.0.0.1.
fn bind_address(word: &str) -> Result<IpAddr, String> {
    let address: Option<IpAddr> = word.parse().ok();
    address
        .filter(|address| *address == Ipv4Addr::LOCALHOST || address.is_unspecified())
        .ok_or_else(|| "expected 127.0.0.1, 0.0.0.0 or ::".into())
}

fn main() -> ExitCode {
    program::main("cluster", run)
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { dstores, replicas, demo, paths, .. } = arguments;
    match (demo, paths.is_empty()) {
        (true, true) => return Err(Failure::usage("--demo needs files or folders to store")),
        (false, false) => return Err(Failure::usage("files are for --demo only")),
        (true, false) if dstores <= replicas => {
            let reason =
                "the demo kills a Dstore, and at least R must be left: --dstores has to be more than --replicas";
            return Err(Failure::usage(reason));
        }
        (true, false) if arguments.period == 0 => {
            return Err(Failure::usage("the demo waits for a periodic rebalance: --period must not be 0"));
        }
        _ => {}
    }
    let _log = program::start_log("error")?;
    let mut controller = controller::Config::new(replicas);
    controller.bind = Some(arguments.bind);
    controller.port = arguments.cport;
    controller.timeout = arguments.timeout;
    controller.rebalance_period = (arguments.period > 0).then(|| Duration::from_secs(arguments.period));
    let shutdown = ShutdownHandle::default();
    signals::on_first(signals::GRACE, {
        let shutdown = shutdown.clone();
        move |_| {
            shutdown.shut_down();
            NewFile::discard_all(|| {
                Terminal::restore();
                log::logger().flush();
                process::exit(0)
            });
        }
    })?;
    let config =
        Config { dstores, controller, first_dstore_port: arguments.dstore_port, folder: arguments.folder, shutdown };
    let mut cluster = Cluster::start(config)?;
    let address = cluster.controller_address().map_err(Failure::new)?;
    // A request may have to wait for a whole rebalance (spec 7.28), and then still for its answer.
    let mut client = Client::connect(address, arguments.timeout * 4)?;
    client.limit_stores(arguments.timeout);
    let ports: Vec<_> = cluster.dstores().iter().map(|dstore| dstore.address.to_string()).collect();
    say(format_args!(
        "Controller on port {}, {dstores} Dstores on ports {}, R = {replicas}, files below {}",
        address.port(),
        ports.join(" "),
        cluster.folder().display()
    ))?;
    if demo {
        demo::run(&mut cluster, &mut client, &paths)
    } else {
        say(format_args!("Say help for the commands, quit to end it all."))?;
        prompt::run(&mut [&mut client, &mut cluster])
    }
}
