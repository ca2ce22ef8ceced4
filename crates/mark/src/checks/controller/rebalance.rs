//! The Controller's part in a rebalance. (spec 4.6)
//!
//! The scripted Dstores carry out what they are told on a model of their folders, so that what a REBALANCE says can be judged
//! by where the files come to be.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use super::super::checks;
use crate::stage::client::Client;
use crate::stage::controller_scene::{ControllerScene, Habits, OnList, OnRebalance, OnRemove};
use crate::stage::failure::{Failure, Verdict, claim, given};
use crate::stage::wire::begins;
use crate::stage::{LONG, QUIET, SHORT, SOON, Setup, Stage, wait_until};

checks! { Controller "rebalance":
    [Spread PERIODIC "4.6"] the_period_starts_one "After rebalance_period seconds, every Dstore is asked for its LIST, again and again"
    [Spread PERIOD_IN_SECONDS "4.6, 5"] the_period_is_in_seconds "The rebalance period is in seconds: with 100 there is none for a while"
    [Spread REBALANCED "4.6.3"] a_new_dstore_gets_its_share "After a join, every file is on R Dstores and each has between floor(RF/N) and ceil(RF/N)"
    [Spread REBALANCED "4.6.3"] two_joins_get_their_share "After two joins at once, replication and spread are right on all Dstores"
    [Spread REBALANCED "4.6.3"] a_loss_is_made_good "After a Dstore is lost and another joins, every file is on R Dstores again, evenly"
        after (&["controller/load/a-dstore-that-left-is-not-offered"])
    [Spread REBALANCED "4.6.3"] the_period_makes_a_loss_good "After a Dstore is lost, the next periodic rebalance brings every file to R Dstores again"
        after (&["controller/load/a-dstore-that-left-is-not-offered"])
    [Spread REBALANCE_ORDER "4.6.4"] several_files_to_several_dstores "A REBALANCE with many files to send to many Dstores is worded as the coursework asks"
        after (&["controller/load/a-dstore-that-left-is-not-offered"])
    [Spread REBALANCED "4.6.3"] an_uneven_spread_is_evened "Removals that leave the Dstores uneven are evened out by the next rebalance"
    [Spread REMOVE_LATER "4.6.2"] an_unfinished_remove_is_finished "A file whose removal has timed out is removed from the Dstores that list it"
        after (&["controller/remove/the-entry-stays-in-progress", "controller/remove/nothing-is-said-at-the-timeout"])
    [Spread REBALANCED "4.6, 4.6.6"] loads_follow_the_files "After a rebalance LOAD and RELOAD offer the Dstores that have the file now, and no other"
        after (&["controller/load/reload-offers-every-holder-once"])
    [Spread REBALANCE_QUEUE "4.6"] requests_wait "Requests during a rebalance wait, and are served afterwards"
    [Spread REBALANCE_PENDING "4.6"] pending_stores_come_first "A rebalance waits for a STORE that is in progress"
        after (&["controller/store/completes-on-the-last-acknowledgement"])
    [Spread REBALANCE_PENDING "4.6"] pending_removes_come_first "A rebalance waits for a REMOVE that is in progress"
        after (&["controller/remove/completes-on-the-last-acknowledgement"])
    [Spread REBALANCE_REPORT "4.6.6"] a_missing_report_holds_up_nobody "A Dstore that does not report REBALANCE_COMPLETE holds up the rebalance no longer than the timeout"
    [Concurrent REBALANCE_QUEUE "4.6"] clients_go_on_during_joins "Clients that store while Dstores join: no request is refused or lost"
        after (&JOINS_AND_REQUESTS)
    [Robustness "4.6"] a_join_starts_one "When a Dstore joins, every Dstore is asked for its LIST at once, whatever the period"
    [Robustness "4.6"] never_with_too_few_dstores "With fewer than R Dstores there is no rebalance"
    [Robustness "4.6.3"] missing_copies_are_made "A file that one of its holders does not list is copied to a Dstore again"
    [Robustness "4.6.3"] surplus_copies_are_removed "A file that more than R Dstores list is brought down to R copies"
    [Robustness "4.6.3, 4.6.6"] half_done_orders_are_finished "What a Dstore has sent, but neither removed nor reported, comes down to R copies with the next rebalance"
    [Robustness "4.6.2"] an_unknown_file_is_removed "A listed file that is not in the index is removed from the Dstore"
    [Robustness "4.6.2"] a_file_that_nobody_lists_is_dropped "A complete file that no Dstore lists is dropped from the index"
    [Robustness "4.6"] joins_wait "A JOIN during a rebalance waits, and starts the next one"
    [Robustness "4.6.1"] a_silent_dstore_takes_no_part "A Dstore that does not answer LIST in time holds up the rebalance no longer than that"
    [Robustness "4.6.6"] a_copy_that_may_not_exist_is_not_offered "What was ordered and not reported is not offered to clients"
    [Robustness "4.6"] joins_in_quick_succession "Five joins at once leave a system that works"
    [Robustness "4.6"] a_dstore_leaves_during_a_rebalance "A Dstore that leaves in the middle of a rebalance does not stop it"
    [Robustness "4.6"] no_more_copies_than_needed "A rebalance of what is in order already moves nothing"
    [Robustness "7.21"] reports_nobody_asked_for "LIST and REBALANCE_COMPLETE that the Controller did not ask for are ignored"
    [Robustness "7.16"] silence_is_not_proof_of_loss "A file that only a silent Dstore may hold is not dropped from the index"
}

