//! What must hold for every byte that comes from outside: a disk, a network, a user.
//!
//! Each file of [`targets`] has a *body*, a plain function of an input's bytes that panics where a property does not
//! hold. The same bodies run under two programs:
//!
//! - `cargo fuzz run TARGET`, in `fuzz/`, which looks for inputs that reach new code (libFuzzer, on a nightly toolchain);
//! - `cargo test -p ringfort-fuzz`, on the stable one: random inputs, valid ones, damaged ones, and those of earlier
//!   failures (`tests/regressions`).
//!
//! One idea serves both: an input is the decisions that make a value ([`source`]), and bytes to be decoded. What holds for
//! formats is in [`codec`]; that none of them takes more memory than its input accounts for is measured ([`allocation`]).
//!
//! No target draws a random number or reads a clock, so an input that fails once always does.

pub mod allocation;
pub mod codec;
pub mod source;
pub mod targets;

pub use targets::{TARGETS, Target};
