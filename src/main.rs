//! The program: see `tinyd --help`.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// The C library's keeps what is freed for the thread that had it, and tinyd has many that now and then need much: it
/// grew to several times what was in use.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    tinyd::main()
}
