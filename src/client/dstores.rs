//! Connections to Dstores, used again where the Dstore allows it. (spec 2.5, 8.2)
//!
//! The client finds out whether a Dstore knows KEEP_ALIVE by saying it. A Dstore that does not know it may ignore it
//! and close after the transfer, close at once, or be confused. In each case the client tries the transfer again
//! without KEEP_ALIVE, and remembers that the Dstore wants a connection for each transfer.
//!
//! A Dstore that keeps connections may also take content ahead of its ACK (spec 8.3). The client finds that out by
//! asking.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use crate::protocol::{Address, Connection, Message};

/// A kept connection that is found closed sooner than this was not closed for being idle: its Dstore does not keep
/// connections.
const SOON: Duration = Duration::from_secs(10);

/// An answer that has arrived is taken, however late the client looks.
const LEAST_PATIENCE: Duration = Duration::from_millis(10);

/// How much of the content [`Link::receive_first_content`] takes at most.
const FIRST_BYTES: u64 = 64 << 10;

/// The Dstores that this client has talked to.
pub(super) struct Dstores {
    timeout: Duration,
    keeps: bool,
    known: HashMap<Address, Known>,
}

#[derive(Default)]
struct Known {
    habit: Habit,
    /// The Dstore was asked whether content may be sent ahead, and the connection was of no use after that.
    is_confused_by_question: bool,
    kept: Option<Link>,
}

/// What a Dstore does after a transfer.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Habit {
    #[default]
    Unknown,
    Keeps,
    Closes,
}

/// A connection on which a transfer has been asked for.
pub(super) struct Link {
    connection: Connection,
    opening: Opening,
    ahead: Ahead,
    /// Content was sent with the last request, and its ACK has not been read yet.
    owes_ack: bool,
    /// No KEEP_ALIVE has been said on it.
    is_plain: bool,
    transfers: u32,
    asked: Instant,
    idle_since: Instant,
}

/// A transfer that has been asked for, or why it could not be.
pub(super) type Asked = Result<Link, Failed>;

/// A connection that is of no use.
pub(super) struct Failed {
    opening: Opening,
    error: io::Error,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Greeting {
    IfUseful,
    None,
}

/// Where a connection comes from. The more hopeful the kind, the more other kinds can be tried after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// Kept from an earlier transfer; the Dstore may have closed it since.
    Kept,
    /// New, with a KEEP_ALIVE that the Dstore may not know.
    Greeted,
    /// New and plain, or with a KEEP_ALIVE that the Dstore is known to understand. A failure on it is final.
    Sure,
}

/// Whether content may be sent ahead of the ACK on a connection. (spec 8.3)
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ahead {
    Unknown,
    /// The question is on its way. The answer comes before the next ACK, or not at all.
    Asked,
    Allowed,
    NotAllowed,
}

