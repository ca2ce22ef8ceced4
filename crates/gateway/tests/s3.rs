//! Requests over S3 and their answers, as bytes on a socket; signed by code of the tests' own.

mod common;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64, Encoding};
use common::{Client, Reply, Served};
use depot::time::Time;
use gateway::access::{ANONYMOUS, Right, User, Users};
use hmac::{Hmac, KeyInit, Mac};
use kit::{bytes, eventually};
use md5::Md5;
use sha2::{Digest, Sha256};

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// A user's key, and how it signs.
struct Signer {
    key: String,
    secret: String,
}

impl Signer {
    /// Adds a user with these rights, and a key.
    fn new(served: &Served, name: &str, rights: &[(&str, Right)]) -> Self {
        let mut user = User::new(name).unwrap();
        user.rights = rights.iter().map(|(path, right)| (path.parse().unwrap(), *right)).collect();
        let (key, secret) = user.add_key().unwrap();
        Users::of(&*served.store).insert(&user).unwrap();
        let signer = Self { key, secret: secret.as_str().to_owned() };
        eventually("the key is known", || signer.ask(served, &["GET /"], b"").status == 200);
        signer
    }

    /// The lines of a request, signed now. `lines` are its first line, and fields of its head.
    fn sign(&self, lines: &[&str], payload: &str) -> Vec<String> {
        self.sign_at(lines, payload, now())
    }

    fn sign_at(&self, lines: &[&str], payload: &str, seconds: u64) -> Vec<String> {
        let time = Time(seconds * 1000).to_string().replace(['-', ':'], "");
        let mut all: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        all.extend([
            "Host: localhost".to_owned(),
            format!("x-amz-date: {time}"),
            format!("x-amz-content-sha256: {payload}"),
        ]);
        let mut fields: Vec<(String, &str)> = all[1..]
            .iter()
            .map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value)).unwrap())
            .collect();
        fields.sort();
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        let canonical: String = fields.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let (method, uri) = lines[0].split_once(' ').unwrap();
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        // The tests write paths and queries as they are to be signed, but for the order.
        let mut words: Vec<String> = query
            .split('&')
            .filter(|word| !word.is_empty())
            .map(|word| if word.contains('=') { word.to_owned() } else { format!("{word}=") })
            .collect();
        words.sort();
        let request = format!("{method}\n{path}\n{}\n{canonical}\n{}\n{payload}", words.join("&"), names.join(";"));
        let scope = format!("{}/us-east-1/s3/aws4_request", &time[..8]);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request)));
        let signature = hex(&hmac(&self.signing_key(&scope), &text));
        all.push(format!(
            "Authorization: AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
            self.key,
            names.join(";")
        ));
        all
    }

    fn signing_key(&self, scope: &str) -> Vec<u8> {
        scope.split('/').fold(format!("AWS4{}", self.secret).into_bytes(), |key, word| hmac(&key, word))
    }

    /// Sends a request of which all but the content is signed.
    #[track_caller]
    fn ask(&self, served: &Served, lines: &[&str], body: &[u8]) -> Reply {
        let signed = self.sign(lines, UNSIGNED);
        ask_plain(served, &signed.iter().map(String::as_str).collect::<Vec<_>>(), body)
    }

    /// The URL's path and query of a request that is as good as signed for so long.
    fn presign(&self, method: &str, path: &str, begin: u64, seconds: u64) -> String {
        let time = Time(begin * 1000).to_string().replace(['-', ':'], "");
        let scope = format!("{}/us-east-1/s3/aws4_request", &time[..8]);
        let credential = format!("{}/{scope}", self.key).replace('/', "%2F");
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={time}&X-Amz-Expires={seconds}&X-Amz-SignedHeaders=host"
        );
        let request = format!("{method}\n{path}\n{query}\nhost:localhost\n\nhost\n{UNSIGNED}");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request)));
        format!("{path}?{query}&X-Amz-Signature={}", hex(&hmac(&self.signing_key(&scope), &text)))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn md5(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

fn dial(served: &Served) -> Client {
    Client::of(TcpStream::connect(served.gateway.s3_address().unwrap()).unwrap())
}

#[track_caller]
fn ask_plain(served: &Served, lines: &[&str], body: &[u8]) -> Reply {
    let mut client = dial(served);
    client.send(lines, body);
    client.reply(lines[0].starts_with("HEAD"))
}

/// The text of the first element of this name.
fn element<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    all_elements(reply, name).into_iter().next()
}

fn all_elements<'a>(reply: &'a Reply, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let parts = reply.text().split(open.as_str()).skip(1);
    parts.filter_map(|part| part.split_once(close.as_str()).map(|(text, _)| text)).collect()
}

/// A store with a bucket, and a user who may do everything.
fn served() -> (Served, Signer) {
    let served = Served::new();
    let root = Signer::new(&served, "root", &[("/", Right::Admin)]);
    assert_eq!(root.ask(&served, &["PUT /b"], b"").status, 200);
    (served, root)
}

/// Requests, each with the status, the code of the error if it is one, and lines that the head of the answer has.
type Table<'a> = &'a [(&'a [&'a str], &'a [u8], u16, &'a str, &'a [&'a str])];

#[track_caller]
fn check(served: &Served, signer: &Signer, table: Table<'_>) {
    for (request, body, status, code, lines) in table {
        let reply = signer.ask(served, request, body);
        assert_eq!(reply.status, *status, "{request:?}: {reply:?} {}", String::from_utf8_lossy(&reply.body));
        let is_error = *status >= 400 && !request[0].starts_with("HEAD");
        assert_eq!(if is_error { element(&reply, "Code").unwrap() } else { "" }, *code, "{request:?}");
        assert!(reply.header("x-amz-request-id").is_some());
        for line in *lines {
            assert!(reply.head.to_lowercase().contains(&line.to_lowercase()), "{request:?}: {line} in {}", reply.head);
        }
    }
}

