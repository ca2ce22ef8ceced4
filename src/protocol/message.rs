//! Every message of the protocol: one enum, one parser, one printer, exact inverses. (spec 2.2, 4, 8)

use std::fmt;

use super::address::Address;
use super::name::{FileName, NameError};

/// The largest file size in bytes: what a signed 64-bit integer holds. (spec 7.13)
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// One line of the protocol, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Dstore to Controller, first thing: I listen here; count me in. (spec 4.1)
    Join {
        /// Where the Dstore listens.
        address: Address,
    },
    /// Client to Controller: where may I put this new file? Client to Dstore: here it comes. (spec 4.2)
    Store {
        /// The new file.
        name: FileName,
        /// Its content's length in bytes.
        size: u64,
    },
    /// Controller to client: send it to each of these. (spec 4.2)
    StoreTo {
        /// The R chosen Dstores; at least one.
        dstores: Vec<Address>,
    },
    /// Dstore to client or sending Dstore: send the content. (spec 4.2, 4.6)
    Ack,
    /// Dstore to Controller: the content is stored. (spec 4.2)
    StoreAck {
        /// The file that is stored.
        name: FileName,
    },
    /// Controller to client: all R copies are there. (spec 4.2)
    StoreComplete,
    /// Client to Controller: which Dstore has this file? (spec 4.3)
    Load {
        /// The wanted file.
        name: FileName,
    },
    /// Client to Controller: that Dstore failed me; which other one has the file? (spec 4.3)
    Reload {
        /// The wanted file.
        name: FileName,
    },
    /// Controller to client: this one. (spec 4.3)
    LoadFrom {
        /// A holder that this load has not tried.
        dstore: Address,
        /// The content's length in bytes.
        size: u64,
    },
    /// Client to Dstore: the content, please. (spec 4.3)
    LoadData {
        /// The wanted file.
        name: FileName,
    },
    /// Client to Controller, and Controller to every holder: this file is to go. (spec 4.4)
    Remove {
        /// The unwanted file.
        name: FileName,
    },
    /// Dstore to Controller: I no longer have it. (spec 4.4)
    RemoveAck {
        /// The file that is gone.
        name: FileName,
    },
    /// Controller to client: no Dstore has it any more. (spec 4.4)
    RemoveComplete,
    /// A request for the list of files, or the answer to one: a request looks like an empty answer. (spec 4.5, 4.6)
    List {
        /// The files; empty in a request.
        names: Vec<FileName>,
    },
    /// Controller to Dstore: what to send and to remove. (spec 4.6)
    Rebalance {
        /// Its part of the plan.
        order: Order,
    },
    /// Dstore to Dstore: take this copy. (spec 4.6)
    RebalanceStore {
        /// The file.
        name: FileName,
        /// Its content's length in bytes.
        size: u64,
    },
    /// Dstore to Controller: all of the order is done. (spec 4.6)
    RebalanceComplete,
    /// Controller to client: fewer than R Dstores have joined. (spec 3.3)
    NotEnoughDstores,
    /// Controller to client: the name is taken. (spec 3.2)
    FileAlreadyExists,
    /// Controller to client (no name), Dstore to Controller (with the name): there is no such file. (spec 3.2, 4.4)
    FileDoesNotExist {
        /// The file that a Dstore was to remove and does not have.
        name: Option<FileName>,
    },
    /// Controller to client: every holder has been tried. (spec 4.3)
    LoadFailed,
    /// Client or Dstore to Dstore, first thing: more transfers follow on this connection. (spec 8.2)
    KeepAlive,
    /// Client to Dstore: may content be sent ahead of the ACK? And the answer: it may. (spec 8.3)
    SendAhead,
}

/// What one Dstore is to do in a rebalance. (spec 4.6)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The copies to send, each before it may be removed.
    pub sends: Vec<Transfer>,
    /// The copies to remove once everything is sent.
    pub removes: Vec<FileName>,
}

