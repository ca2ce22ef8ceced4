//! Many small files at a time, with Dstores that misbehave as they are told. (depot 3.5, 5.1)

mod common;

use common::{Behaviour, SOON, ScriptedDstore, Store};
use depot::checksum::Checksum;
use depot::client::{Cluster, DstoreState, Error, Files, PutOptions, SmallFile, TOGETHER, TOGETHER_BYTES};
use depot::identity::{History, SessionId, Version};
use depot::namespace::change::{Command, Condition, NewObjects, Refusal, Replicas, Stamp};
use depot::path::Path;
use depot::wire::message::{Answer, Failure, Grants, Outcome, Request, StampedCommand};
use kit::{bytes, eventually};
use stevedore::socket::Wait;

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn small(at: &str, content: &[u8]) -> SmallFile {
    let options = PutOptions { parents: true, ..PutOptions::default() };
    SmallFile { path: path(at), content: content.to_vec(), options }
}

fn get(client: &Cluster, at: &Path) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    let mut file = client.get(at, Condition::Any)?;
    file.copy_to(0..u64::MAX, &mut content)?;
    Ok(content)
}

/// So many Dstores, which the Controller knows to be there.
fn dstores<const N: usize>(store: &Store) -> [ScriptedDstore; N] {
    let dstores = std::array::from_fn(|number| ScriptedDstore::new(store, number as u128 + 1));
    let client = store.client();
    eventually("all Dstores are there", || {
        let status = client.status().unwrap();
        status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Present).count() == N
    });
    dstores
}

fn put_all(client: &Cluster, files: &[SmallFile]) -> Vec<Version> {
    client.put_many(files).into_iter().map(|put| put.unwrap()).collect()
}

fn assert_all_are_there(client: &Cluster, files: &[SmallFile]) {
    for SmallFile { path, content, .. } in files {
        assert!(get(client, path).unwrap() == *content, "{path}");
    }
}

#[test]
fn files_that_are_put_together_need_one_request_to_each_dstore() {
    let store = Store::new(3);
    let dstores: [_; 3] = dstores(&store);
    let client = store.client();
    let files: Vec<_> =
        (0..3 * TOGETHER as u64).map(|n| small(&format!("/d/{n}"), &bytes(n, 1 + n as usize))).collect();
    let versions = put_all(&client, &files);
    assert!(versions.is_sorted_by(|a, b| a.sequence < b.sequence), "each is a change of its own, in order");
    assert_eq!(dstores.each_ref().map(ScriptedDstore::puts), [3; 3]);
    assert_all_are_there(&client, &files);
    for SmallFile { path, .. } in &files {
        assert_eq!(client.copies(path).unwrap()[0].copies.len(), 3, "{path}");
    }
}

#[test]
fn files_of_all_sizes_may_be_put_together() {
    let store = Store::new(2);
    let _dstores: [_; 5] = dstores(&store);
    let client = store.client();
    let most = TOGETHER_BYTES as usize;
    let sizes = [0, 1, most, 0, most + 1, 5, most - 5, most / 2, 9 << 20, 0, 7];
    let mut files: Vec<_> =
        sizes.iter().enumerate().map(|(n, size)| small(&format!("/{n}"), &bytes(n as u64, *size))).collect();
    files[5].options.details.replicas = Some(Replicas::Number(1));
    put_all(&client, &files);
    assert_all_are_there(&client, &files);
    assert_eq!(client.copies(&path("/5")).unwrap()[0].copies.len(), 1, "it has its own number of replicas");
    assert_eq!(put_all(&client, &[]), []);
    let empty: Vec<_> = (0..3).map(|n| small(&format!("/empty/{n}"), b"")).collect();
    put_all(&client, &empty);
    assert_all_are_there(&client, &empty);
}

#[test]
fn a_file_that_is_refused_keeps_none_of_the_others() {
    let store = Store::new(1);
    let _dstores: [_; 1] = dstores(&store);
    let client = store.client();
    client.put_many(&[small("/there", b"before"), small("/other", b"before")]);
    let mut files: Vec<_> = ["/a", "/there", "/there/below", "/other", "/a"].map(|at| small(at, at.as_bytes())).into();
    files[1].options.condition = Condition::Absent;
    let puts = client.put_many(&files);
    assert!(puts[0].is_ok() && puts[3].is_ok() && puts[4].is_ok(), "{puts:?}");
    assert!(matches!(puts[1], Err(Error::Refused(Refusal::AlreadyExists))), "{puts:?}");
    assert!(matches!(puts[2], Err(Error::Refused(Refusal::NotADirectory))), "{puts:?}");
    assert_eq!(get(&client, &path("/there")).unwrap(), b"before");
    assert_eq!(get(&client, &path("/other")).unwrap(), b"/other");
}

