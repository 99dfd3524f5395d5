//! Replies: written ones read back, and wrong ones say what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use proptest::prelude::*;
use remuda_protocol::encode::{self, Fault, ResultsWriter};
use remuda_protocol::{Answer, Code, Id, Offer, Raw, Reply};

fn line(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(!out.contains(&b'\n'), "one message is one line");
    out
}

fn refused(text: &str) -> (Option<String>, String) {
    let bad = Reply::parse(text.as_bytes()).unwrap_err();
    (bad.id.map(|id| id.to_string()), bad.message)
}

#[test]
fn an_offer_reads_back() {
    let mut offer = Offer::default();
    offer.instance = "9f\"".to_owned();
    offer.pid = 4711;
    offer.capacity = 8;
    offer.ordered = true;
    offer.batch = 100;
    offer.capabilities = vec!["cancel".to_owned(), "later".to_owned()];
    let line = line(|out| encode::offer(out, None, &offer));
    let reply = Reply::parse(&line).unwrap();
    assert_eq!(reply, Reply { id: None, answer: Answer::Handshake(offer.clone()) });
    assert!(offer.takes_cancel());
}

#[test]
fn the_least_offer_is_one_careful_job_at_a_time() {
    let text = br#"{"ok":true,"data":{"kind":"handshake","version":"1","pid":null,"new":{}}}"#;
    let Answer::Handshake(offer) = Reply::parse(text).unwrap().answer else { panic!() };
    assert_eq!(offer, Offer::default());
    assert_eq!((offer.capacity, offer.ordered, offer.batch), (1, false, 0));
}

