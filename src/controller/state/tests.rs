//! How operations end, and that each ends once. (spec 4.2, 4.4, 7.3)

use std::thread;

use super::*;
use crate::sync::one_shot::Missing;

fn name(text: &str) -> FileName {
    text.parse().unwrap()
}

/// A state with Dstores on ports 1 to `dstores`.
fn state(replicas: usize, dstores: u16) -> (State, Vec<DstoreId>) {
    let mut state = State::new(replicas);
    let ids = (1..=dstores).map(|port| state.index.join(Address::local(port).unwrap())).collect();
    (state, ids)
}

/// A state with two Dstores that both have `f`.
fn state_with_f() -> (State, Vec<DstoreId>) {
    let (mut state, ids) = state(2, 2);
    let (_, outcome) = state.begin_store(&name("f"), 1).unwrap();
    ids.iter().for_each(|&dstore| state.acknowledge_store(&name("f"), dstore));
    assert_eq!(outcome.try_recv(), Ok(Outcome::Complete));
    (state, ids)
}

#[test]
fn a_store_completes_on_the_last_acknowledgement_and_not_before() {
    // spec 4.2, 7.6, 7.25
    let (mut state, ids) = state(2, 3);
    let (dstores, outcome) = state.begin_store(&name("f"), 1).unwrap();
    assert_eq!(dstores, [Address::local(1).unwrap(), Address::local(2).unwrap()]);
    state.acknowledge_store(&name("f"), ids[0]);
    state.acknowledge_store(&name("f"), ids[0]);
    state.acknowledge_store(&name("f"), ids[2]);
    state.acknowledge_store(&name("g"), ids[1]);
    state.acknowledge_remove(&name("f"), ids[1]);
    assert_eq!(outcome.try_recv(), Err(Missing::Pending));
    state.acknowledge_store(&name("f"), ids[1]);
    assert_eq!(outcome.try_recv(), Ok(Outcome::Complete));
    assert_eq!(outcome.try_recv(), Err(Missing::Gone), "told once, and forgotten");
}

#[test]
fn a_remove_completes_on_its_last_acknowledgement_not_before() {
    // spec 4.4
    let (mut state, ids) = state_with_f();
    let (holders, outcome) = state.begin_remove(&name("f")).unwrap();
    assert_eq!(holders, ids);
    state.acknowledge_remove(&name("f"), ids[1]);
    state.acknowledge_remove(&name("f"), ids[1]);
    state.acknowledge_store(&name("f"), ids[0]);
    assert_eq!(outcome.try_recv(), Err(Missing::Pending));
    state.acknowledge_remove(&name("f"), ids[0]);
    assert_eq!(outcome.try_recv(), Ok(Outcome::Complete));
    assert!(state.index.is_empty());
}

#[test]
fn a_remove_without_holders_is_complete_at_once() {
    // spec 7.24
    let (mut state, ids) = state_with_f();
    ids.iter().for_each(|&dstore| state.leave(dstore));
    for port in [3, 4] {
        state.index.join(Address::local(port).unwrap());
    }
    let (holders, outcome) = state.begin_remove(&name("f")).unwrap();
    assert_eq!(holders, []);
    assert_eq!(outcome.try_recv(), Ok(Outcome::Complete));
}

#[test]
fn a_refused_request_leaves_the_operation_in_progress_unchanged() {
    // spec 3.2
    let (mut state, ids) = state(1, 1);
    let (_, outcome) = state.begin_store(&name("f"), 1).unwrap();
    assert_eq!(state.begin_store(&name("f"), 2).map(drop), Err(Refusal::FileAlreadyExists));
    assert_eq!(state.begin_remove(&name("f")).map(drop), Err(Refusal::FileDoesNotExist));
    state.acknowledge_store(&name("f"), ids[0]);
    assert_eq!(outcome.try_recv(), Ok(Outcome::Complete));
}

#[test]
fn a_store_whose_time_is_up_leaves_no_entry_and_no_wait() {
    // spec 4.2, 7.5
    let (mut state, ids) = state(2, 2);
    let (_, outcome) = state.begin_store(&name("f"), 1).unwrap();
    state.acknowledge_store(&name("f"), ids[0]);
    assert_eq!(state.expire_store(&name("f"), &outcome), Outcome::Failed);
    assert!(state.index.is_empty());
    assert!(state.waiting.is_empty());

    // The next store of that name is another one: the late acknowledgement of the first Dstore is its own matter.
    let (_, second) = state.begin_store(&name("f"), 1).unwrap();
    state.acknowledge_store(&name("f"), ids[1]);
    assert_eq!(second.try_recv(), Err(Missing::Pending));
    assert_eq!(outcome.try_recv(), Err(Missing::Gone));
}

#[test]
fn a_remove_whose_time_is_up_stays_in_progress_without_a_wait() {
    // spec 4.4
    let (mut state, ids) = state_with_f();
    let (_, outcome) = state.begin_remove(&name("f")).unwrap();
    state.acknowledge_remove(&name("f"), ids[0]);
    assert_eq!(state.expire_remove(&name("f"), &outcome), Outcome::Failed);
    assert!(state.waiting.is_empty());
    assert_eq!(state.begin_store(&name("f"), 1).map(drop), Err(Refusal::FileAlreadyExists));
    state.acknowledge_remove(&name("f"), ids[1]);
    assert_eq!(state.begin_remove(&name("f")).map(drop), Err(Refusal::FileDoesNotExist));
    assert_eq!(state.index.len(), 1, "a late acknowledgement changes nothing");
}

