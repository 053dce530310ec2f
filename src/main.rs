//! The program: see `tinyd --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tinyd::main()
}
