//! The console's page, and what it asks for, as bytes on a socket.

mod common;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use common::{Client, SOON, Served};
use depot::client::Files;
use depot::client::memory::Memory;
use depot::namespace::change::{Condition, Details};
use gateway::access::{ANONYMOUS, Right, User, Users};
use kit::eventually;
use serde_json::{Value, json};

const MARK: &str = "Stevedore-Console: 1";

fn json_of(served: &Served, request: &str) -> Value {
    let reply = served.ask(&[request], b"");
    assert_eq!(reply.status, 200, "{request}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    serde_json::from_slice(&reply.body).expect("JSON")
}

#[test]
fn a_browser_gets_the_page_and_programs_the_listing() {
    let served = Served::new();
    let browser = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (request, status, to) in [
        (&["GET /", browser][..], 302, Some("/.stevedore/console/")),
        (&["HEAD /", browser], 302, Some("/.stevedore/console/")),
        (&["GET /.stevedore/console"], 302, Some("/.stevedore/console/")),
        (&["GET /", "Accept: */*"], 200, None),
        (&["GET /"], 200, None),
        (&["GET /", "Accept: application/json"], 200, None),
        (&["GET /?limit=5", browser], 200, None),
        (&["GET /.stevedore/console/"], 200, None),
        (&["HEAD /.stevedore/console/app.js"], 200, None),
        (&["GET /.stevedore/console/none.js"], 404, None),
        (&["GET /.stevedore/console/../../etc/passwd"], 404, None),
        (&["PUT /.stevedore/console/app.js"], 405, None),
        (&["DELETE /.stevedore/console/"], 405, None),
        (&["GET /.stevedore/consoles"], 403, None),
        (&["GET /.stevedore/api/none"], 404, None),
        (&["POST /.stevedore/api/status", MARK], 405, None),
        (&["GET /.stevedore/api/rename"], 405, None),
    ] {
        let reply = served.ask(request, b"");
        assert_eq!((reply.status, reply.header("location")), (status, to), "{request:?}");
    }
}

#[test]
fn the_page_runs_nothing_of_others_and_is_kept_by_browsers() {
    let served = Served::new();
    let page = served.ask(&["GET /.stevedore/console/"], b"");
    let html = page.text();
    let mut names = vec![String::new()];
    for part in html.split("href=\"").chain(html.split("src=\"")).skip(1) {
        let name = part.split('"').next().unwrap();
        if name.contains('.') && !name.contains('/') {
            names.push(name.to_owned());
        }
    }
    assert!(names.len() >= 5, "{names:?}");
    // What scripts import, each from beside itself.
    for script in ["app.js", "files.js", "cluster.js", "users.js"] {
        let text = served.ask(&[&format!("GET /.stevedore/console/{script}")], b"");
        names.extend(text.text().split("from \"./").skip(1).map(|part| part.split('"').next().unwrap().to_owned()));
    }
    for name in &names {
        let request = format!("GET /.stevedore/console/{name}");
        let reply = served.ask(&[&request], b"");
        assert_eq!(reply.status, 200, "{name}");
        let policy = reply.header("content-security-policy").expect("a policy");
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        let tag = format!("If-None-Match: {}", reply.header("etag").expect("a tag"));
        let again = served.ask(&[&request, &tag], b"");
        assert_eq!((again.status, again.body.len()), (304, 0), "{name}");
        for word in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=\"", "onclick=\""]
        {
            assert!(!reply.text().contains(word), "{name} has {word}");
        }
    }
    assert!(!html.contains("<script>"), "no script in the page's text");
}

