//! What can be said, and how it travels. (spec 2)
//!
//! Nothing outside this module formats or parses a word of the protocol, or touches a byte of it.

pub mod address;
pub mod connection;
pub mod content;
pub mod message;
pub mod name;
mod printable;

pub use address::Address;
pub use connection::{Connection, Line, Outgoing};
pub use message::{Message, Order, ParseError, Transfer};
pub use name::{FileName, NameError};
pub use printable::Printable;
