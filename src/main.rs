//! The binary `optio-webhooks`. [`optio_webhooks::cli`] implements it.

#![expect(unsafe_code, reason = "options of the allocator are set by its C functions")]

use std::ffi::c_long;
use std::process::ExitCode;

use libmimalloc_sys::{mi_option_get, mi_option_set_default, mi_option_t};

/// The allocator, which librdkafka uses too. Deliveries allocate on one thread and free on another, and with glibc's
/// allocator the locks of this pattern take a quarter of the processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's option `purge_delay`: after how many milliseconds memory that was freed goes back to the system. The crate has
/// no name for it. Its number is the same in versions 2 and 3 (`enum mi_option_e` in `mimalloc.h`).
const PURGE_DELAY: mi_option_t = 15;
/// mimalloc's default is a second, in which a backlog takes 30 MiB more.
const PURGE_AFTER_MS: c_long = 10;

fn main() -> ExitCode {
    give_memory_back_soon();
    optio_webhooks::cli::main()
}

/// Sets [`PURGE_DELAY`], unless the environment does (`MIMALLOC_PURGE_DELAY`).
fn give_memory_back_soon() {
    // SAFETY: these functions aren't thread-safe, and no other thread runs yet.
    unsafe {
        let is_known = mi_option_get(PURGE_DELAY) == 1_000 || std::env::var_os("MIMALLOC_PURGE_DELAY").is_some();
        debug_assert!(is_known, "option {PURGE_DELAY} of mimalloc is another one now");
        mi_option_set_default(PURGE_DELAY, PURGE_AFTER_MS);
    }
}