#[test]
fn files_and_folders_are_renamed_and_copied() {
    let served = Served::new();
    served.put("/a.txt", b"one");
    served.put("/folder/b.txt", b"two");
    for (call, body, status, code) in [
        ("rename", json!({"from": "/a.txt", "to": "/c.txt"}), 200, ""),
        ("rename", json!({"from": "/a.txt", "to": "/d.txt"}), 404, "not-found"),
        ("rename", json!({"from": "/c.txt", "to": "/folder/b.txt"}), 409, "already-exists"),
        ("rename", json!({"from": "/c.txt", "to": "/none/c.txt"}), 404, "not-found"),
        ("copy", json!({"from": "/folder", "to": "/other"}), 200, ""),
        ("copy", json!({"from": "/c.txt", "to": "/folder/b.txt", "replace": true}), 200, ""),
        ("rename", json!({"from": "/folder", "to": "/renamed"}), 200, ""),
        ("rename", json!({"from": "/c.txt", "to": "/.stevedore/users"}), 403, "reserved"),
        ("copy", json!({"from": "/.stevedore", "to": "/mine"}), 403, "reserved"),
        ("rename", json!({"from": "/c.txt", "to": "no path"}), 400, "invalid-path"),
        ("rename", json!({"from": "/c.txt", "to": "/../x"}), 400, "invalid-path"),
        ("rename", json!({"from": "/c.txt"}), 400, "invalid-call"),
        ("copy", json!({"from": "/c.txt", "to": "/x", "more": 1}), 400, "invalid-call"),
    ] {
        let request = format!("POST /.stevedore/api/{call}");
        let reply = served.ask(&[&request, MARK], body.to_string().as_bytes());
        assert_eq!(reply.status, status, "{call} {body}: {reply:?}");
        if status >= 400 {
            assert_eq!(reply.error(), code, "{call} {body}");
        }
    }
    assert_eq!(served.content("/c.txt").as_deref(), Some(&b"one"[..]));
    assert_eq!(served.content("/renamed/b.txt").as_deref(), Some(&b"one"[..]));
    assert_eq!(served.content("/other/b.txt").as_deref(), Some(&b"two"[..]));
    let large = vec![b' '; 65 << 10];
    assert_eq!(served.ask(&["POST /.stevedore/api/rename", MARK], &large).error(), "too-large");
}

#[test]
fn no_page_of_another_site_renames_or_copies() {
    let served = Served::new();
    served.put("/a", b"one");
    let body = json!({"from": "/a", "to": "/b"}).to_string();
    for call in ["rename", "copy"] {
        let request = format!("POST /.stevedore/api/{call}");
        // What a form can send: no header of its own.
        let reply = served.ask(&[&request, "Content-Type: text/plain"], body.as_bytes());
        assert_eq!((reply.status, reply.error().as_str()), (403, "unmarked"));
        // What a script could send if it were allowed to.
        let reply = served.ask(&[&request, MARK, "Origin: http://evil.example"], body.as_bytes());
        assert_eq!((reply.status, reply.error().as_str()), (403, "cross-site"));
        // It asks first, and is told nothing that allows it.
        let ask = format!("OPTIONS /.stevedore/api/{call}");
        let reply = served.ask(&[&ask, "Origin: http://evil.example", "Access-Control-Request-Method: POST"], b"");
        assert!(!reply.head.to_lowercase().contains("access-control-allow"), "{}", reply.head);
    }
    assert!(served.content("/a").is_some() && served.content("/b").is_none());
}

#[test]
fn what_is_below_a_folder_is_found_and_counted() {
    let served = Served::new();
    for path in ["/docs/notes.txt", "/docs/old/notes-2.txt", "/docs/old/x", "/notes.md"] {
        served.put(path, b"12345");
    }
    let found = json_of(&served, "GET /.stevedore/api/find?path=/docs&pattern=notes");
    let names: Vec<_> =
        found["entries"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["notes.txt", "old/notes-2.txt"]);
    assert_eq!(found["after"], Value::Null);
    assert_eq!(found["entries"][0]["size"], 5);
    let count = json_of(&served, "GET /.stevedore/api/count?path=/docs");
    assert_eq!(count, json!({"path": "/docs", "files": 3, "folders": 1, "bytes": 15, "is_whole": true}));
    for (request, status, code) in [
        ("GET /.stevedore/api/count?path=/none", 404, "not-found"),
        ("GET /.stevedore/api/count?path=/.stevedore", 403, "reserved"),
        ("GET /.stevedore/api/find?path=/.stevedore&pattern=x", 403, "reserved"),
        ("GET /.stevedore/api/copies?path=/.stevedore/x", 403, "reserved"),
        ("GET /.stevedore/api/find?path=//&pattern=x", 400, "invalid-path"),
        ("GET /.stevedore/api/find?path=%zz", 400, "invalid-path"),
        (&*format!("GET /.stevedore/api/find?path=/&pattern={}", "x".repeat(257)), 400, "invalid-call"),
    ] {
        let reply = served.ask(&[request], b"");
        assert_eq!((reply.status, reply.error().as_str()), (status, code), "{request}");
    }
    let copies = json_of(&served, "GET /.stevedore/api/copies?path=/docs/old/x");
    assert_eq!(copies["objects"][0]["bytes"], 5);
    assert_eq!(json_of(&served, "GET /.stevedore/api/status")["name"], "test");
}

