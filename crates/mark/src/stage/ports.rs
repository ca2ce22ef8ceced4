//! Ports for the submission's programs to listen on.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketType};

use super::failure::Failure;

/// Below what Linux gives to outgoing connections, so that no other program is given a port between its choice and its use.
const RANGE: std::ops::Range<u16> = 10_240..32_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A TCP port that no program listens on, ours until dropped.
pub struct Port {
    /// The number.
    pub number: u16,
    /// The UDP port of the same number tells other runs of `mark` on this machine that it is taken.
    _claim: UdpSocket,
}

impl Port {
    /// Any free one.
    pub fn any() -> Self {
        let span = u32::from(RANGE.end - RANGE.start);
        loop {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let start = std::process::id().wrapping_mul(97);
            let number = RANGE.start + (start.wrapping_add(step) % span) as u16;
            let Ok(claim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else { continue };
            // Not tried with a listener: a process that is just being started would hold on to it for a moment.
            if !is_listened_to(number) {
                return Self { number, _claim: claim };
            }
        }
    }
}

/// Listens on a free port, on all addresses: some connect to `localhost`, some to the machine's own name. (spec 7.14) Later ports are
/// higher ones, so that a program that goes by their order does the same in every run.
pub fn listen() -> Result<TcpListener, Failure> {
    let port = Port::any(); // ours until it is listened on
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port.number));
    let listener = listener.or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.number)));
    listener.map_err(|error| Failure::new("a free port", error))
}

/// Whether a program on this machine listens on `port`. Asking the kernel needs no connection, which a submission might
/// take for a client or a Dstore.
pub fn is_listened_to(port: u16) -> bool {
    listeners(&[SOCK_DIAG_IPV4, SOCK_DIAG_IPV6]).unwrap_or_else(listeners_in_proc).contains(&port)
}

/// From <linux/inet_diag.h> and <linux/sock_diag.h>: address families as they are numbered there.
const SOCK_DIAG_IPV4: u8 = 2;
const SOCK_DIAG_IPV6: u8 = 10;

/// Asks for listening sockets only, which is quick however many connections there are. `None` where the kernel does
/// not tell.
fn listeners(families: &[u8]) -> Option<Vec<u16>> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_DUMP: u16 = 0x301;
    const DONE: u16 = 3;
    const ERROR: u16 = 2;
    const HEADER: usize = 16;
    const LISTEN_STATE: u32 = 1 << 10;
    let mut ports = Vec::new();
    for &family in families {
        let socket = net::socket(AddressFamily::NETLINK, SocketType::RAW, Some(net::netlink::SOCK_DIAG)).ok()?;
        // struct nlmsghdr: length, type, flags, sequence, port.
        let mut request = Vec::with_capacity(72);
        request.extend(72_u32.to_ne_bytes());
        request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        request.extend(REQUEST_DUMP.to_ne_bytes());
        request.extend([0; 8]);
        // struct inet_diag_req_v2: family, protocol (TCP), extensions, padding, states, and any socket at all.
        request.extend([family, 6, 0, 0]);
        request.extend(LISTEN_STATE.to_ne_bytes());
        request.extend([0; 48]);
        net::send(&socket, &request, SendFlags::empty()).ok()?;
        let mut buffer = vec![0; 64 << 10];
        'replies: loop {
            let (_, received) = net::recv(&socket, &mut buffer[..], RecvFlags::empty()).ok()?;
            let mut rest = &buffer[..received];
            while let Some(header) = rest.get(..HEADER) {
                let length = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
                match u16::from_ne_bytes(header[4..6].try_into().ok()?) {
                    DONE => break 'replies,
                    ERROR => return None,
                    // struct inet_diag_msg: four bytes, then the source port in network order.
                    _ => ports.push(u16::from_be_bytes(rest.get(HEADER + 4..HEADER + 6)?.try_into().ok()?)),
                }
                rest = rest.get(length.next_multiple_of(4).max(HEADER)..).unwrap_or_default();
            }
        }
    }
    Some(ports)
}

fn listeners_in_proc() -> Vec<u16> {
    const LISTEN: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let sockets = tables.iter().flat_map(|table| table.lines().skip(1));
    sockets
        .filter_map(|socket| {
            let mut words = socket.split_whitespace().skip(1);
            let (local, state) = (words.next()?, words.nth(1)?);
            let port = local.rsplit(':').next()?;
            (state == LISTEN).then(|| u16::from_str_radix(port, 16).ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::sync::atomic::AtomicBool;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::stage::wait_until;

    #[test]
    fn a_port_is_free_also_while_processes_are_started() {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // As `Process` does it: with something to do between fork and exec.
                    Command::new("true").process_group(0).status().unwrap();
                }
            });
            let taken = (0..2_000).find(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, Port::any().number)).is_err());
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(taken, None);
        });
    }

    #[test]
    fn a_listener_is_seen_and_a_closed_one_is_not() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue }; // no IPv6 here
            let port = listener.local_addr().unwrap().port();
            assert!(is_listened_to(port));
            assert!(listeners_in_proc().contains(&port));
            drop(listener);
            // A process that is just being started may hold on to it for a moment.
            assert!(wait_until(Duration::from_secs(10), || (!is_listened_to(port)).then_some(())).is_some());
        }
    }
}
