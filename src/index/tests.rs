//! The rules of spec 3 and 4, one method call after another.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::protocol::{Order, Transfer};

impl Index {
    /// Panics unless what is kept twice agrees.
    pub(crate) fn assert_consistent(&self) {
        let mut loads: BTreeMap<_, usize> = self.members.keys().map(|&dstore| (dstore, 0)).collect();
        let mut in_progress = BTreeSet::new();
        for (name, file) in &self.files {
            file.state.for_each_holder(|dstore| {
                loads.entry(dstore).and_modify(|load| *load += 1);
            });
            let awaited = match &file.state {
                State::Storing(storing) => &storing.awaited,
                State::Removing(removing) if !removing.abandoned => &removing.awaited,
                State::Removing(_) | State::Stored { .. } => continue,
            };
            assert!(!awaited.is_empty(), "{name} waits for no Dstore");
            assert!(awaited.iter().all(|dstore| self.members.contains_key(dstore)), "{name} waits in vain");
            in_progress.insert(name.clone());
        }
        assert_eq!(self.in_progress, in_progress);
        let counted: BTreeMap<_, _> = self.members.iter().map(|(&dstore, member)| (dstore, member.load)).collect();
        assert_eq!(counted, loads);
    }
}

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

/// An index with Dstores on ports 1 to `dstores`.
fn index(replicas: usize, dstores: u16) -> (Index, Vec<DstoreId>) {
    let mut index = Index::new(replicas);
    let ids = (1..=dstores).map(|port| index.join(address(port))).collect();
    (index, ids)
}

fn address(port: u16) -> Address {
    Address::local(port).unwrap()
}

fn ports(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(|address| address.to_string()).collect()
}

/// Stores a file whole; returns its holders.
fn store(index: &mut Index, file: &str) -> Vec<DstoreId> {
    let chosen = index.begin_store(&name(file), 7).unwrap();
    let ids: Vec<_> = chosen.iter().map(|address| index.member_at(address).unwrap()).collect();
    let completing: Vec<_> = ids.iter().map(|&dstore| index.acknowledge_store(file, dstore)).collect();
    assert_eq!(completing.iter().filter(|&&is_complete| is_complete).count(), 1);
    assert_eq!(completing.last(), Some(&true), "completes on the last acknowledgement, not before");
    index.assert_consistent();
    ids
}

fn names(index: &Index) -> Vec<String> {
    index.list().unwrap().iter().map(|name| name.to_string()).collect()
}

fn lists<'a>(lists: impl IntoIterator<Item = (DstoreId, &'a [&'a str])>) -> Lists {
    Lists::new(lists.into_iter().map(|(dstore, files)| (dstore, files.iter().map(|f| name(f)).collect())).collect())
}

fn unwanted(inventory: &Inventory) -> Vec<(DstoreId, String)> {
    inventory.unwanted.iter().map(|(place, name)| (inventory.dstores[*place as usize].0, name.to_string())).collect()
}

/// What each Dstore that has anything to do is told.
fn orders(inventory: &Inventory, plan: &Plan) -> BTreeMap<DstoreId, Order> {
    let dstores = inventory.dstores.iter().map(|(dstore, _)| *dstore);
    dstores.zip(inventory.orders(plan)).filter(|(_, order)| *order != Order::default()).collect()
}

/// Has `index` believe that `from` was ordered this, and has reported it or not.
fn order(index: &mut Index, from: DstoreId, sends: &[(&str, DstoreId)], removes: &[&str], is_reported: bool) {
    let dstores: Vec<_> = [from].into_iter().chain(sends.iter().map(|(_, to)| *to)).collect();
    let files: Vec<_> = sends.iter().map(|(file, _)| *file).chain(removes.iter().copied()).collect();
    let (sent, all) = (sends.len() as u32, files.len() as u32);
    let plan = Plan {
        transfers: (0..sent).map(|file| rebalance::Transfer { file, from: 0, to: file + 1 }).collect(),
        removals: (sent..all).map(|file| rebalance::Removal { file, from: 0 }).collect(),
        ..Plan::default()
    };
    let inventory = Inventory {
        holdings: rebalance::Holdings::new(dstores.len()),
        dstores: dstores.into_iter().map(|dstore| (dstore, address(1))).collect(),
        files: files.into_iter().map(|file| (name(file), 7)).collect(),
        suspects: BTreeSet::new(),
        unwanted: Vec::new(),
    };
    index.confirm(&inventory, &plan, &is_reported.then_some(from).into_iter().collect());
}

fn offers(index: &Index, file: &str) -> Vec<DstoreId> {
    let mut tried = Vec::new();
    while let Ok(offer) = index.offer(file, &tried, |_| ()) {
        tried.push(offer.dstore);
    }
    tried
}

