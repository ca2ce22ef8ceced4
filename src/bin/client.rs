//! The client: puts files into a distributed file store and gets them out. See `client --help`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;
use stevedore::client::Client;
use stevedore::program::{self, Failure, commands, milliseconds, peer_port, prompt, signals};

/// A client of a distributed file store. With a command it does that and exits; without one it opens a prompt, or
/// takes commands from stdin.
#[derive(FromArgs)]
#[argh(
    note = "SIGTERM and SIGINT (at the prompt Ctrl-C only drops the line) abandon a transfer and leave no unfinished",
    note = "file; a shell then sees 143 or 130.",
    example = "client 12345 1000\n  a prompt; say help there",
    example = "client 12345 1000 store *.txt\nclient 12345 1000 load notes.txt --to /tmp\nclient 12345 1000 list",
    error_code(1, "it did not work, for a reason below none of these"),
    error_code(2, "the command line makes no sense"),
    error_code(3, "there is no such file"),
    error_code(4, "there is a file of that name already"),
    error_code(5, "fewer than R Dstores have joined")
)]
struct Arguments {
    /// port of the Controller on this machine
    #[argh(positional, from_str_fn(peer_port))]
    cport: u16,
    /// how many milliseconds to wait for each reply, and for the whole of a store: large files need more, here and at
    /// the Controller
    #[argh(positional, from_str_fn(milliseconds))]
    timeout: Duration,
    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Store(Store),
    Load(Load),
    List(List),
    Remove(Remove),
}

/// Store files, each under its own name.
#[derive(FromArgs)]
#[argh(subcommand, name = "store")]
struct Store {
    /// files to store
    #[argh(positional, arg_name = "FILE")]
    files: Vec<PathBuf>,
    /// name for the file in the store, if it is only one
    #[argh(option, arg_name = "NAME", long = "as")]
    name: Option<String>,
}

/// Load files into a folder, in place of any that have the same name there.
#[derive(FromArgs)]
#[argh(subcommand, name = "load")]
struct Load {
    /// files to load
    #[argh(positional, arg_name = "NAME")]
    names: Vec<String>,
    /// folder to put them into; this one unless given
    #[argh(option, arg_name = "DIR", default = "commands::current_folder()")]
    to: PathBuf,
}

/// Print the names of all files, one in a line.
#[derive(FromArgs)]
#[argh(subcommand, name = "list")]
struct List {}

/// Remove files.
#[derive(FromArgs)]
#[argh(subcommand, name = "remove")]
struct Remove {
    /// files to remove
    #[argh(positional, arg_name = "NAME")]
    names: Vec<String>,
}

fn main() -> ExitCode {
    program::main("client", run)
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Some(Command::Store(store)) if store.files.is_empty() => return Err(Failure::usage("store which files?")),
        Some(Command::Store(store)) if store.name.is_some() && store.files.len() > 1 => {
            return Err(Failure::usage("--as names one file, not several"));
        }
        Some(Command::Load(load)) if load.names.is_empty() => return Err(Failure::usage("load which files?")),
        Some(Command::Remove(remove)) if remove.names.is_empty() => return Err(Failure::usage("remove which files?")),
        _ => {}
    }
    let _log = program::start_log("error")?;
    signals::end_clients_tidily()?;
    let controller = ([127, 0, 0, 1], arguments.cport).into();
    let mut client = Client::connect(controller, arguments.timeout)?;
    let client = &mut client;
    match arguments.command {
        None => prompt::run(&mut [client]),
        Some(Command::List(_)) => commands::list(client),
        Some(Command::Store(Store { files, name })) => {
            program::for_each("client", &files, |path| commands::store(client, path, name.as_deref()))
        }
        Some(Command::Load(Load { names, to })) => {
            program::for_each("client", &names, |name| commands::load(client, name, &to))
        }
        Some(Command::Remove(Remove { names })) => {
            program::for_each("client", &names, |name| commands::remove(client, name))
        }
    }
}
