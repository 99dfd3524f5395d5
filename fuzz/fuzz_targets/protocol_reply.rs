//! Any line: what is taken as a reply is JSON for serde too, reads the same with white space in
//! front of its first field, which keeps the shortcuts away, and when it is passed on.
#![no_main]

use std::iter::zip;

use libfuzzer_sys::fuzz_target;
use remuda_protocol::encode::{self, Fault, ResultsWriter};
use remuda_protocol::{Answer, Code, Raw, Reply, Results};
use serde_json::value::RawValue;

fuzz_target!(|line: &[u8]| {
    let mut spaced = line.to_vec();
    if line.first() == Some(&b'{') {
        spaced.insert(1, b' ');
    }
    match (Reply::parse(line), Reply::parse(&spaced)) {
        (Ok(reply), Ok(general)) => assert_eq!(reply, general),
        (Err(error), Err(general)) => assert_eq!(error.id, general.id),
        other => panic!("the two ways disagree: {other:?}"),
    }
    let Ok(reply) = Reply::parse(line) else { return };
    let whole: Result<&RawValue, _> = serde_json::from_slice(line);
    assert!(whole.is_ok(), "serde refuses what was taken");
    let mut out = Vec::new();
    match &reply.answer {
        Answer::Result(body) => encode::result(&mut out, reply.id, body.as_bytes()),
        Answer::Error(failure) => encode::failure(&mut out, reply.id, failure),
        Answer::Handshake(offer) => encode::offer(&mut out, reply.id, offer),
        Answer::Results(results) => write_results(&mut out, &reply, results),
        Answer::Status(_) | Answer::Other { .. } => return,
    }
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
    let again = Reply::parse(&out).expect("what was written reads back");
    assert_eq!(again.id, reply.id);
    match (&again.answer, &reply.answer) {
        (Answer::Result(again), Answer::Result(body)) => assert!(is_passed_on(*again, *body)),
        (Answer::Results(again), Answer::Results(results)) => are_passed_on(again, results),
        (again, before) => assert_eq!(again, before),
    }
});

fn write_results(out: &mut Vec<u8>, reply: &Reply<'_>, results: &Results<'_>) {
    let mut writer = ResultsWriter::new(out, reply.id);
    for outcome in results.outcomes() {
        match outcome {
            Ok(body) => writer.ok(body.as_bytes()),
            Err(failure) => writer.fail(&Fault {
                code: failure.code.unwrap_or(Code::Internal),
                error: &failure.error.decode(),
                traceback: failure.traceback.map(|text| text.decode()).as_deref(),
            }),
        }
    }
    writer.finish();
}

fn are_passed_on(again: &Results<'_>, results: &Results<'_>) {
    assert_eq!(results.outcomes().len(), results.len());
    assert_eq!(results.outcomes().count(), results.len());
    assert_eq!(again.len(), results.len());
    for outcomes in zip(again.outcomes(), results.outcomes()) {
        match outcomes {
            (Ok(again), Ok(body)) => assert!(is_passed_on(again, body)),
            (Err(again), Err(failure)) => {
                assert_eq!(again.code, failure.code.or(Some(Code::Internal)));
                assert_eq!(again.error.decode(), failure.error.decode());
                let texts = [again, failure].map(|it| it.traceback.map(|text| text.decode()));
                assert_eq!(texts[0], texts[1]);
            }
            other => panic!("an outcome has changed: {other:?}"),
        }
    }
}

/// Line breaks between the tokens of a body are left out on the way, and nothing else.
fn is_passed_on(again: Raw<'_>, body: Raw<'_>) -> bool {
    body.as_str().replace(['\n', '\r'], "") == again.as_str()
}