#[test]
fn an_object_is_put_read_replaced_and_removed() {
    let (served, root) = served();
    let one = format!("etag: \"{}\"", md5(b"one"));
    check(
        &served,
        &root,
        &[
            (&["GET /b/a.txt"], b"", 404, "NoSuchKey", &["content-type: application/xml"]),
            (&["PUT /b/a.txt"], b"one", 200, "", &[&one]),
            (
                &["GET /b/a.txt"],
                b"",
                200,
                "",
                &["content-length: 3", &one, "content-type: text/plain", "last-modified: "],
            ),
            (&["HEAD /b/a.txt"], b"", 200, "", &["content-length: 3", &one, "accept-ranges: bytes"]),
            (&["GET /b/a.txt", "Range: bytes=1-"], b"", 206, "", &["content-range: bytes 1-2/3", "content-length: 2"]),
            (
                &["HEAD /b/a.txt", "Range: bytes=1-1"],
                b"",
                206,
                "",
                &["content-range: bytes 1-1/3", "content-length: 1"],
            ),
            (&["GET /b/a.txt", "Range: bytes=3-"], b"", 416, "InvalidRange", &["content-range: bytes */3"]),
            (&["PUT /b/x/y/z", "Content-Type: x/y", "Cache-Control: no-store"], b"", 200, "", &[]),
            (&["GET /b/x/y/z"], b"", 200, "", &["content-length: 0", "content-type: x/y", "cache-control: no-store"]),
            (&["PUT /b/m", "x-amz-meta-mtime: 17", "x-amz-meta-a: b c"], b"", 200, "", &[]),
            (&["HEAD /b/m"], b"", 200, "", &["x-amz-meta-mtime: 17"]),
            (&["PUT /b/m"], b"", 200, "", &[]),
            (&["GET /b/x/y"], b"", 404, "NoSuchKey", &[]),
            (&["GET /none/a"], b"", 404, "NoSuchBucket", &[]),
            (&["PUT /none/a"], b"x", 404, "NoSuchBucket", &[]),
            (&["HEAD /b/none"], b"", 404, "", &[]),
            (&["DELETE /b/a.txt"], b"", 204, "", &[]),
            (&["DELETE /b/a.txt"], b"", 204, "", &[]),
            (&["DELETE /none/a.txt"], b"", 404, "NoSuchBucket", &[]),
            (&["GET /b/a.txt"], b"", 404, "NoSuchKey", &[]),
            (&["GET /b/x/y/z?versionId=null"], b"", 200, "", &[]),
            (&["GET /b/x/y/z?versionId=1"], b"", 404, "NoSuchVersion", &[]),
            (&["GET /b/x/y/z?partNumber=1"], b"", 501, "NotImplemented", &[]),
        ],
    );
    let reply = root.ask(&served, &["GET /none/a"], b"");
    assert!(reply.text().contains("<Error><Code>"), "an error is in no namespace: {}", reply.text());
    let reply = root.ask(&served, &["HEAD /b/m"], b"");
    assert!(reply.header("x-amz-meta-mtime").is_none(), "a put replaces all: {}", reply.head);
    assert_eq!(served.content("/b/x/y/z").as_deref(), Some(&b""[..]));
    assert_eq!(served.content("/b/a.txt"), None);
}

#[test]
fn buckets_are_top_level_folders() {
    let (served, root) = served();
    served.put("/other/file", b"x");
    served.put("/notes.txt", b"x");
    check(
        &served,
        &root,
        &[
            (&["PUT /b"], b"", 409, "BucketAlreadyOwnedByYou", &[]),
            (&["PUT /other"], b"", 200, "", &["location: /other"]),
            (&["PUT /notes.txt"], b"", 409, "BucketAlreadyExists", &[]),
            (&["HEAD /b"], b"", 200, "", &[]),
            (&["HEAD /none"], b"", 404, "", &[]),
            (&["HEAD /notes.txt"], b"", 404, "", &[]),
            (&["GET /b?location"], b"", 200, "", &[]),
            (&["GET /none?location"], b"", 404, "NoSuchBucket", &[]),
            (&["GET /b?versioning"], b"", 200, "", &[]),
            (&["GET /b?acl"], b"", 200, "", &[]),
            (&["GET /b?policy"], b"", 404, "NoSuchBucketPolicy", &[]),
            (&["GET /b?lifecycle"], b"", 404, "NoSuchLifecycleConfiguration", &[]),
            (&["DELETE /other"], b"", 409, "BucketNotEmpty", &[]),
            (&["DELETE /none"], b"", 404, "NoSuchBucket", &[]),
            (&["PUT /.stevedore"], b"", 403, "AccessDenied", &[]),
            (&["DELETE //"], b"", 400, "InvalidBucketName", &[]),
        ],
    );
    let list = root.ask(&served, &["GET /"], b"");
    assert_eq!(all_elements(&list, "Name"), ["b", "other"]);
    assert_eq!(root.ask(&served, &["DELETE /b"], b"").status, 204);
    assert_eq!(all_elements(&root.ask(&served, &["GET /"], b""), "Name"), ["other"]);
}

#[test]
fn keys_that_cannot_be_paths_are_refused_clearly() {
    let (served, root) = served();
    check(
        &served,
        &root,
        &[
            (&["PUT /b/a"], b"x", 200, "", &[]),
            (&["PUT /b/a/b"], b"x", 409, "ParentIsAnObject", &[]),
            (&["PUT /b/a/"], b"", 409, "ParentIsAnObject", &[]),
            (&["PUT /b/d/e"], b"x", 200, "", &[]),
            (&["PUT /b/d"], b"x", 409, "KeyIsAFolder", &[]),
            (&["PUT /b//c"], b"x", 400, "InvalidObjectName", &[]),
            (&["PUT /b/../c"], b"x", 400, "InvalidObjectName", &[]),
            (&["PUT /b/c/%2e%2e/c"], b"x", 400, "InvalidObjectName", &[]),
        ],
    );
    assert_eq!(root.ask(&served, &["GET /b/a/b"], b"").status, 404);
}