#[test]
fn each_request_gets_what_the_table_says_in_each_state() {
    // spec 3.1, 3.2: every cell
    let (mut index, ids) = index(2, 2);
    let f = name("f");
    let absent = Err(Refusal::FileDoesNotExist);
    let taken = Err(Refusal::FileAlreadyExists);

    assert_eq!(index.offer("f", &[], |_| ()), absent.clone());
    assert_eq!(index.begin_remove(&f), absent.clone().map(|_: Offer| vec![]));
    assert_eq!(names(&index), [""; 0]);

    index.begin_store(&f, 7).unwrap(); // absent: accepted; now store in progress
    assert_eq!(index.begin_store(&f, 8), taken);
    assert_eq!(index.offer("f", &[], |_| ()), absent.clone());
    assert_eq!(index.begin_remove(&f), absent.clone().map(|_: Offer| vec![]));
    assert_eq!(names(&index), [""; 0]);

    index.acknowledge_store("f", ids[0]);
    assert!(index.acknowledge_store("f", ids[1])); // store complete
    assert_eq!(index.begin_store(&f, 8), taken);
    assert_eq!(index.offer("f", &[], |_| ()), Ok(Offer { dstore: ids[0], address: address(1), size: 7 }));
    assert_eq!(names(&index), ["f"]);

    assert_eq!(
        index.begin_remove(&f).map(|mut holders| {
            holders.sort();
            holders
        }),
        Ok(ids.clone())
    );
    assert_eq!(index.begin_store(&f, 8), taken); // remove in progress
    assert_eq!(index.offer("f", &[], |_| ()), absent.clone());
    assert_eq!(index.begin_remove(&f), absent.clone().map(|_: Offer| vec![]));
    assert_eq!(names(&index), [""; 0]);

    assert!(!index.acknowledge_remove("f", ids[0]));
    assert!(index.acknowledge_remove("f", ids[1])); // gone
    assert_eq!(index.offer("f", &[], |_| ()), absent);
    assert!(index.begin_store(&f, 8).is_ok());
}

#[test]
fn too_few_dstores_come_before_any_other_reason() {
    // spec 3.3, 7.1
    let (mut index, ids) = index(2, 2);
    store(&mut index, "f");
    index.leave(ids[0]);
    assert_eq!(index.begin_store(&name("f"), 1), Err(Refusal::NotEnoughDstores));
    assert_eq!(index.begin_store(&name("g"), 1), Err(Refusal::NotEnoughDstores));
    assert_eq!(index.offer("f", &[], |_| ()), Err(Refusal::NotEnoughDstores));
    assert_eq!(index.begin_remove(&name("f")), Err(Refusal::NotEnoughDstores));
    assert_eq!(index.list(), Err(Refusal::NotEnoughDstores));
}

#[test]
fn stores_alone_spread_files_evenly() {
    // spec 4.2, 7.2: floor(RF/N) to ceil(RF/N) after every store
    for (replicas, dstores) in [(1, 1), (1, 4), (2, 3), (3, 3), (3, 7), (4, 5)] {
        let (mut index, _) = index(replicas, dstores);
        for file in 1..=40 {
            store(&mut index, &format!("f{file}"));
            let copies = replicas * file;
            for member in index.members() {
                let (floor, ceil) = (copies / usize::from(dstores), copies.div_ceil(usize::from(dstores)));
                assert!((floor..=ceil).contains(&member.files), "R={replicas} N={dstores} F={file}: {member:?}");
            }
        }
    }
}

#[test]
fn stores_in_progress_count_as_load() {
    // spec 7.2
    let (mut index, _) = index(1, 3);
    let chosen: Vec<_> = ["a", "b", "c"].iter().flat_map(|f| index.begin_store(&name(f), 1).unwrap()).collect();
    assert_eq!(ports(&chosen), ["1", "2", "3"]);
    index.abandon_store("b");
    assert_eq!(ports(&index.begin_store(&name("d"), 1).unwrap()), ["2"]);
}

#[test]
fn only_different_dstores_that_were_asked_complete_a_store() {
    // spec 7.5, 7.6, 7.25
    let (mut index, ids) = index(2, 3);
    index.begin_store(&name("f"), 1).unwrap(); // on 1 and 2
    assert!(!index.acknowledge_store("f", ids[2]), "not asked");
    assert!(!index.acknowledge_store("g", ids[0]), "no such store");
    assert!(!index.acknowledge_store("f", ids[0]));
    assert!(!index.acknowledge_store("f", ids[0]), "twice");
    assert!(index.acknowledge_store("f", ids[1]));
    assert!(!index.acknowledge_store("f", ids[1]), "complete already");
    index.begin_store(&name("late"), 1).unwrap();
    assert!(index.abandon_store("late"));
    assert!(!index.abandon_store("late"));
    assert!(!index.acknowledge_store("late", ids[2]), "abandoned");
    assert_eq!(names(&index), ["f"]);
}

