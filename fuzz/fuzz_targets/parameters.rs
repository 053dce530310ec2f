//! Parameters of the API in every form: the first byte chooses the media type and place.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tinyd::internals::fuzz_parameters(data));