#[test]
fn a_key_that_ends_in_a_slash_is_a_folder() {
    let (served, root) = served();
    check(
        &served,
        &root,
        &[
            (&["HEAD /b/f/"], b"", 404, "", &[]),
            (&["PUT /b/f/", "x-amz-meta-a: 1"], b"", 200, "", &["etag: \"d41d8cd98f00b204e9800998ecf8427e\""]),
            (
                &["HEAD /b/f/"],
                b"",
                200,
                "",
                &["content-length: 0", "x-amz-meta-a: 1", "content-type: application/x-directory"],
            ),
            (&["GET /b/f/"], b"", 200, "", &["content-length: 0"]),
            (&["PUT /b/f/", "x-amz-meta-b: 2"], b"", 200, "", &[]),
            (&["PUT /b/f/"], b"content", 400, "InvalidArgument", &[]),
            (&["GET /b/f"], b"", 404, "NoSuchKey", &[]),
            (&["PUT /b/f/file"], b"x", 200, "", &[]),
            (&["DELETE /b/f/"], b"", 204, "", &[]),
            (&["HEAD /b/f/"], b"", 404, "", &[]),
            (&["HEAD /b/f/file"], b"", 200, "", &[]),
            (&["DELETE /b/f/file"], b"", 204, "", &[]),
        ],
    );
    assert!(served.store.stat(&"/b/f".parse().unwrap()).is_err(), "the folder goes with its last object");
}

#[test]
fn a_file_put_another_way_has_an_etag_with_a_dash() {
    let (served, root) = served();
    served.put_as("/b/file", b"content", "x/y");
    let reply = root.ask(&served, &["HEAD /b/file"], b"");
    let etag = reply.header("etag").unwrap().to_owned();
    assert!(etag.contains('-') && etag.starts_with('"'), "{etag}");
    assert_eq!(reply.header("content-type"), Some("x/y"));
    served.put("/b/file", b"content");
    assert_ne!(root.ask(&served, &["HEAD /b/file"], b"").header("etag"), Some(etag.as_str()), "it is another version");
}

#[test]
fn an_encoding_is_said_only_of_content_that_came_with_it() {
    let (served, root) = served();
    let encoding = "Content-Encoding: aws-chunked,gzip";
    root.ask(&served, &["PUT /b/a", encoding, "Cache-Control: no-store"], b"packed");
    let fields = || {
        let reply = root.ask(&served, &["HEAD /b/a"], b"");
        ["content-encoding", "cache-control"].map(|name| reply.header(name).map(str::to_owned))
    };
    assert_eq!(fields(), [Some("gzip".into()), Some("no-store".into())]);
    assert_eq!(served.ask(&["PUT /b/a"], b"plain").status, 200);
    assert_eq!(fields(), [None, Some("no-store".into())], "HTTP keeps what is not of the content");
}

#[test]
fn what_a_webdav_client_has_locked_is_not_changed() {
    let (served, root) = served();
    root.ask(&served, &["PUT /b/a"], b"one");
    let lock = b"<lockinfo xmlns='DAV:'><lockscope><exclusive/></lockscope><locktype><write/></locktype></lockinfo>";
    assert_eq!(served.ask(&["LOCK /b/a"], lock).status, 200);
    let document = b"<Delete><Object><Key>a</Key></Object></Delete>";
    let copy = ["PUT /b/a", "x-amz-copy-source: /b/a", "x-amz-metadata-directive: REPLACE"];
    check(
        &served,
        &root,
        &[
            (&["PUT /b/a"], b"two", 409, "ObjectLocked", &[]),
            (&["DELETE /b/a"], b"", 409, "ObjectLocked", &[]),
            (&copy, b"", 409, "ObjectLocked", &[]),
            (&["DELETE /b/a?tagging"], b"", 409, "ObjectLocked", &[]),
            (&["GET /b/a"], b"", 200, "", &[]),
            (&["PUT /b/other"], b"two", 200, "", &[]),
        ],
    );
    assert_eq!(all_elements(&root.ask(&served, &["POST /b?delete"], document), "Code"), ["ObjectLocked"]);
    assert_eq!(served.content("/b/a").as_deref(), Some(&b"one"[..]));
}

#[test]
fn content_that_is_not_what_was_announced_is_not_kept() {
    let (served, root) = served();
    let wrong = hex(&Sha256::digest(b"other"));
    let signed = root.sign(&["PUT /b/a"], &wrong);
    let reply = ask_plain(&served, &signed.iter().map(String::as_str).collect::<Vec<_>>(), b"content");
    assert_eq!(element(&reply, "Code"), Some("XAmzContentSHA256Mismatch"));
    check(
        &served,
        &root,
        &[
            (&["PUT /b/a", "Content-MD5: XUFAKrxLKna5cZ2REBfFkg=="], b"content", 400, "BadDigest", &[]),
            (&["PUT /b/a", "x-amz-checksum-crc32: NhCmhg=="], b"content", 400, "BadDigest", &[]),
        ],
    );
    assert_eq!(served.content("/b/a"), None);
    check(
        &served,
        &root,
        &[
            (&["PUT /b/a", "x-amz-checksum-crc32: NhCmhg=="], b"hello", 200, "", &["x-amz-checksum-crc32: NhCmhg=="]),
            (
                &["GET /b/a", "x-amz-checksum-mode: ENABLED"],
                b"",
                200,
                "",
                &["x-amz-checksum-crc32: NhCmhg==", "x-amz-checksum-type: FULL_OBJECT"],
            ),
        ],
    );
    let ranged = root.ask(&served, &["GET /b/a", "x-amz-checksum-mode: ENABLED", "Range: bytes=1-2"], b"");
    assert!(ranged.header("x-amz-checksum-crc32").is_none(), "it is not that of the range");
    served.put("/b/other", b"123456789");
    let reply = root.ask(&served, &["HEAD /b/other", "x-amz-checksum-mode: ENABLED"], b"");
    let crc = Base64::encode_string(&0xae8b_1486_0a79_9888_u64.to_be_bytes());
    assert_eq!(reply.header("x-amz-checksum-crc64nvme"), Some(crc.as_str()), "the store's own");
}