/// One file that a Dstore is to send to others. (spec 4.6)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The file.
    pub name: FileName,
    /// The Dstores to send it to.
    pub to: Vec<Address>,
}

impl Message {
    /// Reads one line, without its ending. (spec 2.1, 2.2)
    pub fn parse(line: &str) -> Result<Self, ParseError> {
        let mut words = Words::new(line)?;
        let message = match words.verb {
            "JOIN" => Self::Join { address: words.address()? },
            "STORE" => Self::Store { name: words.name()?, size: words.size()? },
            "STORE_TO" => Self::StoreTo { dstores: words.addresses()? },
            "ACK" => Self::Ack,
            "STORE_ACK" => Self::StoreAck { name: words.name()? },
            "STORE_COMPLETE" => Self::StoreComplete,
            "LOAD" => Self::Load { name: words.name()? },
            "RELOAD" => Self::Reload { name: words.name()? },
            "LOAD_FROM" => Self::LoadFrom { dstore: words.address()?, size: words.size()? },
            "LOAD_DATA" => Self::LoadData { name: words.name()? },
            "REMOVE" => Self::Remove { name: words.name()? },
            "REMOVE_ACK" => Self::RemoveAck { name: words.name()? },
            "REMOVE_COMPLETE" => Self::RemoveComplete,
            "LIST" => Self::List { names: words.names()? },
            "REBALANCE" => Self::Rebalance { order: words.order()? },
            "REBALANCE_STORE" => Self::RebalanceStore { name: words.name()?, size: words.size()? },
            "REBALANCE_COMPLETE" => Self::RebalanceComplete,
            "ERROR_NOT_ENOUGH_DSTORES" => Self::NotEnoughDstores,
            "ERROR_FILE_ALREADY_EXISTS" => Self::FileAlreadyExists,
            "ERROR_FILE_DOES_NOT_EXIST" => Self::FileDoesNotExist { name: words.optional_name()? },
            "ERROR_LOAD" => Self::LoadFailed,
            "KEEP_ALIVE" => Self::KeepAlive,
            "SEND_AHEAD" => Self::SendAhead,
            verb => return Err(ParseError::UnknownVerb(verb.to_owned())),
        };
        words.finish()?;
        Ok(message)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join { address } => write!(f, "JOIN {address}"),
            Self::Store { name, size } => write!(f, "STORE {name} {size}"),
            Self::StoreTo { dstores } => {
                f.write_str("STORE_TO")?;
                write_words(f, dstores)
            }
            Self::Ack => f.write_str("ACK"),
            Self::StoreAck { name } => write!(f, "STORE_ACK {name}"),
            Self::StoreComplete => f.write_str("STORE_COMPLETE"),
            Self::Load { name } => write!(f, "LOAD {name}"),
            Self::Reload { name } => write!(f, "RELOAD {name}"),
            Self::LoadFrom { dstore, size } => write!(f, "LOAD_FROM {dstore} {size}"),
            Self::LoadData { name } => write!(f, "LOAD_DATA {name}"),
            Self::Remove { name } => write!(f, "REMOVE {name}"),
            Self::RemoveAck { name } => write!(f, "REMOVE_ACK {name}"),
            Self::RemoveComplete => f.write_str("REMOVE_COMPLETE"),
            Self::List { names } => {
                f.write_str("LIST")?;
                write_words(f, names)
            }
            Self::Rebalance { order } => {
                write!(f, "REBALANCE {}", order.sends.len())?;
                for Transfer { name, to } in &order.sends {
                    write!(f, " {name} {}", to.len())?;
                    write_words(f, to)?;
                }
                write!(f, " {}", order.removes.len())?;
                write_words(f, &order.removes)
            }
            Self::RebalanceStore { name, size } => write!(f, "REBALANCE_STORE {name} {size}"),
            Self::RebalanceComplete => f.write_str("REBALANCE_COMPLETE"),
            Self::NotEnoughDstores => f.write_str("ERROR_NOT_ENOUGH_DSTORES"),
            Self::FileAlreadyExists => f.write_str("ERROR_FILE_ALREADY_EXISTS"),
            Self::FileDoesNotExist { name } => {
                f.write_str("ERROR_FILE_DOES_NOT_EXIST")?;
                write_words(f, name.as_slice())
            }
            Self::LoadFailed => f.write_str("ERROR_LOAD"),
            Self::KeepAlive => f.write_str("KEEP_ALIVE"),
            Self::SendAhead => f.write_str("SEND_AHEAD"),
        }
    }
}

