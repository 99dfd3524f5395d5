//! Requests: written ones read back, and wrong ones get an answer that names them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::borrow::Cow;

use proptest::prelude::*;
use remuda_protocol::encode::{self, CallFields};
use remuda_protocol::{Call, Code, DEPTH_MAX, Id, IdBuf, Op, Payload, Raw, Request, salvage_id};

fn line(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    assert!(!out.contains(&b'\n'), "one message is one line");
    out
}

fn refused(text: &str) -> (Code, Option<String>, String) {
    let bad = Request::parse(text.as_bytes()).unwrap_err();
    (bad.code, bad.id.map(|id| id.to_string()), bad.message)
}

#[test]
fn the_plain_operations_read_back() {
    for (write, op) in [
        (encode::status as fn(&mut Vec<u8>, Option<Id<'_>>), Op::Status),
        (encode::reset, Op::Reset),
        (encode::shutdown, Op::Shutdown),
    ] {
        for id in [None, Some(Id::Number(4)), Some(Id::Token("\"x\""))] {
            let line = line(|out| write(out, id));
            assert_eq!(Request::parse(&line).unwrap(), Request { id, op: op.clone() });
        }
    }
    let line = line(|out| encode::cancel(out, Id::Number(9)));
    assert_eq!(Request::parse(&line).unwrap(), Request { id: Some(Id::Number(9)), op: Op::Cancel });
}

#[test]
fn a_handshake_reads_back_with_its_token() {
    for token in [None, Some("se\"cret\n")] {
        let line = line(|out| encode::handshake(out, "1", token));
        let op = Op::Handshake { version: Cow::Borrowed("1"), token: token.map(Cow::Borrowed) };
        assert_eq!(Request::parse(&line).unwrap().op, op);
    }
}

#[test]
fn a_null_body_is_a_body() {
    let request = Request::parse(br#"{"op":"call","id":1,"body":null}"#).unwrap();
    let call = Call { payload: Payload::One(Raw::NULL), timeout_ms: None, hops: 0 };
    assert_eq!(request.op, Op::Call(call));
}

#[test]
fn fields_come_in_any_order_with_white_space_and_unknown_ones_between() {
    let text = " { \"body\" : [ 1 , 2 ] ,\t\"priority\":{\"x\":[]}, \"hops\":2,\r\"id\": \"a\" ,\"timeout_ms\":250.5, \"op\":\"call\" } ";
    let request = Request::parse(text.as_bytes()).unwrap();
    assert_eq!(request.id, Some(Id::Token("\"a\"")));
    let Op::Call(call) = request.op else { panic!("{request:?}") };
    assert_eq!((call.timeout_ms, call.hops), (Some(251), 2));
    assert_eq!(call.payload, Payload::One(Raw::new(b"[ 1 , 2 ]").unwrap()));
}

#[test]
fn a_name_with_escapes_is_the_same_name() {
    let request = Request::parse(br#"{"\u006fp":"c\u0061ll","id":1,"body":2}"#).unwrap();
    assert!(matches!(request.op, Op::Call(_)));
    let (_, _, message) = refused(r#"{"op":"call","body":1,"b\u006fdy":2}"#);
    assert!(message.contains("twice"), "{message}");
}

#[test]
fn timeouts_saturate_and_null_is_none() {
    for (value, expected) in [
        ("0", Some(0)),
        ("null", None),
        ("1e300", Some(u64::MAX)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", Some(u64::MAX)),
        ("-0.0", Some(0)),
        ("0.1", Some(1)),
    ] {
        let text = format!(r#"{{"op":"call","body":1,"timeout_ms":{value}}}"#);
        let Op::Call(call) = Request::parse(text.as_bytes()).unwrap().op else { panic!() };
        assert_eq!(call.timeout_ms, expected, "{value}");
    }
    for value in ["-1", "\"5\"", "[]", "true"] {
        let (code, ..) = refused(&format!(r#"{{"op":"call","body":1,"timeout_ms":{value}}}"#));
        assert_eq!(code, Code::BadRequest, "{value}");
    }
}

#[test]
fn a_wrong_request_is_refused_with_its_id() {
    for (text, code, id, words) in [
        ("", Code::BadRequest, None, "not valid JSON at byte 0"),
        ("[]", Code::BadRequest, None, "must be a JSON object"),
        (r#"["call",7,"x"]"#, Code::BadRequest, None, "must be a JSON object"),
        (r#"{"id":7}"#, Code::BadRequest, Some("7"), "`op` is missing"),
        (r#"{"op":5,"id":7}"#, Code::BadRequest, Some("7"), "`op` is missing or not a string"),
        (r#"{"op":"call","id":7}"#, Code::BadRequest, Some("7"), "needs a `body`"),
        (r#"{"op":"call","body":1,"bodies":[2],"id":7}"#, Code::BadRequest, Some("7"), "not both"),
        (r#"{"op":"call","bodies":[],"id":7}"#, Code::BadRequest, Some("7"), "at least one"),
        (r#"{"op":"call","bodies":{},"id":7}"#, Code::BadRequest, Some("7"), "must be an array"),
        (r#"{"op":"call","body":1,"body":2,"id":7}"#, Code::BadRequest, Some("7"), "twice"),
        (r#"{"op":"call","id":7,"body":1} x"#, Code::BadRequest, Some("7"), "not valid JSON"),
        (r#"{"op":"call","id":7,"body":tru}"#, Code::BadRequest, Some("7"), "not valid JSON"),
        (r#"{"op":"call","id":null,"body":1}"#, Code::BadRequest, None, "`id` must be"),
        (r#"{"op":"call","id":[1],"body":1}"#, Code::BadRequest, None, "`id` must be"),
        (r#"{"op":"cancel"}"#, Code::BadRequest, None, "needs the `id`"),
        (r#"{"op":"fly","id":"a b"}"#, Code::UnknownOp, Some("\"a b\""), "unknown op \"fly\""),
        (r#"{"op":"handshake","version":1}"#, Code::BadRequest, None, "`version` must be a string"),
        (r#"{"op":"handshake","token":1}"#, Code::BadRequest, None, "`token` must be a string"),
    ] {
        let (got_code, got_id, message) = refused(text);
        assert_eq!((got_code, got_id.as_deref()), (code, id), "{text}");
        assert!(message.contains(words), "{text}: {message}");
    }
}

#[test]
fn nesting_invalid_text_and_nul_bytes_are_refused() {
    let deep = |depth: usize| {
        format!(r#"{{"op":"call","id":7,"body":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    assert!(Request::parse(deep(DEPTH_MAX).as_bytes()).is_ok());
    let (_, id, message) = refused(&deep(100_000));
    assert_eq!(id.as_deref(), Some("7"));
    assert!(message.contains("nested more than 128 deep"), "{message}");

    let mut line = br#"{"op":"call","id":7,"body":"x"}"#.to_vec();
    line[28] = 0xff;
    assert!(Request::parse(&line).unwrap_err().message.contains("not UTF-8 at byte 28"));
    line[28] = 0;
    assert!(Request::parse(&line).unwrap_err().message.contains("not valid JSON at byte 28"));
}

#[test]
fn an_unknown_op_is_shown_short() {
    let (_, _, message) = refused(&format!(r#"{{"op":"{}"}}"#, "x".repeat(10_000)));
    assert!(message.len() < 200, "{message}");
}

#[test]
fn the_id_of_a_line_that_was_cut_is_found_if_it_came_first() {
    assert_eq!(salvage_id(br#"{"op":"call","id":7,"body":"aaaa"#), Some(IdBuf::from(7)));
    assert_eq!(
        salvage_id("{\"id\":\"x\",\"body\":\"é".as_bytes().split_last().unwrap().1)
            .map(|id| id.to_string()),
        Some("\"x\"".to_owned())
    );
    assert_eq!(salvage_id(br#"{"op":"call","body":"aaaa"#), None);
    assert_eq!(salvage_id(br#"{"op":"call","id":"#), None);
    assert_eq!(salvage_id(b"GET / HTTP/1.1"), None);
}

/// An id, as it is written.
fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        any::<i32>().prop_map(|number| number.to_string()),
        "[a-z\\\\\"]{0,30}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        "-?[1-9][0-9]{0,40}(\\.[0-9]{1,5})?(e[0-9])?",
    ]
}

fn body() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,80}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        any::<i64>().prop_map(|number| number.to_string()),
        prop::collection::vec("\\PC{0,8}", 0..5)
            .prop_map(|texts| serde_json::to_string_pretty(&texts).unwrap()),
        Just("{\r\n \"a\": [\n\n]\r\n}".to_owned()),
    ]
}

fn without_breaks(text: &str) -> String {
    text.replace(['\n', '\r'], "")
}

fn read_id(text: &str) -> IdBuf {
    salvage_id(format!("{{\"id\":{text},").as_bytes()).unwrap()
}

proptest! {
    #[test]
    fn a_call_reads_back(
        id in prop::option::of(id()), body in body(),
        timeout_ms in prop::option::of(any::<u64>()), hops in any::<u32>(),
    ) {
        let owned = id.as_deref().map(read_id);
        let fields = CallFields { timeout_ms, hops };
        let line = line(|out| {
            encode::call(out, owned.as_ref().map(IdBuf::as_id), body.as_bytes(), &fields);
        });
        let request = Request::parse(&line).unwrap();
        // A space in front sends the same line through the general reader.
        let spaced = [b" ", &line[..]].concat();
        prop_assert_eq!(&Request::parse(&spaced).unwrap(), &request);
        prop_assert_eq!(request.id.map(|id| id.to_string()), id);
        let Op::Call(call) = request.op else { panic!() };
        prop_assert_eq!((call.timeout_ms, call.hops), (timeout_ms, hops));
        let Payload::One(back) = call.payload else { panic!() };
        prop_assert_eq!(back.as_str(), without_breaks(&body));
    }

    #[test]
    fn a_batch_reads_back(bodies in prop::collection::vec(body(), 1..20), id in id()) {
        let owned = read_id(&id);
        let line = line(|out| {
            let bodies = bodies.iter().map(String::as_bytes);
            encode::calls(out, Some(owned.as_id()), bodies, &CallFields::default());
        });
        let Op::Call(Call { payload: Payload::Many(back), .. }) = Request::parse(&line).unwrap().op
        else { panic!() };
        prop_assert_eq!(back.len(), bodies.len());
        let back: Vec<&str> = back.iter().map(Raw::as_str).collect();
        let sent: Vec<String> = bodies.iter().map(|body| without_breaks(body)).collect();
        prop_assert_eq!(back, sent);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&bytes);
        let _ = salvage_id(&bytes);
    }

    #[test]
    fn a_damaged_call_never_panics(
        body in body(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        end in any::<prop::sample::Index>(),
    ) {
        let mut line = line(|out| {
            encode::calls(out, Some(Id::Number(1)), [body.as_bytes(), b"1"], &CallFields::default());
        });
        let at = at.index(line.len());
        line[at] = byte;
        if let Ok(Request { op: Op::Call(Call { payload: Payload::Many(bodies), .. }), .. }) =
            Request::parse(&line)
        {
            prop_assert_eq!(bodies.iter().count(), bodies.len());
        }
        let _ = Request::parse(&line[..end.index(line.len())]);
        let _ = salvage_id(&line[..end.index(line.len())]);
    }
}
