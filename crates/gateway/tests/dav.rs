//! WebDAV: requests and their answers, as bytes on a socket.

mod common;

use std::sync::Arc;

use common::{Reply, Served};
use depot::client::Files;
use depot::client::memory::Memory;
use gateway::access::{Right, User, Users};

const LOCK: &[u8] = b"<?xml version='1.0'?><D:lockinfo xmlns:D='DAV:'><D:lockscope><D:exclusive/></D:lockscope>\
    <D:locktype><D:write/></D:locktype><D:owner>Alice &amp; Bob</D:owner></D:lockinfo>";

/// Requests, each with the status, and what the answer's head or body has.
type Table<'a> = &'a [(&'a [&'a str], &'a [u8], u16, &'a [&'a str])];

#[track_caller]
fn check(served: &Served, table: Table<'_>) {
    for (request, body, status, has) in table {
        let reply = served.ask(request, body);
        assert_eq!(reply.status, *status, "{request:?}: {reply:?}");
        let all = format!("{}{}", reply.head, String::from_utf8_lossy(&reply.body));
        has.iter().for_each(|text| assert!(all.contains(text), "{request:?}: {text} in {all}"));
    }
}

/// Asks for a lock that is granted; what its token looks like in `If` and `Lock-Token`.
#[track_caller]
fn lock(served: &Served, path: &str, lines: &[&str]) -> String {
    let request = format!("LOCK {path}");
    let reply = served.ask(&[&[&*request], lines].concat(), LOCK);
    assert!([200, 201].contains(&reply.status), "{path}: {reply:?}");
    reply.header("lock-token").expect("a token").to_owned()
}

fn propfind(served: &Served, path: &str, depth: &str, properties: &str) -> Reply {
    let body = format!("<propfind xmlns='DAV:' xmlns:x='urn:x'><prop>{properties}</prop></propfind>");
    served.ask(&[&format!("PROPFIND {path}"), &format!("Depth: {depth}")], body.as_bytes())
}

/// Writes properties; what was answered.
fn proppatch(served: &Served, path: &str, instructions: &str) -> Reply {
    let body = format!("<propertyupdate xmlns='DAV:' xmlns:x='urn:x'>{instructions}</propertyupdate>");
    served.ask(&[&format!("PROPPATCH {path}")], body.as_bytes())
}

#[test]
fn a_client_is_told_what_there_is() {
    let served = Served::new();
    let etag = served.put_as("/a/file <&>.txt", b"12345", "x/y");
    served.put("/a/sub/file", b"");
    let reply = served.ask(&["OPTIONS /a/"], b"");
    assert_eq!((reply.status, reply.header("dav"), reply.header("ms-author-via")), (204, Some("1, 2"), Some("DAV")));
    assert!(reply.header("allow").is_some_and(|allow| allow.contains("PROPFIND") && allow.contains("LOCK")));
    let reply = propfind(&served, "/a/", "1", "<getetag/><getcontentlength/><resourcetype/><x:none/>");
    assert_eq!((reply.status, reply.header("content-type")), (207, Some("application/xml; charset=utf-8")));
    let text = reply.text();
    for (has, times) in [
        ("<D:response>", 3),
        ("<D:href>/a/</D:href>", 1),
        ("<D:href>/a/file%20%3C%26%3E.txt</D:href>", 1),
        ("<D:href>/a/sub/</D:href>", 1),
        ("<D:collection/>", 2),
        ("<D:getcontentlength>5</D:getcontentlength>", 1),
        (&format!("<D:getetag>{}</D:getetag>", etag.replace('"', "&quot;")), 1),
        ("<none xmlns=\"urn:x\"/></D:prop><D:status>HTTP/1.1 404 Not Found</D:status>", 3),
    ] {
        assert_eq!(text.matches(has).count(), times, "{has} in {text}");
    }
    let all = served.ask(&["PROPFIND /a/file%20%3C%26%3E.txt", "Depth: 0"], b"");
    for has in ["<D:displayname>file &lt;&amp;&gt;.txt<", "<D:getcontenttype>x/y<", "<D:supportedlock><D:lockentry>"] {
        assert!(all.text().contains(has), "{has} in {}", all.text());
    }
    let names = served.ask(&["PROPFIND /a/", "Depth: 0"], b"<propfind xmlns='DAV:'><propname/></propfind>");
    assert!(names.text().contains("<D:displayname/>") && !names.text().contains("lockentry"));
    check(
        &served,
        &[
            (&["PROPFIND /none", "Depth: 0"], b"", 404, &["not-found"]),
            (&["PROPFIND /a/"], b"", 403, &["<D:propfind-finite-depth/>"]),
            (&["PROPFIND /a/", "Depth: infinity"], b"", 403, &["<D:propfind-finite-depth/>"]),
            (&["PROPFIND /a/", "Depth: 2"], b"", 400, &["invalid-request"]),
            (&["PROPFIND /a/", "Depth: 0"], b"<propfind xmlns='DAV:'/>", 400, &["invalid-request"]),
            (&["PROPFIND /a/", "Depth: 0"], b"<propfind xmlns='DAV:'>", 400, &["invalid-xml"]),
            (&["PROPFIND /a/", "Depth: 0"], b"<!DOCTYPE x><propfind xmlns='DAV:'/>", 400, &["document type"]),
            (&["PROPFIND /a/", "Depth: 0"], &[b'x'; 70_000], 413, &["too-large"]),
            (&["PROPFIND /.stevedore/locks/", "Depth: 1"], b"", 403, &["reserved"]),
        ],
    );
    assert!(!propfind(&served, "/", "1", "<resourcetype/>").text().contains("stevedore"));
}

#[test]
fn a_large_folder_is_listed_whole_and_bit_by_bit() {
    let served = Served::new();
    for number in 0..2_500 {
        served.put(&format!("/many/{number:04}"), b"");
    }
    let mut client = served.dial();
    client.send(&["PROPFIND /many/", "Depth: 1"], b"<propfind xmlns='DAV:'><prop><resourcetype/></prop></propfind>");
    let head = client.head().expect("an answer");
    assert!(head.contains("207") && head.to_lowercase().contains("transfer-encoding: chunked"), "{head}");
    let mut text = String::new();
    while let Some(chunk) = client.chunk() {
        text.push_str(&chunk);
    }
    assert_eq!(text.matches("<D:response>").count(), 2_501);
    assert!(text.contains("/many/0000<") && text.contains("/many/2499<") && text.ends_with("</D:multistatus>\n"));
}

#[test]
fn properties_are_kept_all_together_or_not_at_all() {
    let served = Served::new();
    served.put("/a", b"x");
    let reply = proppatch(
        &served,
        "/a",
        "<set><prop xml:lang='en'><x:one>1 <b xmlns='urn:y'>&amp;</b></x:one><x:two/></prop></set><remove><prop><x:two/></prop></remove>",
    );
    assert!(reply.status == 207 && reply.text().contains("HTTP/1.1 200 OK"), "{reply:?}");
    let whole = "<one xmlns=\"urn:x\" xml:lang=\"en\">1 <b xmlns=\"urn:y\">&amp;</b></one>";
    let found = |path: &str| propfind(&served, path, "0", "<x:one/><x:two/>").text().to_owned();
    assert!(
        found("/a").contains(whole) && found("/a").contains("<two xmlns=\"urn:x\"/></D:prop><D:status>HTTP/1.1 404")
    );
    // Win32 properties are as good as any: Explorer gives up otherwise.
    let windows = "<set><prop><Z:Win32FileAttributes xmlns:Z='urn:schemas-microsoft-com:'>20</Z:Win32FileAttributes></prop></set>";
    assert!(proppatch(&served, "/a", windows).text().contains("HTTP/1.1 200 OK"));
    // One that is computed spoils the rest.
    let reply = proppatch(&served, "/a", "<set><prop><x:three/><getetag>1</getetag></prop></set>");
    let text = reply.text();
    assert!(text.contains("<D:getetag/></D:prop><D:status>HTTP/1.1 403 Forbidden"), "{text}");
    assert!(text.contains("<D:cannot-modify-protected-property/>"), "{text}");
    assert!(text.contains("<three xmlns=\"urn:x\"/></D:prop><D:status>HTTP/1.1 424 Failed Dependency"), "{text}");
    assert!(propfind(&served, "/a", "0", "<x:three/>").text().contains("404"));
    let large = format!("<set><prop><x:four>{}</x:four><x:five/></prop></set>", "x".repeat(20_000));
    assert!(proppatch(&served, "/a", &large).text().contains("HTTP/1.1 507 Insufficient Storage"));
    assert!(propfind(&served, "/a", "0", "<x:five/>").text().contains("404"));
    // They stay with the file when its content is replaced, and go with it where it goes.
    assert_eq!(served.ask(&["PUT /a"], b"new").status, 200);
    assert!(found("/a").contains(whole));
    assert_eq!(served.ask(&["COPY /a", "Destination: /b"], b"").status, 201);
    assert_eq!(served.ask(&["MOVE /a", "Destination: /c"], b"").status, 201);
    assert!(found("/b").contains(whole) && found("/c").contains(whole));
    // A folder has them, too, and so has the root.
    for path in ["/", "/f/"] {
        if path != "/" {
            assert_eq!(served.ask(&[&format!("MKCOL {path}")], b"").status, 201);
        }
        assert!(
            proppatch(&served, path, "<set><prop><displayname>Name</displayname></prop></set>").text().contains("200")
        );
        assert!(propfind(&served, path, "0", "<displayname/>").text().contains("<displayname xmlns=\"DAV:\">Name<"));
    }
}

#[test]
fn things_are_moved_and_copied_on_this_server_only() {
    let served = Served::new();
    served.put("/a/file", b"x");
    served.put("/a/sub/file", b"y");
    served.put("/b", b"z");
    let here = format!("Destination: {}", served.url("/here"));
    let host = format!("Host: {}", served.gateway.address());
    check(
        &served,
        &[
            (&["COPY /a/file"], b"", 400, &["Destination"]),
            (&["COPY /a/file", "Destination: http://elsewhere/x"], b"", 502, &["other-server"]),
            (&["COPY /a/file", "Destination: http://localhost:1/x"], b"", 502, &["other-server"]),
            (&["COPY /a/file", "Destination: /.stevedore/x"], b"", 403, &["reserved"]),
            (&["COPY /a/file", "Destination: /a/../x"], b"", 400, &["invalid-path"]),
            (&["COPY /a/file", "Destination: /none/x"], b"", 409, &["no-parent"]),
            (&["COPY /none", "Destination: /x"], b"", 404, &["not-found"]),
            (&["COPY /a/file", "Destination: /a/file"], b"", 403, &["within-itself"]),
            (&["MOVE /a/", "Destination: /a/sub/x"], b"", 403, &["within-itself"]),
            (&["MOVE /a/sub/", "Destination: /a/"], b"", 403, &["within-itself"]),
            (&["MOVE /a/", "Destination: /x", "Depth: 0"], b"", 400, &["Depth"]),
            (&["COPY /a/", "Destination: /x", "Depth: 1"], b"", 400, &["Depth"]),
            (&["COPY /a/file", "Destination: /b", "Overwrite: F"], b"", 412, &["already-exists"]),
            (&["COPY /a/", "Destination: /b", "Overwrite: F", "Depth: 0"], b"", 412, &["already-exists"]),
            (&["COPY /a/file", "Destination: /b", "Overwrite: x"], b"", 400, &["Overwrite"]),
            (&["COPY /a/file", "Destination: /b", "If-Match: \"x\""], b"", 412, &["condition-failed"]),
            (&["COPY /a/file", "Destination: /b"], b"", 204, &[]),
            (&["COPY /a/file", &here, &host], b"", 201, &[]),
            (&["COPY /a/file", "Destination: HTTP://LOCALHOST:80/there"], b"", 201, &[]),
            (&["COPY /a/", "Destination: /shallow/", "Depth: 0"], b"", 201, &[]),
            (&["COPY /a/", "Destination: /deep"], b"", 201, &[]),
            (&["MOVE /a/", "Destination: /deep/sub/"], b"", 204, &[]),
            (&["MKCOL /deep/sub/"], b"", 405, &["already-exists"]),
            (&["MKCOL /none/x/"], b"", 409, &["no-parent"]),
            (&["MKCOL /x/"], b"<mkcol/>", 415, &["no-body-expected"]),
            (&["GET /a/"], b"", 404, &[]),
        ],
    );
    for (path, content) in
        [("/b", "x"), ("/here", "x"), ("/there", "x"), ("/deep/file", "x"), ("/deep/sub/sub/file", "y")]
    {
        assert_eq!(served.content(path).as_deref(), Some(content.as_bytes()), "{path}");
    }
    assert_eq!(served.content("/shallow/file"), None);
    assert!(served.store.stat(&"/shallow".parse().unwrap()).is_ok());
}

#[test]
fn what_is_locked_is_changed_with_its_token_only() {
    let served = Served::new();
    served.put("/a", b"x");
    served.put("/folder/x", b"x");
    let token = lock(&served, "/a", &["Depth: 0", "Timeout: Infinite, Second-60"]);
    let given = format!("If: ({token})");
    check(
        &served,
        &[
            (&["PUT /a"], b"y", 423, &["\"error\":\"locked\"", "anonymous has locked it"]),
            (&["PUT /a", "If: (<urn:uuid:other>)"], b"y", 412, &["condition-failed"]),
            (&["PUT /a", "If: (Not <urn:uuid:other>)"], b"y", 423, &[]),
            (&["POST /a"], b"y", 423, &[]),
            (&["DELETE /a"], b"", 423, &[]),
            (&["MOVE /a", "Destination: /b"], b"", 423, &["<D:lock-token-submitted><D:href>/a</D:href>"]),
            (&["COPY /folder/x", "Destination: /a"], b"", 423, &[]),
            (
                &["PROPPATCH /a"],
                b"<propertyupdate xmlns='DAV:'><set><prop><x/></prop></set></propertyupdate>",
                423,
                &[],
            ),
            (&["LOCK /a"], LOCK, 423, &["<D:no-conflicting-lock><D:href>/a</D:href>"]),
            (&["LOCK /", "Depth: infinity"], LOCK, 423, &["no-conflicting-lock"]),
            (&["LOCK /a", "Depth: 1"], LOCK, 400, &[]),
            (&["LOCK /a"], b"<lockinfo xmlns='DAV:'/>", 400, &["lockscope"]),
            (&["GET /a"], b"", 200, &[]),
            (&["COPY /a", "Destination: /copy"], b"", 201, &[]),
            (&["PUT /copy"], b"y", 200, &[]),
            (&["PUT /a", &given], b"y", 200, &[]),
            (&["PUT /copy", &format!("If: </a> ({token})")], b"y", 200, &[]),
            (&["LOCK /a"], b"", 412, &["lock-token-matches-request-uri"]),
            (&["LOCK /a", &given, "Timeout: Second-100"], b"", 200, &["<D:timeout>Second-100<", "Alice &amp; Bob"]),
            (&["UNLOCK /a"], b"", 400, &["Lock-Token"]),
            (&["UNLOCK /a", "Lock-Token: <urn:uuid:x>"], b"", 409, &["lock-token-matches-request-uri"]),
            (&["UNLOCK /copy", &format!("Lock-Token: {token}")], b"", 409, &[]),
            (&["UNLOCK /a", &format!("Lock-Token: {token}")], b"", 204, &[]),
            (&["PUT /a"], b"y", 200, &[]),
            (&["UNLOCK /a", &format!("Lock-Token: {token}")], b"", 409, &[]),
        ],
    );
    let deep = lock(&served, "/folder/", &[]);
    let discovered = propfind(&served, "/folder/x", "0", "<lockdiscovery/>");
    assert!(
        discovered.text().contains("<D:depth>infinity</D:depth>") && discovered.text().contains("<D:href>/folder<")
    );
    let with_deep = format!("If: </folder/> ({deep})");
    check(
        &served,
        &[
            (&["PUT /folder/new"], b"y", 423, &[]),
            (&["PUT /folder/sub/new?parents"], b"y", 423, &[]),
            (&["PUT /folder/sub/new?parents", &with_deep], b"y", 201, &[]),
            (&["MOVE /a", "Destination: /folder/a", &with_deep], b"", 201, &[]),
            (&["DELETE /folder/", &with_deep], b"", 204, &[]),
            (&["PUT /folder"], b"its lock went with it", 201, &[]),
        ],
    );
}

#[test]
fn a_lock_of_what_is_not_there_makes_an_empty_file() {
    let served = Served::new();
    let reply = served.ask(&["LOCK /new", "Depth: 0"], LOCK);
    assert_eq!(reply.status, 201);
    assert_eq!(served.content("/new").as_deref(), Some(&b""[..]));
    check(
        &served,
        &[
            (&["PUT /new"], b"x", 423, &[]),
            (&["PUT /new", &format!("If: ({})", reply.header("lock-token").unwrap())], b"x", 200, &[]),
            (&["LOCK /none/new"], LOCK, 409, &["no-parent"]),
            (&["MKCOL /none/"], b"", 201, &[]),
        ],
    );
}

#[test]
fn two_gateways_of_a_store_go_by_the_same_locks() {
    let store: Arc<dyn Files> = Arc::new(Memory::new("test").unwrap());
    let one = Served::of(Arc::clone(&store), |_| ());
    let other = Served::of(store, |_| ());
    one.put("/a", b"x");
    assert_eq!(other.ask(&["PUT /a"], b"y").status, 200, "the other one has seen that there are no locks");
    let token = lock(&one, "/a", &[]);
    let given = format!("If: ({token})");
    assert_eq!(other.ask(&["PUT /a"], b"y").status, 423);
    assert_eq!(other.ask(&["LOCK /a"], LOCK).status, 423);
    assert_eq!(other.ask(&["PUT /a", &given], b"y").status, 200, "it honours the token");
    assert_eq!(other.ask(&["UNLOCK /a", &format!("Lock-Token: {token}")], b"").status, 204);
    assert_eq!(one.ask(&["PUT /a"], b"y").status, 200);
}

#[test]
fn an_upload_ends_in_423_if_a_lock_came_first() {
    let served = Served::new();
    served.put("/a", b"old");
    let mut client = served.dial();
    client.send(&["PUT /a", "Expect: 100-continue", "Content-Length: 5"], b"");
    assert_eq!(client.reply(false).status, 100, "nothing is locked yet");
    lock(&served, "/a", &[]);
    client.write(b"later");
    assert_eq!(client.reply(false).status, 423);
    assert_eq!(served.content("/a").as_deref(), Some(&b"old"[..]));
}

#[test]
fn an_etag_in_if_is_what_the_store_insists_on() {
    let served = Served::new();
    let etag = served.put("/a", b"old");
    let condition = format!("If: ([{etag}])");
    let mut client = served.dial();
    client.send(&["PUT /a", &condition, "Expect: 100-continue", "Content-Length: 5"], b"");
    assert_eq!(client.reply(false).status, 100);
    served.put("/a", b"quick");
    client.write(b"later");
    let reply = client.reply(false);
    assert_eq!((reply.status, &*reply.error()), (412, "condition-failed"));
    assert_eq!(served.ask(&["PUT /a", &condition], b"x").status, 412);
    assert_eq!(served.content("/a").as_deref(), Some(&b"quick"[..]));
}

#[test]
fn the_console_and_plain_http_honour_locks() {
    let served = Served::new();
    served.put("/a", b"x");
    served.put("/b", b"x");
    lock(&served, "/a", &[]);
    for (call, body) in [
        ("rename", r#"{"from": "/a", "to": "/c"}"#),
        ("rename", r#"{"from": "/b", "to": "/a", "replace": true}"#),
        ("copy", r#"{"from": "/b", "to": "/a", "replace": true}"#),
    ] {
        let request = format!("POST /.stevedore/api/{call}");
        let reply = served.ask(&[&request, "Stevedore-Console: 1"], body.as_bytes());
        assert_eq!(reply.status, 423, "{call} {body}");
    }
    assert_eq!(
        served.ask(&["POST /.stevedore/api/copy", "Stevedore-Console: 1"], br#"{"from": "/a", "to": "/c"}"#).status,
        200
    );
}

#[test]
fn rights_count_for_each_path_of_a_request() {
    let store: Arc<dyn Files> = Arc::new(Memory::new("test").unwrap());
    for name in ["alice", "bob"] {
        let mut user = User::new(name).unwrap();
        user.set_password("x").unwrap();
        user.rights.insert("/read".parse().unwrap(), Right::Read);
        user.rights.insert("/write".parse().unwrap(), Right::Write);
        Users::of(&*store).insert(&user).unwrap();
    }
    let mut root = User::new("root").unwrap();
    root.set_password("x").unwrap();
    root.rights.insert("/".parse().unwrap(), Right::Admin);
    Users::of(&*store).insert(&root).unwrap();
    let served = Served::of(store, |_| ());
    for path in ["/read/a", "/write/a", "/none/a"] {
        served.put(path, b"x");
    }
    let alice = "Authorization: Basic YWxpY2U6eA==";
    let bob = "Authorization: Basic Ym9iOng=";
    let patch: &[u8] = b"<propertyupdate xmlns='DAV:'><set><prop><x/></prop></set></propertyupdate>";
    check(
        &served,
        &[
            (&["PROPFIND /read/", "Depth: 1", alice], b"", 207, &[]),
            (&["PROPFIND /none/", "Depth: 1", alice], b"", 403, &["not-permitted"]),
            (&["PROPFIND /", "Depth: 1", alice], b"", 403, &[]),
            (&["PROPPATCH /read/a", alice], patch, 403, &[]),
            (&["PROPPATCH /write/a", alice], patch, 207, &[]),
            (&["MKCOL /read/x", alice], b"", 403, &[]),
            (&["COPY /read/a", "Destination: /write/b", alice], b"", 201, &[]),
            (&["COPY /none/a", "Destination: /write/c", alice], b"", 403, &[]),
            (&["COPY /write/a", "Destination: /read/b", alice], b"", 403, &[]),
            (&["MOVE /read/a", "Destination: /write/c", alice], b"", 403, &[]),
            (&["MOVE /write/a", "Destination: /none/c", alice], b"", 403, &[]),
            (&["LOCK /read/a", alice], LOCK, 403, &[]),
            (&["UNLOCK /read/a", "Lock-Token: <x>", alice], b"", 403, &[]),
        ],
    );
    // A token is seen by all who may read, and is of use to its own user only.
    let token = lock(&served, "/write/a", &[alice]);
    let (given, named) = (format!("If: ({token})"), format!("Lock-Token: {token}"));
    check(
        &served,
        &[
            (&["PROPFIND /write/a", "Depth: 0", bob], b"", 207, &[token.trim_matches(['<', '>'])]),
            (&["PUT /write/a", &given, bob], b"y", 423, &["alice has locked it"]),
            (&["LOCK /write/a", &given, bob], b"", 412, &[]),
            (&["UNLOCK /write/a", &named, bob], b"", 403, &[]),
            (&["PUT /write/a", &given, alice], b"y", 200, &[]),
            (&["UNLOCK /write/a", &named, "Authorization: Basic cm9vdDp4"], b"", 204, &[]),
            (&["PUT /write/a", bob], b"y", 200, &[]),
        ],
    );
}

#[test]
fn a_file_manager_gets_what_it_asks_for_in_its_own_way() {
    let served = Served::new();
    served.put("/folder/a", b"x");
    check(
        &served,
        &[
            // Finder puts an empty file, locks it, and sends the content in chunks with its length beside it.
            (&["PUT /._x", "Content-Length: 0"], b"", 201, &[]),
            (
                &["PUT /x", "X-Expected-Entity-Length: 5", "Transfer-Encoding: chunked"],
                b"5\r\nhello\r\n0\r\n\r\n",
                201,
                &[],
            ),
            // Explorer asks for nothing in particular, and removes a folder without the slash.
            (&["PROPFIND /folder", "Depth: 1", "translate: f", "Content-Length: 0"], b"", 207, &["/folder/a<"]),
            (&["DELETE /folder", "translate: f"], b"", 204, &[]),
            // gvfs moves with a URL of its own kind, and asks whether it replaces.
            (&["MOVE /x", "Destination: http://localhost/y", "Overwrite: F"], b"", 201, &[]),
        ],
    );
    assert_eq!(served.content("/y").as_deref(), Some(&b"hello"[..]));
}
