//! Ports for programs that have to be told theirs: where one can be started on port 0 and says what it got, that is better.
//!
//! A port that was free a moment ago may be taken a moment later. So these are ports that no kernel gives away by itself, and they are
//! reserved: a block of 100 belongs to the process that has bound the block's last port *for UDP*, which nothing else uses. What
//! is reserved is given back when the process ends, however it ends.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::process;
use std::sync::Mutex;

/// Ports of four digits, which some protocols demand, in blocks: 2000 to 9999.
const FIRST: u16 = 2_000;
const BLOCK: u16 = 100;
const BLOCKS: u16 = 80;

/// What this process has reserved.
static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// So many ports in a row, of four digits, that no program listens on now, and that no other call returns on this machine for as
/// long as this process runs.
pub fn free_ports(count: u16) -> RangeInclusive<u16> {
    let blocks = count.div_ceil(BLOCK);
    assert!((1..=BLOCKS).contains(&blocks), "{count} ports");
    let places = BLOCKS - blocks + 1;
    let mut reserved = RESERVED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    // Each process begins elsewhere.
    let begin = process::id().wrapping_mul(31);
    for attempt in 0..u32::from(places) {
        let block = (begin.wrapping_add(attempt) % u32::from(places)) as u16;
        let first = FIRST + block * BLOCK;
        let last_of_blocks = (1..=blocks).map(|number| first + number * BLOCK - 1);
        let tokens: Result<Vec<_>, _> =
            last_of_blocks.map(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port))).collect();
        let Ok(tokens) = tokens else { continue };
        let range = first..=first + count - 1;
        if range.clone().all(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()) {
            reserved.extend(tokens);
            return range;
        }
    }
    panic!("no {count} ports in a row are free");
}

/// One of them.
pub fn free_port() -> u16 {
    *free_ports(1).start()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_reserved_are_free_and_reserved_once() {
        let ranges = [free_ports(1), free_ports(60), free_ports(150)];
        for (number, range) in ranges.iter().enumerate() {
            assert!(range.clone().all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()), "{range:?}");
            assert!(ranges[..number].iter().all(|other| other.end() < range.start() || range.end() < other.start()));
        }
        assert!((FIRST..10_000).contains(&free_port()));
    }
}