#[test]
fn an_interrupted_upload_leaves_nothing() {
    let (served, root) = served();
    let signed = root.sign(&["PUT /b/cut", "Content-Length: 1000000"], UNSIGNED);
    let mut client = dial(&served);
    client.send(&signed.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    client.write(&bytes(1, 500_000));
    drop(client);
    let begun = root.ask(&served, &["PUT /b/next"], b"x");
    assert_eq!((begun.status, served.content("/b/cut")), (200, None));
}

#[test]
fn a_refusal_comes_before_the_body() {
    let (served, root) = served();
    served.put("/b/there", b"x");
    let reader = Signer::new(&served, "reader", &[("/b", Right::Read)]);
    for (signer, lines, status) in [
        (&root, vec!["PUT /none/a"], 404),
        (&root, vec!["PUT /b/there", "If-None-Match: *"], 412),
        (&root, vec!["PUT /b/there/x"], 409),
        (&reader, vec!["PUT /b/a"], 403),
        (&root, vec!["PUT /b/a?partNumber=1&uploadId=0123456789abcdef0123456789abcdef"], 404),
        (&root, vec!["PUT /b/a", "x-amz-server-side-encryption: AES256"], 501),
    ] {
        let lines = [lines, vec!["Content-Length: 1000000", "Expect: 100-continue"]].concat();
        let mut client = dial(&served);
        let signed = signer.sign(&lines, UNSIGNED);
        client.send(&signed.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        assert_eq!(client.reply(false).status, status, "{lines:?}: the first answer is not 100");
    }
}

#[test]
fn conditions_guard_reads_and_changes() {
    let (served, root) = served();
    root.ask(&served, &["PUT /b/a"], b"one");
    let tag = |content: &[u8]| format!("\"{}\"", md5(content));
    let (matches, unlike) = (format!("If-Match: {}", tag(b"one")), format!("If-None-Match: {}", tag(b"one")));
    check(
        &served,
        &root,
        &[
            (&["GET /b/a", &matches], b"", 200, "", &[]),
            (&["GET /b/a", &unlike], b"", 304, "", &["etag: "]),
            (&["HEAD /b/a", &unlike], b"", 304, "", &[]),
            (&["GET /b/a", "If-Match: \"x\""], b"", 412, "PreconditionFailed", &[]),
            (&["GET /b/a", "If-Modified-Since: Sat, 29 Oct 2044 19:43:31 GMT"], b"", 304, "", &[]),
            (&["GET /b/a", "If-Unmodified-Since: Sat, 29 Oct 1994 19:43:31 GMT"], b"", 412, "PreconditionFailed", &[]),
            (&["PUT /b/a", "If-None-Match: *"], b"two", 412, "PreconditionFailed", &[]),
            (&["PUT /b/a", "If-Match: \"x\""], b"two", 412, "PreconditionFailed", &[]),
            (&["PUT /b/none", "If-Match: \"x\""], b"two", 404, "NoSuchKey", &[]),
            (&["PUT /b/a", &matches], b"two", 200, "", &[]),
            (&["PUT /b/a", &matches], b"three", 412, "PreconditionFailed", &[]),
            (&["PUT /b/new", "If-None-Match: *"], b"new", 200, "", &[]),
            (&["DELETE /b/a", &matches], b"", 412, "PreconditionFailed", &[]),
        ],
    );
    assert_eq!(served.content("/b/a").as_deref(), Some(&b"two"[..]));
}

#[test]
fn a_condition_holds_at_the_end_of_an_upload_too() {
    let (served, root) = served();
    let mut client = dial(&served);
    let lines = ["PUT /b/once", "If-None-Match: *", "Content-Length: 4", "Expect: 100-continue"];
    client.send(&root.sign(&lines, UNSIGNED).iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    assert!(client.head().unwrap().contains("100 Continue"), "it holds before the body");
    assert_eq!(root.ask(&served, &["PUT /b/once"], b"other").status, 200);
    client.write(b"late");
    assert_eq!(client.reply(false).status, 412);
    assert_eq!(served.content("/b/once").as_deref(), Some(&b"other"[..]));
}

#[test]
fn a_copy_has_the_content_and_what_was_said_of_it() {
    let (served, root) = served();
    let etag = format!("\"{}\"", md5(b"content"));
    root.ask(&served, &["PUT /b/a", "Content-Type: x/y", "x-amz-meta-k: v", "Cache-Control: no-store"], b"content");
    let copy = |lines: &[&str]| {
        let reply = root.ask(&served, lines, b"");
        (reply.status, element(&reply, "Code").or(element(&reply, "ETag")).unwrap_or_default().replace("&quot;", "\""))
    };
    let from = "x-amz-copy-source: /b/a";
    let replace = "x-amz-metadata-directive: REPLACE";
    assert_eq!(copy(&["PUT /b/new/copy", from]), (200, etag.clone()));
    let reply = root.ask(&served, &["GET /b/new/copy"], b"");
    assert_eq!((reply.header("content-type"), reply.header("x-amz-meta-k")), (Some("x/y"), Some("v")));
    assert_eq!((reply.header("etag"), &*reply.body), (Some(&*etag), &b"content"[..]));
    assert_eq!(copy(&["PUT /b/new/copy", from, replace, "Content-Type: z/z", "x-amz-meta-n: w"]), (200, etag.clone()));
    let reply = root.ask(&served, &["HEAD /b/new/copy"], b"");
    assert_eq!((reply.header("content-type"), reply.header("x-amz-meta-n")), (Some("z/z"), Some("w")));
    assert_eq!((reply.header("x-amz-meta-k"), reply.header("cache-control")), (None, None));
    // To itself: that is how rclone sets a time.
    assert_eq!(copy(&["PUT /b/a", from]).1, "InvalidRequest");
    assert_eq!(copy(&["PUT /b/a", from, replace, "x-amz-meta-mtime: 5"]), (200, etag.clone()));
    let reply = root.ask(&served, &["GET /b/a"], b"");
    assert_eq!((reply.header("x-amz-meta-mtime"), reply.header("x-amz-meta-k")), (Some("5"), None));
    assert_eq!((reply.header("etag"), &*reply.body), (Some(&*etag), &b"content"[..]));
    for (lines, status, code) in [
        (vec!["PUT /b/c", "x-amz-copy-source: /b/none"], 404, "NoSuchKey"),
        (vec!["PUT /b/c", "x-amz-copy-source: /none/a"], 404, "NoSuchBucket"),
        (vec!["PUT /none/c", from], 404, "NoSuchBucket"),
        (vec!["PUT /b/new", from], 409, "KeyIsAFolder"),
        (vec!["PUT /b/c", "x-amz-copy-source: /.stevedore/users/root"], 403, "AccessDenied"),
        (vec!["PUT /b/c", "x-amz-copy-source: /b/../.stevedore/users/root"], 400, "InvalidObjectName"),
        (vec!["PUT /b/c", "x-amz-copy-source: b"], 400, "InvalidArgument"),
        (vec!["PUT /b/c", from, "x-amz-copy-source-if-match: \"x\""], 412, "PreconditionFailed"),
        (vec!["PUT /b/c", from, "x-amz-copy-source-if-none-match: *"], 412, "PreconditionFailed"),
        (vec!["PUT /b/new/copy", from, "If-None-Match: *"], 412, "PreconditionFailed"),
        (vec!["PUT /b/c", from, "x-amz-metadata-directive: OTHER"], 400, "InvalidArgument"),
    ] {
        assert_eq!(copy(&lines), (status, code.to_owned()), "{lines:?}");
    }
}

#[test]
fn tags_go_with_an_object() {
    let (served, root) = served();
    root.ask(&served, &["PUT /b/a", "x-amz-tagging: k=v&x=y%20z", "x-amz-meta-m: 1"], b"");
    let reply = root.ask(&served, &["GET /b/a?tagging"], b"");
    assert_eq!((all_elements(&reply, "Key"), all_elements(&reply, "Value")), (vec!["k", "x"], vec!["v", "y z"]));
    assert_eq!(root.ask(&served, &["HEAD /b/a"], b"").header("x-amz-tagging-count"), Some("2"));
    let tags = b"<Tagging><TagSet><Tag><Key>new</Key><Value>1</Value></Tag></TagSet></Tagging>";
    assert_eq!(root.ask(&served, &["PUT /b/a?tagging"], tags).status, 200);
    assert_eq!(all_elements(&root.ask(&served, &["GET /b/a?tagging"], b""), "Key"), ["new"]);
    assert_eq!(root.ask(&served, &["DELETE /b/a?tagging"], b"").status, 204);
    assert!(all_elements(&root.ask(&served, &["GET /b/a?tagging"], b""), "Key").is_empty());
    assert_eq!(root.ask(&served, &["HEAD /b/a"], b"").header("x-amz-meta-m"), Some("1"));
}

#[test]
fn many_objects_are_removed_at_once() {
    let (served, root) = served();
    for key in ["a", "b/c", "d&e"] {
        served.put(&format!("/b/{key}"), b"x");
    }
    let named = |keys: &[&str], quiet: &str| {
        let keys: String = keys.iter().map(|key| format!("<Object><Key>{key}</Key></Object>")).collect();
        format!("<Delete>{quiet}{keys}</Delete>")
    };
    let document = named(&["a", "b/c", "d&amp;e", "none", "../users", "/etc", "b//c"], "");
    let reply = root.ask(&served, &["POST /b?delete"], document.as_bytes());
    assert_eq!(all_elements(&reply, "Key"), ["a", "b/c", "d&amp;e", "none", "../users", "/etc", "b//c"]);
    assert_eq!(all_elements(&reply, "Code"), ["InvalidObjectName"; 3]);
    assert!(["/b/a", "/b/b/c", "/b/d&e"].into_iter().all(|path| served.content(path).is_none()));
    let quiet = root.ask(&served, &["POST /b?delete"], named(&["a"], "<Quiet>true</Quiet>").as_bytes());
    assert!(all_elements(&quiet, "Key").is_empty());
    let too_many = vec!["k"; 1_001];
    check(
        &served,
        &root,
        &[
            (&["POST /b?delete"], named(&too_many, "").as_bytes(), 400, "MalformedXML", &[]),
            (&["POST /b?delete"], b"<Delete/>", 400, "MalformedXML", &[]),
            (&["POST /b?delete"], b"not XML", 400, "MalformedXML", &[]),
            (&["POST /b?delete", "Content-MD5: XUFAKrxLKna5cZ2REBfFkg=="], b"<Delete/>", 400, "BadDigest", &[]),
            (&["POST /b?delete"], &vec![b' '; 5 << 20], 400, "MaxMessageLengthExceeded", &[]),
            (&["POST /none?delete"], named(&["a"], "").as_bytes(), 404, "NoSuchBucket", &[]),
        ],
    );
}

#[test]
fn listings_are_told_as_clients_page_through_them() {
    let (served, root) = served();
    for key in ["a", "d/1", "d/2", "e&<f>", "na ïve"] {
        served.put(&format!("/b/{key}"), b"x");
    }
    let ask = |query: &str| root.ask(&served, &[&format!("GET /b?{query}")], b"");
    let reply = ask("list-type=2");
    assert_eq!(all_elements(&reply, "Key"), ["a", "d/1", "d/2", "e&amp;&lt;f&gt;", "na ïve"]);
    assert_eq!((element(&reply, "KeyCount"), element(&reply, "IsTruncated")), (Some("5"), Some("false")));
    let encoded = ask("encoding-type=url&list-type=2");
    assert_eq!(all_elements(&encoded, "Key")[3..], ["e%26%3Cf%3E", "na%20%C3%AFve"]);
    let reply = ask("delimiter=%2F&list-type=2&max-keys=2");
    assert_eq!((all_elements(&reply, "Key"), element(&reply, "IsTruncated")), (vec!["a"], Some("true")));
    assert_eq!(all_elements(&reply, "CommonPrefixes"), ["<Prefix>d/</Prefix>"]);
    let token = element(&reply, "NextContinuationToken").unwrap().replace('=', "%3D");
    let reply = ask(&format!("continuation-token={token}&delimiter=%2F&list-type=2&max-keys=2"));
    assert_eq!(all_elements(&reply, "Key"), ["e&amp;&lt;f&gt;", "na ïve"]);
    let first = ask("max-keys=2");
    assert_eq!((all_elements(&first, "Key"), element(&first, "NextMarker")), (vec!["a", "d/1"], Some("d/1")));
    assert_eq!(all_elements(&ask("marker=d%2F1&prefix=d"), "Key"), ["d/2"]);
    check(
        &served,
        &root,
        &[
            (&["GET /none"], b"", 404, "NoSuchBucket", &[]),
            (&["GET /b?max-keys=x"], b"", 400, "InvalidArgument", &[]),
            (&["GET /b?encoding-type=x"], b"", 400, "InvalidArgument", &[]),
            (&["GET /b?continuation-token=%2A&list-type=2"], b"", 400, "InvalidArgument", &[]),
        ],
    );
}

/// Begins an upload; its id.
fn begin(served: &Served, signer: &Signer, lines: &[&str]) -> String {
    let reply = signer.ask(served, lines, b"");
    element(&reply, "UploadId").unwrap_or_else(|| panic!("{reply:?}: {}", reply.text())).to_owned()
}

/// The document that completes an upload of these parts.
fn completion(parts: &[(usize, &str)]) -> String {
    let part = |(number, etag): &(usize, &str)| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag></Part>")
    };
    format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.iter().map(part).collect::<String>())
}

const PART: usize = 5 << 20;

#[test]
fn an_upload_in_parts_becomes_an_object() {
    let (served, root) = served();
    let content = bytes(5, 2 * PART + 7);
    let (first, second, last) = (&content[..PART], &content[PART..2 * PART], &content[2 * PART..]);
    let id = begin(&served, &root, &["POST /b/big?uploads", "Content-Type: x/y", "x-amz-meta-k: v"]);
    let part = |number: usize, body: &[u8]| {
        let reply = root.ask(&served, &[&format!("PUT /b/big?partNumber={number}&uploadId={id}")], body);
        assert_eq!((reply.status, reply.header("etag")), (200, Some(&*format!("\"{}\"", md5(body)))));
    };
    // Out of order, one of them twice, and one that is not wanted in the end.
    part(30, last);
    part(2, b"wrong");
    part(1, first);
    part(2, second);
    part(7, b"unwanted");
    assert_eq!(root.ask(&served, &["GET /b/big"], b"").status, 404, "nothing is there before the end");
    let list = root.ask(&served, &[&format!("GET /b/big?max-parts=2&uploadId={id}")], b"");
    assert_eq!((all_elements(&list, "PartNumber"), element(&list, "IsTruncated")), (vec!["1", "2"], Some("true")));
    let list = root.ask(&served, &[&format!("GET /b/big?part-number-marker=2&uploadId={id}")], b"");
    assert_eq!(all_elements(&list, "PartNumber"), ["7", "30"]);
    let uploads = root.ask(&served, &["GET /b?uploads"], b"");
    assert_eq!((all_elements(&uploads, "UploadId"), all_elements(&uploads, "Key")), (vec![&*id], vec!["big"]));
    let etags = [md5(first), md5(second), md5(last)];
    let complete = |parts: &[(usize, &str)]| {
        root.ask(&served, &[&format!("POST /b/big?uploadId={id}")], completion(parts).as_bytes())
    };
    for (parts, code) in [
        (vec![], "MalformedXML"),
        (vec![(2, &*etags[1]), (1, &*etags[0])], "InvalidPartOrder"),
        (vec![(1, &*etags[0]), (1, &*etags[0])], "InvalidPartOrder"),
        (vec![(1, &*etags[1])], "InvalidPart"),
        (vec![(3, &*etags[1])], "InvalidPart"),
        (vec![(7, &*md5(b"unwanted")), (30, &*etags[2])], "EntityTooSmall"),
    ] {
        assert_eq!(element(&complete(&parts), "Code"), Some(code), "{parts:?}");
    }
    let parts = [(1, &*etags[0]), (2, &*etags[1]), (30, &*etags[2])];
    let mut all = Md5::new();
    [first, second, last].iter().for_each(|part| all.update(Md5::digest(part)));
    let etag = format!("&quot;{}-3&quot;", hex(&all.finalize()));
    for _ in 0..2 {
        let reply = complete(&parts);
        assert_eq!((reply.status, element(&reply, "ETag")), (200, Some(&*etag)), "{}", reply.text());
    }
    let reply = root.ask(&served, &["GET /b/big"], b"");
    assert!(reply.body == content);
    assert_eq!((reply.header("content-type"), reply.header("x-amz-meta-k")), (Some("x/y"), Some("v")));
    assert_eq!(reply.header("etag"), Some(&*etag.replace("&quot;", "\"")));
    assert!(served.store.stat(&"/.stevedore/uploads".parse().unwrap()).is_err(), "nothing is left of it");
    root.ask(&served, &["PUT /b/big"], b"another");
    assert_eq!(element(&complete(&parts), "Code"), Some("NoSuchUpload"), "what was replaced stays so");
}

#[test]
fn an_upload_belongs_to_its_key_and_can_be_aborted() {
    let (served, root) = served();
    root.ask(&served, &["PUT /c"], b"");
    let id = begin(&served, &root, &["POST /b/k?uploads"]);
    let other = "0123456789abcdef0123456789abcdef";
    let upper = id.to_uppercase();
    for request in [
        format!("PUT /b/other?partNumber=1&uploadId={id}"),
        format!("PUT /c/k?partNumber=1&uploadId={id}"),
        format!("PUT /b/k?partNumber=1&uploadId={other}"),
        format!("PUT /b/k?partNumber=1&uploadId={upper}x"),
        format!("PUT /b/k?partNumber=1&uploadId=..%2F{id}"),
        "PUT /b/k?partNumber=1&uploadId=..%2F..%2Fusers%2Froot".into(),
        "PUT /b/k?partNumber=1&uploadId=".into(),
        format!("GET /b/other?uploadId={id}"),
        format!("DELETE /b/other?uploadId={id}"),
        format!("DELETE /b/k?uploadId={other}"),
    ] {
        let reply = root.ask(&served, &[&request], b"");
        assert_eq!((reply.status, element(&reply, "Code")), (404, Some("NoSuchUpload")), "{request}");
    }
    for number in ["0", "10001", "x", ""] {
        let reply = root.ask(&served, &[&format!("PUT /b/k?partNumber={number}&uploadId={id}")], b"x");
        assert_eq!(element(&reply, "Code"), Some("InvalidArgument"), "{number}");
    }
    assert_eq!(root.ask(&served, &[&format!("PUT /b/k?partNumber=1&uploadId={id}")], b"x").status, 200);
    assert_eq!(root.ask(&served, &[&format!("DELETE /b/k?uploadId={id}")], b"").status, 204);
    let late = root.ask(&served, &[&format!("PUT /b/k?partNumber=2&uploadId={id}")], b"x");
    assert_eq!(element(&late, "Code"), Some("NoSuchUpload"));
    assert!(served.store.stat(&"/.stevedore/uploads".parse().unwrap()).is_err());
}

#[test]
fn parts_can_be_copied_whole_or_in_ranges() {
    let (served, root) = served();
    let content = bytes(6, PART);
    root.ask(&served, &["PUT /b/source"], &content);
    served.put("/b/other", &content);
    let id = begin(
        &served,
        &root,
        &["POST /b/k?uploads", "x-amz-checksum-algorithm: CRC32", "x-amz-checksum-type: FULL_OBJECT"],
    );
    let copy = |number: usize, lines: &[&str]| {
        let first = format!("PUT /b/k?partNumber={number}&uploadId={id}");
        let reply = root.ask(&served, &[&[&*first], lines].concat(), b"");
        let text = element(&reply, "ETag").or(element(&reply, "Code")).unwrap_or_default();
        (text.replace("&quot;", ""), element(&reply, "ChecksumCRC32").unwrap_or_default().to_owned())
    };
    let range = "x-amz-copy-source-range: bytes=100-1048675";
    let (whole, of_whole) = copy(1, &["x-amz-copy-source: /b/source"]);
    let (other, of_other) = copy(2, &["x-amz-copy-source: /b/other"]);
    let (ranged, of_range) = copy(3, &["x-amz-copy-source: /b/other", range]);
    assert_eq!((&*whole, &*ranged), (&*md5(&content), &*md5(&content[100..1_048_676])));
    assert_eq!((&of_whole, of_range.len()), (&of_other, 8), "each has the checksum that the upload needs");
    for bad in ["bytes=0-5242880", "bytes=5242880-", "bytes=-5", "bytes=0-", "0-5"] {
        let bad = format!("x-amz-copy-source-range: {bad}");
        assert_eq!(copy(4, &["x-amz-copy-source: /b/source", &bad]).0, "InvalidArgument", "{bad}");
    }
    let parts = [(1, &*whole), (2, &*other), (3, &*ranged)];
    let reply = root.ask(&served, &[&format!("POST /b/k?uploadId={id}")], completion(&parts).as_bytes());
    let expected = [&content[..], &content, &content[100..1_048_676]].concat();
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32IsoHdlc);
    crc.update(&expected);
    let crc = Base64::encode_string(&(crc.finalize() as u32).to_be_bytes());
    assert_eq!((element(&reply, "ChecksumCRC32"), element(&reply, "ChecksumType")), (Some(&*crc), Some("FULL_OBJECT")));
    assert!(served.content("/b/k").unwrap() == expected);
}

