//! Which Dstore has which objects, and which should have the next ones. Pure: no clock, thread, socket. (depot 4.6, 6.1)
//!
//! [`Holdings`] is what a Controller knows of copies. It is no part of the namespace: Dstores know best what they have, and
//! say so again whenever they connect. [`choose`] picks the places for a new object, [`plan`] says what an old one needs.
//! [`Balance`] says which copies are to move so that Dstores are filled alike.

mod balance;
mod choose;
mod holdings;
mod plan;

pub use balance::{Balance, Relocation, Room};
pub use choose::{Candidate, choose};
pub use holdings::{CopyState, Holdings};
pub use plan::{Held, Member, Need, Plan, Presence, Step, Urgency, is_mass_failure, plan};