#[test]
fn files_that_too_few_dstores_take_are_put_one_by_one() {
    let store = Store::that_waits_for_dstores(2, std::time::Duration::ZERO);
    let all: [_; 4] = dstores(&store);
    let client = store.client();
    let files = |round: &str| (0..20).map(|n| small(&format!("/{round}/{n}"), &bytes(n, 100))).collect::<Vec<_>>();
    let behaviours = [
        Behaviour { refuses: Some(Failure::NoSpace), ..Behaviour::default() },
        Behaviour { hangs_up: true, ..Behaviour::default() },
    ];
    all.iter().zip(behaviours).for_each(|(dstore, behaviour)| dstore.behave(behaviour));
    put_all(&client, &files("one"));
    assert_all_are_there(&client, &files("one"));
    for SmallFile { path, .. } in files("one") {
        let holders: Vec<_> = client.copies(&path).unwrap()[0].copies.iter().map(|copy| copy.dstore).collect();
        assert_eq!(holders, [all[2].number(), all[3].number()], "{path}");
    }
    // With one good Dstore left, two copies cannot be.
    all[2].behave(Behaviour { hangs_up: true, ..Behaviour::default() });
    for put in client.put_many(&files("two")) {
        assert!(matches!(put, Err(Error::NotEnoughDstores { needed: 2, .. })), "{put:?}");
    }
    assert!(matches!(client.stat(&path("/two/0")), Err(Error::Refused(Refusal::NotFound))), "no file is left");
}

#[test]
fn a_late_dstore_is_not_waited_for_once_enough_others_have_all() {
    let store = Store::new(3);
    let all: [_; 3] = dstores(&store);
    let client = store.client();
    all[1].behave(Behaviour { is_stuck: true, ..Behaviour::default() });
    let files: Vec<_> = (0..20).map(|n| small(&format!("/{n}"), &bytes(n, 100))).collect();
    put_all(&client, &files);
    all[1].behave(Behaviour::default());
    assert_all_are_there(&client, &files);
}

#[test]
fn several_changes_that_are_sent_again_have_their_effects_once() {
    // depot 3.5
    let store = Store::new(1);
    let mut connection = store.dial();
    let mut ask = |request: &Request| -> Answer {
        connection.send(request).unwrap();
        connection.receive(Wait::deadline(SOON)).unwrap()
    };
    let Answer::Session { born, .. } = ask(&Request::Session) else { panic!("no session") };
    let changes = (1..=3).map(|number| {
        let stamp = Stamp { session: SessionId(5), born, number, done_below: 1 };
        let command = Command::Put {
            path: path("/a"),
            condition: Condition::Absent,
            parents: false,
            checksum: Checksum::EMPTY,
            modified_ms: None,
            details: Default::default(),
            objects: NewObjects::default(),
        };
        StampedCommand { stamp, command }
    });
    let request = Request::ChangeMany { changes: changes.collect() };
    let Answer::Outcomes { outcomes } = ask(&request) else { panic!("no outcomes") };
    let refused = Outcome::Failed { failure: Failure::Refused { refusal: Refusal::AlreadyExists } };
    assert!(matches!(outcomes[0], Outcome::Done { .. }), "{outcomes:?}");
    assert_eq!(outcomes[1..], [refused.clone(), refused]);
    assert_eq!(ask(&request), Answer::Outcomes { outcomes }, "and no other ones");
    let Request::ChangeMany { changes } = request else { unreachable!() };
    let too_many = Request::ChangeMany { changes: (0..257).map(|_| changes[0].clone()).collect() };
    assert!(matches!(ask(&too_many), Answer::Error { failure: Failure::BadRequest { .. } }));
}

#[test]
fn what_is_not_answered_is_asked_for_again_one_by_one() {
    // depot 3.5: what is said of the second attempt is not said of the first, unless it is the change's own outcome.
    let version = Version { history: History(3), sequence: 9 };
    let done = || Answer::Done { version, grants: Grants::default() };
    let unavailable = || Answer::Error { failure: Failure::Unavailable { what: "the disk".into() } };
    let of = |failures: [Option<Failure>; 2]| {
        let outcome = |failure: Option<Failure>| match failure {
            None => Outcome::Done { version },
            Some(failure) => Outcome::Failed { failure },
        };
        Some(Answer::Outcomes { outcomes: failures.map(outcome).into() })
    };
    let unknown = || Some(Failure::OutcomeUnknown { why: "deposed".into() });
    let forgotten = || Failure::Refused { refusal: Refusal::UnknownOutcome };
    let is_so = |what: &str, answers: &[Option<Answer>], expected: [&str; 2]| {
        let found = put_two(answers).into_iter().map(|put| match put {
            Ok(_) => "made",
            Err(Error::OutcomeUnknown(_)) => "unknown",
            Err(_) => "not made",
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{what}");
    };
    is_so("both are made", &[of([None, None])], ["made", "made"]);
    is_so("no answer; made or made now", &[None, Some(done()), Some(done())], ["made", "made"]);
    is_so("no answer", &[None, Some(unavailable()), Some(unavailable())], ["unknown", "unknown"]);
    is_so("not made", &[Some(unavailable()), Some(unavailable()), Some(done())], ["not made", "made"]);
    is_so("one has no lease", &[of([None, Some(Failure::NoLease)]), Some(done())], ["made", "made"]);
    is_so("one may be made", &[of([unknown(), None]), Some(unavailable())], ["unknown", "made"]);
    is_so(
        "a session that is forgotten",
        &[of([Some(forgotten()), None]), Some(Answer::Error { failure: forgotten() }), Some(done())],
        ["made", "made"],
    );
}

/// Puts two empty files at a Controller that answers changes like this.
fn put_two(answers: &[Option<Answer>]) -> Vec<Result<Version, Error>> {
    common::at_a_controller_that_answers(answers, |client| client.put_many(&[small("/a", b""), small("/b", b"")]))
}
