//! Where a Dstore listens, as its peers write it.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

/// The address of a Dstore: on the wire, a bare port on this machine. (spec 1.4)
///
/// Its one field is private, and it is not `Copy`: no caller can rely on its being a number, so that it can carry a
/// host one day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    port: NonZeroU16,
}

impl Address {
    /// The Dstore that listens on `port` of this machine; `None` for port 0, on which no Dstore can.
    pub fn local(port: u16) -> Option<Self> {
        NonZeroU16::new(port).map(|port| Self { port })
    }

    /// Where to connect to reach it.
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.get()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.port)
    }
}

/// A word that is not the address of a Dstore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidAddress;

impl FromStr for Address {
    type Err = InvalidAddress;

    /// Digits only: Rust would also take a leading `+`, the protocol does not.
    fn from_str(word: &str) -> Result<Self, InvalidAddress> {
        if !word.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidAddress);
        }
        word.parse().map(|port| Self { port }).map_err(|_| InvalidAddress)
    }
}
