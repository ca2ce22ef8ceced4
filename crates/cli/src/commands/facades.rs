//! What the façades of a gateway that are off unless asked for have in common on the command line. (docs/gateway.md)
//!
//! Each has three options: `--NAME [ADDRESS:]PORT` turns it on, `--NAME-as USER` says whom it acts as, `--NAME-in DIR` where.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use depot::client::Files;
use depot::path::Path as DepotPath;
use gateway::access::{ANONYMOUS, Users};
use gateway::facade::{Acting, Facade, Running};
use gateway::monitoring::Record;
use stevedore::program::Failure;

use super::gateway::S3_PORT;
use crate::failure::of_store;

/// Where a façade is to listen, as it is typed: `[ADDRESS:]PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// `None` for the gateway's.
    address: Option<IpAddr>,
    port: u16,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if let Ok(port) = word.parse() {
            return Ok(Self { address: None, port });
        }
        let socket: SocketAddr =
            word.parse().map_err(|_| "expected a port or ADDRESS:PORT, as in 6235 or 10.0.0.1:6235")?;
        Ok(Self { address: Some(socket.ip()), port: socket.port() })
    }
}

/// A façade that the command line asks for.
pub struct Asked {
    /// Its option.
    pub option: &'static str,
    /// Where it is to listen.
    pub address: SocketAddr,
    /// The user that it acts as.
    user: String,
    /// The directory that its clients see.
    directory: DepotPath,
    is_open: bool,
}

impl Asked {
    /// What the options of a façade ask for. `listen` is the gateway's address, and `is_open` says that all clients may read and write.
    pub fn of(
        option: &'static str,
        place: Option<Place>,
        (user, directory): (Option<&str>, Option<&DepotPath>),
        (listen, is_open): (IpAddr, bool),
    ) -> Result<Option<Self>, Failure> {
        let Some(place) = place else {
            return match (user, directory) {
                (None, None) => Ok(None),
                (Some(_), _) => Err(Failure::usage(format!("{option}-as goes with {option}"))),
                (None, Some(_)) => Err(Failure::usage(format!("{option}-in goes with {option}"))),
            };
        };
        Ok(Some(Self {
            option,
            address: SocketAddr::new(place.address.unwrap_or(listen), place.port),
            user: user.unwrap_or(ANONYMOUS).to_owned(),
            directory: directory.cloned().unwrap_or_else(DepotPath::root),
            is_open,
        }))
    }

    /// Makes it of what listens there: `start` is given the listener when it is time.
    pub fn facade(
        &self,
        name: &'static str,
        start: impl FnOnce(TcpListener, Arc<dyn Files>, Record) -> io::Result<Box<dyn Running>> + Send + 'static,
    ) -> Result<Facade, Failure> {
        let listener = super::gateway::listen(self.address, self.option)?;
        let is_open = self.is_open || self.address.ip().is_loopback();
        let acting = Acting { user: self.user.clone(), directory: self.directory.clone(), is_open };
        Ok(Facade { name, acting, starter: Box::new(move |store, record| start(listener, store, record)) })
    }

    /// Refuses a user that is not there, and an address that others reach where no user bounds what they may do.
    pub fn check_user(&self, store: &dyn Files) -> Result<(), Failure> {
        let Self { option, address, user, .. } = self;
        if Users::of(store).find(user).map_err(of_store)?.is_some() {
            return Ok(());
        }
        if user != ANONYMOUS {
            return Err(Failure::usage(format!(
                "{option}-as {user}: there is no such user: stevedore user add {user}"
            )));
        }
        if address.ip().is_loopback() || self.is_open {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{option} on {} would let in every client that reaches it: {option}-as USER gives them the rights of a user, stevedore user \
             add {ANONYMOUS} makes one for all who name none, and --open lets all clients read and write",
            address.ip()
        )))
    }
}

/// For argh: ports of four digits, as the name server's frames say them.
pub fn ports(word: &str) -> Result<RangeInclusive<u16>, String> {
    let range = word.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let is_good = |(first, last): &(u16, u16)| (1_024..=9_999).contains(first) && (*first..=9_999).contains(last);
    let range = range.filter(is_good).ok_or("expected two ports of four digits from 1024 on, as in 3504-3599")?;
    Ok(range.0..=range.1)
}

/// Refuses a port that two options name. Port 0 is a different one each time.
pub fn check_ports(asked: &[(&str, SocketAddr)]) -> Result<(), Failure> {
    let mut seen: BTreeMap<u16, Vec<(&str, IpAddr)>> = BTreeMap::new();
    for (option, address) in asked.iter().filter(|(_, address)| address.port() != 0) {
        let others = seen.entry(address.port()).or_default();
        let clashes = |other: IpAddr| other == address.ip() || other.is_unspecified() || address.ip().is_unspecified();
        if let Some((other, _)) = others.iter().find(|(_, other)| clashes(*other)) {
            let port = address.port();
            return Err(Failure::usage(format!(
                "{other} and {option} both name port {port}: give one of them another"
            )));
        }
        others.push((option, address.ip()));
    }
    Ok(())
}

