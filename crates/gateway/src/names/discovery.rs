//! The datagrams by which storages are found: `discovery`, to all machines of a network, and `Alive`, back to the one that asks.
//!
//! Here they say only what is there: which Dstores the store has is in its log.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use depot::datagrams::{Listening, bind};

use super::DiscoveryOptions;

/// The port on which storages are asked.
pub const DISCOVERY: u16 = 3_501;

/// The port to which they answer.
pub const ANSWERS: u16 = 3_502;

/// All of this machine.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

const QUESTION: &[u8] = b"discovery";
const ANSWER: &[u8] = b"Alive";

/// A storage that has not answered so many questions is gone.
const MISSED: u32 = 3;

/// So many storages are listed.
const MOST: usize = 1_000;

/// Asks for storages until it is dropped, and lists those that answer in the log.
pub(super) struct Broadcast {
    _listening: Listening,
}

/// Answers for this machine's Dstores until it is dropped.
pub struct Answering {
    listening: Listening,
}

impl Broadcast {
    pub(super) fn start(options: &DiscoveryOptions) -> io::Result<Self> {
        let socket = bind(options.answers, false)?;
        socket.set_broadcast(true)?;
        let (to, period) = (options.to, options.period);
        let mut storages: BTreeMap<IpAddr, Instant> = BTreeMap::new();
        let mut next = Instant::now();
        let listening = Listening::start("names-discovery", socket, move |socket, received| {
            let now = Instant::now();
            if let Some((ANSWER, peer)) = received
                && storages.len() < MOST
                && storages.insert(peer.ip(), now).is_none()
            {
                log::info!("names: the storage {} answers", peer.ip());
            }
            if now < next {
                return;
            }
            next = now + period;
            // To other machines, and to this one, which may have no network.
            let here = (to.ip() == Ipv4Addr::BROADCAST).then_some((HERE, to.port()).into());
            for to in [Some(to), here].into_iter().flatten() {
                if let Err(error) = socket.send_to(QUESTION, to) {
                    log::debug!("names: {to}: {error}");
                }
            }
            storages.retain(|storage, heard| {
                let is_there = now.duration_since(*heard) < period * MISSED;
                if !is_there {
                    log::info!("names: the storage {storage} answers no more");
                }
                is_there
            });
        })?;
        Ok(Self { _listening: listening })
    }
}

impl Answering {
    /// Answers questions that come to this port, 0 for any, at the port `answers` of the machine that asks. Several processes of a machine may do so.
    pub fn start(port: u16, answers: u16) -> io::Result<Self> {
        let listening = Listening::start("names-answers", bind(port, true)?, move |socket, received| {
            let Some((QUESTION, peer)) = received else { return };
            if let Err(error) = socket.send_to(ANSWER, (peer.ip(), answers)) {
                log::debug!("names: {peer}: {error}");
            }
        })?;
        Ok(Self { listening })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }
}
