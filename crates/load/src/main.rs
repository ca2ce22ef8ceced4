//! Measures any Controller and Dstores that speak the coursework protocol, and the depot. See `load --help`.

mod chart;
mod content;
mod depot;
mod inventory;
mod json;
mod mix;
mod official;
mod processes;
mod record;
mod report;
mod run;
mod sizes;
mod style;
mod worker;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use argh::FromArgs;
use cli::cluster::ClientFile;
use stevedore::controller;
use stevedore::program::cluster::{self, Cluster};
use stevedore::program::output::say;
use stevedore::program::{self, Failure, milliseconds, positive};

use mix::Mix;
use run::{Plan, Subject};
use sizes::Sizes;
use style::Style;
use worker::Task;

/// A load generator for distributed file stores: has clients store, load, remove and list files, and says how many
/// operations a second there were, how many megabytes, and how long they took. It says nothing to Controller and
/// Dstores but the coursework protocol, so that it can measure any implementation. With --depot it measures a
/// depot in the same way.
#[derive(FromArgs)]
#[argh(
    note = "Each client has names of its own, and does one operation after another. Half of the names have files
when the clock starts, all if the mix stores none, and none if it only stores. Where a mix leaves no name to
store under, a file is removed instead; where it leaves no file, one is stored.

Sizes take k, M, G for thousands and Ki, Mi, Gi for 1024s. A range is spread evenly over its orders of
magnitude, and parts can be weighted: 1k:90,1M-8M:10

The official style takes the Dstores of a store one after another and connects anew for each transfer, as the
official client does. The pipelined one takes them at the same time.

A latency is the time from a request to the end of its answer. The clients need processor time, too, and more of it
with --verify. Where they share a small machine with the servers, that lowers the result.",
    example = "load\n  a first try: a cluster in this process, small files, 5 seconds",
    example = "load --controller 12345 --clients 32 --mix store:100 --names 100000",
    example = "load --controller 12345 --style pipelined --keep-alive --verify --size 1k-10M --svg load.svg",
    example = "load --depot data/client.toml --clients 32 --size 1k",
    example = "load --controller 12345 --pids $(pidof controller dstore | tr ' ' ,) --json >load.json",
    error_code(1, "verification failed, or nothing worked"),
    error_code(2, "the command line makes no sense")
)]
struct Arguments {
    /// where the Controller is: a port of this machine, or ADDRESS:PORT; unless given, a cluster is started
    #[argh(option, arg_name = "WHERE", from_str_fn(controller_address))]
    controller: Option<SocketAddr>,
    /// measure a depot: its client.toml, or the folder that this file is in
    #[argh(option, arg_name = "PATH")]
    depot: Option<PathBuf>,
    /// start a cluster in this process: N Dstores, R copies of each file (default 4,3)
    #[argh(option, arg_name = "N,R")]
    cluster: Option<ClusterSize>,
    /// how many clients work at the same time (default 8)
    #[argh(option, from_str_fn(positive), default = "8")]
    clients: usize,
    /// official or pipelined (default official); the depot's client has a style of its own
    #[argh(option)]
    style: Option<Style>,
    /// say KEEP_ALIVE to Dstores, an extension, to keep connections; for the pipelined style
    #[argh(switch)]
    keep_alive: bool,
    /// how many per cent of the operations are of which kind (default store:30,load:40,remove:29,list:1)
    #[argh(option, default = "\"store:30,load:40,remove:29,list:1\".parse().expect(\"a mix\")")]
    mix: Mix,
    /// how large the files are (default 1k)
    #[argh(option, default = "\"1k\".parse().expect(\"a size\")")]
    size: Sizes,
    /// how many names there are for files, of all clients together (default 1000)
    #[argh(option, from_str_fn(positive), default = "1000")]
    names: usize,
    /// how many seconds to measure (default 5)
    #[argh(option, from_str_fn(seconds), default = "Duration::from_secs(5)")]
    duration: Duration,
    /// how many seconds to work before that, unmeasured (default 1)
    #[argh(option, from_str_fn(seconds), default = "Duration::from_secs(1)")]
    warm_up: Duration,
    /// milliseconds to wait for each reply (default 10000); the depot's client has limits of its own
    #[argh(option, from_str_fn(milliseconds), default = "Duration::from_secs(10)")]
    timeout: Duration,
    /// compare what is loaded and listed with what was stored
    #[argh(switch)]
    verify: bool,
    /// the seed of all that is random, names included (default: from the clock)
    #[argh(option)]
    seed: Option<u64>,
    /// leave the files in the store at the end
    #[argh(switch)]
    keep: bool,
    /// processes of which to report CPU time and memory, besides this one: their numbers, separated by commas
    #[argh(option, default = "Pids(Vec::new())")]
    pids: Pids,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
    /// draw throughput and latency over time into this file
    #[argh(option, arg_name = "FILE")]
    svg: Option<PathBuf>,
}

