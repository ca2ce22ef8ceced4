//! Stores that are found by a broadcast, on two machines: network namespaces with a cable between them. (depot 7)

mod common;

use std::process::{Command, Stdio};

use common::{STEVEDORE, text};
use kit::TempFolder;

/// Plays in a network namespace of its own, as root there: its argument is the program, and the current directory is empty. A second
/// namespace is the other machine: `there COMMAND...` runs on it.
const SCRIPT: &str = r#"
set -euo pipefail
stevedore=$1
unshare -n sleep 1000 &
other=$!
trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do :; done
there() { nsenter -t $other -n "$@"; }
begin_there() { nsenter -t $other -n "$@" & }
ip link add name cable type veth peer name end
ip link set end netns $other
ip addr add 10.9.0.1/24 dev cable
ip link set cable up
ip link set lo up
ip route add default dev cable
there ip addr add 10.9.0.2/24 dev end
there ip link set end up
there ip link set lo up
there ip route add default dev end
awaits() { # FILE TEXT
    for _ in $(seq 600); do grep -q "$2" "$1" 2> /dev/null && return; sleep 0.1; done
    echo "no $2 in $1:"; cat "$1"; exit 1
}
# Two stores on this machine, whose Controllers answer on the same port.
for store in red blue; do
    port=$([ $store = red ] && echo 7001 || echo 7002)
    "$stevedore" controller --data $store --name $store --replicas 1 --listen 10.9.0.1 --port $port --sync never > $store.log 2>&1 &
    [ $store = blue ] || red=$!
    awaits $store.log "stevedore status"
done
# On the other machine: files that know an address at which there is nothing.
for store in red blue; do
    mkdir there-$store
    sed 's/10.9.0.1:[0-9]*/10.9.0.1:9/' $store/cluster.toml > there-$store/cluster.toml
    sed 's/10.9.0.1:[0-9]*/10.9.0.1:9/' $store/client.toml > there-$store/client.toml
    begin_there "$stevedore" dstore --discover $store --data there-$store --listen 10.9.0.2 --port 0 --sync never > $store-dstore.log 2>&1
    awaits $store-dstore.log "Dstore of the store"
    for _ in $(seq 600); do
        there "$stevedore" status --discover $store --cluster there-$store/client.toml > status 2>&1 && grep -q '10.9.0.2' status && break
        sleep 0.1
    done
    echo $store > content
    there "$stevedore" put content /name --discover $store --cluster there-$store/client.toml
done
for store in red blue; do
    [ "$("$stevedore" cat /name --cluster $store/client.toml)" = $store ] || { echo "the stores are mixed"; exit 1; }
done
# A gateway finds its store, too.
begin_there "$stevedore" gateway --discover red --cluster there-red/client.toml --http 0 --no-s3 > gateway.log 2>&1
awaits gateway.log "In another terminal"
there "$stevedore" cat /name --discover blue --cluster there-red/client.toml 2> said && exit 1
grep -q 'the file is for a store called "red"' said
# A store that is not there is said not to be: also while a stranger claims to be it.
id=$(sed -n 's/^cluster = "\(.*\)"/\1/p' red/client.toml)
kill $red
python3 - "$id" << 'STRANGER' &
import socket, sys
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
asked.bind(("", 7000))
claimed = socket.create_server(("10.9.0.1", 7003))
print("ready", file=open("stranger.log", "w"), flush=True)
while True:
    text, peer = asked.recvfrom(2000)
    asked.sendto(f"STEVEDORE! 1 {sys.argv[1]} 10.9.0.1:7002,10.9.0.1:8".encode(), peer)
STRANGER
awaits stranger.log ready
there "$stevedore" cat /name --discover red --cluster there-red/client.toml > said 2>&1 && exit 1
! grep -q blue said
echo well
"#;

#[test]
fn stores_of_one_network_are_found_by_name_and_do_not_mix() {
    if !kit::has_tools(&["unshare", "nsenter", "ip", "bash", "python3"]) {
        return;
    }
    let may = Command::new("unshare")
        .args(["-rn", "ip", "link", "add", "name", "probe", "type", "veth"])
        .stderr(Stdio::null())
        .status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there may be no network namespaces here");
        return;
    }
    let folder = TempFolder::new();
    let played = Command::new("unshare")
        .args(["-rn", "bash", "-c", SCRIPT, "script", text(STEVEDORE.as_ref())])
        .current_dir(folder.path())
        .env_remove("STEVEDORE_CLUSTER")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&played.stdout), String::from_utf8_lossy(&played.stderr));
    assert!(played.status.success() && said.lines().any(|line| line == "well"), "{said}");
}
