//! The built program against a depot in this process.

#[path = "../../depot/benches/cluster/mod.rs"]
mod cluster;

use std::process::Command;

use cli::cluster::ClientFile;
use cluster::{Store, StoreOptions};
use depot::client::{ClusterOptions, Files, ListOptions};
use depot::path::Path;
use serde_json::Value;

#[test]
fn a_depot_is_measured_verified_and_left_as_it_was() {
    let folder = kit::TempFolder::new();
    let store = Store::start(folder.path(), StoreOptions::default());
    let client = store.client();
    kit::eventually("all Dstores are there", || client.status().unwrap().dstores.len() == 3);
    let ClusterOptions { controllers, cluster, client: id, key, .. } = store.client_options();
    let file = ClientFile { cluster, name: "bench".into(), controllers, client: id, key };
    file.write(&folder.path().join("client.toml")).unwrap();
    let words = "--clients 3 --names 60 --size 0-100k --mix store:30,load:40,remove:20,list:10 --verify --json --duration 1 \
                 --warm-up 0.1 --depot";
    let words = words.split_whitespace().chain([folder.path().to_str().unwrap()]);
    let output = Command::new(env!("CARGO_BIN_EXE_load")).args(words).output().expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["errors"], &json["files_left"]), (&Value::Array(Vec::new()), &Value::from(0)), "{json:#}");
    for kind in ["store", "load", "remove", "list"] {
        assert!(json["kinds"][kind]["operations"].as_u64().unwrap() > 0, "{kind}: {json:#}");
    }
    assert_eq!(client.list(&Path::root(), &ListOptions::default()).unwrap().entries, []);
}
