//! `controllers list|add|remove|replace|transfer`: which Controllers the store has. (depot 4.7)

use argh::FromArgs;
use depot::identity::ControllerId;
use depot::wire::Address;
use gateway::console::status_json;
use stevedore::program::Failure;
use stevedore::program::output::say;

use super::store::controllers_text;
use crate::failure::of_store;
use crate::session::Session;
use crate::show::say_json;

/// Show the store's Controllers, add, remove or replace one, or have another one lead.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "controllers",
    note = "A store with three Controllers goes on without one of them, with five without two. All of them keep all\nmetadata; one leads. The store does not stop while one is added or removed.",
    example = "stevedore controllers list",
    example = "scp ~/store/cluster.toml other:/srv/controller/\nssh other stevedore controller --join --data /srv/controller --listen 10.0.0.2\nstevedore controllers add 10.0.0.2:7000"
)]
pub struct Controllers {
    /// what to do
    #[argh(subcommand)]
    pub action: Action,
}

/// What can be done with Controllers.
#[derive(FromArgs)]
#[argh(subcommand)]
#[expect(missing_docs, reason = "each says what it does")]
pub enum Action {
    List(List),
    Add(Add),
    Remove(Remove),
    Replace(Replace),
    Transfer(Transfer),
}

/// Show which Controllers there are, who leads, and how far each is.
#[derive(FromArgs)]
#[argh(subcommand, help_triggers("-h", "--help"), name = "list")]
pub struct List {
    /// print them as JSON
    #[argh(switch)]
    pub json: bool,
}

/// Add a Controller that runs with an empty folder.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "add",
    note = "It is started before, with stevedore controller --join. It is sent all metadata, and votes when it has them.",
    example = "stevedore controllers add 10.0.0.2:7000"
)]
pub struct Add {
    /// where it listens
    #[argh(positional, arg_name = "HOST:PORT", from_str_fn(address))]
    pub address: Address,
}

/// Remove a Controller, whether it is there or lost.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "remove",
    note = "It ends by itself if it is there. To use its folder again, empty it first.",
    example = "stevedore controllers remove 5c0f3a91d2b84e77"
)]
pub struct Remove {
    /// which one: stevedore controllers list says it
    #[argh(positional, arg_name = "ID", from_str_fn(controller))]
    pub id: ControllerId,
}

/// Have a Controller that runs with an empty folder take the place of one whose disk is lost.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "replace",
    note = "The lost one is removed, and the other one is added. That one is started before: by stevedore serve, which starts\na Controller in a folder that has lost its own, or by stevedore controller --join.",
    example = "stevedore controllers replace 5c0f3a91d2b84e77 127.0.0.1:7001"
)]
pub struct Replace {
    /// which one is lost: stevedore controllers list says it
    #[argh(positional, arg_name = "ID", from_str_fn(controller))]
    pub id: ControllerId,
    /// where the other one listens
    #[argh(positional, arg_name = "HOST:PORT", from_str_fn(address))]
    pub address: Address,
}

/// Have another Controller lead, as before this one's machine is restarted.
#[derive(FromArgs)]
#[argh(subcommand, help_triggers("-h", "--help"), name = "transfer", example = "stevedore controllers transfer")]
pub struct Transfer {
    /// which one (default: the one that has most of the log)
    #[argh(positional, arg_name = "ID", from_str_fn(controller))]
    pub id: Option<ControllerId>,
}

/// For argh.
fn address(word: &str) -> Result<Address, String> {
    word.parse().map_err(|error| format!("{word:?}: {error}"))
}

/// For argh.
fn controller(word: &str) -> Result<ControllerId, String> {
    let id = u64::from_str_radix(word, 16).map(ControllerId);
    id.map_err(|_| "expected a Controller's number, as stevedore controllers list shows it".to_owned())
}

impl Controllers {
    /// Does it.
    pub fn run(&self, session: &Session<'_>) -> Result<(), Failure> {
        let store = session.store;
        match &self.action {
            Action::List(List { json: true }) => {
                let status = store.status().map_err(of_store)?;
                say_json(&status_json(&status)["controllers"])
            }
            Action::List(List { json: false }) => {
                let status = store.status().map_err(of_store)?;
                say(format_args!("{}", controllers_text(&status.controllers)))
            }
            Action::Add(Add { address }) => {
                store.add_controller(address).map_err(of_store)?;
                say(format_args!("The Controller at {address} votes"))
            }
            Action::Remove(Remove { id }) => {
                store.remove_controller(*id).map_err(of_store)?;
                say(format_args!("Controller {id} belongs to the store no longer"))
            }
            Action::Replace(Replace { id, address }) => {
                // An earlier attempt may have come so far.
                let status = store.status().map_err(of_store)?;
                if status.controllers.iter().any(|controller| controller.id == *id) {
                    store.remove_controller(*id).map_err(of_store)?;
                }
                store.add_controller(address).map_err(of_store)?;
                say(format_args!("The Controller at {address} votes in place of {id}"))
            }
            Action::Transfer(Transfer { id }) => {
                store.hand_over(*id).map_err(of_store)?;
                say(format_args!("Another Controller leads"))
            }
        }
    }
}