#[test]
fn an_unsigned_request_is_anonymous_and_a_key_must_be_known() {
    let (served, root) = served();
    root.ask(&served, &["PUT /b/a"], b"content");
    // On loopback, without a user of that name.
    assert_eq!(ask_plain(&served, &["GET /b/a"], b"").status, 200);
    assert_eq!(ask_plain(&served, &["PUT /b/anonymous"], b"x").status, 200);
    for lines in [["PUT /b/x", "Origin: http://evil.example"], ["GET /b/a", "Host: evil.example"]] {
        assert_eq!(ask_plain(&served, &lines, b"").status, 403, "another site's page: {lines:?}");
    }
    let stranger = Signer { key: "SVAAAAAAAAAAAAAAAAAA".into(), secret: "x".repeat(40) };
    assert_eq!(element(&stranger.ask(&served, &["GET /b/a"], b""), "Code"), Some("InvalidAccessKeyId"));
    let forger = Signer { key: root.key.clone(), secret: "x".repeat(40) };
    assert_eq!(element(&forger.ask(&served, &["GET /b/a"], b""), "Code"), Some("SignatureDoesNotMatch"));
    let late = root.sign_at(&["GET /b/a"], UNSIGNED, now() - 16 * 60);
    let late = ask_plain(&served, &late.iter().map(String::as_str).collect::<Vec<_>>(), b"");
    assert_eq!(element(&late, "Code"), Some("RequestTimeTooSkewed"));
    Users::of(&*served.store).insert(&User::new(ANONYMOUS).unwrap()).unwrap();
    eventually("anonymous may nothing", || ask_plain(&served, &["GET /b/a"], b"").status == 403);
    Users::of(&*served.store).change("root", |user| user.keys.clear()).unwrap();
    eventually("a key that is gone is of no use", || root.ask(&served, &["GET /b/a"], b"").status == 403);
}

