//! Clusters of real processes: `ringfort serve` and the commands as a user runs them, with real sockets, signals, kills
//! and syncs. The simulator tests protocols under all faults; these tests check that the shipped program keeps its
//! guarantees.
//!
//! | module | what it shows |
//! |---|---|
//! | `tour_by_hand` | the README's tour, flag by flag |
//! | `addresses` | nodes that come back at other addresses |
//! | `crashes` | no acknowledged write is lost to `kill -9` of a leader, or of all nodes |
//! | `eventual` | the eventual keyspace accepts writes without a quorum, and all nodes converge |
//! | `growth` | one node becomes five under load |
//! | `coming_and_going` | three nodes become five, then four, then three under load, and one that was declared dead comes back |
//! | `playground` | `ringfort playground`, and that it leaves nothing behind |
//! | `grpcurl` | a generic gRPC tool works through reflection |
//! | `original` | clients of the original system run unchanged |
//! | `verify` | `ringfort verify` finds a cluster that loses a leader linearizable |
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
