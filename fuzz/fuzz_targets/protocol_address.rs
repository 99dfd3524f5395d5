//! Any text: an address that was read is written so that it reads back as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remuda_protocol::Address;

fuzz_target!(|text: &str| {
    if let Ok(address) = text.parse::<Address>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
});