#[test]
fn a_presigned_url_is_as_good_as_its_signer_until_it_expires() {
    let (served, root) = served();
    let reader = Signer::new(&served, "reader", &[("/b", Right::Read)]);
    let put = root.presign("PUT", "/b/a", now(), 60);
    assert_eq!(ask_plain(&served, &[&format!("PUT {put}")], b"content").status, 200);
    for (method, url, status) in [
        ("GET", reader.presign("GET", "/b/a", now(), 60), 200),
        ("GET", reader.presign("GET", "/b/a", now() - 61, 60), 403),
        ("GET", reader.presign("GET", "/b/a", now(), 604_801), 400),
        ("PUT", reader.presign("PUT", "/b/a", now(), 60), 403),
        ("DELETE", root.presign("GET", "/b/a", now(), 60), 403),
        ("GET", root.presign("GET", "/b/a", now(), 60).replace("/b/a", "/b/b"), 403),
    ] {
        assert_eq!(ask_plain(&served, &[&format!("{method} {url}")], b"").status, status, "{method} {url}");
    }
}

#[test]
fn no_request_leaves_the_prefixes_that_a_user_was_granted() {
    let served = Served::new();
    for path in ["/b/alice/a", "/b/bob/b", "/b/alice2/c", "/shared/s", "/secret/t"] {
        served.put(path, b"content");
    }
    let alice = Signer::new(&served, "alice", &[("/b/alice", Right::Write), ("/shared", Right::Read)]);
    let bob = Signer::new(&served, "bob", &[("/b/bob", Right::Write)]);
    let stolen = begin(&served, &bob, &["POST /b/bob/up?uploads"]);
    let source = |path: &str| format!("x-amz-copy-source: {path}");
    let (own, of_bob, around) = (source("/b/alice/a"), source("/b/bob/b"), source("/b/alice/%2e%2e/bob/b"));
    let (encoded, secret) = (source("/b%2Fbob%2Fb"), source("/secret/t"));
    let id = begin(&served, &alice, &["POST /b/alice/up?uploads"]);
    let part = format!("PUT /b/alice/up?partNumber=1&uploadId={id}");
    let part_of_bob = format!("PUT /b/bob/up?partNumber=1&uploadId={stolen}");
    let with_id_of_bob = format!("PUT /b/alice/up?partNumber=1&uploadId={stolen}");
    for (lines, status) in [
        (vec!["GET /b/alice/a"], 200),
        (vec!["PUT /b/alice/new"], 200),
        (vec!["GET /shared/s"], 200),
        (vec!["GET /b?prefix=alice%2F"], 200),
        (vec!["HEAD /b"], 200),
        (vec!["PUT /b/alice/copy", &own], 200),
        (vec!["PUT /shared/s"], 403),
        (vec!["GET /b"], 403),
        (vec!["GET /b?prefix=alice"], 403),
        (vec!["GET /b?prefix=bob%2F"], 403),
        (vec!["GET /b?prefix=alice2%2F"], 403),
        (vec!["GET /b?prefix=alice%2F..%2Fbob%2F"], 403),
        (vec!["HEAD /secret"], 403),
        (vec!["GET /secret?location"], 403),
        (vec!["GET /b/bob/b"], 403),
        (vec!["GET /b/bob/none"], 403),
        (vec!["GET /b/alice2/c"], 403),
        (vec!["GET /b%2Fbob%2Fb"], 403),
        (vec!["GET /b/alice%2F..%2Fbob%2Fb"], 400),
        (vec!["GET /b/alice/..%2fbob/b"], 400),
        (vec!["GET /b/alice/%252e%252e/bob/b"], 404),
        (vec!["DELETE /b/bob/b"], 403),
        (vec!["DELETE /b"], 403),
        (vec!["PUT /new"], 403),
        (vec!["PUT /b/alice/x", &of_bob], 403),
        (vec!["PUT /b/alice/x", &around], 400),
        (vec!["PUT /b/alice/x", &encoded], 403),
        (vec!["PUT /b/alice/x", &secret], 403),
        (vec!["PUT /b/bob/x", &own], 403),
        (vec![&part, &of_bob], 403),
        (vec![&part_of_bob], 403),
        (vec![&with_id_of_bob], 404),
        (vec!["GET /b/bob/b?tagging"], 403),
        (vec!["GET /b/bob/b?acl"], 403),
        (vec!["PUT /b/bob/b?tagging"], 403),
        (vec!["GET /.stevedore/users/alice"], 403),
        (vec!["GET /.stevedore?list-type=2"], 403),
    ] {
        // What is signed is the path as canonical requests have it.
        let canonical = lines[0].replace("%2F", "/").replace("%2f", "/").replace("%2e", ".");
        let is_path = !lines[0].contains('?') && canonical != lines[0] && !lines[0].contains("%25");
        let signed = if is_path { [vec![&*canonical], lines[1..].to_vec()].concat() } else { lines.clone() };
        let mut signed = alice.sign(&signed, UNSIGNED);
        signed[0] = lines[0].to_owned();
        let reply = ask_plain(&served, &signed.iter().map(String::as_str).collect::<Vec<_>>(), b"");
        assert_eq!(reply.status, status, "{lines:?}: {}", String::from_utf8_lossy(&reply.body));
        if status == 403 && !lines[0].starts_with("HEAD") {
            assert_eq!(element(&reply, "Code"), Some("AccessDenied"), "{lines:?}");
        }
    }
    assert_eq!(all_elements(&alice.ask(&served, &["GET /"], b""), "Name"), ["b", "shared"]);
    let named = "<Delete><Object><Key>alice/new</Key></Object><Object><Key>bob/b</Key></Object>\
                 <Object><Key>alice/../bob/b</Key></Object></Delete>";
    let reply = alice.ask(&served, &["POST /b?delete"], named.as_bytes());
    assert_eq!(all_elements(&reply, "Code"), ["AccessDenied", "InvalidObjectName"]);
    assert!(all_elements(&alice.ask(&served, &["GET /b?uploads"], b""), "Key") == ["alice/up"], "others' are not told");
    assert_eq!(served.content("/b/bob/b").as_deref(), Some(&b"content"[..]));
}

