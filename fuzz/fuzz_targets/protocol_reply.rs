//! Any line: what is taken as a reply is JSON for serde too, and reads the same when passed on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remuda_protocol::{Answer, Reply, encode};
use serde_json::value::RawValue;

fuzz_target!(|line: &[u8]| {
    let Ok(reply) = Reply::parse(line) else { return };
    let whole: Result<&RawValue, _> = serde_json::from_slice(line);
    assert!(whole.is_ok(), "serde refuses what was taken");
    let mut out = Vec::new();
    match &reply.answer {
        Answer::Result(body) => encode::result(&mut out, reply.id, body.as_bytes()),
        Answer::Error(failure) => encode::failure(&mut out, reply.id, failure),
        Answer::Handshake(offer) => encode::offer(&mut out, reply.id, offer),
        Answer::Results(results) => {
            let outcomes = results.outcomes();
            assert_eq!(outcomes.len(), results.len());
            assert_eq!(outcomes.count(), results.len());
            return;
        }
        Answer::Status(_) | Answer::Other { .. } => return,
    }
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
    let again = Reply::parse(&out).expect("what was written reads back");
    assert_eq!(again.id, reply.id);
    match (&again.answer, &reply.answer) {
        // Line breaks between the tokens of a body are left out on the way.
        (Answer::Result(_), Answer::Result(_)) => {}
        (again, before) => assert_eq!(again, before),
    }
});