#[test]
fn a_copy_overwritten_by_a_late_store_is_doubted_and_replaced() {
    // spec 7.5, 7.6: a client hangs until its store has been given up, and sends its content after another's
    let (mut index, ids) = index(2, 3);
    index.begin_store(&name("f"), 1).unwrap(); // on 1 and 2
    index.abandon_store("f");
    assert_eq!(store(&mut index, "f"), ids[..2]);
    assert!(!index.acknowledge_store("f", ids[0]));
    assert_eq!(offers(&index, "f"), [ids[1]], "the other copy is the file");
    assert!(!index.acknowledge_store("f", ids[1]));
    assert_eq!(offers(&index, "f"), [ids[1]], "the last copy is kept, whatever it is");
    index.assert_consistent();
    let inventory = index.reconcile(&lists([(ids[0], &["f"][..]), (ids[1], &["f"]), (ids[2], &[])]));
    assert_eq!(unwanted(&inventory), [(ids[0], "f".to_owned())]);
    assert_eq!(orders(&inventory, &inventory.plan(2))[&ids[0]].removes, [name("f")]);
}

#[test]
fn an_unasked_store_ack_makes_the_holders_copy_doubtful() {
    // spec 7.6: a stranger has said STORE straight to the holder
    let (mut index, ids) = index(2, 3);
    store(&mut index, "f"); // on 1 and 2
    assert!(!index.acknowledge_store("f", ids[2]), "no holder: nothing changes");
    assert_eq!(offers(&index, "f").len(), 2);
    assert!(!index.acknowledge_store("f", ids[1]));
    assert_eq!(offers(&index, "f"), [ids[0]]);
    assert!(!index.acknowledge_store("f", ids[0]));
    assert_eq!(offers(&index, "f"), [ids[0]], "the last one is kept");
    index.assert_consistent();
    let inventory = index.reconcile(&lists([(ids[0], &["f"][..]), (ids[1], &["f"]), (ids[2], &[])]));
    assert_eq!(unwanted(&inventory), [(ids[1], "f".to_owned())]);
}

#[test]
fn a_departure_ends_the_stores_that_wait_for_it() {
    // spec 7.3
    let (mut index, ids) = index(2, 3);
    index.begin_store(&name("f"), 1).unwrap(); // on 1 and 2
    index.begin_store(&name("g"), 1).unwrap(); // on 3 and 1
    index.acknowledge_store("g", ids[0]);
    let departure = index.leave(ids[0]);
    assert_eq!(departure, Departure { failed_stores: vec![name("f")], completed_removes: vec![] });
    assert!(index.acknowledge_store("g", ids[2]), "it had acknowledged before it left");
    assert_eq!(names(&index), ["g"]);
    assert_eq!(offers(&index, "g"), [ids[2]], "and is not offered");
    assert_eq!(index.leave(ids[0]), Departure::default(), "leaving twice is leaving once");
}

#[test]
fn a_departure_is_no_longer_waited_for_by_a_remove() {
    // spec 4.4
    let (mut index, ids) = index(2, 3);
    store(&mut index, "f");
    index.begin_remove(&name("f")).unwrap();
    assert!(!index.acknowledge_remove("f", ids[1]));
    let departure = index.leave(ids[0]);
    assert_eq!(departure, Departure { failed_stores: vec![], completed_removes: vec![name("f")] });
    assert!(index.is_empty());
}

#[test]
fn a_late_acknowledgement_does_not_end_an_abandoned_remove() {
    // spec 4.4: the entry stays until a rebalance has seen to it
    let (mut index, ids) = index(2, 2);
    store(&mut index, "f");
    index.begin_remove(&name("f")).unwrap();
    assert!(index.abandon_remove("f"));
    assert!(!index.abandon_remove("f"));
    for &dstore in &ids {
        assert!(!index.acknowledge_remove("f", dstore));
    }
    assert_eq!(index.begin_store(&name("f"), 1), Err(Refusal::FileAlreadyExists));
}

#[test]
fn removing_what_no_member_has_is_complete_at_once() {
    // spec 7.24
    let (mut index, ids) = index(1, 2);
    let holder = store(&mut index, "f")[0];
    index.leave(holder);
    assert_eq!(index.offer("f", &[], |_| ()), Err(Refusal::AllTried));
    assert_eq!(index.begin_remove(&name("f")), Ok(vec![]));
    assert!(index.is_empty());
    assert!(ids.contains(&holder));
}

