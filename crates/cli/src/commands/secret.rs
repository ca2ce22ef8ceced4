//! `secret draw|new|withdraw`: the files that servers and users prove themselves by. (depot 5.8)

use std::fs;
use std::path::{Path, PathBuf};

use argh::FromArgs;
use stevedore::program::Failure;
use stevedore::program::output::say;

use crate::cluster::{CLIENT_FILE, CLUSTER_FILE, ClientFile, ClusterFile};
use crate::servers::{Addresses, addresses};

/// Make the files that prove who belongs to a store.
#[derive(FromArgs)]
#[argh(subcommand, help_triggers("-h", "--help"), name = "secret")]
pub struct SecretCommand {
    /// what to do
    #[argh(subcommand)]
    pub action: Action,
}

/// What can be done with secrets.
#[derive(FromArgs)]
#[argh(subcommand)]
#[expect(missing_docs, reason = "each says what it does")]
pub enum Action {
    Draw(Draw),
    New(New),
    Withdraw(Withdraw),
}

/// Draw the secret of a store that is still to be started: cluster.toml for its servers, client.toml for its users.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "draw",
    note = "The first Controller of a store does it by itself. Where files are given out before anything runs, as for containers,\ndo it before: all servers are then started with --cluster DIR. Files that are there stay as they are.",
    example = "stevedore secret draw --controllers one:7000,two:7000,three:7000 ~/secret\nstevedore controller --cluster ~/secret --data /srv/c --advertise one --peers one:7000,two:7000,three:7000"
)]
pub struct Draw {
    /// addresses of the Controllers that the store begins with, with commas in between
    #[argh(option, arg_name = "HOST:PORT,...", from_str_fn(addresses))]
    pub controllers: Addresses,
    /// name of the store (default: depot)
    #[argh(option, default = "String::from(\"depot\")")]
    pub name: String,
    /// folder for both files
    #[argh(positional, arg_name = "DIR")]
    pub folder: PathBuf,
}

/// Begin to replace a store's secret: a new one is drawn, and the old one is accepted beside it.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "new",
    note = "The store goes on meanwhile. Copy the new cluster.toml to all servers and restart them, one after the other. Then give users\nthe new client.toml: it has another key. When all have it: stevedore secret withdraw.",
    example = "stevedore secret new /etc/stevedore"
)]
pub struct New {
    /// folder with cluster.toml
    #[argh(positional, arg_name = "DIR")]
    pub folder: PathBuf,
}

/// End to replace a store's secret: the old one is accepted no longer.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "withdraw",
    note = "Copy cluster.toml to all servers and restart them, one after the other. A server or user that has only the old files is not\nlet in any more.",
    example = "stevedore secret withdraw /etc/stevedore"
)]
pub struct Withdraw {
    /// folder with cluster.toml
    #[argh(positional, arg_name = "DIR")]
    pub folder: PathBuf,
}

impl SecretCommand {
    /// Does it.
    pub fn run(&self) -> Result<(), Failure> {
        match &self.action {
            Action::Draw(draw) => draw.run(),
            Action::New(New { folder }) => {
                let mut file = read(folder)?;
                if file.secret.is_renewed() {
                    return Err(Failure::new(
                        "the old secret is still accepted: stevedore secret withdraw ends that first",
                    ));
                }
                file.secret = file.secret.renewed().map_err(|error| Failure::new(format!("cannot draw: {error}")))?;
                file.write(&folder.join(CLUSTER_FILE))?;
                file.write_client(folder)?;
                say(format_args!("A new secret is drawn; the old one is accepted beside it. Next, in this order:"))?;
                say(format_args!(
                    "  copy {} to all servers, and restart them one by one",
                    folder.join(CLUSTER_FILE).display()
                ))?;
                say(format_args!("  give {} to users", folder.join(CLIENT_FILE).display()))?;
                say(format_args!("  stevedore secret withdraw {}", folder.display()))
            }
            Action::Withdraw(Withdraw { folder }) => {
                let mut file = read(folder)?;
                if !file.secret.is_renewed() {
                    return Err(Failure::new(
                        "there is no older secret to withdraw: stevedore secret new draws another one",
                    ));
                }
                file.secret = file.secret.settled();
                file.write(&folder.join(CLUSTER_FILE))?;
                let path = folder.join(CLUSTER_FILE);
                say(format_args!("Copy {} to all servers, and restart them one by one", path.display()))
            }
        }
    }
}

fn read(folder: &Path) -> Result<ClusterFile, Failure> {
    let none = || Failure::new(format!("{}: there is no {CLUSTER_FILE}", folder.display()));
    ClusterFile::read(&folder.join(CLUSTER_FILE))?.ok_or_else(none)
}

impl Draw {
    /// Does it.
    fn run(&self) -> Result<(), Failure> {
        let folder = &self.folder;
        let failed = |error| Failure::new(format!("cannot make {}: {error}", folder.display()));
        fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join(CLUSTER_FILE);
        let (file, what) = match ClusterFile::read(&path)? {
            Some(there) => (there, "is there already, and stays"),
            None => {
                let drawn = ClusterFile::draw(&self.name).map_err(failed)?;
                let file = ClusterFile { controllers: self.controllers.clone(), ..drawn };
                file.write(&path)?;
                (file, "is for the servers: keep it secret")
            }
        };
        say(format_args!("{} {what}", path.display()))?;
        if ClientFile::read(&folder.join(CLIENT_FILE))?.is_none_or(|client| client.cluster != file.cluster) {
            file.write_client(folder)?;
        }
        say(format_args!("{} is for users", folder.join(CLIENT_FILE).display()))
    }
}