#[test]
fn an_outcome_that_comes_in_the_last_instant_counts() {
    // spec 4.2, 4.4: between the end of the wait and the lock, the last acknowledgement comes
    let (mut state, ids) = state(1, 1);
    let (_, outcome) = state.begin_store(&name("f"), 1).unwrap();
    state.acknowledge_store(&name("f"), ids[0]);
    assert_eq!(state.expire_store(&name("f"), &outcome), Outcome::Complete);
    assert_eq!(state.index.list().unwrap(), [name("f")]);

    let (_, outcome) = state.begin_remove(&name("f")).unwrap();
    state.acknowledge_remove(&name("f"), ids[0]);
    assert_eq!(state.expire_remove(&name("f"), &outcome), Outcome::Complete);
    assert!(state.index.is_empty());
}

#[test]
fn expiring_an_ended_operation_does_not_expire_its_successor() {
    // spec 7.3: the first store fails by a departure; before its client's thread wakes, another client stores the name
    let (mut state, ids) = state(1, 2);
    let (_, first) = state.begin_store(&name("f"), 1).unwrap();
    state.leave(ids[0]);
    let (_, second) = state.begin_store(&name("f"), 1).unwrap();
    assert_eq!(state.expire_store(&name("f"), &first), Outcome::Failed);
    state.acknowledge_store(&name("f"), ids[1]);
    assert_eq!(second.try_recv(), Ok(Outcome::Complete));
    assert_eq!(state.index.list().unwrap(), [name("f")]);
}

#[test]
fn each_store_has_one_outcome_and_the_index_agrees_with_it() {
    // spec 4.2: the acknowledgement and the timeout race, as they do in the Controller
    let mut outcomes = [0, 0];
    for round in 0..2_000 {
        let (state, ids) = state(1, 1);
        let state = parking_lot::Mutex::new(state);
        let (_, outcome) = state.lock().begin_store(&name("f"), 1).unwrap();
        let ended = thread::scope(|scope| {
            scope.spawn(|| state.lock().acknowledge_store(&name("f"), ids[0]));
            if round % 2 == 0 {
                thread::yield_now();
            }
            outcome.try_recv().unwrap_or_else(|_| state.lock().expire_store(&name("f"), &outcome))
        });
        let listed = state.lock().index.list().unwrap().len();
        assert_eq!(listed, usize::from(ended == Outcome::Complete), "round {round}");
        assert!(state.lock().waiting.is_empty(), "round {round}");
        outcomes[listed] += 1;
    }
    println!("[failed, complete] = {outcomes:?}");
}

#[test]
fn a_departure_ends_only_what_waited_for_that_dstore() {
    // spec 4.4, 7.3
    let (mut state, ids) = state(2, 3);
    let (_, kept) = state.begin_store(&name("kept"), 1).unwrap(); // on 1 and 2
    ids.iter().for_each(|&dstore| state.acknowledge_store(&name("kept"), dstore));
    assert_eq!(kept.try_recv(), Ok(Outcome::Complete));
    let (_, acknowledged) = state.begin_store(&name("acknowledged"), 1).unwrap(); // on 3 and 1
    state.acknowledge_store(&name("acknowledged"), ids[0]);
    let (_, vain) = state.begin_store(&name("vain"), 1).unwrap(); // on 2 and another
    let (_, removed) = state.begin_remove(&name("kept")).unwrap();
    state.acknowledge_remove(&name("kept"), ids[0]);

    state.leave(ids[1]);
    assert_eq!(vain.try_recv(), Ok(Outcome::Failed));
    assert_eq!(removed.try_recv(), Ok(Outcome::Complete), "it is no longer waited for");
    assert_eq!(acknowledged.try_recv(), Err(Missing::Pending), "waits for 3");
    assert_eq!(state.index.len(), 1);
    state.leave(ids[1]);
    state.acknowledge_store(&name("acknowledged"), ids[2]);
    assert_eq!(acknowledged.try_recv(), Ok(Outcome::Complete));
}

#[test]
fn holders_take_turns_and_loads_spread_over_all_dstores() {
    // spec 7.22
    let (mut state, ids) = state_with_f();
    let firsts: Vec<_> = (0..4).map(|_| state.offer("f", &[]).unwrap().dstore).collect();
    assert_eq!(firsts, [ids[0], ids[1], ids[0], ids[1]]);
    let first = state.offer("f", &[]).unwrap().dstore;
    assert_eq!((first, state.offer("f", &[first]).unwrap().dstore), (ids[0], ids[1]), "a RELOAD is another's turn");
    assert_eq!(state.offer("f", &ids), Err(Refusal::AllTried));

    let third = state.index.join(Address::local(3).unwrap());
    let (_, outcome) = state.begin_store(&name("g"), 1).unwrap(); // on 3 and 1
    [third, ids[0]].iter().for_each(|&dstore| state.acknowledge_store(&name("g"), dstore));
    assert_eq!(outcome.try_recv(), Ok(Outcome::Complete));
    let both: Vec<_> = ["f", "g", "f", "g"].iter().map(|file| state.offer(file, &[]).unwrap().dstore).collect();
    assert_eq!(both, [ids[0], third, ids[1], ids[0]]);
}

#[test]
fn stopping_ends_every_wait_now_and_in_future() {
    let (mut state, ids) = state(1, 1);
    let (_, before) = state.begin_store(&name("before"), 1).unwrap();
    state.stop();
    assert_eq!(before.try_recv(), Err(Missing::Gone));
    let (_, after) = state.begin_store(&name("after"), 1).unwrap();
    assert_eq!(after.try_recv(), Err(Missing::Gone), "no thread is going to conclude it");
    for (file, outcome) in [("before", before), ("after", after)] {
        state.acknowledge_store(&name("nothing"), ids[0]);
        assert_eq!(state.expire_store(&name(file), &outcome), Outcome::Failed);
    }
    assert!(state.index.is_empty());
}
