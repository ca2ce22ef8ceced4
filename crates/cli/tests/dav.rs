//! WebDAV as people's own tools speak it: cadaver, rclone, a folder mounted by davfs2; over a whole store of real processes.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{Whole, text};

/// A source tree: this repository's crates.
fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("crates/").to_owned()
}

/// Runs a tool to its end, with some text as its input.
fn tool(name: &str, words: &[&str], input: &str) -> Output {
    let mut command = Command::new(name);
    command.args(words).env_remove("http_proxy").env_remove("HTTP_PROXY");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// Runs a tool that is to work; what it prints.
#[track_caller]
fn works(name: &str, words: &[&str]) -> String {
    let output = tool(name, words, "");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {words:?}: {} {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A store with the URL of its gateway.
fn store() -> (Whole, String) {
    let mut store = Whole::with_gateway(1);
    store.server.wait_for_log("  HTTP");
    let line = store.server.log_so_far().iter().find(|line| line.contains("  HTTP")).expect("it was logged").clone();
    let url = line.split_whitespace().next_back().expect("a URL").to_owned();
    (store, url)
}

#[test]
fn cadaver_does_all_that_it_can() {
    if !kit::has_tools(&["cadaver"]) {
        return;
    }
    let (store, url) = store();
    let (from, to) = (store.local("from"), store.local("to"));
    fs::write(&from, "content").unwrap();
    let script = format!(
        "put {from} a\ncopy a b\nmove b c\nmkcol folder\ncd folder\nput {from} x\ncd ..\ncopy folder folder2\nlock a\ndiscover a\n\
         propset a colour blue\npropget a colour\nunlock a\nget a {to}\nls\ndelete c\nrmcol folder\nls folder2\nquit\n",
        from = text(&from),
        to = text(&to)
    );
    let output = tool("cadaver", &[&url], &script);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!said.contains("failed") && said.matches("succeeded").count() >= 14, "{said}");
    assert!(said.contains("Value of colour is: blue") && said.contains("Scope: exclusive"), "{said}");
    assert_eq!(fs::read(&to).unwrap(), b"content");
    assert_eq!([store.user.ok(&["ls"]), store.user.ok(&["ls", "/folder2"])], ["a\nfolder2/\n", "x\n"]);
}

#[test]
fn rclone_copies_a_source_tree_there_and_back() {
    if !kit::has_tools(&["rclone", "diff"]) {
        return;
    }
    let (store, url) = store();
    let back = store.local("back");
    let rclone = |words: &[&str]| {
        works(
            "rclone",
            &[&["--config", "/dev/null", "--webdav-vendor", "other", "--webdav-url", &url][..], words].concat(),
        )
    };
    let tree = tree();
    rclone(&["sync", text(&tree), ":webdav:/tree"]);
    rclone(&["check", "--download", text(&tree), ":webdav:/tree"]);
    rclone(&["moveto", ":webdav:/tree/gateway/Cargo.toml", ":webdav:/tree/moved"]);
    rclone(&["copyto", ":webdav:/tree/moved", ":webdav:/tree/gateway/Cargo.toml"]);
    rclone(&["deletefile", ":webdav:/tree/moved"]);
    rclone(&["sync", ":webdav:/tree", text(&back)]);
    works("diff", &["-r", text(&tree), text(&back)]);
    rclone(&["purge", ":webdav:/tree"]);
    assert_eq!(store.user.ok(&["ls"]), "");
}

/// A folder where a store is mounted, until it is dropped.
struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    /// Has all that was written sent.
    fn unmount(self) {
        works("umount", &[text(self.0)]);
        std::mem::forget(self);
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        tool("umount", &["-l", text(self.0)], "");
    }
}

#[test]
fn a_source_tree_is_unpacked_in_a_mounted_folder() {
    if !kit::has_tools(&["mount.davfs", "tar", "diff"]) {
        return;
    }
    let (store, url) = store();
    let (folder, settings) = (store.local("mounted"), store.local("davfs2.conf"));
    fs::create_dir(&folder).unwrap();
    // With its usual buffer, davfs2 1.6 and 1.7 list no folder on Linux 6.16 and later.
    fs::write(&settings, format!("ask_auth 0\nbuf_size 64\ncache_dir {}\n", text(&store.local("cache")))).unwrap();
    fs::create_dir(store.local("cache")).unwrap();
    let options = format!("conf={},uid=0,gid=0", text(&settings));
    let mount = || tool("mount.davfs", &[&url, text(&folder), "-o", &options], "");
    let first = mount();
    if !first.status.success() {
        return eprintln!("SKIPPED: nothing can be mounted here: {}", String::from_utf8_lossy(&first.stderr));
    }
    let mounted = Mounted(&folder);
    let (tree, archive) = (tree(), store.local("tree.tar"));
    works("tar", &["-C", text(&tree), "-cf", text(&archive), "."]);
    let unpacked = folder.join("tree");
    fs::create_dir(&unpacked).unwrap();
    works("tar", &["--no-same-owner", "-C", text(&unpacked), "-xf", text(&archive)]);
    works("diff", &["-r", text(&tree), text(&unpacked)]);
    fs::rename(unpacked.join("gateway"), unpacked.join("renamed")).unwrap();
    fs::remove_dir_all(unpacked.join("mark")).unwrap();
    mounted.unmount();
    // What the store has, and what a second look through the mount sees.
    let got = store.local("got");
    store.user.ok(&["get", "-r", "/tree", text(&got)]);
    works("diff", &["-r", text(&tree.join("gateway")), text(&got.join("renamed"))]);
    assert!(!got.join("mark").exists() && !got.join("gateway").exists());
    assert!(mount().status.success());
    let mounted = Mounted(&folder);
    works("diff", &["-r", text(&got), text(&unpacked)]);
    mounted.unmount();
}