/// What clients that work while Dstores join build on.
pub const JOINS_AND_REQUESTS: [&str; 5] = [
    "controller/rebalance/requests-wait",
    "controller/rebalance/pending-stores-come-first",
    "controller/rebalance/loads-follow-the-files",
    "controller/rebalance/two-joins-get-their-share",
    "controller/rebalance/several-files-to-several-dstores",
];

fn silent_list() -> Habits {
    Habits { list: OnList::Silence, ..Habits::default() }
}

/// Stores files of names file0, file1, ...
///
/// Where a Dstore joins afterwards, the client goes before: that neither is in the other's way has checks of its own.
fn store_files(scene: &ControllerScene, files: usize) -> Result<Client, Failure> {
    let mut client = scene.client()?;
    given((0..files).try_for_each(|number| scene.store(&mut client, &format!("file{number}"), 10).map(|_| ())))?;
    Ok(client)
}

/// Lets a client go, and the Controller notice it.
fn go(client: Client) {
    drop(client);
    thread::sleep(QUIET / 3);
}

/// The check of whether there is a rebalance at all.
const REBALANCES: &str = "controller/rebalance/the-period-starts-one";

/// Waits until a Dstore is told something in a rebalance.
fn wait_for_rebalance(scene: &ControllerScene, dstore: usize, beginning: &str, start: usize) -> Verdict {
    let heard = scene.dstores[dstore].wait_for(beginning, start);
    given(heard.map(|_| ()).map_err(|failure| failure.judged_by(REBALANCES)))
}

fn the_period_starts_one(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2).period(1))?;
    for _ in 0..3 {
        let starts: Vec<_> = scene.dstores.iter().map(|dstore| dstore.now()).collect();
        for (dstore, start) in scene.dstores.iter().zip(starts) {
            dstore.wait_for("LIST", start)?;
        }
    }
    Ok(())
}

fn the_period_is_in_seconds(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2).period(100))?;
    let start = scene.dstores[0].now();
    thread::sleep(Duration::from_secs(1));
    // Two joins may have started two, one of them a little late.
    let lists = scene.dstores[0].heard_since(start).iter().filter(|line| begins(line, "LIST")).count();
    claim(lists <= 2, "no LIST within a second: the period is 100 s", format!("{lists}"))
}

