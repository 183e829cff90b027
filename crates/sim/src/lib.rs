//! A deterministic simulator of Ringfort, and the checkers that judge its runs.
//!
//! One number, the seed, determines a run. The seed becomes [`options::Options`]; the options drive a cluster of
//! simulated nodes on virtual time, which jumps from event to event on an [`agenda::Agenda`]; clients record their
//! operations and answers in a [`history::History`]; [`linearizability::check`] decides whether a map could have given
//! these answers. Nothing in a run reads a real clock, a global random source or a hashed order (clippy.toml enforces
//! this), so a seed that fails once always fails, and [`trace::Trace`] proves it.
//!
//! | module | what it does |
//! |---|---|
//! | [`random`], [`agenda`], [`clock`], [`trace`] | randomness, time, clocks that are wrong, and the proof that nothing else influenced the run |
//! | [`network`] | messages that are delayed, lost, duplicated and reordered |
//! | [`options`], [`focus`], [`narrowing`] | from a seed to a cluster, a workload and its faults |
//! | [`cluster`] | nodes that run the real core, clients, and the faults that happen to them |
//! | [`invariant`] | the invariants with their sources; the checks are in `cluster/invariants`, one file each |
//! | [`history`], [`linearizability`] | what clients saw, and whether it is linearizable |
//! | [`seeds`], [`command_line`] | many runs and their results |
//! | [`minimise`] | reduces a failing run to a small one that fails in the same way |
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
pub mod narrowing;
pub mod network;
pub mod options;
pub mod random;
pub mod seeds;
pub mod trace;
