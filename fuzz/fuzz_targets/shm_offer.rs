//! The rendezvous message: whatever the bytes, it is read or refused, and what is read is within
//! the limits and is written as it came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remuda_shm::{CAPACITY_MAX, OFFER_LEN, Offer, REGION_SIZE_MAX, SLOT_SIZE_MAX};

fuzz_target!(|bytes: &[u8]| {
    let Ok(offer) = Offer::decode(bytes) else { return };
    assert_eq!(bytes.len(), OFFER_LEN);
    assert_eq!(offer.encode()[..], *bytes);
    if let Offer::Pair(geometry) = offer {
        assert!((1..=CAPACITY_MAX).contains(&geometry.capacity()));
        assert!((1..=SLOT_SIZE_MAX).contains(&geometry.slot_size()));
        assert!(geometry.region_size() <= REGION_SIZE_MAX);
    }
});
