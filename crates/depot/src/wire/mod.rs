//! What is said: lines of words, and raw bytes where a line has announced how many. (depot 8, docs/depot-protocol.md)
//!
//! A person can read a conversation, and hold one with `nc`, up to the proof that needs a secret:
//!
//! ```text
//! client      DEPOT 1 0 client 7f… 5c3e… 91ab…            protocol, version, feature level; role, store, challenge, which client
//! Controller  DEPOT 1 0 controller 7f… 02d1… 6e80…        likewise; the last word proves that it knows the secret
//! client      PROOF 44af…                                 and this that the client has a key derived from it
//! client      STAT /photos/a.jpg
//! Controller  STAT file 52013 9c66… …
//! ```
//!
//! Requests on a connection are answered in order. An error has a code and a sentence, and leaves the connection usable
//! unless it says otherwise by closing it.
//!
//! | file | what |
//! |---|---|
//! | [`message`] | what can be said |
//! | `connection` | how it travels |
//! | `handshake` | how the two ends of a connection come to trust each other |
//! | `secret` | what they know |
//! | `address` | where a server is reached |

mod address;
mod connection;
mod handshake;
pub mod message;
mod secret;

pub use address::Address;
pub use connection::{Connection, Content, LineSender, MOST_LINE_BYTES, ReceiveError, WIRE_LOG};
pub use handshake::{Access, HANDSHAKE_PATIENCE, HandshakeError, Role, accept, connect};
pub use secret::{ClientId, ClientKey, Secret};