fn a_new_dstore_gets_its_share(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 3).period(SOON))?;
    go(store_files(&scene, 10)?);
    scene.join()?;
    scene.expect_spread(10, LONG)
}

fn two_joins_get_their_share(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(1, 3).period(SOON))?;
    go(store_files(&scene, 10)?);
    scene.join()?;
    scene.join()?;
    scene.expect_spread(10, LONG)
}

fn a_loss_is_made_good(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(3, 4).period(SOON))?;
    go(store_files(&scene, 8)?);
    scene.dstores[1].leave();
    scene.join()?;
    scene.expect_spread(8, LONG)
}

fn the_period_makes_a_loss_good(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4).period(1))?;
    let mut client = store_files(&scene, 8)?;
    scene.dstores[2].leave();
    given(client.ask("LIST"))?;
    scene.expect_spread(8, LONG)
}

fn several_files_to_several_dstores(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(3, 5).period(SOON))?;
    go(store_files(&scene, 12)?);
    for gone in [0, 1] {
        scene.dstores[gone].leave();
    }
    scene.join()?;
    scene.join()?;
    scene.expect_spread(12, LONG)
}

fn an_uneven_spread_is_evened(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 3).period(SOON))?;
    let mut client = scene.client()?;
    let mut on_first = Vec::new();
    for number in 0..12 {
        let name = format!("file{number}");
        if given(scene.store(&mut client, &name, 10))? == [scene.dstores[0].port] {
            on_first.push(name);
        }
    }
    for name in &on_first {
        given(client.remove(name))?;
    }
    scene.expect_spread(12 - on_first.len(), LONG)
}

fn an_unfinished_remove_is_finished(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 2).timeout(SHORT).period(SOON))?;
    let mut client = scene.client()?;
    given(super::store::expect_the_timeout_strikes(&mut client, stage))?;
    given(scene.store(&mut client, "unwanted", 10))?;
    given(scene.store(&mut client, "wanted", 10))?;
    scene.dstores[0].behave(Habits { remove: OnRemove::Silence, ..Habits::default() });
    client.send("REMOVE unwanted");
    given(client.wire().expect_silence(SHORT + QUIET, "a holder has not acknowledged"))?;
    scene.dstores[0].behave(Habits::default());
    let gone = wait_until(LONG, || (!scene.copies().contains_key("unwanted")).then_some(()));
    claim(gone.is_some(), "REBALANCE or REMOVE of the file to the Dstore that still lists it", "neither")
}

fn loads_follow_the_files(stage: &mut Stage) -> Verdict {
    // After the files have moved there must be time to ask before they move again: they do not.
    let mut scene = stage.controller(Setup::new(2, 2).period(SOON))?;
    go(store_files(&scene, 6)?);
    scene.join()?;
    given(scene.expect_spread(6, LONG).map_err(|failure| failure.judged_by(SPREADS)))?;
    let mut client = scene.client()?;
    for number in 0..6 {
        let name = format!("file{number}");
        let holders = scene.dstores.iter().filter(|dstore| dstore.files().contains(&name));
        let holders: BTreeSet<u16> = holders.map(|dstore| dstore.port).collect();
        let offered = BTreeSet::from([
            client.load_from(&format!("LOAD {name}"), 10)?,
            client.load_from(&format!("RELOAD {name}"), 10)?,
        ]);
        claim(offered == holders, format!("{holders:?} offered for {name}"), format!("{offered:?}"))?;
    }
    Ok(())
}

/// The check of whether a rebalance spreads the files.
const SPREADS: &str = "controller/rebalance/a-new-dstore-gets-its-share";