#[test]
fn a_load_is_offered_each_holder_once() {
    // spec 4.3, 7.22
    let (mut index, _) = index(3, 3);
    let holders = store(&mut index, "f");
    let mut tried = offers(&index, "f");
    assert_eq!(index.offer("f", &tried, |_| ()), Err(Refusal::AllTried));
    tried.sort();
    assert_eq!(tried, sorted(&holders));
    for first in holders {
        assert_eq!(index.offer("f", &[], |dstore| dstore != first).unwrap().dstore, first, "whose turn it is");
    }
}

#[test]
fn the_version_changes_with_what_is_listed_and_only_then() {
    // spec 4.5
    let (mut index, ids) = index(1, 2);
    let mut before = (index.version(), names(&index));
    let mut look = |index: &Index, is_new: bool| {
        let now = (index.version(), names(index));
        assert_eq!(now.0 != before.0, is_new, "{before:?} {now:?}");
        assert_eq!(now.1 != before.1, is_new);
        before = now;
    };
    for (file, holder) in [("f", ids[0]), ("g", ids[1])] {
        index.begin_store(&name(file), 1).unwrap();
        look(&index, false);
        index.acknowledge_store(file, holder);
        look(&index, true);
    }
    index.begin_store(&name("failed"), 1).unwrap();
    index.abandon_store("failed");
    look(&index, false);
    index.begin_remove(&name("f")).unwrap();
    look(&index, true);
    index.acknowledge_remove("f", ids[0]);
    look(&index, false);
    let inventory = index.reconcile(&lists([(ids[0], &[][..]), (ids[1], &["g"])]));
    index.confirm(&inventory, &inventory.plan(1), &BTreeSet::new());
    look(&index, false);
    index.reconcile(&lists(ids.iter().map(|&dstore| (dstore, &[][..]))));
    look(&index, true);
}

#[test]
fn lists_correct_the_index() {
    // spec 4.6.2
    let (mut index, ids) = index(2, 3);
    store(&mut index, "both"); // on 1 and 2
    store(&mut index, "one"); // on 3 and 1
    store(&mut index, "lost"); // on 2 and 3
    store(&mut index, "removing"); // on 1 and 2
    index.begin_remove(&name("removing")).unwrap();
    index.abandon_remove("removing");
    let inventory = index.reconcile(&lists([
        (ids[0], &["both", "one", "orphan", "removing"][..]),
        (ids[1], &["both", "both"]),
        (ids[2], &["another-orphan"]),
    ]));
    assert_eq!(names(&index), ["both", "one"]);
    assert_eq!(
        unwanted(&inventory),
        [(ids[2], "another-orphan".into()), (ids[0], "orphan".into()), (ids[0], "removing".into())]
    );
    let held: Vec<Vec<u32>> = (0..2).map(|f| sorted(inventory.holdings.holders(f))).collect();
    assert_eq!(held, [vec![0, 1], vec![0]]);
    assert_eq!(offers(&index, "one"), [ids[0]]);

    // What is being removed is gone once its removal is confirmed, and not before.
    let mut before = index;
    assert_eq!(before.begin_store(&name("removing"), 1), Err(Refusal::FileAlreadyExists));
    before.confirm(&inventory, &inventory.plan(2), &ids.iter().copied().collect());
    assert!(before.begin_store(&name("removing"), 1).is_ok());
}

fn sorted<T: Ord + Clone>(items: &[T]) -> Vec<T> {
    let mut items = items.to_vec();
    items.sort();
    items
}

#[test]
fn silence_is_not_proof_of_loss() {
    // spec 7.16
    let (mut index, ids) = index(2, 3);
    store(&mut index, "f"); // on 1 and 2
    let inventory = index.reconcile(&lists([(ids[2], &[][..])]));
    assert_eq!(names(&index), ["f"], "both holders are silent: the file stays");
    assert_eq!(inventory.holdings.files(), 0, "and no plan can count on it");
    assert_eq!(inventory.plan(2), Plan::default(), "fewer than R take part: no plan");

    let inventory = index.reconcile(&lists([(ids[1], &["f"][..]), (ids[2], &[][..])]));
    let plan = inventory.plan(2);
    let expected = Order { sends: vec![Transfer { name: name("f"), to: vec![address(3)] }], removes: vec![] };
    assert_eq!(
        orders(&inventory, &plan),
        BTreeMap::from([(ids[1], expected)]),
        "the silent copy does not count towards R"
    );
    index.confirm(&inventory, &plan, &BTreeSet::from([ids[1]]));
    assert_eq!(offers(&index, "f").len(), 3, "but is still a copy");
}

