//! `health`: whether a server can go on, for programs that start and stop servers. (docs/monitoring.md)

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use argh::FromArgs;
use depot::client::{ControllerRole, DstoreState, Files, Status};
use stevedore::program::output::say;
use stevedore::program::{self, Failure};

use crate::admin;
use crate::cluster;
use crate::failure::of_store;
use crate::show::count;

/// Where a server answers for its health, unless the command line says otherwise.
const ADMIN_PORT: u16 = 7900;

/// Longer than a server that can go on takes to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ask a server whether it can go on, or the store whether it is healed.
#[derive(FromArgs)]
#[argh(
    subcommand,
    help_triggers("-h", "--help"),
    name = "health",
    note = "For whatever starts and stops servers: the exit code is 0 or 1. It needs no shell, so it works in an image that has none.",
    note = "--healed is what to wait for before the next server is restarted: all Dstores are there, and each object has all its copies.",
    example = "stevedore dstore --data /srv/dstore --admin 7900\nstevedore health\nstevedore health --ready 10.0.0.1:7900\nstevedore health --healed --cluster client.toml"
)]
pub struct Health {
    /// ask whether it can do its work now, too: /readyz instead of /healthz
    #[argh(switch)]
    pub ready: bool,
    /// ask the store, not a server, whether all Dstores are there and all copies made
    #[argh(switch)]
    pub healed: bool,
    /// what the server's --admin says (default 7900)
    #[argh(positional, arg_name = "[ADDRESS:]PORT", from_str_fn(admin::address))]
    pub address: Option<SocketAddr>,
}

impl Health {
    /// Does it. `cluster` is the store's `client.toml`, or its folder; only `--healed` needs it.
    pub fn run(&self, cluster: Option<&Path>) -> Result<(), Failure> {
        let _log = program::start_log("error")?;
        if self.healed {
            if self.ready || self.address.is_some() {
                return Err(Failure::usage("--healed asks the store: name no server, and leave --ready out"));
            }
            let status = cluster::connect(cluster)?.status().map_err(of_store)?;
            return match unhealed(&status) {
                None => say(format_args!("healed")),
                Some(why) => Err(Failure::new(why)),
            };
        }
        let address = self.address.unwrap_or_else(|| SocketAddr::new([127, 0, 0, 1].into(), ADMIN_PORT));
        let page = if self.ready { "/readyz" } else { "/healthz" };
        match ask(address, page) {
            Ok((200, text)) => say(format_args!("{}", text.trim_end())),
            Ok((_, text)) => Err(Failure::new(text.trim_end())),
            Err(error) => Err(Failure::new(format!("http://{address}{page}: {error}"))),
        }
    }
}

/// Why a server may not be restarted yet; `None` if there is no reason. (depot 6)
fn unhealed(status: &Status) -> Option<String> {
    if !status.controllers.iter().any(|one| one.role == ControllerRole::Leader && one.up.is_some()) {
        return Some("the leader does not answer, and only it knows".into());
    }
    let away = status.dstores.iter().filter(|dstore| dstore.state == DstoreState::Away).count();
    if away > 0 {
        return Some(format!("{} away", count(away as u64, "Dstore is", "Dstores are")));
    }
    match status.too_few_copies.max(status.healing.objects) {
        0 => None,
        few => Some(format!("{} copies", count(few, "object lacks", "objects lack"))),
    }
}

/// The status and the text of a page.
fn ask(address: SocketAddr, page: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {page} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parsed(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no HTTP is spoken there"))
}

fn parsed(answer: &str) -> Option<(u16, String)> {
    let (head, text) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    Some((status, text.to_owned()))
}
