//! Plain text and JSON strings, against serde_json.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use proptest::prelude::*;
use remuda_protocol::{BadString, NotUtf8, Raw, json_string, unescape, unescape_into};

fn escaped(text: &[u8]) -> Result<String, NotUtf8> {
    let mut out = Vec::new();
    json_string(&mut out, text)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn escapes_are_the_short_ones() {
    assert_eq!(
        escaped("a\"\\/\u{8}\u{c}\n\r\t\u{0}\u{1f}\u{7f}é\u{2028}𝄞".as_bytes()).unwrap(),
        "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\u{7f}é\u{2028}𝄞\""
    );
}

#[test]
fn what_is_not_utf8_is_refused_and_leaves_nothing() {
    let mut out = b"before".to_vec();
    assert_eq!(json_string(&mut out, b"ab\xffcd"), Err(NotUtf8 { at: 2 }));
    assert_eq!(json_string(&mut out, b"ab\xc3"), Err(NotUtf8 { at: 2 }));
    assert_eq!(out, b"before");
}

#[test]
fn half_a_surrogate_pair_is_no_text() {
    assert_eq!(unescape(r#""\ud834\udd1e\/\u00e9""#).unwrap(), "𝄞/é");
    for (json, code_unit) in [
        (r#""\ud834""#, 0xd834),
        (r#""\udd1e\ud834""#, 0xdd1e),
        (r#""a\ud834\n""#, 0xd834),
        (r#""\ud834\u0041""#, 0xd834),
        (r#""\ud834\ud834\udd1e""#, 0xd834),
    ] {
        let mut out = b"before".to_vec();
        let lone = Err(BadString::LoneSurrogate { code_unit });
        assert_eq!(unescape(json).map(|_| ()), lone, "{json}");
        assert_eq!(unescape_into(&mut out, json), lone, "{json}");
        assert_eq!(out, b"before");
    }
}

#[test]
fn other_values_are_no_strings() {
    for json in ["", "\"", "null", "7", "[\"a\"]", "\"\\", "\"a\\\"", "\"\\x\"", "\"\\u12\""] {
        assert_eq!(unescape(json), Err(BadString::NotAString), "{json}");
    }
}

proptest! {
    #[test]
    fn text_comes_back(text in any::<String>()) {
        let json = escaped(text.as_bytes()).unwrap();
        prop_assert_eq!(&serde_json::from_str::<String>(&json).unwrap(), &text);
        prop_assert!(Raw::new(json.as_bytes()).is_ok());
        prop_assert_eq!(&unescape(&json).unwrap(), &text);
    }

    #[test]
    fn control_characters_come_back_at_every_place(
        text in "[a-z]{0,40}[\\x00-\\x1f\"\\\\]{0,3}[a-z]{0,40}[\\x00-\\x1f\"\\\\]{0,2}",
    ) {
        let json = escaped(text.as_bytes()).unwrap();
        prop_assert_eq!(&serde_json::from_str::<String>(&json).unwrap(), &text);
        let mut back = Vec::new();
        unescape_into(&mut back, &json).unwrap();
        prop_assert_eq!(back, text.into_bytes());
    }

    #[test]
    fn serde_reads_every_escape_alike(parts in prop::collection::vec(
        prop_oneof![
            any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
            (0xd800u16..0xdc00, 0xdc00u16..0xe000)
                .prop_map(|(high, low)| format!("\\u{high:04X}\\u{low:04x}")),
            prop::sample::select(&["\\n", "\\/", "a", "é", "\\\\", "\\\"", "\\b"][..])
                .prop_map(str::to_owned),
        ], 0..12)) {
        let json = format!("\"{}\"", parts.concat());
        let theirs = serde_json::from_str::<String>(&json).ok();
        prop_assert_eq!(unescape(&json).ok().map(|text| text.into_owned()), theirs);
    }

    #[test]
    fn any_text_at_all_never_panics(text in any::<String>()) {
        let _ = unescape(&text);
        let _ = unescape(&format!("\"{text}\""));
    }
}