/// The usual port of S3: the next one if another option has asked for it.
pub fn usual_s3_port(asked: &[(&str, SocketAddr)]) -> u16 {
    if asked.iter().any(|(_, address)| address.port() == S3_PORT) { S3_PORT + 1 } else { S3_PORT }
}

#[cfg(test)]
mod tests {
    use super::*;
    use depot::client::memory::Memory;
    use gateway::access::User;
    use std::net::Ipv4Addr;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn asked(place: &str, user: Option<&str>, is_open: bool) -> Asked {
        let place = Some(place.parse().unwrap());
        Asked::of("--names", place, (user, None), (HERE, is_open)).unwrap().expect("it is asked for")
    }

    #[test]
    fn a_place_is_a_port_or_an_address_with_one() {
        let listen: IpAddr = "10.0.0.9".parse().unwrap();
        for (word, expected) in
            [("6235", "10.0.0.9:6235"), ("0", "10.0.0.9:0"), ("127.0.0.1:7", "127.0.0.1:7"), ("[::1]:7", "[::1]:7")]
        {
            let asked = Asked::of("--names", word.parse().ok(), (None, None), (listen, false)).unwrap();
            assert_eq!(asked.expect("it is asked for").address, expected.parse().unwrap(), "{word}");
        }
        for word in ["", "x", "65536", ":7", "localhost:7", "10.0.0.1", "-1"] {
            assert!(word.parse::<Place>().is_err(), "{word}");
        }
    }

    #[test]
    fn what_a_facade_acts_as_goes_with_the_facade() {
        let refused = |of| Asked::of("--names", None, of, (HERE, false)).map(drop).unwrap_err().message;
        assert_eq!(refused((Some("alice"), None)), "--names-as goes with --names");
        assert_eq!(refused((None, Some(&DepotPath::root()))), "--names-in goes with --names");
        assert!(Asked::of("--names", None, (None, None), (HERE, false)).unwrap().is_none());
    }

    #[test]
    fn a_port_given_twice_is_refused() {
        let check = |asked: &[(&str, &str)]| {
            let asked: Vec<_> = asked.iter().map(|(option, at)| (*option, at.parse().unwrap())).collect();
            check_ports(&asked).map_err(|failure| failure.message)
        };
        assert_eq!(check(&[("--http", "127.0.0.1:0"), ("--names", "127.0.0.1:0")]), Ok(()));
        assert_eq!(check(&[("--http", "127.0.0.1:80"), ("--names", "127.0.0.2:80")]), Ok(()));
        let refused = Err("--http and --names both name port 80: give one of them another".to_owned());
        for (http, names) in [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "[::]")] {
            let (http, names) = (format!("{http}:80"), format!("{names}:80"));
            assert_eq!(
                check(&[("--http", &http), ("--s3", "127.0.0.1:81"), ("--names", &names)]),
                refused,
                "{http} {names}"
            );
        }
    }

    #[test]
    fn ports_of_transfers_have_four_digits() {
        assert_eq!(ports("3504-3599"), Ok(3_504..=3_599));
        assert_eq!(ports("5000-5000"), Ok(5_000..=5_000));
        for word in ["", "3504", "3599-3504", "80-90", "9000-10000", "a-b"] {
            assert!(ports(word).is_err(), "{word}");
        }
    }

    #[test]
    fn s3_gives_way_to_a_facade_on_its_usual_port() {
        let [http, fluffy] = ["127.0.0.1:8080", "127.0.0.1:9000"].map(|address| ("--x", address.parse().unwrap()));
        assert_eq!([usual_s3_port(&[http]), usual_s3_port(&[http, fluffy])], [9000, 9001]);
    }

    #[test]
    fn beyond_this_machine_a_facade_needs_a_user_or_to_be_open() {
        let store = Memory::new("test").unwrap();
        let check = |place, user, is_open| asked(place, user, is_open).check_user(&store);
        let (here, elsewhere) = ("6235", "10.0.0.1:6235");
        assert!(check(here, None, false).is_ok() && check(elsewhere, None, true).is_ok());
        assert!(check(elsewhere, None, false).unwrap_err().message.contains("would let in every client"));
        for place in [here, elsewhere] {
            assert!(check(place, Some("alice"), true).unwrap_err().message.contains("no such user"), "{place}");
        }
        for name in ["alice", ANONYMOUS] {
            Users::of(&store).insert(&User::new(name).unwrap()).unwrap();
            assert!(check(elsewhere, Some(name), false).is_ok(), "{name}");
        }
        assert!(check(elsewhere, None, false).is_ok());
    }
}