#[test]
fn a_user_asks_and_changes_only_where_it_has_the_right() {
    let served = Served::new();
    for path in ["/home/alice/a", "/shared/s", "/top"] {
        served.put(path, b"content");
    }
    let users = Users::of(&*served.store);
    for (name, rights) in
        [("alice", &[("/home/alice", Right::Write), ("/shared", Right::Read)][..]), ("none", &[]), (ANONYMOUS, &[])]
    {
        let mut user = User::new(name).unwrap();
        if name != ANONYMOUS {
            user.set_password(name).unwrap();
        }
        user.rights = rights.iter().map(|(path, right)| (path.parse().unwrap(), *right)).collect();
        users.insert(&user).unwrap();
    }
    let login =
        |name: &str| format!("Authorization: Basic {}", Base64::encode_string(format!("{name}:{name}").as_bytes()));
    let alice = login("alice");
    for (call, from, to, status) in [
        ("rename", "/home/alice/a", "/home/alice/b", 200),
        ("copy", "/shared/s", "/home/alice/s", 200),
        ("rename", "/shared/s", "/home/alice/t", 403),
        ("copy", "/top", "/home/alice/top", 403),
        ("copy", "/home/alice/b", "/shared/b", 403),
        ("rename", "/home/alice/b", "/b", 403),
        ("rename", "/home", "/home/alice/home", 403),
    ] {
        let request = format!("POST /.stevedore/api/{call}");
        let body = json!({"from": from, "to": to}).to_string();
        assert_eq!(served.ask(&[&request, MARK, &alice], body.as_bytes()).status, status, "{call} {from} {to}");
        assert_eq!(served.ask(&[&request, MARK], body.as_bytes()).status, 401, "{call} {from} {to}");
    }
    for (request, status) in [
        ("GET /.stevedore/console/", 200),
        ("GET /.stevedore/api/me", 200),
        ("GET /.stevedore/api/count?path=/home/alice", 200),
        ("GET /.stevedore/api/find?path=/shared&pattern=s", 200),
        ("GET /.stevedore/api/count?path=/home", 403),
        ("GET /.stevedore/api/find?path=/&pattern=s", 403),
        ("GET /.stevedore/api/copies?path=/top", 403),
        ("GET /.stevedore/api/status", 403),
        ("GET /.stevedore/api/statistics", 403),
    ] {
        assert_eq!(served.ask(&[request, &alice], b"").status, status, "{request}");
    }
    assert_eq!(served.ask(&["GET /.stevedore/api/events"], b"").status, 401);
    assert_eq!(served.ask(&["GET /.stevedore/api/events", &login("none")], b"").status, 403);
    // It hears of what it may read, and of nothing else.
    let mut events = Events::listen(&served, &[&alice]);
    events.next("changes", |_| true);
    served.put("/top", b"other");
    served.put("/shared/t", b"x");
    let (_, changes) = events.next("changes", |_| true);
    assert_eq!(changes["count"], 1, "{changes}");
    assert_eq!(changes["changes"][0]["paths"], json!(["/shared/t"]));
}

