//! Any line: what is taken as a request is JSON for serde too, reads the same with white space in
//! front of its first field, which keeps the shortcuts away, and when it is written anew.
#![no_main]

use std::iter::zip;

use libfuzzer_sys::fuzz_target;
use remuda_protocol::encode::{self, CallFields};
use remuda_protocol::{Op, Payload, Raw, Request, salvage_id};
use serde_json::value::RawValue;

fuzz_target!(|line: &[u8]| {
    let _ = salvage_id(line);
    let mut spaced = line.to_vec();
    if line.first() == Some(&b'{') {
        spaced.insert(1, b' ');
    }
    match (Request::parse(line), Request::parse(&spaced)) {
        (Ok(request), Ok(general)) => assert_eq!(request, general),
        (Err(error), Err(general)) => {
            assert_eq!((error.code, error.id), (general.code, general.id));
        }
        other => panic!("the two ways disagree: {other:?}"),
    }
    let Ok(request) = Request::parse(line) else { return };
    let whole: Result<&RawValue, _> = serde_json::from_slice(line);
    assert!(whole.is_ok(), "serde refuses what was taken");
    let Op::Call(call) = request.op else { return };
    let fields = CallFields { timeout_ms: call.timeout_ms, hops: call.hops };
    let mut out = Vec::new();
    match call.payload {
        Payload::One(body) => encode::call(&mut out, request.id, body.as_bytes(), &fields),
        Payload::Many(bodies) => {
            assert_eq!(bodies.iter().count(), bodies.len());
            let bodies = bodies.iter().map(|body| body.as_str().as_bytes());
            encode::calls(&mut out, request.id, bodies, &fields);
        }
    }
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
    let again = Request::parse(&out).expect("what was written reads back");
    assert_eq!(again.id, request.id);
    let Op::Call(again) = again.op else { panic!("a call reads back as a call") };
    assert_eq!((again.timeout_ms, again.hops), (call.timeout_ms, call.hops));
    match (again.payload, call.payload) {
        (Payload::One(again), Payload::One(body)) => assert!(is_passed_on(again, body)),
        (Payload::Many(again), Payload::Many(bodies)) => {
            assert_eq!(again.len(), bodies.len());
            assert!(zip(again, bodies).all(|(again, body)| is_passed_on(again, body)));
        }
        _ => panic!("a batch reads back as a batch"),
    }
});

/// Line breaks between the tokens of a body are left out on the way, and nothing else.
fn is_passed_on(again: Raw<'_>, body: Raw<'_>) -> bool {
    body.as_str().replace(['\n', '\r'], "") == again.as_str()
}
