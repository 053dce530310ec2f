//! What browsers and strangers send to the console: the first byte chooses filters, cookies, hosts and targets, or
//! times and destinations.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tinyd::internals::fuzz_console(data));