/// N and R.
#[derive(Clone, Copy)]
struct ClusterSize {
    dstores: usize,
    replicas: usize,
}

impl FromStr for ClusterSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (dstores, replicas) = text.split_once(',').ok_or("expected N,R as in 4,3")?;
        let (dstores, replicas) = (positive(dstores)?, positive(replicas)?);
        if dstores < replicas {
            return Err(format!("{replicas} copies need as many Dstores"));
        }
        Ok(Self { dstores, replicas })
    }
}

struct Pids(Vec<u32>);

impl FromStr for Pids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pids =
            text.split(',').map(|pid| pid.parse().map_err(|_| format!("expected a process's number, got {pid:?}")));
        pids.collect::<Result<_, _>>().map(Self)
    }
}

fn controller_address(word: &str) -> Result<SocketAddr, String> {
    match program::peer_port(word) {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => word.parse().map_err(|_| "expected a port, or ADDRESS:PORT".into()),
    }
}

/// Seconds, with a fraction if need be.
fn seconds(word: &str) -> Result<Duration, String> {
    const MOST: f64 = 1e9;
    let seconds = word.parse().ok().filter(|seconds| (0.0..=MOST).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected a number of seconds".into())
}

fn main() -> ExitCode {
    program::main("load", run)
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let plan = plan(&arguments)?;
    let _log = program::start_log("error")?;
    let mut cluster = None;
    let subject = match (&arguments.depot, arguments.controller) {
        (Some(path), _) => Subject::Depot(ClientFile::find(Some(path))?),
        (None, Some(address)) => Subject::Coursework(address),
        (None, None) => {
            let size = arguments.cluster.unwrap_or(ClusterSize { dstores: 4, replicas: 3 });
            let cluster: &Cluster = cluster.insert(start_cluster(size, arguments.timeout)?);
            Subject::Coursework(cluster.controller_address().map_err(Failure::new)?)
        }
    };
    let report = run::run(&plan, &subject, setup(&arguments, &plan))?;
    drop(cluster);
    if let Some(path) = &arguments.svg {
        let cannot_write = |error| Failure::new(format!("cannot write {}: {error}", path.display()));
        fs::write(path, chart::draw(&report)).map_err(cannot_write)?;
    }
    if arguments.json {
        say(format_args!("{:#}", json::json(&report)))?;
    } else {
        say(format_args!("{}", report.to_string().trim_end()))?;
    }
    report.failure().map_or(Ok(()), |reason| Err(Failure::new(reason)))
}

/// What to do, if the arguments make sense together.
fn plan(arguments: &Arguments) -> Result<Plan, Failure> {
    if arguments.controller.is_some() && arguments.cluster.is_some() {
        return Err(Failure::usage("a Controller, or a cluster of our own, not both"));
    }
    if arguments.depot.is_some() {
        let others = [
            (arguments.controller.is_some(), "--controller"),
            (arguments.cluster.is_some(), "--cluster"),
            (arguments.style.is_some(), "--style"),
            (arguments.keep_alive, "--keep-alive"),
        ];
        if let Some((_, other)) = others.into_iter().find(|(is_given, _)| *is_given) {
            return Err(Failure::usage(format!("{other} is for the coursework protocol, not for --depot")));
        }
    }
    if arguments.keep_alive && style(arguments) == Style::Official {
        return Err(Failure::usage("--keep-alive is for --style pipelined"));
    }
    if arguments.duration.is_zero() {
        return Err(Failure::usage("--duration must be more than 0"));
    }
    let too_many = |_| Failure::usage("too many");
    let (clients, names) =
        (arguments.clients.try_into().map_err(too_many)?, arguments.names.try_into().map_err(too_many)?);
    if names < clients {
        return Err(Failure::usage("each client needs a name of its own: --names must not be less than --clients"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(kit::hash(&[now.as_nanos() as u64]) >> 32);
    Ok(Plan {
        task: Task { mix: arguments.mix, sizes: arguments.size.clone(), verifies: arguments.verify, seed },
        clients,
        names,
        style: style(arguments),
        keeps_connections: arguments.keep_alive,
        timeout: arguments.timeout,
        warm_up: arguments.warm_up,
        duration: arguments.duration,
        keeps_files: arguments.keep,
        pids: arguments.pids.0.clone(),
    })
}

fn style(arguments: &Arguments) -> Style {
    arguments.style.unwrap_or(Style::Official)
}

/// What the report says that it is about.
fn setup(arguments: &Arguments, plan: &Plan) -> Vec<(&'static str, String)> {
    let mut setup = vec![("clients", plan.clients.to_string())];
    let place = match (&arguments.depot, arguments.controller, arguments.cluster) {
        (Some(path), ..) => ("depot", path.display().to_string()),
        (None, Some(address), _) => ("controller", address.to_string()),
        (None, None, size) => {
            let ClusterSize { dstores, replicas } = size.unwrap_or(ClusterSize { dstores: 4, replicas: 3 });
            ("controller", format!("in this process with {dstores} Dstores and R = {replicas}"))
        }
    };
    if arguments.depot.is_none() {
        let connections = if plan.keeps_connections { "kept" } else { "one per transfer" };
        setup.extend([("style", plan.style.to_string()), ("connections", connections.to_owned())]);
    }
    setup.extend([
        ("size", plan.task.sizes.to_string()),
        ("mix", plan.task.mix.to_string()),
        ("names", plan.names.to_string()),
        ("seconds", plan.duration.as_secs_f64().to_string()),
        ("warm-up", plan.warm_up.as_secs_f64().to_string()),
        ("verify", if plan.task.verifies { "yes" } else { "no" }.to_owned()),
        ("seed", plan.task.seed.to_string()),
        place,
    ]);
    setup
}

fn start_cluster(size: ClusterSize, timeout: Duration) -> Result<Cluster, Failure> {
    let mut controller = controller::Config::new(size.replicas);
    controller.timeout = timeout;
    let shutdown = cluster::ShutdownHandle::default();
    Cluster::start(cluster::Config { dstores: size.dstores, controller, first_dstore_port: 0, folder: None, shutdown })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments::from_args(&["load"], words).unwrap_or_else(|exit| panic!("{}", exit.output))
    }

    #[test]
    fn arguments_that_contradict_each_other_are_refused() {
        let refused: [&[&str]; 7] = [
            &["--depot", "data", "--controller", "1"],
            &["--depot", "data", "--style", "official"],
            &["--depot", "data", "--keep-alive"],
            &["--controller", "1", "--cluster", "4,3"],
            &["--keep-alive"],
            &["--duration", "0"],
            &["--clients", "10", "--names", "9"],
        ];
        for words in refused {
            let failure = plan(&arguments(words)).err().unwrap_or_else(|| panic!("{words:?} has been accepted"));
            assert_eq!(failure.code, program::exit_code::USAGE, "{words:?}");
        }
        assert!(plan(&arguments(&["--keep-alive", "--style", "pipelined"])).is_ok());
    }

    #[test]
    fn words_that_make_no_sense_are_refused() {
        let refused: [&[&str]; 8] = [
            &["--controller", "nowhere"],
            &["--cluster", "2,3"],
            &["--cluster", "3"],
            &["--style", "java"],
            &["--duration", "-1"],
            &["--duration", "NaN"],
            &["--pids", "1,x"],
            &["--clients", "0"],
        ];
        for words in refused {
            assert!(Arguments::from_args(&["load"], words).is_err(), "{words:?}");
        }
        assert_eq!(controller_address("12345").unwrap(), "127.0.0.1:12345".parse().unwrap());
        assert_eq!(controller_address("[::1]:7").unwrap(), "[::1]:7".parse().unwrap());
    }
}