#[test]
fn a_copy_not_ordered_is_not_trusted_while_another_exists() {
    // spec 4.6.2; a STORE that timed out may have left its content where the index does not expect it (7.5)
    let (mut index, ids) = index(1, 3);
    let holder = store(&mut index, "f")[0];
    let other = ids.iter().copied().find(|&dstore| dstore != holder).unwrap();
    let third = ids.iter().copied().find(|&dstore| dstore != holder && dstore != other).unwrap();

    let both = lists([(holder, &["f"][..]), (other, &["f"][..]), (third, &[][..])]);
    assert_eq!(unwanted(&index.reconcile(&both)), [(other, "f".into())]);
    assert_eq!(offers(&index, "f"), [holder]);

    // The holder is silent: its copy may be the only good one, the other may be the last one. Neither is touched.
    let silent = lists([(other, &["f"][..]), (third, &[][..])]);
    let inventory = index.reconcile(&silent);
    assert_eq!((unwanted(&inventory), inventory.holdings.files()), (vec![], 0));
    assert_eq!(offers(&index, "f"), [holder]);

    // The holder says that it has nothing: a Dstore lists the file, so it is not dropped.
    let gone = lists([(holder, &[][..]), (other, &["f"][..]), (third, &[][..])]);
    assert_eq!(unwanted(&index.reconcile(&gone)), []);
    assert_eq!(offers(&index, "f"), [other]);
}

#[test]
fn the_index_believes_reports_not_plans() {
    // spec 4.6.6, 7.20
    let (mut index, ids) = index(2, 3);
    for file in ["a", "b", "c"] {
        store(&mut index, file);
    }
    index.leave(ids[2]);
    let newcomer = index.join(address(4));
    let answers: BTreeMap<DstoreId, Vec<FileName>> = [ids[0], ids[1]]
        .map(|dstore| {
            (
                dstore,
                ["a", "b", "c"].iter().copied().filter(|f| offers(&index, f).contains(&dstore)).map(name).collect(),
            )
        })
        .into_iter()
        .chain([(newcomer, vec![])])
        .collect();
    let inventory = index.reconcile(&Lists::new(answers));
    let plan = inventory.plan(2);
    let sent: Vec<_> =
        plan.transfers.iter().map(|transfer| inventory.files[transfer.file as usize].0.clone()).collect();
    assert_eq!(sent.len(), 2, "b and c have lost a copy each: {plan:?}");

    index.confirm(&inventory, &plan, &BTreeSet::new());
    for file in &sent {
        let offered = offers(&index, file);
        assert_eq!(offered.len(), 1, "a copy that may not exist is not offered");
        assert!(!offered.contains(&newcomer));
    }
    assert_eq!(index.begin_remove(&sent[0]).unwrap().len(), 2, "but it is told to go when the file is removed");

    let listed: Vec<&str> = vec![&sent[1]];
    let all = ["a", "b", "c"];
    index.abandon_remove(&sent[0]);
    index.reconcile(&lists([(ids[0], &all[..]), (ids[1], &all[..]), (newcomer, &listed[..])]));
    assert!(offers(&index, &sent[1]).contains(&newcomer), "a LIST has shown it");
}

#[test]
fn what_an_unreported_order_was_to_remove_is_in_doubt() {
    // spec 7.20
    let (mut index, ids) = index(1, 2);
    let holder = store(&mut index, "f")[0];
    let other = ids.iter().copied().find(|&dstore| dstore != holder).unwrap();
    order(&mut index, holder, &[("f", other)], &["f"], false);
    assert_eq!(index.offer("f", &[], |_| ()), Err(Refusal::AllTried));
    assert_eq!(names(&index), ["f"]);
    index.reconcile(&lists([(holder, &["f"][..]), (other, &[][..])]));
    assert_eq!(offers(&index, "f"), [holder]);
    order(&mut index, holder, &[("f", other)], &["f"], true);
    assert_eq!(offers(&index, "f"), [other]);
}

#[test]
fn nothing_to_do_is_an_empty_plan() {
    // spec 7.8
    let (mut index, ids) = index(2, 2);
    store(&mut index, "f");
    let inventory = index.reconcile(&lists([(ids[0], &["f"][..]), (ids[1], &["f"][..])]));
    let plan = inventory.plan(2);
    assert!(plan.is_empty());
    assert_eq!(inventory.orders(&plan), [Order::default(), Order::default()]);
}

