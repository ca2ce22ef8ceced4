//! A client, played as the official one behaves, and as lenient as that is: a reply's first word decides, and every port of a
//! STORE_TO is used. What a reply must look like to the letter has checks of its own. (spec 6)

use std::time::{Duration, Instant};

use super::failure::{Failure, Verdict};
use super::recorder::Recorder;
use super::wire::{Heard, Wire, begins, words};
use super::{QUIET, difference, dstore_name, wait_until};

/// One client, with its one connection to the Controller. (spec 2.4)
pub struct Client {
    name: String,
    wire: Wire,
    recorder: Recorder,
    patience: Duration,
    judges: &'static Judges,
}

/// The checks whose claims a client's steps are, by id: where a step only prepares another check, its failure is theirs.
pub struct Judges {
    /// STORE is answered by STORE_TO.
    pub store_to: &'static str,
    /// A store is completed.
    pub store: &'static str,
    /// LOAD is answered by LOAD_FROM.
    pub load_from: &'static str,
    /// A file is loaded.
    pub load: &'static str,
    /// A file is removed.
    pub remove: &'static str,
    /// LIST shows the files.
    pub list: &'static str,
    /// LIST shows that there are none.
    pub list_of_none: &'static str,
}

/// Among scripted Dstores.
pub const OF_A_CONTROLLER: Judges = Judges {
    store_to: "controller/store/is-answered-by-store-to",
    store: "controller/store/completes-on-the-last-acknowledgement",
    load_from: "controller/load/names-a-holder-and-the-size",
    load: "controller/load/names-a-holder-and-the-size",
    remove: "controller/remove/then-the-file-is-gone",
    list: "controller/list/complete-files",
    list_of_none: "controller/list/nothing-at-first",
};

/// In a whole system.
pub const OF_A_SYSTEM: Judges = Judges {
    store_to: "system/sequential/a-store",
    store: "system/sequential/a-store",
    load_from: "system/sequential/a-store-and-a-load",
    load: "system/sequential/a-store-and-a-load",
    remove: "system/sequential/a-whole-life",
    list: "system/sequential/a-whole-life",
    list_of_none: "controller/list/nothing-at-first",
};

/// What a scene's first client asks.
const FIRST_REQUEST: &str = "LOAD first-of-all";

/// A request that has had no reply for so long may be lost.
const LOST: Duration = Duration::from_secs(2);

/// So many clients ask at most.
const ASKING: usize = 3;

/// Why a scene's first client is not served.
pub struct NotServed {
    /// In words.
    pub failure: Failure,
    /// Whether nothing was said at all.
    pub is_silence: bool,
}

/// Waits until the Controller serves, as the reply to a LOAD shows; returns the client that got it. A request that comes during a
/// rebalance may be lost by some: after a while another client asks, too.
pub fn wait_to_be_served(
    connect: impl Fn() -> Result<Client, Failure>,
    recorder: &Recorder,
    patience: Duration,
) -> Result<Client, NotServed> {
    let mut clients: Vec<Client> = Vec::new();
    let mut came = Heard::Nothing(patience);
    let start = Instant::now();
    let served = recorder.wait_for("a reply to LOAD", patience, |most| {
        came = Heard::Nothing(most);
        wait_until(most, || {
            if clients.len() < ASKING && start.elapsed() >= LOST * clients.len() as u32 {
                match connect() {
                    Ok(client) => clients.push(client),
                    Err(failure) => return Some(Err(failure)),
                }
                clients.last().inspect(|client| client.send(FIRST_REQUEST));
            }
            clients.iter_mut().enumerate().find_map(|(at, client)| {
                match client.wire.receive(Duration::from_millis(10)) {
                    Heard::Nothing(_) => return None,
                    heard => came = heard,
                }
                let is_refused = matches!(&came, Heard::Line(line) if begins(line, "ERROR_NOT_ENOUGH_DSTORES"));
                if is_refused {
                    client.send(FIRST_REQUEST);
                }
                (!is_refused).then_some(Ok(at))
            })
        })
    });
    match served {
        Some(Ok(at)) if matches!(came, Heard::Line(_)) => {
            recorder.set_up();
            Ok(clients.swap_remove(at))
        }
        Some(Err(failure)) => Err(NotServed { failure, is_silence: false }),
        _ => {
            let expected = "another reply to LOAD, once enough Dstores have joined";
            let failure = clients[0].wire.wrong(expected, &came);
            Err(NotServed { failure, is_silence: !matches!(came, Heard::Line(_)) })
        }
    }
}

impl Client {
    /// Connects to the Controller.
    pub fn connect(
        name: &str,
        port: u16,
        recorder: &Recorder,
        patience: Duration,
        judges: &'static Judges,
    ) -> Result<Self, Failure> {
        let wire = Wire::connect(name, "controller", port, recorder)?;
        Ok(Self { name: name.into(), wire, recorder: recorder.clone(), patience, judges })
    }

    /// The connection to the Controller, for what is not an ordinary request.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Sends a line and waits for nothing.
    pub fn send(&self, line: &str) {
        self.wire.send(line);
    }

    /// The next reply must begin with these words.
    pub fn expect(&mut self, beginning: &str) -> Verdict {
        self.wire.expect(beginning, self.patience)
    }

