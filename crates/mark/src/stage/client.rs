//! A client, played as the official one behaves. (spec 6)

use std::time::Duration;

use super::failure::{Failure, Verdict};
use super::recorder::Recorder;
use super::wire::{Heard, Wire};
use super::{QUIET, difference, dstore_name};

/// One client, with its one connection to the Controller. (spec 2.4)
pub struct Client {
    name: String,
    wire: Wire,
    recorder: Recorder,
    patience: Duration,
}

impl Client {
    /// Connects to the Controller.
    pub fn connect(name: &str, port: u16, recorder: &Recorder, patience: Duration) -> Result<Self, Failure> {
        let wire = Wire::connect(name, "controller", port, recorder)?;
        Ok(Self { name: name.into(), wire, recorder: recorder.clone(), patience })
    }

    /// The connection to the Controller, for what is not an ordinary request.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Sends a line and waits for nothing.
    pub fn send(&self, line: &str) {
        self.wire.send(line);
    }

    /// The next reply must be exactly this.
    pub fn expect(&mut self, line: &str) -> Verdict {
        self.wire.expect(line, self.patience)
    }

    /// The next reply, whatever it is, but there must be one.
    pub fn reply(&mut self) -> Result<String, Failure> {
        match self.wire.receive(self.patience) {
            Heard::Line(line) => Ok(line),
            came => Err(self.wire.wrong("a reply", &came)),
        }
    }

    /// The reply to a request.
    pub fn ask(&mut self, request: &str) -> Result<String, Failure> {
        self.send(request);
        match self.wire.receive(self.patience) {
            Heard::Line(line) => Ok(line),
            came => Err(self.wire.wrong(format!("a reply to `{request}`"), &came)),
        }
    }

    /// A request and the reply that it must get.
    pub fn asks(&mut self, request: &str, reply: &str) -> Verdict {
        self.send(request);
        self.expect(reply)
    }

    /// No reply comes for a while.
    pub fn expect_silence(&mut self, because: &str) -> Verdict {
        self.wire.expect_silence(QUIET, because)
    }

    /// The files that LIST shows, sorted. (spec 4.5)
    pub fn list(&mut self) -> Result<Vec<String>, Failure> {
        let reply = self.ask("LIST")?;
        let mut words = reply.split(' ').map(str::to_owned);
        if words.next().as_deref() != Some("LIST") {
            return Err(self.wrong("`LIST` and the files", &reply));
        }
        let mut names: Vec<String> = words.collect();
        names.sort();
        Ok(names)
    }

    /// LIST must show exactly these files, in any order. (spec 4.5)
    pub fn expect_listed(&mut self, files: &[&str]) -> Verdict {
        let listed = self.list()?;
        let mut files = files.to_vec();
        files.sort_unstable();
        if listed == files {
            return Ok(());
        }
        self.recorder.mark_wrong("controller", &self.name);
        let expected =
            if files.is_empty() { "`LIST`, with no file".into() } else { format!("`LIST {}`", files.join(" ")) };
        Err(Failure::new(expected, format!("`LIST {}`", listed.join(" "))).marked())
    }

    /// Asks to store, and is told R different ports. (spec 4.2)
    pub fn begin_store(&mut self, name: &str, size: usize, replicas: usize) -> Result<Vec<u16>, Failure> {
        let reply = self.ask(&format!("STORE {name} {size}"))?;
        self.store_to(&reply, replicas)
    }

    /// The ports of a STORE_TO, which must be R different ones.
    pub fn store_to(&self, reply: &str, replicas: usize) -> Result<Vec<u16>, Failure> {
        let expected = format!("`STORE_TO` with {replicas} different ports");
        let ports = reply.strip_prefix("STORE_TO ").and_then(ports).filter(|ports| ports.len() == replicas);
        match ports {
            Some(ports) if (1..ports.len()).all(|at| !ports[..at].contains(&ports[at])) => Ok(ports),
            _ => Err(self.wrong(expected, reply)),
        }
    }

    /// Sends LOAD or RELOAD, and is told a port and the size. (spec 4.3)
    pub fn load_from(&mut self, request: &str, size: usize) -> Result<u16, Failure> {
        let reply = self.ask(request)?;
        let offer = reply.strip_prefix("LOAD_FROM ").and_then(|rest| rest.split_once(' '));
        match offer.and_then(|(port, came)| Some((port.parse().ok()?, came.parse::<usize>().ok()?))) {
            Some((port, came)) if came == size => Ok(port),
            _ => Err(self.wrong(format!("`LOAD_FROM` with a port and the size, {size}"), &reply)),
        }
    }

    fn wrong(&self, expected: impl ToString, reply: &str) -> Failure {
        self.recorder.mark_wrong("controller", &self.name);
        Failure::new(expected, format!("`{reply}`")).marked()
    }

    /// A new connection to a Dstore, for one transfer. (spec 2.5)
    pub fn connect_to_dstore(&self, port: u16) -> Result<Wire, Failure> {
        Wire::connect(&self.name, &dstore_name(port), port, &self.recorder)
    }

    /// Sends content to one Dstore as the official client does: STORE, ACK, all bytes at once, close. (spec 6.4)
    pub fn send_copy(&self, port: u16, name: &str, content: &[u8]) -> Verdict {
        let mut dstore = self.connect_to_dstore(port)?;
        dstore.send(&format!("STORE {name} {}", content.len()));
        dstore.expect("ACK", self.patience)?;
        dstore.send_content(content);
        Ok(())
    }

    /// Stores a file from request to STORE_COMPLETE. (spec 4.2)
    pub fn store(&mut self, name: &str, content: &[u8], replicas: usize) -> Result<Vec<u16>, Failure> {
        let ports = self.begin_store(name, content.len(), replicas)?;
        for &port in &ports {
            self.send_copy(port, name, content)?;
        }
        self.expect("STORE_COMPLETE")?;
        Ok(ports)
    }

    /// Loads a file from a Dstore that has been offered; what comes, complete or not. (spec 4.3)
    pub fn fetch_from(&self, port: u16, name: &str, size: usize) -> Result<Vec<u8>, Failure> {
        let mut dstore = self.connect_to_dstore(port)?;
        dstore.send(&format!("LOAD_DATA {name}"));
        Ok(dstore.receive_content(size, self.patience))
    }

    /// Loads a file, asking for another Dstore while there is one; the bytes must be right. (spec 4.3, 6.5)
    pub fn load(&mut self, name: &str, content: &[u8]) -> Verdict {
        let mut request = format!("LOAD {name}");
        for _ in 0..10 {
            let port = self.load_from(&request, content.len())?;
            match self.fetch_from(port, name, content.len()) {
                Ok(came) if came.len() == content.len() => return self.compare(port, name, content, &came),
                _ => request = format!("RELOAD {name}"),
            }
        }
        Err(Failure::new(format!("one of the offered Dstores has {name}"), "10 offers in vain"))
    }

    fn compare(&self, port: u16, name: &str, content: &[u8], came: &[u8]) -> Verdict {
        match difference(content, came) {
            None => Ok(()),
            Some(difference) => {
                self.recorder.mark_wrong(&dstore_name(port), &self.name);
                Err(Failure::new(format!("{name} with the {} bytes that were stored", content.len()), difference)
                    .marked())
            }
        }
    }
}

/// Ports, separated by single spaces.
pub fn ports(words: &str) -> Option<Vec<u16>> {
    words.split(' ').map(|word| word.parse().ok()).collect()
}
