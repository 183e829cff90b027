//! The `ringfort` binary. Everything but the choice of the allocator is in the library.

use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A request makes many small allocations that are freed on other threads: glibc's allocator took a fifth of a node's
/// time under writes.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    ringfort_cli::main()
}
