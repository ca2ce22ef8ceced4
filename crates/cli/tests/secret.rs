//! A store's secret is replaced while the store runs: its servers are restarted one by one. (depot 5.8)

mod common;

use std::fs;
use std::path::PathBuf;

use common::{STEVEDORE, User, spawn, text};
use kit::{Program, TempFolder, eventually};

/// A Controller and two Dstores that are started with the files of one folder.
struct Store {
    folder: TempFolder,
    port: String,
    servers: Vec<Program>,
}

impl Store {
    fn start() -> Self {
        let port = kit::free_port().to_string();
        let mut store = Self { folder: TempFolder::new(), port, servers: Vec::new() };
        store.secret(&["draw", "--controllers", &format!("127.0.0.1:{}", store.port)]);
        store.servers = (0..3).map(|number| store.spawn(number)).collect();
        store
    }

    fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// `stevedore secret`, for the folder with the files.
    fn secret(&self, words: &[&str]) {
        let output =
            std::process::Command::new(STEVEDORE).arg("secret").args(words).arg(self.files()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The Controller is server 0.
    fn spawn(&self, number: usize) -> Program {
        let (files, data) = (self.files(), self.folder.path().join(number.to_string()));
        let (files, data) = (text(&files), text(&data));
        match number {
            0 => spawn(&["controller", "--cluster", files, "--data", data, "--port", &self.port, "--replicas", "2"]),
            _ => spawn(&["dstore", "--cluster", files, "--data", data, "--port", "0", "--host", data]),
        }
    }

    fn restart(&mut self, number: usize) {
        self.servers[number].signal("TERM");
        assert!(self.servers[number].wait_for_exit().success());
        self.servers[number] = self.spawn(number);
    }
}

#[test]
fn a_secret_is_replaced_while_the_store_runs() {
    let mut store = Store::start();
    let old = store.folder.path().join("old.toml");
    fs::copy(store.files().join("client.toml"), &old).unwrap();
    let (old, new) = (User { cluster: old }, User { cluster: store.files() });
    let content = store.folder.path().join("content");
    fs::write(&content, "content").unwrap();
    let is_healed = |user: &User| user.run(&["health", "--healed"]).status.success();
    let is_whole = |user: &User| {
        let has_two = user.ok(&["status"]).matches(" present ").count() == 2;
        has_two && is_healed(user)
    };
    eventually("all are there", || old.run(&["status"]).status.success() && is_whole(&old));
    old.ok(&["put", text(&content), "/a"]);
    store.secret(&["new"]);
    // Some know one secret, and some know both.
    for number in [1, 0, 2] {
        store.restart(number);
        eventually("it is healed", || is_healed(&old) && is_whole(&old));
        assert_eq!(old.ok(&["cat", "/a"]), "content");
    }
    assert_eq!(new.ok(&["cat", "/a"]), "content", "both are let in");
    store.secret(&["withdraw"]);
    // Some know both, and some only the new one.
    for number in [1, 0, 2] {
        store.restart(number);
        eventually("it is healed", || is_healed(&new) && is_whole(&new));
        assert_eq!(new.ok(&["cat", "/a"]), "content");
    }
    let (_, why) = old.fails(&["cat", "/a"]);
    assert!(why.contains("secret"), "{why}");
    let refused =
        std::process::Command::new(STEVEDORE).args(["secret", "withdraw"]).arg(store.files()).output().unwrap();
    assert!(!refused.status.success(), "there is nothing left to withdraw");
}
