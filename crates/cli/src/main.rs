//! The program `stevedore`. See `stevedore --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
