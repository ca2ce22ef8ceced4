//! `--admin` and `--access-log`: what servers tell programs that watch over them. (docs/monitoring.md)

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use gateway::monitoring::{AccessLog, Admin, Monitor, Watched};
use stevedore::program::Failure;
use stevedore::program::output::say;

/// For argh: `[ADDRESS:]PORT`, on this machine only unless an address is given.
pub fn address(word: &str) -> Result<SocketAddr, String> {
    let port = word.parse().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    port.or_else(|_| word.parse()).map_err(|_| "expected a port or ADDRESS:PORT, as in 7900 or 10.0.0.1:7900".into())
}

/// Starts to answer for what is watched, if that is asked for, and says where.
pub fn start(address: Option<SocketAddr>, watched: Watched) -> Result<Option<Admin>, Failure> {
    let Some(wanted) = address else { return Ok(None) };
    let failed = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "; another process has that port: --admin 0 takes a free one",
            _ => "",
        };
        Failure::new(format!("metrics cannot be offered on {wanted}: {error}{advice}"))
    };
    let listener = stevedore::server::listen(Some(wanted.ip()), wanted.port()).map_err(failed)?;
    let admin = Admin::start(listener, Monitor::new(watched)).map_err(failed)?;
    say(format_args!("  Metrics     http://{}/metrics, /healthz, /readyz", admin.address()))?;
    Ok(Some(admin))
}

/// Opens the log of a gateway's requests, if there is to be one: `-` is stdout.
pub fn access_log(path: Option<&Path>) -> Result<Option<AccessLog>, Failure> {
    let open = |path: &Path| match path.as_os_str() == "-" {
        true => Ok(AccessLog::to_stdout()),
        false => {
            AccessLog::to_file(path).map_err(|error| Failure::new(format!("--access-log {}: {error}", path.display())))
        }
    };
    path.map(open).transpose()
}
