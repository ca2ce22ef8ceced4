//! Users who try to do more than they may, as bytes on a socket.

mod common;

use base64ct::{Base64, Encoding};
use common::{Reply, Served};
use gateway::access::{ANONYMOUS, Right, User, Users};
use kit::eventually;

/// A store with a tree of two users, of whom each may write below its own folder and read what is shared.
fn served() -> Served {
    let served = Served::new();
    for path in ["/home/alice/a", "/home/bob/b", "/home/alice2/c", "/shared/s", "/top"] {
        served.put(path, b"content");
    }
    let users = Users::of(&*served.store);
    let add = |name: &str, rights: &[(&str, Right)]| {
        let mut user = User::new(name).unwrap();
        if name != ANONYMOUS {
            user.set_password(name).unwrap();
        }
        user.rights = rights.iter().map(|(path, right)| (path.parse().unwrap(), *right)).collect();
        users.insert(&user).unwrap();
    };
    add("alice", &[("/home/alice", Right::Write), ("/shared", Right::Read), ("/missing/below", Right::Write)]);
    add("bob", &[("/home/bob", Right::Write)]);
    add("root", &[("/", Right::Admin)]);
    add(ANONYMOUS, &[]);
    served
}

fn basic(name: &str, password: &str) -> String {
    format!("Authorization: Basic {}", Base64::encode_string(format!("{name}:{password}").as_bytes()))
}

fn ask_as(served: &Served, name: &str, request: &str, body: &[u8]) -> Reply {
    served.ask(&[request, &basic(name, name)], body)
}

#[test]
fn no_request_leaves_the_paths_that_a_user_was_granted() {
    let served = served();
    for (request, status) in [
        ("GET /home/alice/a", 200),
        ("HEAD /home/alice/a", 200),
        ("GET /home/alice/", 200),
        ("GET /home/alice", 301),
        ("GET /home/alice/none", 404),
        ("GET /shared/s", 200),
        ("PUT /home/alice/new", 201),
        ("PUT /home/alice/x/y?parents", 201),
        ("DELETE /home/alice/new", 204),
        // Beside, above, and around.
        ("GET /", 403),
        ("GET /home/", 403),
        ("HEAD /home/", 403),
        ("GET /top", 403),
        ("GET /home/bob/b", 403),
        ("GET /home/bob/none", 403),
        ("GET /home/alice2/c", 403),
        ("GET /home/alic", 403),
        ("GET /home/Alice/a", 403),
        ("GET /home/alice%20/a", 403),
        ("GET /home/alice%00/a", 400),
        ("GET /home/alice/../bob/b", 400),
        ("GET /home/alice/%2e%2e/bob/b", 400),
        ("GET /home/alice/..%2fbob/b", 400),
        ("GET /home/alice%2f..%2fbob%2fb", 400),
        ("GET /home/alice/./../bob/b", 400),
        ("GET /home/alice/..;/bob/b", 404),
        ("GET /home/alice\\..\\bob\\b", 403),
        ("GET /home/alice//../bob/b", 400),
        ("GET //home/bob/b", 400),
        ("GET /home//bob/b", 400),
        ("GET http://localhost/home/bob/b", 403),
        ("GET http://localhost/home/alice/../bob/b", 400),
        ("GET /home/bob/b?/home/alice/a", 403),
        // A right to read is none to write.
        ("PUT /shared/s", 403),
        ("POST /shared/new", 403),
        ("DELETE /shared/s", 403),
        ("DELETE /shared/", 403),
        ("PUT /home/bob/b", 403),
        ("PUT /home/eve/?parents", 403),
        ("PUT /new?parents", 403),
        ("DELETE /home/", 403),
        ("DELETE /", 403),
        // What is granted is below what is not there, and not granted.
        ("PUT /missing/below/a?parents", 403),
        ("PUT /missing/below/?parents", 403),
        // Not even their own rights.
        ("GET /.stevedore/users/alice", 403),
        ("GET /.stevedore/users/", 403),
        ("PUT /.stevedore/users/eve/", 403),
        ("DELETE /.stevedore/users/alice/", 403),
        ("GET /home/alice/../../.stevedore/users/alice", 400),
    ] {
        let body: &[u8] = if request.contains("/?") || request.ends_with('/') { b"" } else { b"x" };
        let reply = ask_as(&served, "alice", request, body);
        assert_eq!(reply.status, status, "{request}: {reply:?}");
    }
    for path in ["/home/bob/b", "/home/alice2/c", "/shared/s", "/top"] {
        assert_eq!(served.content(path).as_deref(), Some(&b"content"[..]), "{path}");
    }
    assert!(served.store.stat(&"/missing".parse().unwrap()).is_err());
    assert_eq!(ask_as(&served, "root", "GET /.stevedore/users/alice", b"").status, 403, "an admin's neither");
    assert_eq!(ask_as(&served, "root", "GET /home/bob/b", b"").status, 200);
}

#[test]
fn a_client_without_user_is_asked_to_log_in_before_the_body() {
    let served = served();
    for head in [
        &["PUT /home/alice/new", "Expect: 100-continue", "Content-Length: 1000000"][..],
        &["PUT /home/alice/new", "Expect: 100-continue", "Content-Length: 1000000", &basic("alice", "wrong")],
        &["PUT /home/alice/new", "Expect: 100-continue", "Content-Length: 1000000", &basic("eve", "eve")],
        &["PUT /home/alice/new", "Expect: 100-continue", "Content-Length: 1000000", "Authorization: Bearer x"],
    ] {
        let mut client = served.dial();
        client.send(head, b"");
        let reply = client.reply(false);
        assert_eq!((reply.status, &*reply.error()), (401, "login-needed"), "{head:?}");
        assert!(reply.header("www-authenticate").is_some_and(|how| how.starts_with("Basic realm=")));
    }
    let (there, not_there) = (served.ask(&["GET /top"], b""), served.ask(&["GET /none"], b""));
    assert_eq!((there.status, there.body), (not_there.status, not_there.body), "it is not told what exists");
    assert_eq!(served.content("/home/alice/new"), None);
}

#[test]
fn guessing_is_answered_with_a_time_to_wait() {
    let served = served();
    let mut last = served.ask(&["GET /top", &basic("root", "0")], b"");
    for guess in 1..50 {
        if last.status != 401 {
            break;
        }
        last = served.ask(&["GET /top", &basic("root", &guess.to_string())], b"");
    }
    assert_eq!((last.status, &*last.error()), (429, "too-many-attempts"));
    assert!(last.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0)));
    let right = ask_as(&served, "root", "GET /top", b"");
    assert_eq!(right.status, 429, "not even the right one is looked at");
}

#[test]
fn what_is_granted_and_taken_back_holds_soon() {
    let served = served();
    let users = Users::of(&*served.store);
    assert_eq!(ask_as(&served, "bob", "GET /top", b"").status, 403);
    users.change("bob", |user| user.rights.extend([("/top".parse().unwrap(), Right::Read)])).unwrap();
    eventually("it holds", || ask_as(&served, "bob", "GET /top", b"").status == 200);
    users.change("bob", |user| user.rights.clear()).unwrap();
    eventually("it holds no more", || ask_as(&served, "bob", "GET /home/bob/b", b"").status == 403);
    users.change(ANONYMOUS, |user| user.rights.extend([("/top".parse().unwrap(), Right::Read)])).unwrap();
    eventually("all may", || served.ask(&["GET /top"], b"").status == 200);
}