fn requests_wait(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 3).period(SOON))?;
    let mut client = scene.client()?;
    given(scene.store(&mut client, "a", 10))?;
    for (request, beginning) in [("LOAD a", "LOAD_FROM"), ("REMOVE a", "REMOVE_COMPLETE"), ("STORE b 10", "STORE_TO")] {
        // A rebalance that cannot go on: one Dstore keeps its list to itself, for less than the timeout.
        scene.dstores[0].behave(silent_list());
        let start = scene.dstores[0].now();
        wait_for_rebalance(&scene, 0, "LIST", start)?;
        client.send(request);
        client.expect_silence("a rebalance is under way")?;
        scene.dstores[0].behave(Habits::default());
        scene.dstores[0].list();
        client.expect(beginning)?;
    }
    Ok(())
}

/// How long after an operation has begun a rebalance that had begun before may still send its LIST.
const UNDER_WAY: Duration = Duration::from_millis(300);

/// Longer than a period of 1 s, and shorter than the timeout.
const MORE_THAN_A_PERIOD: Duration = Duration::from_millis(1_700);

fn pending_stores_come_first(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1).period(1))?;
    let mut client = scene.client()?;
    let dstore = &scene.dstores[0];
    given(client.begin_store("slow", 10))?;
    thread::sleep(UNDER_WAY);
    let start = dstore.now();
    thread::sleep(MORE_THAN_A_PERIOD);
    dstore.expect_not_heard("LIST", start, "a STORE is in progress")?;
    dstore.acknowledge_store("slow");
    client.expect("STORE_COMPLETE")?;
    wait_for_rebalance(&scene, 0, "LIST", start)
}

fn pending_removes_come_first(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(1, 1).period(1))?;
    let mut client = scene.client()?;
    let dstore = &scene.dstores[0];
    given(scene.store(&mut client, "a", 10))?;
    dstore.behave(Habits { remove: OnRemove::Silence, ..Habits::default() });
    client.send("REMOVE a");
    given(dstore.wait_for("REMOVE a", 0).map_err(|failure| failure.judged_by(super::remove::ASKS)))?;
    thread::sleep(UNDER_WAY);
    let start = dstore.now();
    thread::sleep(MORE_THAN_A_PERIOD);
    dstore.expect_not_heard("LIST", start, "a REMOVE is in progress")?;
    dstore.loses("a");
    dstore.send("REMOVE_ACK a");
    client.expect("REMOVE_COMPLETE")?;
    wait_for_rebalance(&scene, 0, "LIST", start)
}

fn a_missing_report_holds_up_nobody(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(1, 2).timeout(SHORT).period(SOON))?;
    let mut client = store_files(&scene, 6)?;
    given(super::store::expect_the_timeout_strikes(&mut client, stage))?;
    go(client);
    scene.dstores[0].behave(Habits { rebalance: OnRebalance::Silence, ..Habits::default() });
    let start = scene.dstores[0].now();
    scene.join()?;
    wait_for_rebalance(&scene, 0, "REBALANCE", start)?;
    scene.client()?.ask("LIST")?;
    // When it works again, the next rebalance sorts it out.
    scene.dstores[0].behave(Habits::default());
    scene.expect_spread(6, LONG)
}

fn clients_go_on_during_joins(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 2).period(SOON))?;
    let mut clients: Vec<Client> = Vec::new();
    for round in 0..5 {
        if round < 3 {
            scene.join()?;
        }
        clients.extend((0..10).map(|_| scene.client()).collect::<Result<Vec<_>, _>>()?);
        thread::scope(|scope| {
            let scene = &scene;
            let store = |(number, client)| {
                scope.spawn(move || scene.store(client, &format!("file{number}-{round}"), 10).map(|_| ()))
            };
            let storing: Vec<_> = clients[10 * round..].iter_mut().enumerate().map(store).collect();
            storing.into_iter().try_for_each(|thread| thread.join().expect("no panic in a client"))
        })?;
    }
    let names: Vec<String> =
        (0..5).flat_map(|round| (0..10).map(move |number| format!("file{number}-{round}"))).collect();
    clients[0].expect_listed(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn a_join_starts_one(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 2))?;
    let starts: Vec<_> = scene.dstores.iter().map(|dstore| dstore.now()).collect();
    let new = scene.join()?;
    for (dstore, start) in scene.dstores[..new].iter().zip(starts) {
        dstore.wait_for("LIST", start)?;
    }
    scene.dstores[new].wait_for("LIST", 0).map(|_| ())
}

