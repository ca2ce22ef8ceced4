//! A Dstore: keeps the files of a distributed file store. See `dstore --help`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;
use crossbeam_channel::select_biased;
use stevedore::dstore::{self, Config};
use stevedore::program::{self, Failure, milliseconds, peer_port, positive, seconds, signals};

/// A Dstore of a distributed file store: keeps files in a folder, and tells the Controller. Everything in the folder
/// is deleted when it starts.
#[derive(FromArgs)]
#[argh(
    note = "Every message is logged on stderr; RUST_LOG=warn switches that off.",
    note = "SIGTERM and SIGINT end it cleanly, with exit code 0; a second one ends it at once.",
    example = "dstore 12346 12345 1000 folder_1\n  listens on 12346 and joins the Controller on port 12345 of this machine",
    error_code(1, "it cannot start, or the Controller has gone"),
    error_code(2, "the command line makes no sense")
)]
struct Arguments {
    /// port to listen on for clients and other Dstores; 0 takes any free one
    #[argh(positional)]
    port: u16,
    /// port of the Controller on this machine
    #[argh(positional, from_str_fn(peer_port))]
    cport: u16,
    /// how many milliseconds to wait for content that is due
    #[argh(positional, from_str_fn(milliseconds))]
    timeout: Duration,
    /// folder for the files: made if missing, EMPTIED if not; files that no Dstore has written are moved to a folder beside it
    #[argh(positional)]
    file_folder: PathBuf,
    /// delete all that is in the folder: folders, and other programs' files, too
    #[argh(switch)]
    force: bool,
    /// address to listen on; all of this machine's, IPv4 and IPv6, unless given
    #[argh(option)]
    bind: Option<IpAddr>,
    /// log as the 2021 edition does: into dstore_PORT_MS.log in this folder and on stdout, without times
    #[argh(switch)]
    log_2021: bool,
    /// longest line in bytes that the Controller may send (default 268435456)
    #[argh(option, from_str_fn(positive), default = "stevedore::protocol::connection::DSTORE_LINE_LIMIT")]
    line_limit: usize,
    /// after how many seconds a Controller's machine that answers nothing any more counts as dead (default 20)
    #[argh(option, from_str_fn(seconds), default = "stevedore::protocol::connection::KEEPALIVE")]
    keepalive: Duration,
    /// acknowledge only what is on the disk: safe from a power cut, and slower
    #[argh(switch)]
    sync: bool,
    /// read all copies once in so many seconds, to find and remove those that have gone bad (default 0: never)
    #[argh(option, default = "0")]
    scrub: u32,
}

fn main() -> ExitCode {
    program::main("dstore", run)
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let _log = if arguments.log_2021 {
        program::start_log_2021(&format!("dstore_{}", arguments.port))?
    } else {
        program::start_log("info")?
    };
    let asked_to_end = signals::requests_to_end(signals::GRACE)?;
    let dstore = dstore::start(Config {
        bind: arguments.bind,
        port: arguments.port,
        timeout: arguments.timeout,
        force: arguments.force,
        line_limit: arguments.line_limit,
        keepalive: arguments.keepalive,
        sync: arguments.sync,
        scrub: (arguments.scrub > 0).then(|| Duration::from_secs(arguments.scrub.into())),
        ..Config::new(arguments.cport, arguments.file_folder)
    })
    .map_err(Failure::new)?;
    // In 2021 stdout is for messages only. (spec 5.4)
    program::say_listening(dstore.listening_on(), arguments.log_2021)?;
    // Ctrl-C ends a Controller on the same terminal as well: that is no reason to complain.
    select_biased! {
        recv(asked_to_end) -> _ => {
            log::info!("asked to end");
            Ok(())
        }
        recv(dstore.controller_gone()) -> reason => {
            let reason = reason.map_or_else(|_| String::new(), |reason| format!(" ({reason})"));
            Err(Failure::new(format!("the Controller has gone{reason}, and a Dstore does not outlive it")))
        }
    }
}