fn write_words(f: &mut fmt::Formatter<'_>, words: &[impl fmt::Display]) -> fmt::Result {
    words.iter().try_for_each(|word| {
        f.write_str(" ")?;
        word.fmt(f)
    })
}

/// Why a line is not a message. Only the log is told. (spec 2.6)
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// There is no word in it.
    Empty,
    /// Two spaces in a row, or one at the start.
    EmptyWord,
    /// It begins with a word that names no message.
    UnknownVerb(String),
    /// It ends too early.
    Missing {
        /// The message's name.
        verb: String,
        /// What should have come.
        field: &'static str,
    },
    /// A word is not what its place asks for.
    Invalid {
        /// What should have come.
        field: &'static str,
        /// What came.
        word: String,
    },
    /// A word cannot be a file's name.
    Name(NameError),
    /// It is longer than a line of this connection may be, and was not kept.
    TooLong {
        /// The most bytes it may have.
        most: usize,
    },
    /// It has more words than a line of this connection may have.
    TooManyWords {
        /// The most it may have.
        most: usize,
    },
    /// Something follows the last word.
    Surplus {
        /// The message's name.
        verb: String,
        /// The first word too many.
        word: String,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "an empty line"),
            Self::TooLong { most } => write!(f, "a line longer than {most} bytes"),
            Self::TooManyWords { most } => write!(f, "a line of more than {most} words"),
            Self::EmptyWord => write!(f, "two spaces in a row, or one at the start"),
            Self::UnknownVerb(verb) => write!(f, "no message is called {}", Quoted(verb)),
            Self::Missing { verb, field } => write!(f, "{verb} without its {field}"),
            Self::Invalid { field, word } => write!(f, "expected a {field}, got {}", Quoted(word)),
            Self::Name(error) => write!(f, "{error}"),
            Self::Surplus { verb, word } => write!(f, "{verb} followed by {}", Quoted(word)),
        }
    }
}

impl std::error::Error for ParseError {}

/// A peer's text, quoted, escaped, and cut short: one word does not fill our log.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 60;
        match self.0.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, "{:?}... ({} bytes)", &self.0[..end], self.0.len()),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// The words of a line, taken one by one.
struct Words<'a> {
    verb: &'a str,
    rest: std::str::Split<'a, char>,
}

impl<'a> Words<'a> {
    /// Spaces at the end vanish, as in Java's `split`. (spec 2.2)
    fn new(line: &'a str) -> Result<Self, ParseError> {
        let line = line.trim_end_matches(' ');
        if line.is_empty() {
            return Err(ParseError::Empty);
        }
        let mut rest = line.split(' ');
        match rest.next() {
            Some("") | None => Err(ParseError::EmptyWord),
            Some(verb) => Ok(Self { verb, rest }),
        }
    }

