//! What can be said on the command line, and what each command does.
//!
//! A command is the words it takes, as [`argh`] reads them, and a method `run`. The same commands serve the prompt.

pub mod certs;
pub mod change;
pub mod controllers;
pub mod facades;
pub mod gateway;
pub mod get;
pub mod heal;
pub mod health;
pub mod list;
pub mod put;
pub mod secret;
pub mod store;
pub mod user;
pub mod watch;

use std::path::Path;

use argh::FromArgs;
use stevedore::program::{self, Failure, signals};

use crate::demo::Demo;
use crate::session::Session;
use crate::shell::Shell;
use crate::{recovery, servers};

/// A command.
#[derive(FromArgs)]
#[argh(subcommand)]
#[expect(missing_docs, reason = "each command says what it does")]
pub enum Command {
    Put(put::Put),
    Get(get::Get),
    Cat(get::Cat),
    Ls(list::Ls),
    Tree(list::Tree),
    Find(list::Find),
    Du(list::Du),
    Stat(list::StatFile),
    Rm(change::Rm),
    Mv(change::Mv),
    Cp(change::Cp),
    Mkdir(change::Mkdir),
    Rmdir(change::Rmdir),
    Watch(watch::Watch),
    Shell(Shell),
    Status(store::ShowStatus),
    Set(store::Set),
    Format(store::Format),
    Check(heal::Check),
    Repair(heal::Repair),
    Drain(heal::Drain),
    Collect(heal::Collect),
    DstoreRemove(heal::DstoreRemove),
    Controllers(controllers::Controllers),
    Backup(recovery::Backup),
    Restore(recovery::Restore),
    Recover(recovery::Recover),
    Demo(Demo),
    Serve(servers::Serve),
    Controller(servers::RunController),
    Dstore(servers::RunDstore),
    Gateway(gateway::RunGateway),
    User(user::UserCommand),
    Certs(certs::Certs),
    Secret(secret::SecretCommand),
    Health(health::Health),
}

impl Command {
    /// Does it: with the store that `cluster` or the environment names, if the command needs one.
    pub fn run(&self, cluster: Option<&Path>) -> Result<(), Failure> {
        match (self, cluster) {
            (Self::Dstore(dstore), cluster) => return dstore.run(cluster),
            (Self::Backup(backup), cluster) => return backup.run(cluster),
            (Self::Restore(restore), cluster) => return restore.run(cluster),
            (Self::Recover(recover), cluster) => return recover.run(cluster),
            (Self::Controller(controller), cluster) => return controller.run(cluster),
            (Self::Gateway(gateway), cluster) => return gateway.run(cluster),
            (Self::Serve(_), Some(_)) => {
                return Err(Failure::usage(
                    "--cluster is for those who use a store; its first folder is what a server knows it by",
                ));
            }
            (Self::Demo(_), Some(_)) => {
                return Err(Failure::usage("--cluster is for those who use a store; the demo makes one of its own"));
            }
            (Self::Certs(certs), _) => return certs.run(),
            (Self::Secret(secret), _) => return secret.run(),
            (Self::Health(health), cluster) => return health.run(cluster),
            (Self::Serve(serve), None) => return serve.run(),
            (Self::Demo(demo), None) => return demo.run(),
            _ => {}
        }
        let _log = program::start_log("error")?;
        signals::end_clients_tidily()?;
        let store = crate::cluster::connect(cluster)?;
        self.run_in(&Session::new(&store))
    }

    /// Does it in a session.
    pub fn run_in(&self, session: &Session<'_>) -> Result<(), Failure> {
        match self {
            Self::Put(put) => put.run(session),
            Self::Get(get) => get.run(session),
            Self::Cat(cat) => cat.run(session),
            Self::Ls(ls) => ls.run(session),
            Self::Tree(tree) => tree.run(session),
            Self::Find(find) => find.run(session),
            Self::Du(du) => du.run(session),
            Self::Stat(stat) => stat.run(session),
            Self::Rm(rm) => rm.run(session),
            Self::Mv(mv) => mv.run(session),
            Self::Cp(cp) => cp.run(session),
            Self::Mkdir(mkdir) => mkdir.run(session),
            Self::Rmdir(rmdir) => rmdir.run(session),
            Self::Watch(watch) => watch.run(session),
            Self::Shell(shell) => shell.run(session),
            Self::Status(status) => status.run(session),
            Self::Set(set) => set.run(session),
            Self::Format(format) => format.run(session),
            Self::Check(check) => check.run(session),
            Self::Repair(repair) => repair.run(session),
            Self::Drain(drain) => drain.run(session),
            Self::Collect(collect) => collect.run(session),
            Self::DstoreRemove(remove) => remove.run(session),
            Self::Controllers(controllers) => controllers.run(session),
            Self::User(user) => user.run(session),
            Self::Serve(_) | Self::Controller(_) | Self::Dstore(_) | Self::Gateway(_) | Self::Demo(_) => {
                Err(Failure::usage("a server is started on the command line"))
            }
            Self::Backup(_)
            | Self::Restore(_)
            | Self::Recover(_)
            | Self::Certs(_)
            | Self::Secret(_)
            | Self::Health(_) => Err(Failure::usage("this is for the command line: it is about the store's servers")),
        }
    }
}