#[test]
fn users_are_changed_by_admins_and_what_is_drawn_is_told_once() {
    let served = Served::new();
    let users = Users::of(&*served.store);
    for (name, right) in [("root", Right::Admin), ("writer", Right::Write)] {
        let mut user = User::new(name).unwrap();
        user.set_password(name).unwrap();
        user.rights.insert("/".parse().unwrap(), right);
        users.insert(&user).unwrap();
    }
    let login = |name: &str, password: &str| {
        format!("Authorization: Basic {}", Base64::encode_string(format!("{name}:{password}").as_bytes()))
    };
    let root = login("root", "root");
    let change = |login: &str, body: Value| {
        served.ask(&["POST /.stevedore/api/users", MARK, login], body.to_string().as_bytes())
    };
    let done = |body: Value| -> Value {
        let reply = change(&root, body.clone());
        assert_eq!(reply.status, 200, "{body}: {reply:?}");
        serde_json::from_slice(&reply.body).unwrap()
    };
    let add = json!({"do": "add", "name": "alice"});
    assert_eq!(change(&login("writer", "writer"), add.clone()).status, 403);
    assert_eq!(change("X: y", add.clone()).status, 401, "anonymous is no admin, not even on this machine");
    assert_eq!(served.ask(&["GET /.stevedore/api/users"], b"").status, 401);
    let unmarked = served.ask(&["POST /.stevedore/api/users", &root], add.to_string().as_bytes());
    assert_eq!((unmarked.status, unmarked.error().as_str()), (403, "unmarked"));
    let password = done(add.clone())["password"].as_str().unwrap().to_owned();
    let me = |password: &str| served.ask(&["GET /.stevedore/api/me", &login("alice", password)], b"").status;
    assert_eq!(me(&password), 200);
    done(json!({"do": "grant", "name": "alice", "path": "/home/alice", "right": "write"}));
    let key = done(json!({"do": "add-key", "name": "alice"}));
    assert!(key["secret"].as_str().unwrap().len() > 20, "{key}");
    let list = || -> Value {
        let reply = served.ask(&["GET /.stevedore/api/users", &root], b"");
        for secret in [&password, key["secret"].as_str().unwrap(), "argon2"] {
            assert!(!reply.text().contains(secret), "{}", reply.text());
        }
        serde_json::from_slice(&reply.body).unwrap()
    };
    let rights = json!([{"path": "/home/alice", "right": "write"}]);
    let alice = json!({"name": "alice", "has_password": true, "rights": rights, "keys": [key["key"]]});
    assert_eq!(list()["users"][0], alice);
    let newer = done(json!({"do": "password", "name": "alice"}))["password"].as_str().unwrap().to_owned();
    eventually("the old password is of no use", || me(&password) == 401);
    assert_eq!(me(&newer), 200);
    done(json!({"do": "grant", "name": "alice", "path": "/home/alice", "right": null}));
    done(json!({"do": "remove-key", "name": "alice", "key": key["key"]}));
    let alice = json!({"name": "alice", "has_password": true, "rights": [], "keys": []});
    assert_eq!(list()["users"][0], alice);
    for (body, status, code) in [
        (add, 409, "already-exists"),
        (json!({"do": "add", "name": "a/b"}), 400, "invalid-call"),
        (json!({"do": "remove", "name": "nobody"}), 404, "no-such-user"),
        (json!({"do": "password", "name": "nobody"}), 404, "no-such-user"),
        (json!({"do": "remove-key", "name": "alice", "key": "x"}), 404, "no-such-key"),
        (json!({"do": "add-key", "name": "anonymous"}), 400, "invalid-call"),
        (json!({"do": "grant", "name": "alice", "path": "/.stevedore", "right": "read"}), 403, "reserved"),
        (json!({"do": "grant", "name": "alice", "path": "/", "right": "all"}), 400, "invalid-call"),
        (json!({"do": "format"}), 400, "invalid-call"),
    ] {
        let reply = change(&root, body.clone());
        assert_eq!((reply.status, reply.error().as_str()), (status, code), "{body}");
    }
    done(json!({"do": "remove", "name": "alice"}));
    eventually("a user who is removed is none", || me(&newer) == 401);
}

/// What a page that is open is told. In which order it hears of different things is left open.
struct Events {
    client: Client,
    received: String,
    /// Names, ids and data of the events that were not asked for yet.
    unasked: VecDeque<(String, String, Value)>,
}

impl Events {
    fn listen(served: &Served, lines: &[&str]) -> Self {
        let mut client = served.dial();
        client.send(&[&["GET /.stevedore/api/events"], lines].concat(), b"");
        let head = client.head().expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        Self { client, received: String::new(), unasked: VecDeque::new() }
    }

    /// The next event of this name whose data are as they should be, with its id. Those of other names are kept.
    #[track_caller]
    fn next(&mut self, name: &str, is_it: impl Fn(&Value) -> bool) -> (String, Value) {
        loop {
            while let Some(index) = self.unasked.iter().position(|(named, ..)| named == name) {
                let (_, id, data) = self.unasked.remove(index).expect("it was found there");
                if is_it(&data) {
                    return (id, data);
                }
            }
            self.received.push_str(&self.client.chunk().unwrap_or_else(|| panic!("the stream ended before {name}")));
            while let Some((event, rest)) = self.received.split_once("\n\n") {
                let line = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| Some(line.split_once(&format!("{name}: "))?.1.to_owned()))
                        .unwrap_or_default()
                };
                // What has no data is a comment, or says how long to wait.
                if let Ok(data) = serde_json::from_str(&line("data")) {
                    self.unasked.push_back((line("event"), line("id"), data));
                }
                self.received = rest.to_owned();
            }
        }
    }
}

