//! Every cell of the table in spec 3.2: what each request gets while a file is in each state.

use super::super::{Category, Check, Role};
use crate::stage::client::Client;
use crate::stage::controller_scene::{ControllerScene, Habits, OnRemove};
use crate::stage::failure::{Failure, Verdict};
use crate::stage::{Setup, Stage};

#[derive(Clone, Copy)]
enum State {
    Absent,
    Storing,
    Complete,
    Removing,
}

/// What a cell asks for.
#[derive(Clone, Copy)]
enum Reply {
    Exactly(&'static str),
    /// STORE_TO.
    AcceptedStore,
    /// LOAD_FROM.
    Served,
    /// REMOVE_COMPLETE, once the holders have acknowledged.
    AcceptedRemove,
}

const EXISTS: Reply = Reply::Exactly("ERROR_FILE_ALREADY_EXISTS");
const NO_FILE: Reply = Reply::Exactly("ERROR_FILE_DOES_NOT_EXIST");
const NOT_LISTED: Reply = Reply::Exactly("LIST");

/// The table, row by row: STORE, LOAD, REMOVE, LIST.
const TABLE: [(State, &str, [Reply; 4]); 4] = [
    (State::Absent, "absent", [Reply::AcceptedStore, NO_FILE, NO_FILE, NOT_LISTED]),
    (State::Storing, "store in progress", [EXISTS, NO_FILE, NO_FILE, NOT_LISTED]),
    (State::Complete, "store complete", [EXISTS, Reply::Served, Reply::AcceptedRemove, Reply::Exactly("LIST a")]),
    (State::Removing, "remove in progress", [EXISTS, NO_FILE, NO_FILE, NOT_LISTED]),
];

const REQUESTS: [&str; 4] = ["STORE a 7", "LOAD a", "REMOVE a", "LIST"];

/// One for each cell.
pub fn checks() -> Vec<Check> {
    let cells = TABLE.iter().flat_map(|(state, title, replies)| {
        REQUESTS.iter().zip(replies).map(|(request, reply)| (*state, *title, *request, *reply))
    });
    let check = |(state, title, request, reply): (State, &str, &'static str, Reply)| {
        let verb = request.split(' ').next().unwrap_or(request);
        let id = format!("{title}, {verb}").to_lowercase().replace(", ", "-").replace(' ', "-");
        let answer = match reply {
            Reply::Exactly("LIST") => "does not show it",
            Reply::Exactly("LIST a") => "shows it",
            Reply::Exactly(line) => &format!("gets {line}"),
            Reply::AcceptedStore | Reply::AcceptedRemove => "is accepted",
            Reply::Served => "is served",
        };
        let claim = format!("A file that is {title}: {verb} {answer}");
        let play = move |stage: &mut Stage| play(stage, state, request, reply);
        Check::new(Role::Controller, "states", Category::Sequential, "3.2", &id, claim, play)
    };
    cells.map(check).collect()
}

fn play(stage: &mut Stage, state: State, request: &str, reply: Reply) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    // Whoever brings the file into its state waits for its own reply, so another one asks.
    let mut first = scene.client()?;
    bring_into(state, &scene, &mut first)?;
    let mut client = scene.client()?;
    match reply {
        Reply::Exactly(line) => client.asks(request, line),
        Reply::AcceptedStore => client.begin_store("a", 7, 2).map(|_| ()),
        Reply::Served => client.load_from(request, 5).map(|_| ()),
        Reply::AcceptedRemove => client.asks(request, "REMOVE_COMPLETE"),
    }
}

fn bring_into(state: State, scene: &ControllerScene, client: &mut Client) -> Result<(), Failure> {
    match state {
        State::Absent => {}
        State::Storing => _ = client.begin_store("a", 5, 2)?,
        State::Complete => _ = scene.store(client, "a", 5)?,
        State::Removing => {
            scene.store(client, "a", 5)?;
            let start = scene.dstores[0].now();
            for dstore in &scene.dstores {
                dstore.behave(Habits { remove: OnRemove::Silence, ..Habits::default() });
            }
            client.send("REMOVE a");
            scene.dstores[0].wait_for("REMOVE a", start)?;
        }
    }
    Ok(())
}