impl Dstores {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, keeps: true, known: HashMap::new() }
    }

    pub(super) fn keep_connections(&mut self, keep: bool) {
        self.keeps = keep;
        if !keep {
            self.known.clear();
        }
    }

    /// Sends the request for a transfer, on a kept connection if there is one.
    pub(super) fn ask(&mut self, dstore: &Address, request: &Message) -> Asked {
        let Some(mut link) = self.known.get_mut(dstore).and_then(|known| known.kept.take()) else {
            return self.connect(dstore, request, Greeting::IfUseful);
        };
        match link.be_ready(self.timeout).and_then(|()| link.send(request)) {
            Ok(()) => Ok(link),
            Err(error) => {
                self.judge(dstore, &link);
                Err(Failed { opening: Opening::Kept, error })
            }
        }
    }

    /// Sends the request to store and all of the content, on a kept connection where that is allowed. `None` if nothing
    /// could be sent: then the Dstore is to be [asked](Self::ask).
    pub(super) fn send_ahead(&mut self, dstore: &Address, request: &Message, content: &[u8]) -> Option<Link> {
        let kept = &mut self.known.get_mut(dstore)?.kept;
        let mut link = kept.take_if(|link| link.ahead == Ahead::Allowed)?;
        let ready = link.be_ready(self.timeout);
        link.owes_ack = true;
        ready.and_then(|()| link.connection.send_with_content(request, content)).ok()?;
        Some(link)
    }

    /// What `answer` makes of the Dstore's answer. If the request or the answer fails in a way that a less hopeful kind
    /// of connection may mend, that kind is tried.
    pub(super) fn expect_answer<T>(
        &mut self,
        dstore: &Address,
        request: &Message,
        mut asked: Asked,
        mut answer: impl FnMut(&mut Link, Duration) -> io::Result<T>,
    ) -> io::Result<(Link, T)> {
        let mut was_greeted_in_vain = false;
        loop {
            let answered = asked.and_then(|mut link| {
                let patience = link.patience(self.timeout);
                match answer(&mut link, patience) {
                    Ok(value) => Ok((link, value)),
                    Err(error) => {
                        self.judge(dstore, &link);
                        Err(Failed { opening: link.opening, error })
                    }
                }
            });
            let failed = match answered {
                Ok(answered) => {
                    if was_greeted_in_vain {
                        self.known.entry(dstore.clone()).or_default().habit = Habit::Closes;
                    }
                    return Ok(answered);
                }
                Err(failed) => failed,
            };
            asked = match failed.opening {
                Opening::Kept => self.connect(dstore, request, Greeting::IfUseful),
                Opening::Greeted => {
                    was_greeted_in_vain = true;
                    self.connect(dstore, request, Greeting::None)
                }
                Opening::Sure => return Err(failed.error),
            };
        }
    }

    /// A transfer has ended well: its connection may serve the next.
    pub(super) fn keep(&mut self, dstore: &Address, mut link: Link) {
        let known = self.known.entry(dstore.clone()).or_default();
        if !self.keeps || known.habit == Habit::Closes {
            return;
        }
        link.transfers += 1;
        if link.transfers > 1 {
            known.habit = Habit::Keeps;
        }
        link.idle_since = Instant::now();
        known.kept = Some(link);
    }

    /// A load has its last byte: its connection may serve the next transfer, or is closed. Fails if the Dstore has more
    /// to say, as its file is then not the one that the Controller offered.
    ///
    /// A kept connection carries no mark where content ends. The rest of a longer file would be taken for the answer to
    /// the next request. So unless the file is short enough to have arrived at once, the Dstore has to show its end by
    /// closing.
    pub(super) fn finish_load(&mut self, dstore: &Address, mut link: Link, size: u64) -> io::Result<()> {
        let surplus = || io::Error::new(ErrorKind::InvalidData, "has more content than the Controller said");
        if size <= FIRST_BYTES || link.is_plain {
            if link.connection.had_more()? {
                return Err(surplus());
            }
            if !link.is_plain {
                self.keep(dstore, link);
            }
            return Ok(());
        }
        link.connection.finish_sending()?;
        match link.connection.wait_for_end(self.timeout) {
            Err(error) if error.kind() == ErrorKind::InvalidData => Err(surplus()),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                // All of the content is here. If the Dstore never closes, its end is not waited for again.
                self.known.entry(dstore.clone()).or_default().habit = Habit::Closes;
                Ok(())
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn connect(&self, dstore: &Address, request: &Message, greeting: Greeting) -> Asked {
        let known = self.known.get(dstore);
        let habit = known.map_or(Habit::Unknown, |known| known.habit);
        let may_be_asked = known.is_none_or(|known| !known.is_confused_by_question);
        let greets = self.keeps && habit != Habit::Closes && greeting == Greeting::IfUseful;
        let opening = if greets && habit == Habit::Unknown { Opening::Greeted } else { Opening::Sure };
        // A Dstore that cannot be reached cannot be reached without KEEP_ALIVE either.
        let connection = Connection::connect(dstore.socket(), self.timeout)
            .map_err(|error| Failed { opening: Opening::Sure, error })?;
        let sent = if greets {
            connection.outgoing().send_all(&[Message::KeepAlive, request.clone()])
        } else {
            connection.send(request)
        };
        match sent {
            Ok(()) => Ok(Link {
                connection,
                opening,
                ahead: if may_be_asked { Ahead::Unknown } else { Ahead::NotAllowed },
                owes_ack: false,
                is_plain: !greets,
                transfers: 0,
                asked: Instant::now(),
                idle_since: Instant::now(),
            }),
            Err(error) => Err(Failed { opening, error }),
        }
    }

    /// Learns from a connection that failed.
    fn judge(&mut self, dstore: &Address, link: &Link) {
        if link.ahead == Ahead::Asked {
            self.known.entry(dstore.clone()).or_default().is_confused_by_question = true;
        } else if link.opening == Opening::Kept && link.transfers == 1 && link.idle_since.elapsed() < SOON {
            self.known.entry(dstore.clone()).or_default().habit = Habit::Closes;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A connection that is closed with bytes unread looks broken to its peer.
        if self.owes_ack {
            let _ = self.receive_ack(LEAST_PATIENCE);
        }
    }
}

impl Link {
    /// How long to wait for the answer, counted from the request: several Dstores that were asked at the same time may
    /// hang at the same time. If an extension confuses a Dstore, there must be time left for a second try.
    fn patience(&self, timeout: Duration) -> Duration {
        let is_trial = self.opening == Opening::Greeted
            || self.ahead == Ahead::Asked
            || (self.opening == Opening::Kept && self.transfers == 1);
        let limit = if is_trial { timeout / 2 } else { timeout };
        limit.saturating_sub(self.asked.elapsed()).max(LEAST_PATIENCE)
    }

    /// Makes a kept connection ready for the next transfer; fails if it is of no use any more.
    fn be_ready(&mut self, timeout: Duration) -> io::Result<()> {
        self.opening = Opening::Kept;
        if self.owes_ack {
            self.receive_ack(timeout)?;
        } else if self.connection.has_more()? {
            return Err(io::Error::new(ErrorKind::InvalidData, "has said something unasked"));
        }
        self.asked = Instant::now();
        Ok(())
    }

    /// Sends the request for a transfer on a connection that has been kept.
    fn send(&mut self, request: &Message) -> io::Result<()> {
        // A Dstore that keeps connections knows an extension: it may know another.
        if self.ahead == Ahead::Unknown && matches!(request, Message::Store { .. }) {
            self.ahead = Ahead::Asked;
            self.connection.outgoing().send_all(&[Message::SendAhead, request.clone()])
        } else {
            self.connection.send(request)
        }
    }

    /// Waits for ACK.
    pub(super) fn receive_ack(&mut self, patience: Duration) -> io::Result<()> {
        loop {
            match self.connection.receive_within(patience)? {
                Some(Ok(Message::SendAhead)) if self.ahead == Ahead::Asked => self.ahead = Ahead::Allowed,
                Some(Ok(Message::Ack)) => break,
                Some(_) => return Err(io::Error::new(ErrorKind::InvalidData, "expected ACK")),
                None => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
        if self.ahead == Ahead::Asked {
            self.ahead = Ahead::NotAllowed;
        }
        self.owes_ack = false;
        Ok(())
    }

    /// True if the Dstore takes content ahead of its ACK: then what [`Dstores::send_ahead`] sent has arrived whole.
    pub(super) fn takes_content_ahead(&self) -> bool {
        self.ahead == Ahead::Allowed
    }

    /// Waits for the beginning of the content, which says that there will be any.
    pub(super) fn receive_first_content(&mut self, size: u64, patience: Duration) -> io::Result<Vec<u8>> {
        let mut first = vec![0; size.min(FIRST_BYTES) as usize];
        let received = self.connection.content(size, patience).read(&mut first)?;
        first.truncate(received);
        Ok(first)
    }

    /// The content, or what is left of it.
    pub(super) fn content(&mut self, size: u64, stall: Duration) -> impl Read {
        self.connection.content(size, stall)
    }

    /// Sends bytes of content.
    pub(super) fn send_content(&self, bytes: &[u8]) -> io::Result<()> {
        self.connection.send_content(bytes)
    }
}
