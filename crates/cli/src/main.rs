//! `ringfort`, the one binary. All of it but the choice of an allocator is the library beside it.

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A request is many small allocations, freed on other threads than made them: glibc's allocator was a fifth of a node's
/// time under writes.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    ringfort_cli::main()
}
