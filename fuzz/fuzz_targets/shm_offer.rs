//! The rendezvous message: whatever the bytes, it is read or refused, and what is read is within
//! the limits and is written as it came.
#![no_main]

use std::iter::zip;

use libfuzzer_sys::fuzz_target;
use remuda_shm::{
    CAPACITY_MAX, Geometry, OFFER_LEN, Offer, REGION_SIZE_MAX, Refusal, SLOT_SIZE_MAX,
};

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // Bytes alone never begin as an offer does, nor have the size that follows from its rings.
    let begins = Offer::Refused(Refusal::Taken).encode();
    check(&[&begins[..12], bytes].concat());
    let Some((shape, changes)) = bytes.split_first_chunk::<8>() else { return };
    let shape = u64::from_ne_bytes(*shape);
    let Ok(geometry) = Geometry::new(shape as u32, (shape >> 32) as u32) else { return };
    let mut offer = Offer::Pair(geometry).encode();
    assert_eq!(Offer::decode(&offer).ok(), Some(Offer::Pair(geometry)));
    zip(&mut offer, changes).for_each(|(byte, change)| *byte ^= change);
    check(&offer);
});

fn check(bytes: &[u8]) {
    let Ok(offer) = Offer::decode(bytes) else { return };
    assert_eq!(bytes.len(), OFFER_LEN);
    assert_eq!(offer.encode()[..], *bytes);
    if let Offer::Pair(geometry) = offer {
        assert!((1..=CAPACITY_MAX).contains(&geometry.capacity()));
        assert!((1..=SLOT_SIZE_MAX).contains(&geometry.slot_size()));
        assert!(geometry.region_size() <= REGION_SIZE_MAX);
    }
}