    fn next(&mut self) -> Option<Result<&'a str, ParseError>> {
        self.rest.next().map(|word| if word.is_empty() { Err(ParseError::EmptyWord) } else { Ok(word) })
    }

    fn expect(&mut self, field: &'static str) -> Result<&'a str, ParseError> {
        self.next().unwrap_or_else(|| Err(ParseError::Missing { verb: self.verb.to_owned(), field }))
    }

    fn name(&mut self) -> Result<FileName, ParseError> {
        parse_name(self.expect("file name")?)
    }

    fn optional_name(&mut self) -> Result<Option<FileName>, ParseError> {
        self.next().map(|word| parse_name(word?)).transpose()
    }

    fn names(&mut self) -> Result<Vec<FileName>, ParseError> {
        let mut names = Vec::new();
        while let Some(word) = self.next() {
            names.push(parse_name(word?)?);
        }
        Ok(names)
    }

    fn address(&mut self) -> Result<Address, ParseError> {
        parse_address(self.expect("port")?)
    }

    /// One or more, to the end of the line.
    fn addresses(&mut self) -> Result<Vec<Address>, ParseError> {
        let mut addresses = vec![self.address()?];
        while let Some(word) = self.next() {
            addresses.push(parse_address(word?)?);
        }
        Ok(addresses)
    }

    fn size(&mut self) -> Result<u64, ParseError> {
        self.number("size")
    }

    /// Digits only, so that what is printed is what was read, but for leading zeros.
    fn number(&mut self, field: &'static str) -> Result<u64, ParseError> {
        let word = self.expect(field)?;
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        match word.parse() {
            Ok(number) if digits && number <= MAX_SIZE => Ok(number),
            _ => Err(ParseError::Invalid { field, word: word.to_owned() }),
        }
    }

    /// A count is a claim: nothing is reserved for it, and the words have to follow. (spec 4.6)
    fn order(&mut self) -> Result<Order, ParseError> {
        let mut order = Order::default();
        for _ in 0..self.number("count")? {
            let mut transfer = Transfer { name: self.name()?, to: Vec::new() };
            for _ in 0..self.number("count")? {
                transfer.to.push(self.address()?);
            }
            order.sends.push(transfer);
        }
        for _ in 0..self.number("count")? {
            order.removes.push(self.name()?);
        }
        Ok(order)
    }

    /// Nothing may follow the last field.
    fn finish(mut self) -> Result<(), ParseError> {
        match self.next() {
            None => Ok(()),
            Some(word) => Err(ParseError::Surplus { verb: self.verb.to_owned(), word: word?.to_owned() }),
        }
    }
}

fn parse_name(word: &str) -> Result<FileName, ParseError> {
    FileName::new(word).map_err(ParseError::Name)
}

