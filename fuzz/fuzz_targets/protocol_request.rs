//! Any line: what is taken as a request is JSON for serde too, and reads the same when written anew.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remuda_protocol::encode::{self, CallFields};
use remuda_protocol::{Op, Payload, Request, salvage_id};
use serde_json::value::RawValue;

fuzz_target!(|line: &[u8]| {
    let _ = salvage_id(line);
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
});
