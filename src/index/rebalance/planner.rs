//! Which Dstore should hold which file: a pure function of which holds it now. (spec 4.6)
//!
//! **The problem.** Each of F files is to be on exactly R of N Dstores. Each Dstore is to hold its *share*: RF/N copies,
//! rounded down or up. Sending a copy costs time and network; dropping one costs nothing. Of all the layouts that meet
//! both demands, the plan leads to one that needs the fewest sends.
//!
//! **The idea.** Begin with the cheapest layout, whatever its balance. Then shift load from Dstores that are too full to those
//! that are too empty, the cheapest shifts first. What a copy's move to another Dstore costs depends on its file:
//!
//! ```text
//!   R = 2        A  B  C
//!   x, spare     #  #  #    three holders, two are kept: which two costs no send
//!   y, lacking   #  .  +    one holder, one copy to be sent: whether to C or to B, it is one send
//!   z, exact     #  #  .    two holders, both are kept: to have it on C instead of A is one send more
//! ```
//!
//! 1. *Settle* ([`layout`]): every file keeps as many of its holders as R allows. Copies that it lacks are assigned to the
//!    least loaded Dstores. No layout needs fewer sends.
//! 2. *Move for free* ([`free_moves`]): copies of spare files and copies that are to be sent anyway move at no cost. Such
//!    moves form chains: if A is too full and C too empty, a copy of x may move from A to B, and the new copy of y from B to
//!    C. Using as many chains as possible is a maximum flow between Dstores.
//! 3. *Move at a price* ([`priced_moves`]): what is still out of balance moves directly, each copy for one more send. A full
//!    Dstore has a file that an emptier one lacks, so a direct move always exists.
//!
//! **Why no plan is better.** This is the method of successive shortest paths for flows of minimum cost (Jewell 1958; Ahuja,
//! Magnanti and Orlin, *Network Flows*, 9.7). The length of a path is the number of sends that it adds. As long as every
//! unit of load takes a shortest path, the cost stays the least for the balance reached so far, and the lengths never decrease.
//! Here they are 0 until step 2 finds no more chain, and at least 1 from then on. A direct move is never longer than 1. So
//! step 3 need not search, and the plan it ends with is optimal. The tests compare it with brute force, and search the
//! results of larger plans for a chain that would save a send.
//!
//! **Newcomers.** Of plans that are equally good, the one is made that leaves as many files as it can a copy on a Dstore that
//! has not just joined: see [`newcomers`](super::newcomers).

mod free_moves;
mod holdings;
mod layout;
mod priced_moves;
#[cfg(test)]
mod tests;

pub use holdings::Holdings;

use super::Plan;
use layout::Layout;

/// The plan with the fewest sends that puts every file on `replicas` Dstores and balances them.
///
/// The same arguments always give the same plan; a layout that needs no change gets an empty one.
/// `replicas` must be at least 1 and at most the number of Dstores. (spec 3.3)
pub fn plan(holdings: &Holdings, replicas: usize) -> Plan {
    assert!(replicas >= 1, "a file on no Dstore is lost");
    assert!(replicas <= holdings.dstores(), "R different Dstores need at least R of them");
    let copies = holdings.files() * replicas;
    let low = copies / holdings.dstores();
    let high = copies.div_ceil(holdings.dstores());

    let mut layout = Layout::settle(holdings, replicas);
    layout.move_for_free(high, high);
    layout.move_for_free(low, low);
    // From too full to too empty first: such a move mends both for one send.
    layout.move_at_a_price(high, low);
    layout.move_at_a_price(high, high);
    layout.move_at_a_price(low, low);
    layout.into_plan()
}
