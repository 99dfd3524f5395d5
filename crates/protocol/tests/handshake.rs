//! Both sides of the handshake, without a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use remuda_protocol::{
    Accepting, Answer, Code, Connecting, FirstBytes, HandshakeError, Offer, PROTOCOL_VERSION,
    Reply, Verdict, first_bytes,
};

fn strip(mut line: Vec<u8>) -> Vec<u8> {
    assert_eq!(line.pop(), Some(b'\n'));
    line
}

fn shake(
    offered: &Offer,
    expected: Option<&str>,
    sent: Option<&str>,
) -> (Verdict, Result<Offer, HandshakeError>) {
    let mut first = Vec::new();
    let connecting = Connecting::start(sent, &mut first);
    let mut answer = Vec::new();
    let verdict = Accepting::new(offered).token(expected).first_line(&strip(first), &mut answer);
    (verdict, connecting.answer(&strip(answer)))
}

#[test]
fn two_sides_of_one_version_agree() {
    let mut offer = Offer::default();
    offer.capacity = 3;
    assert_eq!(shake(&offer, None, None), (Verdict::Accepted, Ok(offer.clone())));
    assert_eq!(shake(&offer, None, Some("unasked")), (Verdict::Accepted, Ok(offer)));
}

#[test]
fn the_side_that_connects_decides_about_the_version() {
    let mut offer = Offer::default();
    offer.version = "2".to_owned();
    let (verdict, answer) = shake(&offer, None, None);
    assert_eq!(verdict, Verdict::Accepted);
    let error = answer.unwrap_err();
    let expected =
        HandshakeError::VersionMismatch { ours: PROTOCOL_VERSION, theirs: "2".to_owned() };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("upgrade"));
}

#[test]
fn a_token_is_needed_where_one_is_set() {
    let offer = Offer::default();
    assert_eq!(shake(&offer, Some("secret"), Some("secret")).0, Verdict::Accepted);
    for wrong in
        [None, Some(""), Some("secre"), Some("secretsecret"), Some("Secret"), Some("secret\0")]
    {
        let (verdict, answer) = shake(&offer, Some("secret"), wrong);
        assert_eq!(verdict, Verdict::Refused(Code::Unauthorized), "{wrong:?}");
        let HandshakeError::Refused { code, error } = answer.unwrap_err() else { panic!() };
        assert_eq!(code, "unauthorized");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn an_empty_token_is_not_the_same_as_every_token() {
    assert_eq!(
        shake(&Offer::default(), Some(""), Some("x")).0,
        Verdict::Refused(Code::Unauthorized)
    );
}

#[test]
fn a_first_line_that_is_no_handshake_is_refused_with_its_id() {
    for (line, id) in [
        (&br#"{"op":"shutdown"}"#[..], None),
        (br#"{"op":"call","id":7,"body":1}"#, Some(7)),
        (br#"{"op":"fly","id":8}"#, Some(8)),
        (b"GET / HTTP/1.1\r", None),
        (b"", None),
        (b"\x16\x03\x01", None),
        (br#"["handshake","1"]"#, None),
    ] {
        let mut out = Vec::new();
        let verdict = Accepting::new(&Offer::default()).first_line(line, &mut out);
        assert_eq!(verdict, Verdict::Refused(Code::HandshakeRequired));
        let out = strip(out);
        let reply = Reply::parse(&out).unwrap();
        assert_eq!(reply.id.and_then(remuda_protocol::Id::number), id);
        let Answer::Error(failure) = reply.answer else { panic!() };
        assert_eq!(failure.code, Some(Code::HandshakeRequired));
        assert!(failure.error.decode().contains(r#"{"op":"handshake","version":"1"}"#));
    }
}

#[test]
fn an_answer_that_is_none_shows_what_was_sent() {
    for (answer, shown) in [
        (&b"Loading model..."[..], "Loading model..."),
        (br#"{"ok":true,"data":{"kind":"result","body":1}}"#, "result"),
        (b"\xff\xfe", "\u{fffd}"),
        (b"", "\"\""),
    ] {
        let error = Connecting::start(None, &mut Vec::new()).answer(answer).unwrap_err();
        assert!(matches!(error, HandshakeError::NotAnAnswer { .. }), "{error:?}");
        assert!(error.to_string().contains(shown), "{error}");
    }
    let long = vec![b'x'; 100_000];
    let error = Connecting::start(None, &mut Vec::new()).answer(&long).unwrap_err();
    assert!(error.to_string().len() < 400);
}

#[test]
fn foreign_protocols_are_seen_by_their_first_byte() {
    assert_eq!(first_bytes(b""), FirstBytes::Undecided);
    assert_eq!(first_bytes(b"  "), FirstBytes::Undecided);
    assert_eq!(first_bytes(b" {"), FirstBytes::Possible);
    for foreign in [&b"G"[..], b"P", b"\x16\x03", b"\n", b"[", b"\0"] {
        assert_eq!(first_bytes(foreign), FirstBytes::Foreign);
    }
}
