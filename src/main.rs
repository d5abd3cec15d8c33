//! The binary `optio-webhooks`. [`optio_webhooks::cli`] implements it.

use std::process::ExitCode;

/// The allocator. Deliveries allocate on one thread and free on another, and with glibc's allocator the locks of this
/// pattern take a quarter of the processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    optio_webhooks::cli::main()
}
