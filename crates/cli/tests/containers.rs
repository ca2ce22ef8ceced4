//! The image and compose.yaml, run for real: containers that are killed, and data that outlives them. (docs/deployment.md)

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{STEVEDORE, text};
use kit::{PATIENCE, TempFolder, comes_true, has_tools};

/// The repository, which has the Dockerfile and compose.yaml.
const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Podman with images, containers and volumes of its own, which go with it.
struct Podman {
    folder: TempFolder,
    /// Containers of this name, and a network.
    project: String,
    /// Where the two gateways listen, for HTTP and S3 each.
    ports: [u16; 4],
}

/// Ports that were free a moment ago.
fn free_ports() -> [u16; 4] {
    let listeners = [(); 4].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

impl Podman {
    /// With an image of the program, if containers can run here at all; else it says why they cannot.
    fn with_image() -> Option<Self> {
        if !has_tools(&["buildah", "podman", "runc", "strip"]) {
            return None;
        }
        let folder = TempFolder::new();
        let at = |name: &str| folder.path().join(name);
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            at("images").display(),
            at("run").display()
        );
        fs::write(at("storage.conf"), storage).unwrap();
        // No more than this process may have itself, or only the whole machine's root could start containers.
        let containers = "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n[engine]\nruntime = \"runc\"\n";
        fs::write(at("containers.conf"), containers).unwrap();
        let project = format!("stevedore-{}", std::process::id());
        let podman = Self { project, ports: free_ports(), folder };
        let image = podman.folder.path().join("context/target/image");
        let root = Command::new(format!("{REPOSITORY}/deploy/root")).args([STEVEDORE, text(&image)]).status();
        assert!(root.unwrap().success(), "deploy/root");
        let context = podman.folder.path().join("context");
        let dockerfile = format!("{REPOSITORY}/Dockerfile");
        let words =
            ["bud", "--format", "docker", "--target", "given", "-t", "stevedore", "-f", &dockerfile, text(&context)];
        podman.ok("buildah", &words);
        let tried = podman.run("podman", &["run", "--rm", "stevedore", "--help"]);
        if !tried.status.success() {
            let why = String::from_utf8_lossy(&tried.stderr);
            eprintln!("SKIPPED: podman runs no containers here: {}", why.trim());
            return None;
        }
        Some(podman)
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let at = |name: &str| self.folder.path().join(name);
        let mut command = Command::new(program);
        command.args(words).current_dir(REPOSITORY);
        command.env("CONTAINERS_CONF", at("containers.conf")).env("CONTAINERS_STORAGE_CONF", at("storage.conf"));
        command.env("BUILDAH_ISOLATION", "chroot").env_remove("STEVEDORE_CLUSTER");
        for (name, port) in ["HTTP_1", "S3_1", "HTTP_2", "S3_2"].iter().zip(self.ports) {
            command.env(name, port.to_string());
        }
        command
    }

    fn run(&self, program: &str, words: &[&str]) -> Output {
        self.command(program, words).output().unwrap_or_else(|error| panic!("{program}: {error}"))
    }

    /// Runs a command that is to work; what it prints.
    #[track_caller]
    fn ok(&self, program: &str, words: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.run(program, words);
        assert!(status.success(), "{program} {words:?}: {status} {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).expect("text")
    }

    /// The store of compose.yaml, told to do something.
    #[track_caller]
    fn compose(&self, words: &[&str]) -> String {
        let compose = python_program("podman-compose").expect("looked for before");
        self.ok(text(&compose), &[&["-p", self.project.as_str()], words].concat())
    }

    /// What a program in a container says, and whether it worked.
    fn inside(&self, service: &str, words: &[&str]) -> (bool, String) {
        let container = self.container(service);
        let output = self.run("podman", &[&["exec", &container, "/stevedore"], words].concat());
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    fn container(&self, service: &str) -> String {
        format!("{}_{service}_1", self.project)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- status\n{}\n{:?}",
                self.inside("dstore-1", &["status"]).1,
                self.inside("gateway-1", &["health", "--healed"])
            );
            let names = self.run("podman", &["ps", "-a", "--format", "{{.Names}}"]);
            for name in String::from_utf8_lossy(&names.stdout).lines() {
                let logs = self.run("podman", &["logs", name]);
                eprintln!("--- {name}\n{}", String::from_utf8_lossy(&[logs.stdout, logs.stderr].concat()));
            }
        }
        self.run("podman", &["rm", "--all", "--force", "--time", "0"]);
        self.run("podman", &["network", "rm", &format!("{}_default", self.project)]);
        // Its layers are mounted otherwise, and cannot be removed with the folder.
        self.run("podman", &["rmi", "--all", "--force"]);
        self.run("podman", &["volume", "rm", "--all"]);
    }
}

