//! The binary `optio-webhooks`. [`optio_webhooks::cli`] implements it.

#![expect(unsafe_code, reason = "options of the allocator are set by its C functions")]

use std::ffi::c_long;
use std::process::ExitCode;

use libmimalloc_sys::{mi_option_get, mi_option_set_default, mi_option_t};

/// The allocator, which librdkafka uses too. Deliveries allocate on one thread and free on another, and with glibc's
/// allocator the locks of this pattern take a quarter of the processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's option `purge_delay`: the delay in milliseconds before freed memory is returned to the system. The crate has no
/// constant for it. Its number is the same in versions 2 and 3 (`enum mi_option_e` in `mimalloc.h`).
const PURGE_DELAY: mi_option_t = 15;
const DEFAULT_MS: c_long = 1_000;
/// With mimalloc's default a backlog takes 30 MiB more.
const PURGE_AFTER_MS: c_long = 10;

fn main() -> ExitCode {
    return_memory_soon();
    optio_webhooks::cli::main()
}

/// Sets [`PURGE_DELAY`], unless the environment does (`MIMALLOC_PURGE_DELAY`).
fn return_memory_soon() {
    // SAFETY: these functions aren't thread-safe, and no other thread runs yet.
    unsafe {
        if mi_option_get(PURGE_DELAY) == DEFAULT_MS {
            mi_option_set_default(PURGE_DELAY, PURGE_AFTER_MS);
        }
    }
}