fn parse_address(word: &str) -> Result<Address, ParseError> {
    word.parse().map_err(|_| ParseError::Invalid { field: "port", word: word.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> FileName {
        text.parse().unwrap()
    }

    fn address(port: u16) -> Address {
        Address::local(port).unwrap()
    }

    #[test]
    fn every_message_is_read_as_it_is_printed() {
        // spec 2.2, 4.1 to 4.6, 8.2
        let f = || name("f");
        let send = |file: &str, to: &[u16]| Transfer { name: name(file), to: to.iter().map(|&p| address(p)).collect() };
        let table = [
            ("JOIN 4001", Message::Join { address: address(4001) }),
            ("STORE f 0", Message::Store { name: f(), size: 0 }),
            ("STORE f 9223372036854775807", Message::Store { name: f(), size: MAX_SIZE }),
            ("STORE_TO 1", Message::StoreTo { dstores: vec![address(1)] }),
            ("STORE_TO 1 2 65535", Message::StoreTo { dstores: vec![address(1), address(2), address(65535)] }),
            ("ACK", Message::Ack),
            ("STORE_ACK f", Message::StoreAck { name: f() }),
            ("STORE_COMPLETE", Message::StoreComplete),
            ("LOAD f", Message::Load { name: f() }),
            ("RELOAD f", Message::Reload { name: f() }),
            ("LOAD_FROM 4001 17", Message::LoadFrom { dstore: address(4001), size: 17 }),
            ("LOAD_DATA f", Message::LoadData { name: f() }),
            ("REMOVE f", Message::Remove { name: f() }),
            ("REMOVE_ACK f", Message::RemoveAck { name: f() }),
            ("REMOVE_COMPLETE", Message::RemoveComplete),
            ("LIST", Message::List { names: vec![] }),
            ("LIST f naïve g.txt", Message::List { names: vec![f(), name("naïve"), name("g.txt")] }),
            ("REBALANCE 0 0", Message::Rebalance { order: Order::default() }),
            (
                "REBALANCE 2 f1 2 1 2 f2 1 3 2 f2 f3", // the example of spec 4.6
                Message::Rebalance {
                    order: Order {
                        sends: vec![send("f1", &[1, 2]), send("f2", &[3])],
                        removes: vec![name("f2"), name("f3")],
                    },
                },
            ),
            ("REBALANCE_STORE f 5", Message::RebalanceStore { name: f(), size: 5 }),
            ("REBALANCE_COMPLETE", Message::RebalanceComplete),
            ("ERROR_NOT_ENOUGH_DSTORES", Message::NotEnoughDstores),
            ("ERROR_FILE_ALREADY_EXISTS", Message::FileAlreadyExists),
            ("ERROR_FILE_DOES_NOT_EXIST", Message::FileDoesNotExist { name: None }),
            ("ERROR_FILE_DOES_NOT_EXIST f", Message::FileDoesNotExist { name: Some(f()) }),
            ("ERROR_LOAD", Message::LoadFailed),
            ("KEEP_ALIVE", Message::KeepAlive),
            ("SEND_AHEAD", Message::SendAhead),
        ];
        for (line, message) in table {
            assert_eq!(Message::parse(line).as_ref(), Ok(&message), "{line}");
            assert_eq!(message.to_string(), line);
        }
    }

    #[test]
    fn a_list_of_nothing_may_end_in_a_space() {
        // spec 2.2
        assert_eq!(Message::parse("LIST "), Ok(Message::List { names: vec![] }));
        assert_eq!(Message::parse("STORE f 5  "), Ok(Message::Store { name: name("f"), size: 5 }));
    }

    #[test]
    fn every_malformed_line_is_refused_for_its_own_reason() {
        // spec 2.6, 7.12, 7.13
        let table = [
            ("", "an empty line"),
            ("   ", "an empty line"),
            (" LIST", "two spaces in a row, or one at the start"),
            ("STORE  f 5", "two spaces in a row, or one at the start"),
            ("STORE f  5", "two spaces in a row, or one at the start"),
            ("LIST a  b", "two spaces in a row, or one at the start"),
            ("ACK  x", "two spaces in a row, or one at the start"),
            ("HELLO", r#"no message is called "HELLO""#),
            ("list", r#"no message is called "list""#),
            ("STORE\tf 5", r#"no message is called "STORE\tf""#),
            ("JOIN", "JOIN without its port"),
            ("JOIN 0", r#"expected a port, got "0""#),
            ("JOIN 65536", r#"expected a port, got "65536""#),
            ("JOIN -1", r#"expected a port, got "-1""#),
            ("JOIN +1", r#"expected a port, got "+1""#),
            ("JOIN localhost:1", r#"expected a port, got "localhost:1""#),
            ("JOIN 1 2", r#"JOIN followed by "2""#),
            ("STORE", "STORE without its file name"),
            ("STORE f", "STORE without its size"),
            ("STORE f five", r#"expected a size, got "five""#),
            ("STORE f -1", r#"expected a size, got "-1""#),
            ("STORE f +1", r#"expected a size, got "+1""#),
            ("STORE f 1.0", r#"expected a size, got "1.0""#),
            ("STORE f 0x1", r#"expected a size, got "0x1""#),
            ("STORE f 9223372036854775808", r#"expected a size, got "9223372036854775808""#),
            ("STORE f 99999999999999999999", r#"expected a size, got "99999999999999999999""#),
            ("STORE f 5 5", r#"STORE followed by "5""#),
            ("STORE ../f 5", "a file name cannot hold '/'"),
            ("STORE . 5", "a file cannot be named . or .."),
            ("STORE_TO", "STORE_TO without its port"),
            ("STORE_TO 1 x", r#"expected a port, got "x""#),
            ("ACK f", r#"ACK followed by "f""#),
            ("STORE_ACK", "STORE_ACK without its file name"),
            ("STORE_ACK f g", r#"STORE_ACK followed by "g""#),
            ("STORE_COMPLETE f", r#"STORE_COMPLETE followed by "f""#),
            ("LOAD", "LOAD without its file name"),
            ("LOAD f g", r#"LOAD followed by "g""#),
            ("RELOAD", "RELOAD without its file name"),
            ("RELOAD f g", r#"RELOAD followed by "g""#),
            ("LOAD_FROM", "LOAD_FROM without its port"),
            ("LOAD_FROM 1", "LOAD_FROM without its size"),
            ("LOAD_FROM 1 2 3", r#"LOAD_FROM followed by "3""#),
            ("LOAD_DATA", "LOAD_DATA without its file name"),
            ("LOAD_DATA f g", r#"LOAD_DATA followed by "g""#),
            ("REMOVE", "REMOVE without its file name"),
            ("REMOVE f g", r#"REMOVE followed by "g""#),
            ("REMOVE_ACK", "REMOVE_ACK without its file name"),
            ("REMOVE_ACK f g", r#"REMOVE_ACK followed by "g""#),
            ("REMOVE_COMPLETE f", r#"REMOVE_COMPLETE followed by "f""#),
            ("LIST a/b", "a file name cannot hold '/'"),
            ("REBALANCE", "REBALANCE without its count"),
            ("REBALANCE 0", "REBALANCE without its count"),
            ("REBALANCE x", r#"expected a count, got "x""#),
            ("REBALANCE 1", "REBALANCE without its file name"),
            ("REBALANCE 1 f", "REBALANCE without its count"),
            ("REBALANCE 1 f 1", "REBALANCE without its port"),
            ("REBALANCE 1 f 1 x", r#"expected a port, got "x""#),
            ("REBALANCE 1 f 1 1", "REBALANCE without its count"),
            ("REBALANCE 0 1", "REBALANCE without its file name"),
            ("REBALANCE 0 0 f", r#"REBALANCE followed by "f""#),
            ("REBALANCE 99999999999 f 1 1", "REBALANCE without its file name"),
            ("REBALANCE 0 99999999999 f", "REBALANCE without its file name"),
            ("REBALANCE_STORE", "REBALANCE_STORE without its file name"),
            ("REBALANCE_STORE f", "REBALANCE_STORE without its size"),
            ("REBALANCE_STORE f 1 2", r#"REBALANCE_STORE followed by "2""#),
            ("REBALANCE_COMPLETE 1", r#"REBALANCE_COMPLETE followed by "1""#),
            ("ERROR_NOT_ENOUGH_DSTORES f", r#"ERROR_NOT_ENOUGH_DSTORES followed by "f""#),
            ("ERROR_FILE_ALREADY_EXISTS f", r#"ERROR_FILE_ALREADY_EXISTS followed by "f""#),
            ("ERROR_FILE_DOES_NOT_EXIST f g", r#"ERROR_FILE_DOES_NOT_EXIST followed by "g""#),
            ("ERROR_LOAD f", r#"ERROR_LOAD followed by "f""#),
            ("KEEP_ALIVE 1", r#"KEEP_ALIVE followed by "1""#),
            ("SEND_AHEAD 1", r#"SEND_AHEAD followed by "1""#),
        ];
        for (line, reason) in table {
            let error = Message::parse(line).expect_err(line);
            assert_eq!(error.to_string(), reason, "{line:?}");
        }
    }

    #[test]
    fn a_long_word_is_cut_in_the_error() {
        let error = Message::parse(&"é".repeat(1000)).expect_err("no such verb");
        assert_eq!(error.to_string(), format!("no message is called \"{}\"... (2000 bytes)", "é".repeat(60)));
    }
}
