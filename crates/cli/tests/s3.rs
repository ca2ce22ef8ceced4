//! S3 as people's own tools speak it, over a whole store of real processes. docs/s3.md has what each of them did.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{User, Whole, text};
use kit::{TempFolder, bytes};

/// A store with a gateway, and how its first user is known to it.
struct Store {
    whole: Whole,
    endpoint: String,
    key: String,
    secret: String,
    /// The authority that its certificate is from, if it speaks TLS.
    authority: Option<PathBuf>,
    _certificates: TempFolder,
}

impl Store {
    fn start() -> Self {
        Self::with(TempFolder::new(), &[], None)
    }

    /// Whose gateway speaks HTTPS.
    fn over_tls() -> Self {
        let folder = TempFolder::new();
        let file = |name: &str| text(&folder.path().join(name)).to_owned();
        User { cluster: folder.path().into() }.ok(&["certs", text(folder.path()), "127.0.0.1"]);
        let (certificate, key) = (file("server.pem"), file("server-key.pem"));
        let authority = Some(folder.path().join("ca.pem"));
        Self::with(folder, &["--tls-cert", &certificate, "--tls-key", &key], authority)
    }

    fn with(certificates: TempFolder, options: &[&str], authority: Option<PathBuf>) -> Self {
        let mut whole = Whole::with(2, 1, &[&["--http", "0", "--s3", "0"], options].concat());
        let log = whole.server.log_so_far();
        let line = |title: &str| log.iter().find(|line| line.contains(title)).unwrap_or_else(|| panic!("no {title}"));
        let endpoint = line("  S3 ").split_whitespace().next_back().expect("a URL").to_owned();
        let key = line("access key ").split("access key ").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
        let secret = line("access key ").split("secret ").nth(1).and_then(|rest| rest.split(':').next()).unwrap();
        let (key, secret) = (key.to_owned(), secret.to_owned());
        Self { whole, endpoint, key, secret, authority, _certificates: certificates }
    }

    fn local(&self, name: &str) -> PathBuf {
        self.whole.local(name)
    }

    /// A tree of files with awkward names, one of them large enough to be sent in parts.
    fn tree(&self) -> PathBuf {
        let tree = self.local("tree");
        fs::create_dir_all(tree.join("sub dir/deeper")).unwrap();
        for (seed, (name, size)) in [
            ("a.txt", 10),
            ("empty", 0),
            ("sub dir/naïve 日本 +&=?#%20", 1_000),
            ("sub dir/deeper/<b>\"x'", 70_000),
            ("large", 9_000_000),
        ]
        .into_iter()
        .enumerate()
        {
            fs::write(tree.join(name), bytes(seed as u64, size)).unwrap();
        }
        tree
    }