#[test]
fn a_file_that_moves_between_two_lists_is_not_lost() {
    // spec 4.6.2, 4.6.6: the receiver lists before the copy arrives, the sender after it has removed its own
    let (mut index, ids) = index(1, 2);
    let sender = store(&mut index, "f")[0];
    let receiver = ids.iter().copied().find(|&dstore| dstore != sender).unwrap();
    order(&mut index, sender, &[("f", receiver)], &["f"], false);

    let none = || lists([(sender, &[][..]), (receiver, &[][..])]);
    index.reconcile(&lists([(receiver, &[][..])])); // the sender is silent: it may not even have begun
    assert_eq!(unwanted(&index.reconcile(&none())), []);
    assert_eq!(names(&index), ["f"], "both lists may be older than the transfer");

    let inventory = index.reconcile(&lists([(sender, &[][..]), (receiver, &["f"][..])]));
    assert_eq!((unwanted(&inventory), inventory.holdings.files()), (vec![], 1));
    assert_eq!(offers(&index, "f"), [receiver]);
}

#[test]
fn what_two_lists_in_a_row_do_not_show_is_gone() {
    // spec 4.6.2, 7.20: doubts do not last
    let (mut index, ids) = index(1, 2);
    let sender = store(&mut index, "f")[0];
    order(&mut index, sender, &[], &["f"], false);
    let none = lists(ids.iter().map(|&dstore| (dstore, &[][..])));
    index.reconcile(&none);
    assert_eq!(names(&index), ["f"]);
    index.reconcile(&none);
    assert!(index.is_empty());
}

#[test]
fn a_dstore_that_hangs_or_has_no_room_does_not_fail_every_store() {
    // spec 7.2: it would be the least loaded for ever
    let (mut index, ids) = index(2, 4);
    let hangs = ids[3];
    let mut failed = 0;
    for file in (0..20).map(|number| format!("f{number}")) {
        let chosen = index.begin_store(&name(&file), 1).unwrap();
        let chosen: Vec<_> = chosen.iter().map(|address| index.member_at(address).unwrap()).collect();
        for &dstore in chosen.iter().filter(|&&dstore| dstore != hangs) {
            index.acknowledge_store(&file, dstore);
        }
        failed += usize::from(index.abandon_store(&file));
    }
    assert_eq!(failed, 1);
    // A rebalance shows that it can store again.
    order(&mut index, ids[0], &[("f1", hangs)], &[], true);
    assert_eq!(ports(&index.begin_store(&name("again"), 1).unwrap())[0], "4");
}

#[test]
fn a_client_that_sends_nothing_casts_no_suspicion_on_dstores() {
    // spec 6.6, 7.2
    let (mut index, _) = index(2, 3);
    for _ in 0..5 {
        assert_eq!(ports(&index.begin_store(&name("wrong"), 1).unwrap()), ["1", "2"]);
        index.abandon_store("wrong");
    }
}

#[test]
fn a_departure_casts_no_suspicion_on_those_that_stay() {
    // spec 7.2, 7.3: their acknowledgements had still time to come
    let (mut index, ids) = index(3, 5);
    index.begin_store(&name("f"), 1).unwrap(); // on 1, 2 and 3
    index.acknowledge_store("f", ids[0]);
    index.leave(ids[1]);
    assert_eq!(ports(&index.begin_store(&name("g"), 1).unwrap()), ["1", "3", "4"]);
}

/// What the Dstores really hold, beside what the index believes.
struct Folders(BTreeMap<DstoreId, BTreeSet<FileName>>);

impl Folders {
    /// One round; sends to one that `refuses` fail, and a Dstore of which a send has failed does not report. Returns
    /// whether there is more to do. (spec 4.6, 7.17)
    fn rebalance(&mut self, index: &mut Index, replicas: usize, refuses: impl Fn(DstoreId) -> bool) -> bool {
        let lists = self.0.iter().map(|(&dstore, files)| (dstore, files.iter().cloned().collect())).collect();
        let inventory = index.reconcile(&Lists::new(lists));
        let plan = inventory.plan(replicas);
        let mut reported = BTreeSet::new();
        for (dstore, order) in orders(&inventory, &plan) {
            let mut unsent = BTreeSet::new();
            for transfer in &order.sends {
                assert!(self.0[&dstore].contains(&transfer.name), "{dstore:?} must send what it lacks");
                for to in transfer.to.iter().map(|to| index.member_at(to).unwrap()) {
                    if refuses(to) {
                        unsent.insert(&transfer.name);
                    } else {
                        assert!(self.0.get_mut(&to).unwrap().insert(transfer.name.clone()), "spec 7.30");
                    }
                }
            }
            let removed: BTreeSet<_> = order.removes.iter().filter(|name| !unsent.contains(name)).collect();
            self.0.get_mut(&dstore).unwrap().retain(|name| !removed.contains(name));
            if unsent.is_empty() {
                reported.insert(dstore);
            }
        }
        index.confirm(&inventory, &plan, &reported);
        index.assert_consistent();
        plan.put_off > 0
    }

    fn join(&mut self, index: &mut Index, port: u16) -> DstoreId {
        let dstore = index.join(address(port));
        self.0.insert(dstore, BTreeSet::new());
        dstore
    }

