//! Ports for the submission's programs to listen on.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below what Linux gives to outgoing connections, so that nobody takes a port between its choice and its use.
const RANGE: std::ops::Range<u16> = 10_240..32_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A TCP port that nobody listens on, ours until dropped.
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
            if !listeners().contains(&number) && TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() {
                return Self { number, _claim: claim };
            }
        }
    }
}

/// The ports that somebody on this machine listens on. Asking the kernel needs no connection, which a
/// submission might take for a client or a Dstore.
pub fn listeners() -> Vec<u16> {
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
