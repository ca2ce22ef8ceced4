//! A machine that vanishes without a word is noticed by the other end of its connections. (spec 4.1)
#![cfg(target_os = "linux")]

use std::io::Write;
use std::process::{Command, Stdio};

mod common;
use common::program::Program;
use common::{TempFolder, eventually};

const CONTROLLER: &str = env!("CARGO_BIN_EXE_controller");
const DSTORE: &str = env!("CARGO_BIN_EXE_dstore");
const CLIENT: &str = env!("CARGO_BIN_EXE_client");

/// Lets a byte a second through, which is nothing. (Not every kernel can lose packets at will.)
const CUT: &str = "tc qdisc add dev lo root handle 1: htb default 1 && \
                   tc class add dev lo parent 1: classid 1:1 htb rate 8bit burst 1 cburst 1";

/// A network of its own, which can lose every packet from one moment on. Lasts as long as the shell in it.
struct Network(Program);

impl Network {
    /// `None` where this is not permitted.
    fn new() -> Option<Self> {
        // We can command it even where we are not root, and it carries no other packets.
        let inside = format!("ip link set lo up && {CUT} && tc qdisc del dev lo root && echo ready && cat");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec unshare --map-root-user --net sh -c '{inside}'")]).stdin(Stdio::piped());
        let mut shell = Program::spawn(command);
        shell.comes_to_log("ready").then_some(Self(shell))
    }

    fn enter(&self, command: &str) -> Command {
        let mut entering = Command::new("nsenter");
        let shell = self.0.child.id().to_string();
        entering.args(["--preserve-credentials", "--user", "--net", "--target", &shell, "--", command]);
        entering
    }

    fn start(&self, program: &str, arguments: &[&str], folder: &TempFolder) -> Program {
        let mut command = self.enter(program);
        command.args(arguments).current_dir(folder.path()).env("RUST_LOG", "info").stdin(Stdio::null());
        let mut program = Program::spawn(command);
        program.wait_until_it_listens();
        program
    }

    /// From now on no packet arrives, and no end is told.
    fn cut(&self) {
        let cut = self.enter("sh").args(["-c", CUT]).output().unwrap();
        assert!(cut.status.success(), "{cut:?}");
    }
}

#[test]
fn a_dstore_or_controller_whose_machine_vanished_has_left() {
    // With a rebalance every second something is always sent and never acknowledged. Without, nothing is sent.
    for rebalance_period in ["0", "1"] {
        let Some(network) = Network::new() else {
            println!("SKIPPED: no network namespace that can be cut, or no permission to make one");
            return;
        };
        let folder = TempFolder::new();
        let start = |program, arguments: &[&str]| network.start(program, arguments, &folder);
        let mut controller = start(CONTROLLER, &["0", "1", "500", rebalance_period, "--keepalive", "2"]);
        let cport = controller.port.to_string();
        let mut dstore = start(DSTORE, &["0", &cport, "500", "files", "--keepalive", "2"]);
        controller.wait_for_log(&format!("[New Dstore {} ", dstore.port));
        let mut client = network.enter(CLIENT);
        let mut client = Program::spawn({
            client.args([&cport, "60000"]).stdin(Stdio::piped());
            client
        });
        client.child.stdin.as_mut().unwrap().write_all(b"list\nhelp\n").unwrap();
        client.wait_for_log("the names of all files"); // it is connected, and idle
        network.cut();
        controller.wait_for_log(&format!("Dstore {} has left", dstore.port));
        // Half open connections of clients do not pile up either. (spec 2.7: idle ones may last)
        eventually("the client's connection has ended like the Dstore's", || {
            controller.log_so_far().iter().filter(|line| line.contains("closed: Connection timed out")).count() == 2
        });
        assert_eq!(dstore.wait_for_exit().code(), Some(1));
        dstore.wait_for_log("the Controller has gone");
    }
}
