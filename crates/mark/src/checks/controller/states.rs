//! Every cell of the table in spec 3.2: what each request gets while a file is in each state.

use super::super::{Basis, Check, Role, basis};
use crate::stage::client::Client;
use crate::stage::controller_scene::{ControllerScene, Habits, OnRemove};
use crate::stage::failure::{Verdict, given};
use crate::stage::{Setup, Stage};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    Storing,
    Complete,
    Removing,
}

/// What a cell asks for.
#[derive(Clone, Copy)]
enum Reply {
    /// This word.
    Word(&'static str),
    /// STORE_TO.
    AcceptedStore,
    /// LOAD_FROM.
    Served,
    /// LIST with the file, or without.
    Listed(bool),
}

const EXISTS: Reply = Reply::Word("ERROR_FILE_ALREADY_EXISTS");
const NO_FILE: Reply = Reply::Word("ERROR_FILE_DOES_NOT_EXIST");
const REMOVED: Reply = Reply::Word("REMOVE_COMPLETE");
const LISTED: Reply = Reply::Listed(true);
const NOT_LISTED: Reply = Reply::Listed(false);

/// What is asked, what is replied, and what that rests on.
type Cell = (&'static str, Reply, Basis);

const STORE: &str = "STORE a 7";
const LOAD: &str = "LOAD a";
const REMOVE: &str = "REMOVE a";
const LIST: &str = "LIST";

/// A state, its name, the checks of other categories that its row builds on, and the row's cells.
type Row = (State, &'static str, &'static [&'static str], [Cell; 4]);

/// The table, row by row. While an operation is in progress it takes a second client to ask.
fn table() -> [Row; 4] {
    let during_store = || basis!(Concurrent DURING_STORE);
    let during_remove = || basis!(Concurrent DURING_REMOVE);
    [
        (
            State::Absent,
            "absent",
            &[],
            [
                (STORE, Reply::AcceptedStore, basis!(Sequential STORE_TO)),
                (LOAD, NO_FILE, basis!(Sequential LOAD_ABSENT)),
                (REMOVE, NO_FILE, basis!(Sequential REMOVE_ABSENT)),
                (LIST, NOT_LISTED, basis!(Sequential LIST)),
            ],
        ),
        (
            State::Storing,
            "store in progress",
            &["controller/store/completes-on-the-last-acknowledgement", "controller/list/nothing-at-first"],
            [
                (STORE, EXISTS, during_store()),
                (LOAD, NO_FILE, during_store()),
                (REMOVE, NO_FILE, during_store()),
                (LIST, NOT_LISTED, during_store()),
            ],
        ),
        (
            State::Complete,
            "store complete",
            &[],
            [
                (STORE, EXISTS, basis!(Sequential EXISTS)),
                (LOAD, Reply::Served, basis!(Sequential LOAD_FROM)),
                (REMOVE, REMOVED, basis!(Sequential REMOVE)),
                (LIST, LISTED, basis!(Sequential LIST)),
            ],
        ),
        (
            State::Removing,
            "remove in progress",
            &["controller/remove/completes-on-the-last-acknowledgement", "controller/list/nothing-at-first"],
            [
                (STORE, EXISTS, during_remove()),
                (LOAD, NO_FILE, during_remove()),
                (REMOVE, NO_FILE, during_remove()),
                (LIST, NOT_LISTED, during_remove()),
            ],
        ),
    ]
}

/// One for each cell.
pub fn checks() -> Vec<Check> {
    let cells =
        table().into_iter().flat_map(|(state, title, after, cells)| cells.map(|cell| (state, title, after, cell)));
    let check = |(state, title, after, (request, reply, basis)): (State, &str, _, Cell)| {
        let verb = request.split(' ').next().unwrap_or(request);
        let id = format!("{title}, {verb}").to_lowercase().replace(", ", "-").replace(' ', "-");
        let answer = match reply {
            Reply::Listed(false) => "does not show it",
            Reply::Listed(true) => "shows it",
            Reply::Word(word) => &format!("gets {word}"),
            Reply::AcceptedStore => "is accepted",
            Reply::Served => "is served",
        };
        let claim = format!("A file that is {title}: {verb} {answer}");
        let play = move |stage: &mut Stage| play(stage, state, request, reply);
        Check::new(Role::Controller, "states", basis, "3.2", &id, claim, play).after(after)
    };
    cells.map(check).collect()
}

fn play(stage: &mut Stage, state: State, request: &str, reply: Reply) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2))?;
    let mut first = scene.client()?;
    let is_in_progress = matches!(state, State::Storing | State::Removing);
    if is_in_progress {
        given(expect_the_words(&scene, &mut first, reply))?;
    }
    given(bring_into(state, &scene, &mut first))?;
    // The client that has an operation in progress waits for its own reply, so another one asks.
    let mut second = if is_in_progress { Some(scene.client()?) } else { None };
    let client = second.as_mut().unwrap_or(&mut first);
    match reply {
        Reply::Word(word) => client.asks(request, word),
        Reply::AcceptedStore => client.begin_store("a", 7).map(|_| ()),
        Reply::Served => client.load_from(request, 5).map(|_| ()),
        Reply::Listed(is_listed) => client.expect_listed(if is_listed { &["a"] } else { &[] }),
    }
}

/// The word that a cell asks for must come where nothing is in progress; otherwise other checks tell of it.
fn expect_the_words(scene: &ControllerScene, client: &mut Client, reply: Reply) -> Verdict {
    match reply {
        Reply::Word("ERROR_FILE_ALREADY_EXISTS") => {
            scene.store(client, "known", 5)?;
            let known = client.asks("STORE known 5", "ERROR_FILE_ALREADY_EXISTS");
            known.map_err(|failure| failure.judged_by("controller/states/store-complete-store"))?;
            client.remove("known")
        }
        Reply::Word(word) => {
            client.asks("LOAD unknown", word).map_err(|failure| failure.judged_by("controller/states/absent-load"))
        }
        _ => Ok(()),
    }
}

fn bring_into(state: State, scene: &ControllerScene, client: &mut Client) -> Verdict {
    if state == State::Absent {
        return Ok(());
    }
    let ports = client.begin_store("a", 5)?;
    if state == State::Storing {
        return Ok(());
    }
    scene.acknowledge_all(&ports, "a")?;
    client.expect_stored()?;
    if state == State::Removing {
        let holder = scene.dstore(ports[0])?;
        let start = holder.now();
        for dstore in &scene.dstores {
            dstore.behave(Habits { remove: OnRemove::Silence, ..Habits::default() });
        }
        client.send("REMOVE a");
        holder.wait_for("REMOVE a", start).map_err(|failure| failure.judged_by(super::remove::ASKS))?;
    }
    Ok(())
}
