//! A Controller and Dstores together, as clients see them.

mod concurrency;
mod failures;
mod sequential;
mod spread;

use super::dstore::FILES;
use super::{Check, built_on};

/// What the others build on, beside what a Dstore does with files: that it stays, and requests of one client, one after another.
const REQUESTS: [&str; 8] = [
    "dstore/start/idleness-is-no-fault",
    "controller/join/enough-dstores",
    "controller/store/completes-on-the-last-acknowledgement",
    "controller/load/names-a-holder-and-the-size",
    "controller/load/reload-offers-every-holder-once",
    "controller/load/load-forgets-what-was-tried",
    "controller/remove/completes-on-the-last-acknowledgement",
    "controller/list/nothing-at-first",
];

/// All of them.
pub fn checks() -> Vec<Check> {
    let modules = [sequential::checks(), concurrency::checks(), failures::checks(), spread::checks()];
    built_on(&REQUESTS, built_on(&FILES, modules.into_iter().flatten()))
}
