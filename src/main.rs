//! The program: the verbs of `optio-webhooks --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    optio_webhooks::cli::main()
}
