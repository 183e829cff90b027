//! Fuzz tests for all input from outside: from a disk, a network, or a user.
//!
//! Each file of [`targets`] has a *body*, a plain function of an input's bytes that panics if a property does not hold.
//! Two programs run the same bodies:
//!
//! - `cargo fuzz run TARGET`, in `fuzz/`, which searches for inputs that reach new code (libFuzzer, on a nightly
//!   toolchain);
//! - `cargo test -p ringfort-fuzz`, on the stable toolchain, with random, valid and damaged inputs and those of earlier
//!   failures (`tests/regressions`).
//!
//! Both use an input in two ways: as decisions that generate a value ([`source`]), and as bytes to decode. The
//! properties of formats are in [`codec`]; [`allocation`] measures that decoding takes no more memory than its input
//! accounts for.
//!
//! No target draws a random number or reads a clock, so an input that fails once always fails.

pub mod allocation;
pub mod codec;
pub mod source;
pub mod targets;

pub use targets::{TARGETS, Target};
