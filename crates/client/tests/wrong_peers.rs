//! Peers that a `Client` reaches and can't use: they speak something else, refuse it, or say nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::time::Duration;

use remuda_client::{Address, Backoff, CallError, ClientOptions, ConnectError, LinkState};
use support::{HELLO, Peer, Place, id_of};
use tokio::time::Instant;

fn options(place: &Place) -> ClientOptions {
    let backoff = || Backoff::new(7).base(Duration::from_millis(1)).cap(Duration::from_millis(20));
    ClientOptions::new().address(Address::unix(&place.path)).backoff(backoff)
}

#[tokio::test(start_paused = true)]
async fn another_version_is_asked_once_and_never_again() {
    let (place, listener) = Place::listen();
    let client = options(&place).start().unwrap();
    let serve = async {
        let mut peer = Peer::accept(&listener).await;
        peer.line().await;
        peer.send(r#"{"ok":true,"data":{"kind":"handshake","version":"2"}}"#).await;
        assert_eq!(peer.next().await, None);
    };
    let (error, ()) = tokio::join!(client.call::<_, u32>(&1), serve);
    let error = error.unwrap_err();
    assert!(matches!(&error, CallError::Unreachable(ConnectError::Handshake { .. })), "{error}");
    assert!(error.to_string().contains("version \"2\"") && !error.may_have_run(), "{error}");
    let again = client.call::<_, u32>(&1).await.unwrap_err();
    assert!(matches!(again, CallError::Unreachable(_)), "{again}");
    let hour = Duration::from_secs(3600);
    let storm = tokio::time::timeout(hour, listener.accept()).await;
    assert!(storm.is_err(), "no retry within the hour");
    let state = client.links().next().unwrap().state();
    assert!(matches!(state, LinkState::Failed { .. }), "{state}");
}

#[tokio::test]
async fn a_refused_token_is_final_and_a_draining_pool_is_not() {
    for (code, is_final) in [("unauthorized", true), ("draining", false)] {
        let (place, listener) = Place::listen();
        let serve = async {
            let mut peer = Peer::accept(&listener).await;
            assert_eq!(peer.line().await, r#"{"op":"handshake","version":"1","token":"sesame"}"#);
            peer.send(&format!(r#"{{"ok":false,"code":"{code}","error":"no"}}"#)).await;
        };
        let connect = options(&place).token("sesame").connect();
        let (error, ()) = tokio::join!(connect, serve);
        let error = error.unwrap_err();
        assert_eq!(error.may_pass(), !is_final, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_the_handshake_is_tried_again_later() {
    let (place, listener) = Place::listen();
    let client = options(&place).start().unwrap();
    let mute = async {
        let start = Instant::now();
        let mut peer = Peer::accept(&listener).await;
        peer.line().await;
        assert_eq!(peer.next().await, None);
        assert!(start.elapsed() >= Duration::from_secs(10));
        let mut peer = Peer::greet(&listener).await;
        let line = peer.line().await;
        peer.echo(&line).await;
    };
    let ready = async { client.ready().await.unwrap_err() };
    let (answer, error, ()) = tokio::join!(client.call::<_, u32>(&1), ready, mute);
    assert!(error.to_string().contains("handshake recv timeout (10s)"), "{error}");
    assert_eq!(answer.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_accepts_and_closes_is_not_stormed() {
    let (place, listener) = Place::listen();
    // The default delays.
    let client = ClientOptions::new().address(Address::unix(&place.path)).start().unwrap();
    let mut attempts = 0;
    let minute = tokio::time::sleep(Duration::from_secs(60));
    tokio::pin!(minute);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                drop(accepted.unwrap());
                attempts += 1;
            }
            () = &mut minute => break,
        }
    }
    assert!((5..60).contains(&attempts), "{attempts} attempts in a minute");
    drop(client);
}

#[tokio::test]
async fn something_else_that_listens_there_is_final() {
    let (place, listener) = Place::listen();
    let serve = async {
        let mut peer = Peer::accept(&listener).await;
        peer.line().await;
        peer.send("HTTP/1.1 400 Bad Request\r").await;
    };
    let (error, ()) = tokio::join!(options(&place).connect(), serve);
    let error = error.unwrap_err();
    assert!(!error.may_pass() && error.to_string().contains("400 Bad Request"), "{error}");
}

#[tokio::test]
async fn half_an_answer_to_the_handshake_may_pass() {
    let (place, listener) = Place::listen();
    let serve = async {
        let mut peer = Peer::accept(&listener).await;
        peer.line().await;
        peer.bytes(&HELLO.as_bytes()[..30]).await;
    };
    let (error, ()) = tokio::join!(options(&place).connect(), serve);
    let error = error.unwrap_err();
    assert!(error.may_pass() && error.to_string().contains("30 bytes"), "{error}");
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_loses_its_link_and_answers_nobody() {
    let answers = [
        "no json",
        r#"{"id":77,"ok":true,"data":{"kind":"result","body":1}}"#,
        r#"{"id":"ID","ok":true,"data":{"kind":"result","body":1}}"#,
        r#"{"ok":true,"data":{"kind":"result","body":1}}"#,
        r#"{"ok":false,"code":"body_too_large","error":"a line is too long"}"#,
    ];
    for wrong in answers {
        let (place, listener) = Place::listen();
        let (client, mut peer) = tokio::join!(options(&place).connect(), Peer::greet(&listener));
        let client = client.unwrap();
        let serve = async {
            let id = id_of(&peer.line().await);
            peer.send(&wrong.replace("ID", &id.to_string())).await;
            assert_eq!(peer.next().await, None, "the client closed it");
        };
        let (error, ()) = tokio::join!(client.call::<_, u32>(&1), serve);
        let error = error.unwrap_err();
        assert!(matches!(error, CallError::LinkLost { .. }), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn a_second_answer_to_one_call_is_given_to_no_other() {
    let (place, listener) = Place::listen();
    let (client, mut peer) = tokio::join!(options(&place).connect(), Peer::greet(&listener));
    let client = client.unwrap();
    let serve = async {
        let first = peer.line().await;
        peer.echo(&first).await;
        // The next call is under way in the same slot.
        peer.line().await;
        peer.echo(&first).await;
        let mut peer = Peer::greet(&listener).await;
        let third = peer.line().await;
        peer.echo(&third).await;
    };
    let calls = async {
        assert_eq!(client.call::<_, u32>(&1).await.unwrap(), 1);
        let error = client.call::<_, u32>(&2).await.unwrap_err();
        assert!(matches!(error, CallError::LinkLost { .. }), "{error}");
        assert_eq!(client.call::<_, u32>(&3).await.unwrap(), 3);
    };
    tokio::join!(calls, serve);
}