fn has(verb: &'static str, path: &'static str) -> impl Fn(&Value) -> bool {
    move |data| data["changes"].as_array().unwrap().iter().any(|it| it["verb"] == verb && it["paths"][0] == path)
}

#[test]
fn a_page_is_told_what_changes_and_goes_on_where_it_was() {
    let served = Served::new();
    served.put("/before", b"x");
    let mut events = Events::listen(&served, &[]);
    let (_, status) = events.next("status", |_| true);
    assert_eq!(status["name"], "test");
    events.next("changes", has("put", "/before"));
    served.put("/a\nb", b"x");
    let (id, _) = events.next("changes", has("put", "/a\nb"));
    events.next("status", |status| status["entries"] == 2);
    drop(events);
    // Cut off, it misses nothing, and hears nothing twice.
    served.store.remove(&"/before".parse().unwrap(), Condition::Any).unwrap();
    // Nor does it hear of what is the store's own.
    let own = "/.stevedore/locks/x".parse().unwrap();
    served.store.make_directory(&own, true, &Details::default(), None).unwrap();
    let mut events = Events::listen(&served, &[&format!("Last-Event-ID: {id}")]);
    let (_, changes) = events.next("changes", |_| true);
    assert_eq!((&changes["count"], &changes["changes"][0]["verb"]), (&json!(1), &json!("remove")));
    // What it has seen belongs to no history that the store knows: it is told that it has missed something.
    let mut events = Events::listen(&served, &["Last-Event-ID: 1.99999999"]);
    let _ = events.next("status", |_| true);
}

#[test]
fn viewers_are_limited_and_end_with_their_pages() {
    let served = Served::new();
    let mut viewers: Vec<_> = (0..32).map(|_| Events::listen(&served, &[])).collect();
    let refused = served.ask(&["GET /.stevedore/api/events"], b"");
    assert_eq!((refused.status, refused.error().as_str()), (503, "too-many-viewers"));
    assert!(refused.header("retry-after").is_some());
    viewers.pop();
    let mut turn = 0;
    eventually("a page that has gone makes room", || {
        // Something to be told, so that it is noticed at once.
        turn += 1;
        served.put(&format!("/{turn}"), b"x");
        let mut client = served.dial();
        client.send(&["GET /.stevedore/api/events"], b"");
        client.head().expect("an answer").starts_with("HTTP/1.1 200")
    });
}

#[test]
fn a_gateway_ends_although_pages_are_open() {
    let store: Arc<dyn Files> = Arc::new(Memory::new("test").unwrap());
    let served = Served::of(store, |_| ());
    let mut events = Events::listen(&served, &[]);
    events.next("status", |_| true);
    let Served { gateway, .. } = served;
    gateway.stop(SOON);
    let rest = events.client.end();
    assert!(String::from_utf8_lossy(&rest).ends_with("0\r\n\r\n"), "the stream is whole: {rest:?}");
}

#[test]
fn what_clients_ask_for_is_counted_and_what_the_console_asks_for_is_not() {
    let served = Served::new();
    let body = vec![b'x'; 100_000];
    assert_eq!(served.ask(&["PUT /a"], &body).status, 201);
    assert_eq!(served.ask(&["GET /a"], b"").body.len(), 100_000);
    assert_eq!(served.ask(&["GET /none"], b"").status, 404);
    let mut samples = Vec::new();
    eventually("the first period is over", || {
        let statistics = json_of(&served, "GET /.stevedore/api/statistics");
        assert_eq!(statistics["period_ms"], Duration::from_secs(5).as_millis() as u64);
        samples = statistics["samples"].as_array().unwrap().clone();
        !samples.is_empty()
    });
    let sum = |name: &str| samples.iter().map(|sample| sample[name].as_u64().unwrap()).sum::<u64>();
    let sums = ["requests", "errors", "received_bytes", "sent_bytes"].map(sum);
    assert_eq!(sums, [3, 0, 100_000, 100_000]);
    assert!(samples[0]["half_ms"].as_f64().is_some_and(|time| time > 0.0), "{samples:?}");
}
