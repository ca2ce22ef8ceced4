//! How a store's Controllers are found in a network: by a broadcast that they answer. (depot 7)
//!
//! ```text
//!   client, Dstore or gateway                        Controllers of any store
//!     |-- STEVEDORE? 1 8a3f... depot ──▶ all machines    | not its store: says nothing
//!     |<- STEVEDORE! 1 8a3f... 10.0.0.1:7000,10.0.0.2:7000
//! ```
//!
//! Name and cluster id have to be those of the store, so several stores in one network do not mix, and a stranger who does not know
//! the id learns nothing. What is answered is a hint and no more: anyone can answer. So the caller looks, by a handshake
//! in which both ends prove that they know the store's secret, whether an address is what it seems to be. (depot 5.8)
//!
//! Only IPv4 has broadcasts. With IPv6 alone, addresses or a DNS name have to be given.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::datagrams::{self, Listening, MOST_BYTES};
use crate::identity::ClusterId;
use crate::wire::Address;

/// The port of UDP on which Controllers are asked, unless said otherwise.
pub const PORT: u16 = 7_000;

/// How often the question is repeated.
pub const PERIOD: Duration = Duration::from_secs(5);

const QUESTION: &str = "STEVEDORE? 1";
const ANSWER: &str = "STEVEDORE! 1";

/// So many addresses of one answer are looked at: a store has no more Controllers.
const MOST_LOOKED_AT: usize = 9;

/// Answers for the Controllers of a store until it is dropped.
pub struct Responder {
    controllers: Arc<Mutex<Vec<Address>>>,
    listening: Listening,
}

impl Responder {
    /// Answers on this port, which several may share; 0 takes a free one.
    pub fn start(port: u16, name: &str, cluster: ClusterId, controllers: Vec<Address>) -> io::Result<Self> {
        let controllers = Arc::new(Mutex::new(controllers));
        let (of_thread, question) = (Arc::clone(&controllers), question(name, cluster));
        let listening = Listening::start("discovery", datagrams::bind(port, true)?, move |socket, received| {
            let Some((text, peer)) = received else { return };
            if text == question.as_bytes() {
                let known: Vec<String> = of_thread.lock().iter().map(Address::to_string).collect();
                // It asks again if this is lost.
                let _ = socket.send_to(format!("{ANSWER} {cluster} {}", known.join(",")).as_bytes(), peer);
            }
        })?;
        Ok(Self { controllers, listening })
    }

    /// Where the Controllers are from now on.
    pub fn set(&self, controllers: Vec<Address>) {
        *self.controllers.lock() = controllers;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }
}

/// Asks all machines that a broadcast reaches for the Controllers of a store, again and again for as long as `patience`, until `accept` is content with
/// one of the addresses that are answered. That Controller can say where the others are.
///
/// Anyone can answer: `accept` has to look whether an address is what it seems to be.
pub fn find(
    (name, cluster): (&str, ClusterId),
    port: u16,
    patience: Duration,
    mut accept: impl FnMut(&Address) -> bool,
) -> io::Result<Option<Address>> {
    let socket = datagrams::bind(0, false)?;
    socket.set_broadcast(true)?;
    let question = question(name, cluster);
    let begun = Instant::now();
    let mut next = begun;
    // A hostile answer that is repeated is not looked at again and again.
    let mut refused = Vec::new();
    while begun.elapsed() < patience {
        if Instant::now() >= next {
            // To other machines, and to this one, which may have no network.
            let sent = [Ipv4Addr::BROADCAST, Ipv4Addr::new(127, 255, 255, 255)]
                .map(|to| socket.send_to(question.as_bytes(), (to, port)));
            if let [Err(error), Err(_)] = sent {
                return Err(error);
            }
            next += PERIOD;
        }
        let mut buffer = [0; MOST_BYTES];
        let Some((bytes, peer)) = datagrams::receive(&socket, &mut buffer) else { continue };
        let Some(mut found) = std::str::from_utf8(bytes).ok().and_then(|text| answered(text, cluster)) else {
            continue;
        };
        found.retain(|address| !refused.contains(address));
        found.truncate(MOST_LOOKED_AT);
        if let Some(good) = found.iter().find(|address| begun.elapsed() < patience && accept(address)) {
            return Ok(Some(good.clone()));
        }
        if found.is_empty() {
            continue;
        }
        log::warn!("{peer} answers as a Controller of {name:?} would, but none of its addresses is one");
        refused.append(&mut found);
        refused.truncate(1_000);
    }
    Ok(None)
}

fn question(name: &str, cluster: ClusterId) -> String {
    format!("{QUESTION} {cluster} {name}")
}

/// The addresses of an answer about this store.
fn answered(text: &str, cluster: ClusterId) -> Option<Vec<Address>> {
    let addresses =
        text.strip_prefix(ANSWER)?.strip_prefix(' ')?.strip_prefix(&cluster.to_string())?.strip_prefix(' ')?;
    addresses.split(',').map(|address| address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_the_store_that_is_asked_for_answers() {
        let (red, blue) = (ClusterId(1), ClusterId(2));
        let of_red = Responder::start(0, "red", red, addresses(&["10.0.0.1:7000"])).unwrap();
        let port = of_red.address().port();
        let _of_blue = Responder::start(port, "blue", blue, addresses(&["10.0.0.2:7000"])).unwrap();
        let _same_name = Responder::start(port, "red", ClusterId(3), addresses(&["10.0.0.3:7000"])).unwrap();
        let found = |name, cluster| find((name, cluster), port, SOON, |_| true).unwrap();
        assert_eq!(found("red", red), addresses(&["10.0.0.1:7000"]).pop());
        assert_eq!(found("blue", blue), addresses(&["10.0.0.2:7000"]).pop());
        of_red.set(addresses(&["10.0.0.4:7000", "[::1]:7001"]));
        assert_eq!(found("red", red), addresses(&["10.0.0.4:7000"]).pop());
        let nothing = find(("green", red), port, Duration::from_millis(300), |_| true).unwrap();
        assert_eq!(nothing, None, "the name is another one");
    }

    #[test]
    fn an_answer_that_is_not_what_it_seems_is_passed_over() {
        let cluster = ClusterId(7);
        let hostile = Responder::start(0, "red", cluster, addresses(&["10.0.0.66:7000"])).unwrap();
        let port = hostile.address().port();
        let mut looked = 0;
        let is_good = |address: &Address| address.host() != "10.0.0.66";
        let nothing = find(("red", cluster), port, Duration::from_secs(3), |address| {
            looked += 1;
            is_good(address)
        });
        assert_eq!((nothing.unwrap(), looked), (None, 1), "it is looked at once, however often it answers");
        let _good = Responder::start(port, "red", cluster, addresses(&["10.0.0.66:7000", "10.0.0.1:7000"])).unwrap();
        let found = find(("red", cluster), port, SOON, is_good).unwrap();
        assert_eq!(found, addresses(&["10.0.0.1:7000"]).pop());
    }

    #[test]
    fn what_is_no_answer_is_ignored() {
        let cluster = ClusterId(7);
        let good = format!("{ANSWER} {cluster} 10.0.0.1:7000,10.0.0.2:7000");
        assert_eq!(answered(&good, cluster).map(|found| found.len()), Some(2));
        for bad in [
            "",
            "STEVEDORE! 1",
            &good.replace('!', "?"),
            &good.replace("! 1", "! 2"),
            &format!("{good},x"),
            &good[..30],
        ] {
            assert_eq!(answered(bad, cluster), None, "{bad}");
        }
        assert_eq!(answered(&good, ClusterId(8)), None);
    }
}
