//! The two ways in which a client can speak the coursework protocol.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use stevedore::client::{Client, Error};

use crate::content::{Check, Content};
use crate::official::Official;

/// How the clients go about their transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As the official client does: a new connection for each transfer, the Dstores of a store one after another.
    /// (spec 6)
    Official,
    /// As our own client does: the Dstores of a store at the same time.
    Pipelined,
}

impl Style {
    /// A client of this style, connected to the Controller at `address`. `keeps_connections`, for a pipelined one,
    /// makes it say KEEP_ALIVE to Dstores. (spec 8.2)
    pub fn connect(
        self,
        address: SocketAddr,
        timeout: Duration,
        keeps_connections: bool,
    ) -> Result<Box<dyn Operations>, Error> {
        Ok(match self {
            Self::Official => Box::new(Official::connect(address, timeout)?),
            Self::Pipelined => {
                let mut client = Client::connect(address, timeout)?;
                client.keep_connections(keeps_connections);
                Box::new(client)
            }
        })
    }
}

impl FromStr for Style {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "official" => Ok(Self::Official),
            "pipelined" => Ok(Self::Pipelined),
            _ => Err("expected official or pipelined".into()),
        }
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Official => "official",
            Self::Pipelined => "pipelined",
        })
    }
}

/// What a client can do, one after another. After an error it can go on.
pub trait Operations: Send {
    /// Stores a new file. (spec 4.2)
    fn store(&mut self, name: &str, content: &mut Content) -> Result<(), Trouble>;
    /// Loads a file; returns its size. (spec 4.3)
    fn load(&mut self, name: &str, check: &mut Check) -> Result<u64, Trouble>;
    /// Removes a file. (spec 4.4)
    fn remove(&mut self, name: &str) -> Result<(), Trouble>;
    /// The names of all files. (spec 4.5)
    fn list(&mut self) -> Result<Vec<String>, Trouble>;
}

/// Why an operation does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What went wrong, without the particulars: errors are counted by this.
    pub kind: &'static str,
    /// With the particulars.
    pub message: String,
    /// The file is not there.
    pub is_missing: bool,
}

impl Operations for Client {
    fn store(&mut self, name: &str, content: &mut Content) -> Result<(), Trouble> {
        Ok(Self::store(self, name, content.size(), content)?)
    }

    fn load(&mut self, name: &str, check: &mut Check) -> Result<u64, Trouble> {
        Ok(Self::load(self, name, check)?)
    }

    fn remove(&mut self, name: &str) -> Result<(), Trouble> {
        Ok(Self::remove(self, name)?)
    }

    fn list(&mut self) -> Result<Vec<String>, Trouble> {
        Ok(Self::list(self)?.into_iter().map(|name| name.to_string()).collect())
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Name(_) => "name refused",
            Error::TooLarge { .. } => "file too large",
            Error::NotEnoughDstores => "not enough Dstores",
            Error::AlreadyExists(_) => "already exists",
            Error::DoesNotExist(_) => "does not exist",
            Error::LoadFailed { .. } => "no Dstore delivers",
            Error::NoReply { .. } => "no reply",
            Error::StoreOverdue { .. } => "store overdue",
            Error::Controller { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                "Controller refuses"
            }
            Error::Controller { .. } => "Controller connection broken",
            Error::Dstore { .. } => "Dstore fails",
            Error::Unexpected { .. } => "senseless answer",
            Error::Local(_) => "local error",
        };
        let is_missing = matches!(error, Error::DoesNotExist(_));
        Self { kind, message: error.to_string(), is_missing }
    }
}
