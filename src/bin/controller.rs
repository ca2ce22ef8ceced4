//! The Controller: keeps the index of a distributed file store. See `controller --help`.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;
use stevedore::controller::{self, Config};
use stevedore::program::{self, Failure, milliseconds, positive, seconds, signals};

/// The Controller of a distributed file store: knows which files exist and which Dstores have them. Start it first,
/// then at least R Dstores, then clients.
#[derive(FromArgs)]
#[argh(
    note = "Every message is logged on stderr; RUST_LOG=warn switches that off.",
    note = "SIGTERM and SIGINT end it cleanly, with exit code 0; a second one ends it at once.",
    example = "controller 12345 3 1000 60\n  3 copies of each file, 1 s patience, a rebalance every minute",
    example = "dstore 12346 12345 1000 folder_1\n  and two more like it, on ports and with folders of their own",
    example = "client 12345 1000 store notes.txt",
    error_code(1, "it cannot run, for example because the port is taken"),
    error_code(2, "the command line makes no sense")
)]
struct Arguments {
    /// port to listen on for clients and Dstores; 0 takes any free one
    #[argh(positional)]
    cport: u16,
    /// on how many Dstores each file is kept
    #[argh(positional, arg_name = "R", from_str_fn(positive))]
    replicas: usize,
    /// how many milliseconds to wait for Dstores to acknowledge, list and report. It bounds the whole of a store: large
    /// files need more, here and at the client
    #[argh(positional, from_str_fn(milliseconds))]
    timeout: Duration,
    /// how many seconds from one rebalance to the next; 0: only when a Dstore joins
    #[argh(positional)]
    rebalance_period: u64,
    /// the rebalance period is in milliseconds, as in the 2021 edition
    #[argh(switch)]
    period_in_ms: bool,
    /// address to listen on; all of this machine's, IPv4 and IPv6, unless given
    #[argh(option)]
    bind: Option<IpAddr>,
    /// log as the 2021 edition does: into controller_MS.log in this folder and on stdout, without times
    #[argh(switch)]
    log_2021: bool,
    /// longest line in bytes that a client may send (default 65536)
    #[argh(option, from_str_fn(positive), default = "stevedore::protocol::connection::CLIENT_LINE_LIMIT")]
    client_line_limit: usize,
    /// by how many bytes the lists of all Dstores together may be longer than expected of the files that they hold
    /// (default 67108864)
    #[argh(option, from_str_fn(positive), default = "controller::LIST_ALLOWANCE")]
    dstore_line_limit: usize,
    /// after how many seconds a machine that answers nothing any more counts as dead, and its connection is dropped
    /// (default 20)
    #[argh(option, from_str_fn(seconds), default = "stevedore::protocol::connection::KEEPALIVE")]
    keepalive: Duration,
}

fn main() -> ExitCode {
    program::main("controller", run)
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let _log = if arguments.log_2021 { program::start_log_2021("controller")? } else { program::start_log("info")? };
    let period = match arguments.rebalance_period {
        0 => None,
        ms if arguments.period_in_ms => Some(Duration::from_millis(ms)),
        seconds => Some(Duration::from_secs(seconds)),
    };
    let asked_to_end = signals::requests_to_end(signals::GRACE)?;
    let controller = controller::start(Config {
        bind: arguments.bind,
        port: arguments.cport,
        replicas: arguments.replicas,
        timeout: arguments.timeout,
        rebalance_period: period,
        client_line_limit: arguments.client_line_limit,
        dstore_line_limit: arguments.dstore_line_limit,
        keepalive: arguments.keepalive,
    })
    .map_err(Failure::new)?;
    // In 2021 stdout is for messages only. (spec 5.4)
    program::say_listening(controller.address(), arguments.log_2021)?;
    let _ = asked_to_end.recv();
    log::info!("asked to end");
    Ok(())
}