#[test]
fn what_is_stored_cannot_act_as_the_gateway_in_a_browser() {
    let (served, root) = served();
    root.ask(&served, &["PUT /b/page", "Content-Type: text/html"], b"<script>");
    let reply = root.ask(&served, &["GET /b/page"], b"");
    assert!(reply.header("content-security-policy").unwrap().starts_with("sandbox"));
    let asked = "GET /b/page?response-content-disposition=attachment&response-content-type=text%2Fplain";
    let reply = root.ask(&served, &[asked], b"");
    assert_eq!(
        (reply.header("content-type"), reply.header("content-disposition")),
        (Some("text/plain"), Some("attachment"))
    );
    assert_eq!(ask_plain(&served, &[asked], b"").status, 400, "an unsigned request cannot ask for that");
}

#[test]
fn one_connection_serves_many_requests() {
    let (served, root) = served();
    let mut client = dial(&served);
    let mut statuses = BTreeMap::new();
    for number in 0..50 {
        let lines = [format!("PUT /b/{}", number % 5), "Content-Length: 4".to_owned()];
        let signed = root.sign(&lines.iter().map(String::as_str).collect::<Vec<_>>(), UNSIGNED);
        client.send(&signed.iter().map(String::as_str).collect::<Vec<_>>(), b"body");
        *statuses.entry(client.reply(false).status).or_insert(0) += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(200, 50)]));
    served.gateway.stop(Duration::ZERO);
}