    fn leave(&mut self, index: &mut Index, dstore: DstoreId) {
        index.leave(dstore);
        self.0.remove(&dstore);
    }

    /// Files that are stored whole, on R Dstores each.
    fn store(&mut self, index: &mut Index, files: usize) -> Vec<String> {
        let files: Vec<_> = (0..files).map(|number| format!("f{number}")).collect();
        for file in &files {
            for dstore in store(index, file) {
                self.0.get_mut(&dstore).unwrap().insert(name(file));
            }
        }
        files
    }

    fn copies(&self, file: &str) -> usize {
        self.0.values().filter(|files| files.contains(file)).count()
    }

    fn spread(&self) -> usize {
        let counts = self.0.values().map(BTreeSet::len);
        counts.clone().max().unwrap() - counts.min().unwrap()
    }
}

#[test]
fn files_get_all_copies_despite_a_dstore_that_takes_none() {
    // spec 4.6.3, 7.17: its disk is full, say, or read-only
    for (replicas, dstores) in [(1, 2), (2, 3), (2, 4), (3, 4), (3, 6)] {
        let (mut index, ids) = index(replicas, dstores);
        let mut folders = Folders(ids.iter().map(|&dstore| (dstore, BTreeSet::new())).collect());
        let files = folders.store(&mut index, 30);
        let full = folders.join(&mut index, 100);
        if replicas > 1 {
            folders.leave(&mut index, ids[0]);
        }
        let refuses = |dstore| usize::from(dstores) > replicas && dstore == full;
        for _ in 0..4 {
            folders.rebalance(&mut index, replicas, refuses);
        }
        for file in &files {
            assert_eq!(folders.copies(file), replicas, "R={replicas} N={dstores} {file}: {:?}", folders.0);
            assert!(!offers(&index, file).is_empty());
        }
        // There is room again.
        for _ in 0..4 {
            folders.rebalance(&mut index, replicas, |_| false);
        }
        assert!(files.iter().all(|file| folders.copies(file) == replicas && offers(&index, file).len() == replicas));
        assert!(folders.spread() <= 1, "R={replicas} N={dstores}: {:?}", folders.0);
    }
}

/// The suspect is the Dstore that lacks what it was sent.
#[test]
fn a_missing_copy_makes_a_suspect_only_after_every_list_is_in() {
    // spec 7.16: the sender may still be at it
    let (mut index, ids) = index(1, 2);
    let sender = store(&mut index, "f")[0];
    let receiver = ids.iter().copied().find(|&dstore| dstore != sender).unwrap();
    order(&mut index, sender, &[("f", receiver)], &[], false);
    assert!(index.reconcile(&lists([(receiver, &[][..])])).suspects.is_empty());
    order(&mut index, sender, &[("f", receiver)], &[], false);
    assert_eq!(index.reconcile(&lists([(sender, &["f"][..]), (receiver, &[][..])])).suspects.len(), 1);
}

/// It may carry out the old order after the new file of that name has come.
#[test]
fn a_dstore_that_owes_a_remove_is_not_trusted_with_a_new_file() {
    // spec 4.6.6, 7.20: found by fuzzing; all R copies of a file that was said to be complete could go like this
    let (mut index, ids) = index(2, 3);
    // A store of f fails after a copy has arrived on the first: it is told to remove it, and does not report.
    let all_lists = |file: &'static [&str]| lists([(ids[0], file), (ids[1], &[][..]), (ids[2], &[][..])]);
    let inventory = index.reconcile(&all_lists(&["f"]));
    let plan = inventory.plan(2);
    assert_eq!(orders(&inventory, &plan)[&ids[0]].removes, [name("f")]);
    index.confirm(&inventory, &plan, &BTreeSet::new());
    // With others to choose from it is not chosen,
    assert_eq!(ports(&index.begin_store(&name("f"), 1).unwrap()), ["2", "3"]);
    assert!(index.abandon_store("f"));
    // and with none its acknowledgement does not count,
    index.leave(ids[1]);
    assert_eq!(ports(&index.begin_store(&name("f"), 1).unwrap()), ["3", "1"]);
    assert!(!index.acknowledge_store("f", ids[0]) && !index.acknowledge_store("f", ids[2]));
    assert!(index.abandon_store("f"));
    // until it answers a LIST, which it does after the order.
    index.reconcile(&all_lists(&[]));
    let chosen = store(&mut index, "f");
    assert!(chosen.contains(&ids[0]));
}