fn never_with_too_few_dstores(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(3, 2).period(1))?;
    let mut client = scene.client()?;
    client.wire().expect_silence(Duration::from_secs(3), "nothing was asked")?;
    for dstore in &scene.dstores {
        dstore.expect_not_heard("LIST", 0, "two Dstores of three have joined")?;
        dstore.expect_not_heard("REBALANCE", 0, "two Dstores of three have joined")?;
    }
    client.asks("LIST", "ERROR_NOT_ENOUGH_DSTORES")
}

fn missing_copies_are_made(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 3))?;
    let mut client = scene.client()?;
    let holders = scene.store(&mut client, "a", 10)?;
    scene.store(&mut client, "b", 10)?;
    scene.store(&mut client, "c", 10)?;
    scene.dstore(holders[0])?.loses("a");
    scene.join()?;
    scene.expect_spread(3, LONG)
}

fn surplus_copies_are_removed(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 4))?;
    go(store_files(&scene, 6)?);
    for dstore in &scene.dstores {
        dstore.gets("file0");
    }
    scene.join()?;
    scene.expect_spread(6, LONG)
}

fn half_done_orders_are_finished(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(1, 1).timeout(SHORT))?;
    go(store_files(&scene, 6)?);
    scene.dstores[0].behave(Habits { rebalance: OnRebalance::HalfWay, ..Habits::default() });
    let start = scene.dstores[0].now();
    scene.join()?;
    scene.dstores[0].wait_for("REBALANCE", start)?;
    scene.dstores[0].behave(Habits::default());
    scene.join()?;
    scene.expect_spread(6, LONG)
}

fn an_unknown_file_is_removed(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(1, 1))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "known", 10)?;
    scene.dstores[0].gets("stranger");
    scene.join_with(Habits::default(), &["other-stranger"])?;
    scene.expect_spread(1, LONG)?;
    client.expect_listed(&["known"])
}

fn a_file_that_nobody_lists_is_dropped(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 2))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "lost", 10)?;
    scene.store(&mut client, "kept", 10)?;
    for dstore in &scene.dstores {
        dstore.loses("lost");
    }
    scene.join()?;
    scene.expect_spread(1, LONG)?;
    let mut listed = Vec::new();
    wait_until(stage.patience, || {
        listed = client.list().ok()?;
        (listed == ["kept"]).then_some(())
    });
    claim(listed == ["kept"], "`LIST kept`", format!("`LIST {}`", listed.join(" ")))?;
    client.asks("LOAD lost", "ERROR_FILE_DOES_NOT_EXIST")
}

fn joins_wait(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(1, 1))?;
    go(store_files(&scene, 6)?);
    scene.dstores[0].behave(silent_list());
    let start = scene.dstores[0].now();
    scene.join()?;
    scene.dstores[0].wait_for("LIST", start)?;
    let third = scene.join()?;
    thread::sleep(QUIET);
    let because = "it joined while a rebalance was under way";
    scene.dstores[third].expect_not_heard("REBALANCE", 0, because)?;
    scene.dstores[0].behave(Habits::default());
    scene.dstores[0].list();
    scene.dstores[third].wait_for("LIST", 0)?;
    scene.expect_spread(6, LONG)
}