#[test]
fn a_wrong_offer_is_told_which_field() {
    for (field, words) in [
        (r#""capacity":0"#, "`capacity`"),
        (r#""capacity":"2""#, "`capacity`"),
        (r#""ordered":1"#, "`ordered`"),
        (r#""batch":-1"#, "`batch`"),
        (r#""capabilities":"cancel""#, "`capabilities`"),
        (r#""pid":[]"#, "`pid`"),
        (r#""instance":7"#, "`instance`"),
    ] {
        let text = format!(r#"{{"ok":true,"data":{{"kind":"handshake","version":"1",{field}}}}}"#);
        let (_, message) = refused(&text);
        assert!(message.contains(words), "{text}: {message}");
    }
    let (_, message) = refused(r#"{"ok":true,"data":{"kind":"handshake"}}"#);
    assert!(message.contains("`version`"), "{message}");
}

#[test]
fn a_wrong_reply_says_what_is_wrong() {
    for (text, id, words) in [
        ("Hello", None, "must be a JSON object"),
        ("", None, "not valid JSON at byte 0"),
        ("[1]", None, "must be a JSON object"),
        ("{}", None, "`ok` is missing"),
        (r#"{"id":7,"ok":true}"#, Some("7"), "`data` is missing"),
        (r#"{"id":7,"ok":1}"#, Some("7"), "`ok` must be"),
        (r#"{"id":7,"ok":true,"ok":true}"#, Some("7"), "`ok` is there twice"),
        (r#"{"id":null,"ok":true}"#, None, "`id` must be"),
        (r#"{"id":7,"ok":true,"data":[]}"#, Some("7"), "`data` must be an object"),
        (r#"{"id":7,"ok":true,"data":{"kind":"result"}}"#, Some("7"), "needs a `body`"),
        (r#"{"id":7,"ok":true,"data":{"kind":"results","bodies":1}}"#, Some("7"), "an array"),
        (r#"{"id":7,"ok":true,"data":{"kind":1}}"#, Some("7"), "`data.kind`"),
        (r#"{"id":7,"ok":false}"#, Some("7"), "`code` of a failure"),
        (r#"{"id":7,"ok":false,"code":"timeout"}"#, Some("7"), "`error` of a failure"),
        (r#"{"id":7,"ok":true,"data":{"kind":"result","body":1}"#, Some("7"), "not valid JSON"),
        (
            r#"{"id":7,"ok":true,"data":{"kind":"results","bodies":[1],"failed":{"1":{"code":"x","error":""}}}}"#,
            Some("7"),
            "names body 1 of 1",
        ),
        (
            r#"{"id":7,"ok":true,"data":{"kind":"results","bodies":[1],"failed":{"0":"x"}}}"#,
            Some("7"),
            "an object of objects",
        ),
        (
            r#"{"id":7,"ok":true,"data":{"kind":"results","bodies":[1],"failed":{"-1":{}}}}"#,
            Some("7"),
            "an index",
        ),
    ] {
        let (got, message) = refused(text);
        assert_eq!(got.as_deref(), id, "{text}");
        assert!(message.contains(words), "{text}: {message}");
    }
}

#[test]
fn a_code_of_a_later_version_is_kept() {
    let reply = Reply::parse(br#"{"ok":false,"code":"moon_phase","error":"full"}"#).unwrap();
    let Answer::Error(failure) = reply.answer else { panic!() };
    assert_eq!(failure.code, None);
    assert_eq!(failure.code_text.decode(), "moon_phase");
    let passed_on = line(|out| encode::failure(out, Some(Id::Number(1)), &failure));
    assert_eq!(passed_on, br#"{"id":1,"ok":false,"code":"moon_phase","error":"full"}"#);
}

#[test]
fn a_failure_is_passed_on_with_its_traceback_as_it_was_escaped() {
    let text = r#"{"id":3,"ok":false,"code":"handler_error","error":"KeyError: \u0027x\ud800\u0027","traceback":"a\nb","extra":1}"#;
    let Answer::Error(failure) = Reply::parse(text.as_bytes()).unwrap().answer else { panic!() };
    assert_eq!(failure.error.decode(), "KeyError: 'x\u{fffd}'");
    assert_eq!(failure.traceback.unwrap().decode(), "a\nb");
    let passed_on = line(|out| encode::failure(out, Some(Id::Token("\"q\"")), &failure));
    assert_eq!(
        str::from_utf8(&passed_on).unwrap(),
        r#"{"id":"q","ok":false,"code":"handler_error","error":"KeyError: \u0027x\ud800\u0027","traceback":"a\nb"}"#
    );
}

#[test]
fn other_kinds_keep_their_data() {
    let line = line(|out| encode::ok(out, None, "status", br#""queue":0,"bodies":3"#));
    let Answer::Status(data) = Reply::parse(&line).unwrap().answer else { panic!() };
    assert_eq!(data.as_str(), r#"{"kind":"status","queue":0,"bodies":3}"#);

    let chunk = br#"{"id":1,"ok":true,"data":{"kind":"chunk","body":1}}"#;
    let Answer::Other { kind, data } = Reply::parse(chunk).unwrap().answer else { panic!() };
    assert_eq!((&*kind, data.as_str()), ("chunk", r#"{"kind":"chunk","body":1}"#));

    let none = Reply::parse(br#"{"ok":true,"data":{}}"#).unwrap().answer;
    assert!(matches!(none, Answer::Other { kind, .. } if kind.is_empty()));
}

#[test]
fn failures_of_a_batch_may_come_in_any_order() {
    let text = br#"{"id":1,"ok":true,"data":{"failed":{"10":{"code":"timeout","error":"a"},"2":{"error":"b","code":"handler_error"}},"bodies":[0,1,null,3,4,5,6,7,8,9,null],"kind":"results"}}"#;
    let Answer::Results(results) = Reply::parse(text).unwrap().answer else { panic!() };
    let outcomes: Vec<_> = results.outcomes().collect();
    assert_eq!(outcomes.len(), 11);
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match (index, outcome) {
            (2, Err(failure)) => assert_eq!(failure.code, Some(Code::HandlerError)),
            (10, Err(failure)) => assert_eq!(failure.code, Some(Code::Timeout)),
            (index, Ok(body)) => assert_eq!(body.as_str(), index.to_string()),
            (index, outcome) => panic!("{index}: {outcome:?}"),
        }
    }
}

#[test]
fn a_result_that_could_not_be_written_leaves_nothing_behind() {
    let mut out = b"before".to_vec();
    let failed = encode::result_with(&mut out, Some(Id::Number(1)), |out| {
        out.extend_from_slice(b"half");
        Err("no")
    });
    assert_eq!((failed, &out[..]), (Err("no"), &b"before"[..]));

    let line = line(|out| {
        let mut writer = ResultsWriter::new(out, None);
        writer.ok(b"1");
        writer
            .ok_with(|out| {
                out.push(b'[');
                Err(())
            })
            .unwrap_err();
        writer.fail(&Fault { code: Code::HandlerError, error: "no", traceback: None });
        writer
            .ok_with(|out| {
                out.push(b'3');
                Ok::<(), ()>(())
            })
            .unwrap();
        writer.finish();
    });
    assert_eq!(
        str::from_utf8(&line).unwrap(),
        r#"{"ok":true,"data":{"kind":"results","bodies":[1,null,3],"failed":{"1":{"code":"handler_error","error":"no"}}}}"#
    );
}

fn body() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,80}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        any::<i64>().prop_map(|number| number.to_string()),
        prop::collection::vec("\\PC{0,8}", 0..5)
            .prop_map(|texts| serde_json::to_string_pretty(&texts).unwrap()),
    ]
}

fn without_breaks(text: &str) -> String {
    text.replace(['\n', '\r'], "")
}

proptest! {
    #[test]
    fn a_result_reads_back(id in prop::option::of(any::<u64>()), body in body()) {
        let line = line(|out| encode::result(out, id.map(Id::Number), body.as_bytes()));
        let body = without_breaks(&body);
        let answer = Answer::Result(Raw::new(body.as_bytes()).unwrap());
        let reply = Reply { id: id.map(Id::Number), answer };
        prop_assert_eq!(&Reply::parse(&line).unwrap(), &reply);
        // A space in front sends the same line through the general reader.
        let spaced = [b" ", &line[..]].concat();
        prop_assert_eq!(&Reply::parse(&spaced).unwrap(), &reply);
    }

    #[test]
    fn an_error_reads_back(
        code in prop::sample::select(&Code::ALL[..]), error in any::<String>(),
        traceback in prop::option::of(any::<String>()),
    ) {
        let fault = Fault { code, error: &error, traceback: traceback.as_deref() };
        let line = line(|out| encode::fault(out, Some(Id::Number(1)), &fault));
        let Answer::Error(failure) = Reply::parse(&line).unwrap().answer else { panic!() };
        prop_assert_eq!(failure.code, Some(code));
        prop_assert_eq!(&failure.error.decode(), &error);
        prop_assert_eq!(failure.traceback.map(|text| text.decode().into_owned()), traceback);
    }

    #[test]
    fn results_read_back(
        outcomes in prop::collection::vec(prop::result::maybe_ok(body(), any::<String>()), 0..40),
    ) {
        let line = line(|out| {
            encode::results(out, Some(Id::Number(5)), outcomes.iter().map(|outcome| match outcome {
                Ok(body) => Ok(body.as_bytes()),
                Err(error) => Err(Fault { code: Code::HandlerError, error, traceback: None }),
            }));
        });
        let Answer::Results(results) = Reply::parse(&line).unwrap().answer else { panic!() };
        prop_assert_eq!(results.len(), outcomes.len());
        let back: Vec<Result<String, String>> = results
            .outcomes()
            .map(|outcome| match outcome {
                Ok(body) => Ok(body.as_str().to_owned()),
                Err(failure) => Err(failure.error.decode().into_owned()),
            })
            .collect();
        let sent: Vec<Result<String, String>> =
            outcomes.into_iter().map(|outcome| outcome.map(|body| without_breaks(&body))).collect();
        prop_assert_eq!(back, sent);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Reply::parse(&bytes);
    }

    #[test]
    fn a_damaged_reply_never_panics(
        body in body(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let fault = Fault { code: Code::Timeout, error: "late", traceback: None };
        let mut line = line(|out| {
            encode::results(out, Some(Id::Number(1)), [Ok(body.as_bytes()), Err(fault)]);
        });
        let at = at.index(line.len());
        line[at] = byte;
        if let Ok(Reply { answer: Answer::Results(results), .. }) = Reply::parse(&line) {
            prop_assert_eq!(results.outcomes().count(), results.len());
        }
    }
}
