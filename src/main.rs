//! The program: the verbs of `optio-webhooks --help`.

use std::process::ExitCode;

/// Deliveries allocate on one thread and free on another; glibc's allocator spends a quarter of the processor time
/// on its locks then.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    optio_webhooks::cli::main()
}