    /// The next reply must be exactly this.
    pub fn expect_exactly(&mut self, line: &str) -> Verdict {
        self.wire.expect_exactly(line, self.patience)
    }

    /// The reply to a request, whatever it is, but there must be one.
    pub fn ask(&mut self, request: &str) -> Result<String, Failure> {
        self.send(request);
        let awaited = format!("a reply to {}", words(request).next().unwrap_or_default());
        match self.wire.receive_due(&awaited, self.patience) {
            Heard::Line(line) => Ok(line),
            came => Err(self.wire.wrong(format!("a reply to `{request}`"), &came)),
        }
    }

    /// A request, and how the reply to it must begin.
    pub fn asks(&mut self, request: &str, beginning: &str) -> Verdict {
        self.send(request);
        self.expect(beginning)
    }

    /// No reply comes for a while.
    pub fn expect_silence(&mut self, because: &str) -> Verdict {
        self.wire.expect_silence(QUIET, because)
    }

    /// The files that LIST shows, sorted. (spec 4.5)
    pub fn list(&mut self) -> Result<Vec<String>, Failure> {
        let list = self.ask("LIST").and_then(|reply| {
            let mut words = words(&reply).map(str::to_owned);
            if words.next().as_deref() != Some("LIST") {
                return Err(self.wrong("`LIST` and the files", &reply));
            }
            let mut names: Vec<String> = words.collect();
            names.sort();
            Ok(names)
        });
        list.map_err(|failure| failure.judged_by(self.judges.list))
    }

    /// LIST must show exactly these files, in any order. (spec 4.5)
    pub fn expect_listed(&mut self, files: &[&str]) -> Verdict {
        let judge = if files.is_empty() { self.judges.list_of_none } else { self.judges.list };
        let listed = self.list().map_err(|failure| failure.judged_by(judge))?;
        let mut files = files.to_vec();
        files.sort_unstable();
        if listed == files {
            return Ok(());
        }
        self.recorder.mark_wrong("controller", &self.name);
        let expected =
            if files.is_empty() { "`LIST`, with no file".into() } else { format!("`LIST {}`", files.join(" ")) };
        let came = format!("`LIST {}`", listed.join(" "));
        Err(Failure::new(expected, came).marked().judged_by(judge))
    }

    /// Asks to store, and is told ports. (spec 4.2)
    pub fn begin_store(&mut self, name: &str, size: usize) -> Result<Vec<u16>, Failure> {
        let ports = self.ask(&format!("STORE {name} {size}")).and_then(|reply| self.store_to(&reply));
        ports.map_err(|failure| failure.judged_by(self.judges.store_to))
    }

    /// The ports of a STORE_TO, however many.
    pub fn store_to(&self, reply: &str) -> Result<Vec<u16>, Failure> {
        let mut words = words(reply);
        let ports: Option<Vec<u16>> = match words.next() {
            Some("STORE_TO") => words.map(|word| word.parse().ok()).collect(),
            _ => None,
        };
        ports.filter(|ports| !ports.is_empty()).ok_or_else(|| self.wrong("`STORE_TO` and ports", reply))
    }

    /// Sends LOAD or RELOAD, and is told a port and the size. (spec 4.3)
    pub fn load_from(&mut self, request: &str, size: usize) -> Result<u16, Failure> {
        let offer = self.ask(request).and_then(|reply| {
            let words: Vec<&str> = words(&reply).collect();
            match words[..] {
                ["LOAD_FROM", port, came, ..] if came.parse() == Ok(size) => port.parse().ok(),
                _ => None,
            }
            .ok_or_else(|| self.wrong(format!("`LOAD_FROM` with a port and the size, {size}"), &reply))
        });
        offer.map_err(|failure| failure.judged_by(self.judges.load_from))
    }

    /// Removes a file, until REMOVE_COMPLETE. (spec 4.4)
    pub fn remove(&mut self, name: &str) -> Verdict {
        let removed = self.asks(&format!("REMOVE {name}"), "REMOVE_COMPLETE");
        removed.map_err(|failure| failure.judged_by(self.judges.remove))
    }

    /// Waits for STORE_COMPLETE. (spec 4.2)
    pub fn expect_stored(&mut self) -> Verdict {
        self.expect("STORE_COMPLETE").map_err(|failure| failure.judged_by(self.judges.store))
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
    pub fn store(&mut self, name: &str, content: &[u8]) -> Result<Vec<u16>, Failure> {
        let ports = self.begin_store(name, content.len())?;
        for &port in &ports {
            self.send_copy(port, name, content).map_err(|failure| failure.judged_by(self.judges.store))?;
        }
        self.expect_stored()?;
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
        let judge = self.judges.load;
        let mut request = format!("LOAD {name}");
        for _ in 0..10 {
            let port = self.load_from(&request, content.len())?;
            match self.fetch_from(port, name, content.len()) {
                Ok(came) if came.len() == content.len() => {
                    return self.compare(port, name, content, &came).map_err(|failure| failure.judged_by(judge));
                }
                _ => request = format!("RELOAD {name}"),
            }
        }
        Err(Failure::new(format!("one of the offered Dstores has {name}"), "10 offers in vain").judged_by(judge))
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
