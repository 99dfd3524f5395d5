//! What a `Retry` shows and how long it waits, by tokio's paused clock.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use remuda_backoff::Backoff;
use remuda_reconnect::{GaveUp, LinkState, Retry, RunResult, Sleep, TokioSleep, random_seed};
use std::collections::HashSet;
use std::time::Duration;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn waiting_because(state: LinkState) -> (Duration, String) {
    match state {
        LinkState::Waiting { until, because } => (until, because.to_string()),
        other => panic!("not waiting but {other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn states_follow_the_link() {
    let mut retry = Retry::new(Backoff::new(7), TokioSleep::new());
    let watch = retry.watch();
    assert_eq!(watch.latest(), LinkState::Connecting);

    tokio::time::advance(ms(5)).await;
    retry.failed("refused");
    assert_eq!(watch.latest(), LinkState::Failed { because: "refused".into() });

    // The schedule of this seed, as any other that is alike gives it.
    let mut same = Backoff::new(7);
    let delay = same.next_delay(ms(5)).unwrap();
    let started = retry.sleeper().now();
    {
        let mut waiting = std::pin::pin!(retry.delay());
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("the delay of seed 7 is not zero"),
            () = std::future::ready(()) => {}
        }
        let (until, because) = waiting_because(watch.latest());
        assert_eq!((until, because.as_str()), (started + delay, "refused"));
        waiting.await.unwrap();
    }
    let slept = retry.sleeper().now() - started;
    // tokio rounds up to whole milliseconds.
    assert!(slept >= delay && slept < delay + ms(2), "{slept:?} instead of {delay:?}");

    retry.connecting();
    assert_eq!(watch.latest(), LinkState::Connecting);
    retry.connected();
    assert_eq!(watch.latest(), LinkState::Connected { since: started + slept });
    assert!(watch.latest().is_connected());
    retry.failed(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    assert_eq!(watch.latest(), LinkState::Failed { because: "connection reset".into() });
    assert!(!retry.state().is_connected());
    assert!(!watch.is_over());
    drop(retry);
    assert!(watch.is_over());
    assert_eq!(watch.latest(), LinkState::Failed { because: "connection reset".into() });
}

#[tokio::test(start_paused = true)]
async fn attempts_are_used_up() {
    let mut retry = Retry::new(Backoff::new(1).max_attempts(3), TokioSleep::new());
    for attempt in 1..3 {
        retry.connecting();
        retry.failed(format_args!("failure {attempt}"));
        assert_eq!(retry.failures(), attempt);
        retry.delay().await.unwrap();
    }
    retry.failed("failure 3");
    let gave_up = retry.delay().await.unwrap_err();
    assert_eq!(gave_up, GaveUp { failures: 3, because: "failure 3".into() });
    assert_eq!(retry.state(), LinkState::Failed { because: "failure 3".into() });
    let said = gave_up.to_string();
    assert!(said.contains("3 failed attempts") && said.contains("failure 3"), "{said}");
    let ended: RunResult<GaveUp> = Err(gave_up.clone()).into();
    assert_eq!(ended, RunResult::Exit(Err(gave_up)));
}

#[tokio::test(start_paused = true)]
async fn failure_that_was_not_reported_counts_and_has_no_older_reason() {
    let mut retry = Retry::new(Backoff::new(1).max_attempts(4), TokioSleep::new());
    let mut watch = retry.watch();
    let reasons = tokio::spawn(async move {
        let mut reasons = Vec::new();
        while let Some(state) = watch.changed().await {
            if let LinkState::Waiting { because, .. } = state {
                reasons.push(because.to_string());
            }
        }
        reasons
    });
    retry.failed("refused");
    retry.delay().await.unwrap();
    retry.connecting();
    retry.delay().await.unwrap();
    retry.connected();
    retry.delay().await.unwrap();
    retry.connecting();
    assert_eq!(retry.delay().await.unwrap_err().failures, 4);
    drop(retry);
    assert_eq!(reasons.await.unwrap(), ["refused", "the attempt failed", "the link ended"]);
}

#[tokio::test(start_paused = true)]
async fn delay_of_the_peer_is_waited_for() {
    let mut retry = Retry::new(Backoff::new(1), TokioSleep::new());
    retry.failed("busy");
    retry.after(Duration::from_secs(30));
    let started = retry.sleeper().now();
    retry.delay().await.unwrap();
    let slept = retry.sleeper().now() - started;
    assert!(slept >= Duration::from_secs(30) && slept <= Duration::from_secs(31), "{slept:?}");
}

#[tokio::test(start_paused = true)]
async fn link_that_lived_starts_over_and_one_that_died_at_once_does_not() {
    let backoff = Backoff::new(1).reset_after(Duration::from_secs(10));
    let mut retry = Retry::new(backoff, TokioSleep::new());
    for _ in 0..5 {
        retry.connected();
        retry.failed("closed at once");
        retry.delay().await.unwrap();
    }
    assert_eq!(retry.failures(), 5);
    retry.connected();
    tokio::time::advance(Duration::from_secs(10)).await;
    retry.failed("closed");
    assert_eq!(retry.failures(), 0);
}

#[tokio::test(start_paused = true)]
async fn other_delays_keep_the_watches() {
    let retry = Retry::new(Backoff::new(1), TokioSleep::new());
    let watch = retry.watch();
    let mut retry = retry.with_backoff(Backoff::new(1).max_attempts(1));
    assert!(!watch.is_over());
    retry.failed("refused");
    assert!(retry.delay().await.is_err());
    assert_eq!(watch.latest(), LinkState::Failed { because: "refused".into() });
}

#[tokio::test(start_paused = true)]
async fn watch_sees_the_link_from_another_task() {
    let mut retry = Retry::new(Backoff::new(1), TokioSleep::new());
    let mut watch = retry.watch();
    let watching = tokio::spawn(async move {
        let connected = watch.until(LinkState::is_connected).await;
        (connected.map(|state| state.to_string()), watch.changed().await)
    });
    retry.failed("refused");
    retry.delay().await.unwrap();
    retry.connected();
    tokio::task::yield_now().await;
    drop(retry);
    let (connected, end) = watching.await.unwrap();
    assert!(connected.unwrap().starts_with("connected since "));
    assert_eq!(end, None);
}

#[test]
fn states_read_as_sentences() {
    let because = || "refused".into();
    let table = [
        (LinkState::Connecting, "connecting"),
        (LinkState::Connected { since: ms(1_500) }, "connected since 1.500s"),
        (
            LinkState::Waiting { until: ms(2_500), because: because() },
            "waiting until 2.500s, because: refused",
        ),
        (LinkState::Failed { because: because() }, "failed: refused"),
    ];
    for (state, sentence) in table {
        assert_eq!(state.to_string(), sentence);
    }
}

#[test]
fn random_seeds_differ() {
    let seeds: HashSet<u64> = (0..1_000).map(|_| random_seed()).collect();
    assert_eq!(seeds.len(), 1_000);
}
