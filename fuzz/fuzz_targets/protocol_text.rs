//! Any bytes: text comes back from a JSON string, and bodies are judged as serde judges them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remuda_protocol::{BadJsonKind, Raw, json_string, unescape, unescape_into};
use serde_json::value::RawValue;

fuzz_target!(|bytes: &[u8]| {
    let mut json = Vec::new();
    let written = json_string(&mut json, bytes);
    assert_eq!(written.is_ok(), str::from_utf8(bytes).is_ok());
    if written.is_ok() {
        let text: String = serde_json::from_slice(&json).expect("serde reads what was written");
        assert_eq!(text.as_bytes(), bytes);
        let mut back = Vec::new();
        unescape_into(&mut back, str::from_utf8(&json).expect("JSON is UTF-8")).expect("it reads");
        assert_eq!(back, bytes);
    }

    let ours = Raw::new(bytes);
    let theirs: Option<&RawValue> =
        str::from_utf8(bytes).ok().and_then(|text| serde_json::from_str(text).ok());
    match ours {
        Ok(raw) => assert_eq!(Some(raw.as_str()), theirs.map(RawValue::get)),
        // serde has no limit of depth for raw values.
        Err(error) => assert!(theirs.is_none() || error.kind == BadJsonKind::TooDeep),
    }
    if let Ok(raw) = ours {
        let theirs: Result<String, _> = serde_json::from_str(raw.as_str());
        assert_eq!(unescape(raw.as_str()).ok().as_deref(), theirs.ok().as_deref());
    }
});
