//! References of a multirequest to earlier results.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| tinyd::internals::fuzz_references(text));
