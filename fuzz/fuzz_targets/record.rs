//! Stored records: decoding ends, allocates within bounds, and gives what can be written again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tinyd::internals::fuzz_record(data));
