//! Clusters of real processes: `ringfort serve` and the commands as a user runs them, with real sockets, signals, kills
//! and syncs. What protocols do under every fault is the simulator's business; here it is whether the program that
//! ships keeps its word.
//!
//! | module | what it shows |
//! |---|---|
//! | `tour_by_hand` | the README's tour, flag by flag |
//! | `addresses` | nodes that come back at other addresses |
//! | `crashes` | no acknowledged write is lost to `kill -9` of a leader, or of all nodes |
//! | `eventual` | the eventual keyspace takes writes without a quorum, and all nodes come to hold the same |
//! | `growth` | one node becomes five under load |
//! | `coming_and_going` | three nodes become five, then four, then three under load, and one that was given up comes back |
//! | `playground` | `ringfort playground`, and that it leaves nothing behind |
//! | `grpcurl` | a stranger's tool finds its way |
//! | `original` | clients of the original system run unchanged |
//! | `verify` | `ringfort verify` finds a cluster linearizable that loses a leader |
//! | `refusals` | bad input, and clusters that can't answer |

mod addresses;
mod coming_and_going;
mod crashes;
mod eventual;
mod growth;
mod grpcurl;
mod original;
mod playground;
mod refusals;
#[expect(dead_code, reason = "shared with the tests of bad days, which need other parts of it")]
mod support;
mod tour_by_hand;
mod verify;
