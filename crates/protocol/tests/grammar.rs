//! The scanner against serde_json: both must agree on what is JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use proptest::prelude::*;
use remuda_protocol::{BadJsonKind, DEPTH_MAX, Raw, Request};
use serde_json::value::RawValue;

/// Pieces that are likely to be near the edges of the grammar.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\"a\"",
        b"\"\\u00e9\"",
        b"\"\\ud800\"",
        b"\\",
        b"\\u12",
        b"0",
        b"-",
        b"1",
        b"01",
        b"1.5",
        b".",
        b"e",
        b"1e+5",
        b"true",
        b"false",
        b"null",
        b"nul",
        b" ",
        b"\n",
        b"\r",
        b"\t",
        b"\x00",
        b"\x1f",
        b"\x7f",
        "é".as_bytes(),
        b"\xc3",
        b"\xff",
    ];
    let piece = prop::sample::select(PIECES);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// JSON that is valid, with white space and escapes in odd places.
fn valid() -> impl Strategy<Value = String> {
    let string = "[ -~\u{e9}\u{4e2d}]{0,40}".prop_map(|text| serde_json::to_string(&text).unwrap());
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<f64>().prop_map(|value| serde_json::to_string(&value).unwrap()),
        string.clone(),
    ];
    let space = "[ \t\n\r]{0,2}";
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..6), space)
                .prop_map(|(values, space)| format!("[{space}{}{space}]", values.join(","))),
            (prop::collection::vec((string.clone(), inner), 0..6), space).prop_map(
                |(members, space)| {
                    let members: Vec<String> = members
                        .into_iter()
                        .map(|(key, value)| format!("{space}{key}{space}:{space}{value}"))
                        .collect();
                    format!("{{{space}{}{space}}}", members.join(","))
                }
            ),
        ]
    })
}

fn serde_agrees(bytes: &[u8]) {
    let theirs =
        str::from_utf8(bytes).ok().and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
    let ours = Raw::new(bytes).ok();
    assert_eq!(
        ours.map(Raw::as_str),
        theirs.map(RawValue::get),
        "{:?}",
        String::from_utf8_lossy(bytes)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_pieces_are_judged_as_serde_judges_them(bytes in pieces()) {
        serde_agrees(&bytes);
    }

    #[test]
    fn valid_json_passes_whole(text in valid()) {
        prop_assert_eq!(Raw::new(text.as_bytes()).unwrap().as_str(), text.as_str());
        let inside = format!("{{\"op\":\"call\",\"body\":{text},\"id\":3}}");
        prop_assert!(Request::parse(inside.as_bytes()).is_ok());
    }

    #[test]
    fn one_changed_byte_is_judged_as_serde_judges_it(text in valid(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        serde_agrees(&bytes);
    }

    #[test]
    fn a_cut_value_is_judged_as_serde_judges_it(text in valid(), at in any::<prop::sample::Index>()) {
        serde_agrees(&text.as_bytes()[..at.index(text.len())]);
    }
}

#[test]
fn every_special_byte_is_found_at_every_place_of_a_long_string() {
    for special in [b'\n', 0x00, 0x1f, 0x0d] {
        for length in 0..100 {
            for at in 0..length {
                let mut text = vec![b'x'; length];
                text[at] = special;
                let json = [b"\"", &text[..], b"\""].concat();
                assert!(Raw::new(&json).is_err(), "{special} at {at} of {length}");
                text[at] = 0x7f;
                let json = [b"\"", &text[..], b"\""].concat();
                assert!(Raw::new(&json).is_ok(), "DEL at {at} of {length}");
            }
        }
    }
}

#[test]
fn depth_is_limited_for_each_kind_of_container_and_counts_what_is_open() {
    let nested = |open: &str, close: &str, depth: usize| {
        format!("{}1{}", open.repeat(depth), close.repeat(depth))
    };
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[0,", "]"), ("{\"a\":0,\"b\": ", "}")] {
        assert!(Raw::new(nested(open, close, DEPTH_MAX).as_bytes()).is_ok(), "{open}");
        let error = Raw::new(nested(open, close, DEPTH_MAX + 1).as_bytes()).unwrap_err();
        assert_eq!(error.kind, BadJsonKind::TooDeep, "{open}");
    }
    let wide = format!("[{}[]]", "[[]],".repeat(10_000));
    assert!(Raw::new(wide.as_bytes()).is_ok());
    let deep = "[".repeat(100_000);
    assert_eq!(Raw::new(deep.as_bytes()).unwrap_err().kind, BadJsonKind::TooDeep);
}