/// A program of the Python packages that tests use, if they are there.
fn python_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("STEVEDORE_PYTHON").map(|python| Path::new(&python).join("bin").join(name));
    let found = path.filter(|path| path.exists());
    if found.is_none() {
        eprintln!("SKIPPED: there is no {name} in $STEVEDORE_PYTHON");
    }
    found
}

/// Waits for what containers do: each look at them starts processes.
#[track_caller]
fn becomes(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(4 * PATIENCE, condition), "it never comes true: {what}");
}

/// Whether a gateway hands out these bytes.
fn is_served(port: u16, bytes: &[u8]) -> bool {
    let got =
        Command::new("curl").args(["-sf", "-m", "20", &format!("http://127.0.0.1:{port}/docs/file?parents")]).output();
    got.is_ok_and(|got| got.status.success() && got.stdout == bytes)
}

#[test]
fn a_store_of_containers_outlives_each_of_them() {
    // An image is made, and ten containers start twice: machines.rs has the kills and the names in less time.
    if !kit::hunt::is_long() {
        return eprintln!("SKIPPED: STEVEDORE_LONG=1 runs the store of compose.yaml, for a minute or two");
    }
    if python_program("podman-compose").is_none() || !has_tools(&["curl"]) {
        return;
    }
    let Some(podman) = Podman::with_image() else { return };
    let [first, _, second, _] = podman.ports;
    podman.compose(&["up", "-d"]);
    let is_healed = || podman.inside("gateway-1", &["health", "--healed"]).0;
    becomes("all are there", || {
        podman.inside("dstore-1", &["status"]).1.matches(" present ").count() == 5 && is_healed()
    });
    let bytes = kit::bytes(7, 3_000_000);
    let file = podman.folder.path().join("file");
    fs::write(&file, &bytes).unwrap();
    let url = format!("http://127.0.0.1:{first}/docs/file?parents");
    podman.ok("curl", &["-sSf", "-m", "20", "-T", text(&file), &url]);
    // The program is no superuser, has no privileges, and cannot change its own image.
    let status = podman.ok(
        "podman",
        &["inspect", "-f", "{{.HostConfig.ReadonlyRootfs}} {{.EffectiveCaps}}", &podman.container("dstore-1")],
    );
    assert_eq!(status.trim(), "true []");
    assert_eq!(podman.ok("podman", &["top", &podman.container("dstore-1"), "user"]).lines().last(), Some("65532"));
    let healthy = podman.inside("dstore-1", &["health"]);
    assert_eq!(healthy, (true, "ok\n".into()));
    // A Controller and a Dstore are lost: what they had is there.
    for service in ["controller-1", "dstore-2"] {
        podman.ok("podman", &["kill", &podman.container(service)]);
    }
    becomes("the other gateway serves it", || is_served(second, &bytes));
    becomes("that is seen", || podman.inside("dstore-1", &["health", "--healed"]).1.contains("1 Dstore is away"));
    // All containers go, and the volumes stay.
    podman.compose(&["down"]);
    assert_eq!(podman.ok("podman", &["ps", "-aq"]), "");
    podman.compose(&["up", "-d"]);
    becomes("it is served again", || is_served(first, &bytes));
    becomes("all are there again", is_healed);
    // A server that is asked to end does so well before it would be killed.
    let dstore = podman.container("dstore-4");
    podman.ok("podman", &["stop", "--time", "30", &dstore]);
    let ended = || podman.ok("podman", &["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", &dstore]);
    becomes("it ends in order", || ended().trim() == "exited 0");
}
