//! A deterministic simulator of Ringfort, and the checkers that judge its runs.
//!
//! A run is decided by one number. The seed becomes [`options::Options`]; the options drive a cluster of simulated nodes
//! on virtual time, which jumps from event to event on an [`agenda::Agenda`]; clients write down what they asked and were
//! told in a [`history::History`]; [`linearizability::check`] says whether a map could have answered so. Nothing here
//! reads a clock, a global random source or a hashed order (clippy.toml sees to that), so a seed that fails once fails
//! always, and [`trace::Trace`] proves it.
//!
//! | module | the idea in it |
//! |---|---|
//! | [`random`], [`agenda`], [`clock`], [`trace`] | chance, time, clocks that lie, and the proof that nothing else decided |
//! | [`network`] | messages that are late, lost, doubled and overtaken |
//! | [`options`], [`focus`] | from a seed to a cluster, a workload and its faults |
//! | [`cluster`] | nodes that run the real core, clients, and the faults that happen to them |
//! | [`invariant`] | what must hold, with sources; the checks are in `cluster/invariants`, a file each |
//! | [`history`], [`linearizability`] | what clients saw, and whether it may be |
//! | [`seeds`], [`command_line`] | many runs, and what came of them |
//! | [`minimise`] | from a run that fails to a small one that fails alike |
//! | [`gate`] | planted bugs, which must be found |

pub mod agenda;
pub mod clock;
pub mod cluster;
pub mod command_line;
pub mod focus;
pub mod gate;
pub mod history;
pub mod invariant;
pub mod linearizability;
pub mod minimise;
pub mod network;
pub mod options;
pub mod random;
pub mod seeds;
pub mod trace;