    /// A tool that finds the store, and nothing else of this machine.
    fn command(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        let paths = std::env::var_os("PATH").unwrap_or_default();
        command.args(words).stdin(Stdio::null()).env_clear().env("PATH", paths).env("HOME", self.local("home"));
        command.env("LC_ALL", "C.UTF-8").env("PYTHONUTF8", "1").current_dir(self.whole.folder.path());
        command.env("AWS_ACCESS_KEY_ID", &self.key).env("AWS_SECRET_ACCESS_KEY", &self.secret);
        command.env("AWS_DEFAULT_REGION", "us-east-1").env("AWS_EC2_METADATA_DISABLED", "true");
        for variable in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
            command.envs(self.authority.iter().map(|authority| (variable, authority)));
        }
        command.env("RESTIC_PASSWORD", "password").env("RCLONE_CONFIG", self.local("rclone.conf"));
        command
    }

    /// Runs a tool that is to work; what it prints.
    #[track_caller]
    fn ok(&self, program: &Path, words: &[&str]) -> String {
        let output = self.command(program, words).output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
        assert!(output.status.success(), "{program:?} {words:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What is behind a URL that needs no key. By Python, so that nothing else is needed.
    #[track_caller]
    fn fetch(&self, url: &str) -> String {
        let program = "import sys, urllib.request as r; print(r.build_opener(r.ProxyHandler({})).open(sys.argv[1]).read().decode())";
        self.ok(Path::new("python3"), &["-c", program, url.trim()]).trim_end().to_owned()
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn are_same(one: &Path, other: &Path) {
    let output = Command::new("diff").args(["-r", text(one), text(other)]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// A tool at one of these places; else the test is skipped with a sentence.
fn find(what: &str, places: &[PathBuf]) -> Option<PathBuf> {
    let found = places.iter().find(|place| place.exists()).cloned();
    if found.is_none() {
        eprintln!("SKIPPED: {what} is not installed");
    }
    found
}

/// A program of the Python packages that `.ci/run` installs. STEVEDORE_PYTHON is where they are.
fn of_python(name: &str) -> Option<PathBuf> {
    let place = std::env::var_os("STEVEDORE_PYTHON").map(|folder| PathBuf::from(folder).join("bin").join(name));
    find(&format!("{name} below STEVEDORE_PYTHON"), place.as_slice())
}

/// What every version of aws is to do.
fn use_aws(aws: &Path) {
    let store = Store::start();
    let (tree, back) = (store.tree(), store.local("back"));
    let s3 = |words: &[&str]| store.ok(aws, &[&["--endpoint-url", &store.endpoint, "s3"], words].concat());
    s3(&["mb", "s3://bucket"]);
    s3(&["sync", "--no-progress", text(&tree), "s3://bucket/tree"]);
    s3(&["sync", "--no-progress", "s3://bucket/tree", text(&back)]);
    are_same(&tree, &back);
    let list = s3(&["ls", "s3://bucket/tree/"]);
    assert!(list.contains("PRE sub dir/") && list.contains("9000000 large"), "{list}");
    // In parts, which are copied.
    s3(&["mv", "--no-progress", "s3://bucket/tree/large", "s3://bucket/moved"]);
    assert!(store.whole.user.run(&["cat", "/bucket/moved"]).stdout == fs::read(tree.join("large")).unwrap());
    fs::write(store.local("aws.conf"), "[default]\ns3 =\n  signature_version = s3v4\n").unwrap();
    let mut presign = store.command(aws, &["--endpoint-url", &store.endpoint, "s3", "presign", "s3://bucket/text"]);
    store.whole.user.with_input(&["put", "-", "/bucket/text"], b"hello");
    let url = presign.env("AWS_CONFIG_FILE", store.local("aws.conf")).output().unwrap();
    assert_eq!(store.fetch(&String::from_utf8_lossy(&url.stdout)), "hello", "{}", said(&url));
    s3(&["rb", "--force", "s3://bucket"]);
    assert_eq!(store.whole.user.ok(&["ls", "/"]), "");
}

#[test]
fn the_aws_of_debian_puts_syncs_moves_and_presigns() {
    if let Some(aws) = find("aws of Debian", &["/usr/bin/aws".into()]) {
        use_aws(&aws);
    }
}

#[test]
fn the_aws_of_today_puts_syncs_moves_and_presigns() {
    if let Some(aws) = of_python("aws") {
        use_aws(&aws);
    }
}

/// What programs in Python do.
const BOTO3: &str = r#"
import boto3, io, os, sys, urllib.request
from botocore.config import Config
from botocore.exceptions import ClientError
s3 = boto3.client('s3', endpoint_url=sys.argv[1], config=Config(signature_version='s3v4'))
s3.create_bucket(Bucket='b')
s3.put_object(Bucket='b', Key='a', Body=b'hello', Metadata={'k': 'v'}, ContentType='x/y')
got = s3.get_object(Bucket='b', Key='a')
assert got['Body'].read() == b'hello' and got['Metadata'] == {'k': 'v'} and got['ContentType'] == 'x/y', got
assert got['ChecksumCRC32'] == 'NhCmhg==', got
for algorithm in ['CRC32', 'SHA1', 'SHA256']:
    put = s3.put_object(Bucket='b', Key=algorithm, Body=io.BytesIO(b'hello'), ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket='b', Key=algorithm, ChecksumMode='ENABLED')
    assert got['Body'].read() == b'hello' and got['Checksum' + algorithm] == put['Checksum' + algorithm], got
large = os.urandom(20_000_000)
s3.upload_fileobj(io.BytesIO(large), 'b', 'large', ExtraArgs={'Metadata': {'k': 'v'}})
into = io.BytesIO()
s3.download_fileobj('b', 'large', into)
head = s3.head_object(Bucket='b', Key='large', ChecksumMode='ENABLED')
assert into.getvalue() == large and head['ETag'].endswith('-3"') and head['Metadata'] == {'k': 'v'}, head
s3.copy({'Bucket': 'b', 'Key': 'large'}, 'b', 'copy')
assert s3.get_object(Bucket='b', Key='copy', Range='bytes=9999999-10000001')['Body'].read() == large[9999999:10000002]
keys = ['CRC32', 'SHA1', 'SHA256', 'a', 'copy', 'large']
for operation in ['list_objects', 'list_objects_v2']:
    pages = s3.get_paginator(operation).paginate(Bucket='b', PaginationConfig={'PageSize': 2})
    assert [entry['Key'] for page in pages for entry in page['Contents']] == keys, operation
try:
    s3.put_object(Bucket='b', Key='a', Body=b'x', IfNoneMatch='*')
    raise SystemExit('it was replaced')
except ClientError as error:
    assert error.response['Error']['Code'] == 'PreconditionFailed', error
url = s3.generate_presigned_url('put_object', Params={'Bucket': 'b', 'Key': 'presigned'}, ExpiresIn=60)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(urllib.request.Request(url, b'hello', method='PUT', headers={'Content-Type': ''}))
url = s3.generate_presigned_url('get_object', Params={'Bucket': 'b', 'Key': 'presigned'}, ExpiresIn=60)
assert opener.open(url).read() == b'hello'
upload = s3.create_multipart_upload(Bucket='b', Key='never')['UploadId']
s3.upload_part(Bucket='b', Key='never', UploadId=upload, PartNumber=1, Body=b'part')
assert s3.list_multipart_uploads(Bucket='b')['Uploads'][0]['Key'] == 'never'
s3.abort_multipart_upload(Bucket='b', Key='never', UploadId=upload)
removed = s3.delete_objects(Bucket='b', Delete={'Objects': [{'Key': key} for key in keys + ['presigned']]})
assert len(removed['Deleted']) == 7, removed
s3.delete_bucket(Bucket='b')
"#;

#[test]
fn boto3_finds_what_it_expects_of_s3() {
    let Some(python) = of_python("python3") else { return };
    // Over HTTPS it sends its checksums behind the content, which is not signed.
    for store in [Store::start(), Store::over_tls()] {
        store.ok(&python, &["-c", BOTO3, &store.endpoint]);
    }
}

#[test]
fn s3cmd_puts_syncs_copies_and_removes() {
    let Some(s3cmd) = find("s3cmd", &["/usr/bin/s3cmd".into()]) else { return };
    let store = Store::start();
    let (tree, back) = (store.tree(), store.local("back"));
    let host = store.endpoint.strip_prefix("http://").unwrap();
    let Store { key, secret, .. } = &store;
    let file = format!(
        "[default]\naccess_key = {key}\nsecret_key = {secret}\nhost_base = {host}\nhost_bucket = {host}\nuse_https = False\n"
    );
    fs::write(store.local("s3cfg"), file).unwrap();
    let config = store.local("s3cfg");
    let run = |words: &[&str]| store.ok(&s3cmd, &[&["-c", text(&config), "--no-progress"], words].concat());
    run(&["mb", "s3://bucket"]);
    run(&["sync", &format!("{}/", text(&tree)), "s3://bucket/tree/"]);
    fs::create_dir(&back).unwrap();
    run(&["sync", "s3://bucket/tree/", &format!("{}/", text(&back))]);
    are_same(&tree, &back);
    run(&["cp", "s3://bucket/tree/large", "s3://bucket/copy"]);
    run(&["get", "s3://bucket/copy", text(&store.local("copy"))]);
    assert!(fs::read(store.local("copy")).unwrap() == fs::read(tree.join("large")).unwrap());
    assert!(run(&["info", "s3://bucket/tree/a.txt"]).contains("File size: 10"));
    run(&["del", "--recursive", "--force", "s3://bucket"]);
    run(&["rb", "s3://bucket"]);
}

#[test]
fn rclone_syncs_checks_and_purges() {
    let Some(rclone) = find("rclone", &["/usr/bin/rclone".into()]) else { return };
    let store = Store::start();
    let (tree, back) = (store.tree(), store.local("back"));
    let remote = |path: &str| format!(":s3,provider=Other,env_auth=true,endpoint='{}':{path}", store.endpoint);
    let in_parts = ["--s3-upload-cutoff", "6M", "--s3-chunk-size", "5M"];
    let run = |words: &[&str]| store.ok(&rclone, &[words, &in_parts].concat());
    let there = remote("bucket/tree");
    run(&["mkdir", &remote("bucket")]);
    run(&["sync", text(&tree), &there]);
    run(&["check", "--download", text(&tree), &there]);
    run(&["sync", &there, text(&back)]);
    are_same(&tree, &back);
    // Another time of the same content is set by a copy of the object to itself.
    Command::new("touch").args(["-d", "2001-02-03T04:05:06Z", text(&tree.join("a.txt"))]).status().unwrap();
    run(&["sync", text(&tree), &there]);
    let list = run(&["lsl", &there]);
    assert!(list.contains("10 2001-02-03 04:05:06.000000000 a.txt"), "{list}");
    assert_eq!(store.fetch(&run(&["link", "--expire", "1m", &remote("bucket/tree/empty")])), "");
    run(&["moveto", &remote("bucket/tree/large"), &remote("bucket/moved")]);
    run(&["purge", &remote("bucket")]);
    assert_eq!(run(&["lsf", &remote("")]), "");
}

#[test]
fn restic_backs_up_checks_restores_and_compares() {
    let Some(restic) = find("restic", &["/usr/bin/restic".into()]) else { return };
    let store = Store::start();
    let tree = store.tree();
    let repository = format!("s3:{}/backups/laptop", store.endpoint);
    let run = |words: &[&str]| store.ok(&restic, &[&["-r", &repository, "--no-cache"], words].concat());
    run(&["init"]);
    run(&["backup", "-q", "tree"]);
    fs::write(tree.join("new"), bytes(9, 3_000_000)).unwrap();
    run(&["backup", "-q", "tree"]);
    run(&["check", "--read-data"]);
    let snapshots: serde_json::Value = serde_json::from_str(&run(&["snapshots", "--json"])).unwrap();
    let id = |place: usize| snapshots[place]["id"].as_str().expect("two snapshots").to_owned();
    let difference = run(&["diff", &id(0), &id(1)]);
    assert!(difference.contains("+    /tree/new"), "{difference}");
    let restored = store.local("restored");
    run(&["restore", "latest", "--target", text(&restored)]);
    are_same(&tree, &restored.join("tree"));
    run(&["forget", "-q", "--keep-last", "1", "--prune"]);
    run(&["check"]);
}

#[test]
fn a_key_is_given_used_and_taken_away() {
    let store = Whole::with_gateway(1);
    let user = &store.user;
    user.ok(&["user", "add", "alice"]);
    let drawn = user.json(&["user", "key", "add", "--json", "alice"]);
    let key = drawn["access_key"].as_str().unwrap();
    assert_eq!(drawn["secret"].as_str().map(str::len), Some(40));
    let printed = user.ok(&["user", "key", "add", "alice"]);
    assert!(printed.starts_with("access key  SV") && printed.contains("\nsecret      "), "{printed}");
    let list = user.ok(&["user", "key", "list"]);
    assert_eq!(list.lines().filter(|line| line.ends_with("  alice")).count(), 2);
    assert!(list.lines().any(|line| line.ends_with("  admin")), "{list}");
    assert!(!list.contains(drawn["secret"].as_str().unwrap()), "secrets are said only once");
    assert_eq!(user.json_lines(&["user", "key", "list", "--json", "alice"]).len(), 2);
    user.ok(&["user", "key", "remove", "alice", key]);
    assert_eq!(user.ok(&["user", "key", "list", "alice"]).lines().count(), 1);
    assert_eq!(user.fails(&["user", "key", "remove", "alice", key]).0, 3);
    for words in [["user", "key", "add", "bob"], ["user", "key", "list", "bob"], ["user", "key", "add", "anonymous"]] {
        user.fails(&words);
    }
}