fn a_silent_dstore_takes_no_part(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(1, 2).timeout(SHORT))?;
    let mut client = scene.client()?;
    for number in 0..6 {
        scene.store(&mut client, &format!("file{number}"), 10)?;
    }
    scene.dstores[0].behave(silent_list());
    let start = scene.dstores[0].now();
    let orders = scene.orders().len();
    scene.join()?;
    scene.dstores[0].wait_for("LIST", start)?;
    // It would wait for ever if the rebalance did.
    let listed = client.list()?;
    claim(listed.len() == 6, "`LIST` with all 6 files", listed.join(" "))?;
    let (silent, orders) = (scene.dstores[0].port, scene.orders().split_off(orders));
    let mut receivers = orders.iter().flat_map(|(_, order)| order.sends.iter().flat_map(|send| &send.to));
    claim(
        receivers.all(|address| address.socket().port() != silent),
        "a plan without the Dstore that did not answer",
        format!("it is to be sent files; orders {orders:?}"),
    )?;
    scene.expect_no_complaints()
}

fn a_copy_that_may_not_exist_is_not_offered(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(1, 1).timeout(SHORT))?;
    go(store_files(&scene, 6)?);
    scene.dstores[0].behave(Habits { rebalance: OnRebalance::Silence, ..Habits::default() });
    let start = scene.dstores[0].now();
    scene.join()?;
    scene.dstores[0].wait_for("REBALANCE", start)?;
    // Nothing has moved, but the Controller cannot know: it may offer the sender's copies, or none.
    let mut client = scene.client()?;
    let old = scene.dstores[0].port;
    for number in 0..6 {
        let reply = client.ask(&format!("LOAD file{number}"))?;
        let is_true = reply == format!("LOAD_FROM {old} 10") || reply == "ERROR_LOAD";
        claim(is_true, format!("`LOAD_FROM {old} 10` or `ERROR_LOAD`: nothing was reported"), format!("`{reply}`"))?;
    }
    Ok(())
}

fn joins_in_quick_succession(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 2))?;
    go(store_files(&scene, 14)?);
    for _ in 0..5 {
        scene.join()?;
    }
    scene.expect_spread(14, LONG)?;
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 5).map(|_| ())
}

fn a_dstore_leaves_during_a_rebalance(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(2, 3))?;
    go(store_files(&scene, 6)?);
    scene.dstores[0].behave(silent_list());
    let start = scene.dstores[0].now();
    scene.join()?;
    scene.dstores[0].wait_for("LIST", start)?;
    scene.dstores[0].leave();
    // It had the list of this one to wait for, and no other.
    let listed = scene.client()?.list()?;
    claim(listed.len() == 6, "`LIST` with all 6 files", listed.join(" "))
}

fn no_more_copies_than_needed(stage: &mut Stage) -> Verdict {
    let scene = stage.controller(Setup::new(2, 4).period(1))?;
    let _client = store_files(&scene, 8)?;
    let before = scene.orders().len();
    for _ in 0..2 {
        let start = scene.dstores[0].now();
        scene.dstores[0].wait_for("LIST", start)?;
    }
    let orders = scene.orders().split_off(before);
    let moves = orders.iter().any(|(_, order)| !order.sends.is_empty() || !order.removes.is_empty());
    claim(!moves, "no REBALANCE, or REBALANCE 0 0: all is in order", format!("{orders:?}"))
}

fn reports_nobody_asked_for(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(1, 2))?;
    go(store_files(&scene, 4)?);
    for line in ["LIST", "LIST stranger", "REBALANCE_COMPLETE", "REBALANCE_COMPLETE"] {
        scene.dstores[0].send(line);
    }
    let mut client = scene.client()?;
    let listed = client.list()?;
    claim(listed.len() == 4, "`LIST` with all 4 files", listed.join(" "))?;
    scene.join()?;
    scene.expect_spread(4, LONG)
}

fn silence_is_not_proof_of_loss(stage: &mut Stage) -> Verdict {
    let mut scene = stage.controller(Setup::new(1, 1).timeout(SHORT))?;
    let mut client = scene.client()?;
    scene.store(&mut client, "a", 10)?;
    scene.dstores[0].behave(silent_list());
    let start = scene.dstores[0].now();
    scene.join()?;
    scene.dstores[0].wait_for("LIST", start)?;
    client.expect_listed(&["a"])
}