/// A cluster that is older than any newcomer to come: `files` on `dstores` Dstores, after many rebalances.
fn old_cluster(replicas: usize, dstores: u16, files: usize) -> (Index, Folders, Vec<String>) {
    let (mut index, ids) = index(replicas, dstores);
    let mut folders = Folders(ids.iter().map(|&dstore| (dstore, BTreeSet::new())).collect());
    let files = folders.store(&mut index, files);
    for _ in 0..100 {
        assert!(!folders.rebalance(&mut index, replicas, |_| false));
    }
    (index, folders, files)
}

#[test]
fn newcomers_that_drop_what_they_take_cost_no_file_a_copy() {
    // spec 4.6.3: one process joins thirty times, takes what it is sent, drops it and leaves
    let (mut index, mut folders, files) = old_cluster(3, 3, 100);
    let newcomers: Vec<_> = (0..30).map(|number| folders.join(&mut index, 100 + number)).collect();
    for _ in 0..4 {
        folders.rebalance(&mut index, 3, |_| false);
        newcomers.iter().for_each(|dstore| folders.0.get_mut(dstore).unwrap().clear());
        assert!(files.iter().all(|file| folders.copies(file) == 3));
    }
    newcomers.iter().for_each(|&dstore| folders.leave(&mut index, dstore));
    folders.rebalance(&mut index, 3, |_| false);
    assert!(files.iter().all(|file| offers(&index, file).len() == 3));
}

#[test]
fn newcomers_get_their_share_once_a_list_has_shown_it() {
    // spec 4.6.3: the balance is as it must be in the end, and the planner rests
    for (replicas, dstores, newcomers) in [(1, 1, 1), (1, 3, 2), (2, 3, 1), (3, 3, 30), (3, 7, 4)] {
        let (mut index, mut folders, files) = old_cluster(replicas, dstores, 100);
        let newcomers: Vec<_> = (0..newcomers).map(|number| folders.join(&mut index, 100 + number)).collect();
        assert!(folders.rebalance(&mut index, replicas, |_| false), "copies are sent, and nothing is removed for them");
        let is_extra = |file: &&String| folders.copies(file) > replicas;
        assert!(files.iter().any(|file| is_extra(&file)) && files.iter().all(|file| folders.copies(file) >= replicas));
        assert!(!folders.rebalance(&mut index, replicas, |_| false), "then the older copies go");
        assert!(files.iter().all(|file| folders.copies(file) == replicas));
        assert!(folders.spread() <= 1);
        let before = folders.0.clone();
        folders.rebalance(&mut index, replicas, |_| false);
        assert_eq!(folders.0, before, "at rest");

        // As many files as there is room for have kept a copy on an older Dstore.
        let is_kept = |file: &&String| {
            let mut holders = folders.0.iter().filter(|(_, files)| files.contains(&name(file)));
            holders.any(|(dstore, _)| !newcomers.contains(dstore))
        };
        let room: usize =
            folders.0.iter().filter(|(dstore, _)| !newcomers.contains(dstore)).map(|(_, f)| f.len()).sum();
        assert_eq!(files.iter().filter(is_kept).count(), room.min(files.len()), "R={replicas} N={dstores}");
    }
}

#[test]
fn a_cluster_that_has_just_begun_has_no_newcomers() {
    // spec 4.6.4: copies are sent and removed in one round, as the coursework does
    let (mut index, ids) = index(1, 1);
    let mut folders = Folders(BTreeMap::from([(ids[0], BTreeSet::new())]));
    let files = folders.store(&mut index, 10);
    folders.rebalance(&mut index, 1, |_| false);
    folders.join(&mut index, 2);
    assert!(!folders.rebalance(&mut index, 1, |_| false));
    assert!(files.iter().all(|file| folders.copies(file) == 1) && folders.spread() == 0);
}

#[test]
fn equal_histories_give_equal_plans_whatever_was_loaded() {
    // A replay: the same calls, with loads between them in one of two indexes.
    let play = |loads: usize| {
        let (mut index, ids) = index(2, 5);
        let mut plans = Vec::new();
        let mut folders = Folders(ids.iter().map(|&dstore| (dstore, BTreeSet::new())).collect());
        for file in folders.store(&mut index, 40) {
            for _ in 0..loads {
                index.offer(&file, &[], |dstore| dstore.0 % 3).unwrap();
            }
        }
        for (round, leaver) in ids.iter().take(3).enumerate() {
            folders.leave(&mut index, *leaver);
            folders.join(&mut index, 100 + round as u16);
            let lists = folders.0.iter().map(|(&dstore, files)| (dstore, files.iter().cloned().collect())).collect();
            let inventory = index.reconcile(&Lists::new(lists));
            let plan = inventory.plan(2);
            plans.push((plan.clone(), inventory.orders(&plan)));
            folders.rebalance(&mut index, 2, |_| false);
        }
        plans
    };
    assert_eq!(play(0), play(7));
}
