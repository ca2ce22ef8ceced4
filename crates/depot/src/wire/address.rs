//! Where a server is reached.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;

use crate::words::{Line, ParseError, Reader, Words, invalid};

/// A host and a port, as `host:port`; an IPv6 host is in brackets. Names are looked up anew for each connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(Arc<str>);

impl Address {
    /// Where to connect to reach it, the best first; an error if the name is not known.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(self.0.to_socket_addrs()?.collect())
    }

    /// The host alone, without brackets.
    pub fn host(&self) -> &str {
        let (host, _) = self.0.rsplit_once(':').expect("checked when it was parsed");
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// A text that is no `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidAddress;

impl fmt::Display for InvalidAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address is written host:port, as in 10.0.0.1:7000, store.example:7000 or [::1]:7000")
    }
}

impl std::error::Error for InvalidAddress {}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidAddress)?;
        let is_bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
        let is_plain = !host.is_empty() && !host.contains([':', '[', ']', ' ', '/']);
        let has_port = port.parse::<u16>().is_ok_and(|number| number > 0) && !port.starts_with('+');
        if (is_bracketed || is_plain) && has_port { Ok(Self(text.into())) } else { Err(InvalidAddress) }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string().into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Words for Address {
    fn write(&self, line: &mut Line) {
        line.text(&self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ParseError> {
        let text = reader.text("address")?;
        text.parse().map_err(|_| invalid("address", &text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_always_carries_a_host_and_a_port() {
        for good in ["10.0.0.1:7000", "localhost:1", "store.example:65535", "[::1]:7000"] {
            let address: Address = good.parse().expect(good);
            assert_eq!(Address::from_line(&address.to_line()), Ok(address));
        }
        for bad in
            ["", "7000", ":7000", "host", "host:", "host:0", "host:65536", "host:+1", "::1:7000", "[]:1", "a b:1"]
        {
            assert_eq!(bad.parse::<Address>(), Err(InvalidAddress), "{bad:?}");
        }
        let loopback: Address = "[::1]:7000".parse().expect("an address");
        assert_eq!((loopback.host(), loopback.resolve().expect("numeric").len()), ("::1", 1));
    }
}
