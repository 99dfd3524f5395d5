//! What a program names of the client's interface, by this crate alone.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::PathBuf;

use remuda_client::{
    Access, Address, BadJson, BadJsonKind, CallError, ClientOptions, ConnectError, GaveUp,
    HandshakeError, Json, Role, TlsFiles,
};

/// What a program may tell apart.
fn is_worth_another_try(error: &CallError) -> bool {
    match error {
        CallError::BadBody(BadJson { kind: BadJsonKind::NotUtf8, at }) => *at == 0,
        CallError::Unreachable(ConnectError::Handshake { source, .. }) => {
            !matches!(source, HandshakeError::VersionMismatch { .. })
        }
        CallError::Unreachable(ConnectError::GaveUp {
            source: GaveUp { failures, .. }, ..
        }) => *failures < 3,
        _ => true,
    }
}

#[test]
fn an_address_is_written_without_its_text() {
    let files = TlsFiles { ca: Some(PathBuf::from("/ca.pem")), ..TlsFiles::default() };
    let token_file = Some(PathBuf::from("/token"));
    let access = Access { token_file, role: Some(Role::Call), ..Access::default() };
    let address = Address::Tls { host: "pool".into(), port: 7000, files, access };
    let text = "tls:pool:7000,ca=/ca.pem,token_file=/token,role=call";
    assert_eq!(address, text.parse().unwrap());
    let _options: ClientOptions = ClientOptions::new().address(address);
}

#[test]
fn errors_are_told_apart_by_their_parts() {
    let bad = Json::new("{").unwrap_err();
    assert!(is_worth_another_try(&CallError::BadBody(bad)));
    let source = HandshakeError::VersionMismatch { ours: "1", theirs: "2".into() };
    let error = ConnectError::Handshake { address: "pool".into(), source };
    assert!(!is_worth_another_try(&CallError::Unreachable(error)));
}
