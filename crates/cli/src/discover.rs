//! `--discover`: the Controllers of a store are looked for by a broadcast. (depot 7)
//!
//! What is answered is only a hint. Each address is asked something by a client of the store before it is used: in the handshake both ends
//! prove that they know the store's secret, so an answer of a stranger is passed over.

use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use depot::client::Files;
use depot::discovery::{self, Responder};
use depot::wire::Address;
use stevedore::program::Failure;

use crate::cluster::{ClientFile, ClusterFile};

/// How long a client looks for the store.
const CLIENTS: Duration = Duration::from_secs(5);

/// How long a Dstore does: it may have been started before its Controllers.
const DSTORES: Duration = Duration::from_secs(60);

/// What this process was told to look for.
static WANTED: OnceLock<Discover> = OnceLock::new();

/// Which store is looked for, and on which port of UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discover {
    name: String,
    port: u16,
}

impl FromStr for Discover {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (name, port) = match word.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().map_err(|_| format!("expected a port behind {name}:"))?),
            None => (word, discovery::PORT),
        };
        if name.is_empty() {
            return Err("expected the name of a store, as stevedore status shows it".into());
        }
        Ok(Self { name: name.to_owned(), port })
    }
}

impl Discover {
    /// Has all of this process look for the store.
    pub fn set(self) {
        let _ = WANTED.set(self);
    }

    /// A Controller of the store; `None` if none answers and others are known.
    fn controller(&self, file: &ClientFile, patience: Duration) -> Result<Option<Address>, Failure> {
        if self.name != file.name {
            let Self { name, .. } = self;
            return Err(Failure::usage(format!("--discover {name}: the file is for a store called {:?}", file.name)));
        }
        let is_ours = |address: &Address| {
            let file = ClientFile { controllers: vec![address.clone()], ..file.clone() };
            let asked = file.connect_for(Duration::ZERO).settings();
            asked.inspect_err(|error| log::info!("--discover {}: {address}: {error}", self.name)).is_ok()
        };
        let found = discovery::find((&self.name, file.cluster), self.port, patience, is_ours)
            .map_err(|error| Failure::new(format!("--discover {}: {error}", self.name)))?;
        if found.is_none() && file.controllers.is_empty() {
            let message =
                format!("--discover {}: no Controller of the store answers on port {} of UDP", self.name, self.port);
            return Err(Failure::new(message));
        }
        Ok(found)
    }
}

/// Has the file name the Controllers that are found, before those that it knows.
pub fn for_client(mut file: ClientFile) -> Result<ClientFile, Failure> {
    if let Some(wanted) = WANTED.get() {
        let found = wanted.controller(&file, CLIENTS)?;
        put_first(&mut file.controllers, found);
    }
    Ok(file)
}

/// The same for a Dstore.
pub fn for_dstore(file: &mut ClusterFile) -> Result<(), Failure> {
    if let Some(wanted) = WANTED.get() {
        let client = file.new_client().map_err(|error| Failure::new(format!("cannot draw a key: {error}")))?;
        put_first(&mut file.controllers, wanted.controller(&client, DSTORES)?);
    }
    Ok(())
}

fn put_first(known: &mut Vec<Address>, found: Option<Address>) {
    if let Some(found) = found {
        known.retain(|address| *address != found);
        known.insert(0, found);
    }
}

/// Answers for the Controllers of this process, which listen beyond this machine.
pub fn respond(port: u16, file: &ClusterFile) -> Option<Responder> {
    let started = Responder::start(port, &file.name, file.cluster, file.controllers.clone());
    // It is never the only way to find them.
    started
        .inspect_err(|error| log::warn!("--discovery-port {port}: no program finds this store by --discover: {error}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_looked_for_by_name_and_port() {
        let discover = |name: &str, port| Ok(Discover { name: name.into(), port });
        assert_eq!("depot".parse(), discover("depot", 7_000));
        assert_eq!("depot:7001".parse(), discover("depot", 7_001));
        assert_eq!("a:b:1".parse(), discover("a:b", 1));
        for word in ["", ":1", "depot:", "depot:x", "depot:65536"] {
            assert!(word.parse::<Discover>().is_err(), "{word}");
        }
    }

    #[test]
    fn what_is_found_comes_first_and_once() {
        let address = |port: u16| -> Address { format!("10.0.0.1:{port}").parse().unwrap() };
        let mut known = vec![address(1), address(2)];
        put_first(&mut known, Some(address(3)));
        put_first(&mut known, Some(address(2)));
        put_first(&mut known, None);
        assert_eq!(known, [address(2), address(3), address(1)]);
    }
}
