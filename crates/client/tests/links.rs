//! Links of a `Client` that break, come back, or never will.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use remuda_client::{
    Address, Backoff, CallError, CallOptions, Client, ClientOptions, ConnectError, LinkState,
    RetryBudget,
};
use support::{Peer, Place, PythonWorker};
use tokio::time::Instant;

fn options(place: &Place) -> ClientOptions {
    let backoff = || Backoff::new(7).base(Duration::from_millis(1)).cap(Duration::from_millis(20));
    ClientOptions::new().address(Address::unix(&place.path)).backoff(backoff)
}

fn begin<F: Future>(future: Pin<&mut F>) {
    assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

const IDEMPOTENT: CallOptions = CallOptions::new().idempotent(true);

#[tokio::test]
async fn what_was_under_way_when_a_link_broke_is_lost_and_later_calls_go_by_the_next() {
    let (place, listener) = Place::listen();
    let (client, mut peer) = tokio::join!(options(&place).connect(), Peer::greet(&listener));
    let client = client.unwrap();
    let lose = async {
        peer.line().await;
        drop(peer);
    };
    let (lost, ()) = tokio::join!(client.call::<_, u32>(&1), lose);
    let lost = lost.unwrap_err();
    assert!(matches!(lost, CallError::LinkLost { .. }), "{lost}");
    assert!(lost.may_have_run());
    let serve = async {
        let mut peer = Peer::greet(&listener).await;
        let line = peer.line().await;
        assert!(line.contains(r#""body":2"#), "the lost one is not sent again: {line}");
        peer.echo(&line).await;
    };
    let (answer, ()) = tokio::join!(client.call::<_, u32>(&2), serve);
    assert_eq!(answer.unwrap(), 2);
}

#[tokio::test]
async fn an_idempotent_call_is_sent_again() {
    let (place, listener) = Place::listen();
    let (client, mut peer) = tokio::join!(options(&place).connect(), Peer::greet(&listener));
    let client = client.unwrap();
    let serve = async {
        let first = peer.line().await;
        drop(peer);
        let mut peer = Peer::greet(&listener).await;
        let second = peer.line().await;
        assert!(
            first.contains(r#""body":5"#) && second.contains(r#""body":5"#),
            "{first} {second}"
        );
        peer.echo(&second).await;
    };
    let (answer, ()) = tokio::join!(client.call_with::<_, u32>(&5, IDEMPOTENT), serve);
    assert_eq!(answer.unwrap(), 5);
}

#[tokio::test]
async fn the_retry_budget_ends_the_sending_again() {
    let (place, listener) = Place::listen();
    let budget = RetryBudget::new().per_second(0).percent(100);
    let (client, mut peer) =
        tokio::join!(options(&place).retry_budget(budget).connect(), Peer::greet(&listener));
    let client = client.unwrap();
    let serve = async {
        // A success pays for one retry.
        let line = peer.line().await;
        peer.echo(&line).await;
        peer.line().await;
        drop(peer);
        let mut peer = Peer::greet(&listener).await;
        peer.line().await;
        drop(peer);
        Peer::greet(&listener).await
    };
    let calls = async {
        client.call_with::<_, u32>(&1, IDEMPOTENT).await.unwrap();
        client.call_with::<_, u32>(&2, IDEMPOTENT).await.unwrap_err()
    };
    let (error, _peer) = tokio::join!(calls, serve);
    assert!(matches!(error, CallError::LinkLost { .. }), "{error}");
}

#[tokio::test]
async fn by_default_ten_a_second_are_sent_again_and_no_storm() {
    let (place, listener) = Place::listen();
    let client = options(&place).start().unwrap();
    let since = Instant::now();
    let mut sent = 0_u32;
    // A peer that dies of every call.
    let lose = async {
        loop {
            let mut peer = Peer::greet(&listener).await;
            peer.line().await;
            sent += 1;
        }
    };
    let error = tokio::select! {
        answer = client.call_with::<_, u32>(&1, IDEMPOTENT) => answer.unwrap_err(),
        () = lose => unreachable!("it goes on for ever"),
    };
    assert!(matches!(error, CallError::LinkLost { .. }), "{error}");
    // One second's worth is there at the start, and the first time costs nothing.
    let most = 1 + 10 + 10 * (since.elapsed().as_secs() as u32 + 1);
    assert!((2..=most).contains(&sent), "sent {sent} times in {:?}", since.elapsed());
}

#[tokio::test]
async fn answers_that_a_dying_peer_gave_still_count() {
    let (place, listener) = Place::listen();
    let (client, mut peer) = tokio::join!(options(&place).connect(), Peer::greet(&listener));
    let client = client.unwrap();
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(client.call::<_, u32>(&1))).collect();
    calls.iter_mut().for_each(|call| begin(call.as_mut()));
    let line = peer.line().await;
    peer.line().await;
    peer.echo(&line).await;
    // With requests unread, so that the client gets a reset, and not a clean end.
    drop(peer);
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await);
    }
    assert_eq!(*answers[0].as_ref().unwrap(), 1);
    assert!(answers[1..].iter().all(|answer| matches!(answer, Err(CallError::LinkLost { .. }))));
}

#[tokio::test]
async fn what_was_not_handed_to_a_link_is_sent_on_the_next() {
    let (place, listener) = Place::listen();
    let (client, mut peer) = tokio::join!(options(&place).connect(), Peer::greet(&listener));
    let client = client.unwrap();
    // The first fills the socket, since the peer reads only its beginning; the second waits
    // behind it.
    let large = "x".repeat(8 << 20);
    let mut first = Box::pin(client.call::<_, String>(&large));
    begin(first.as_mut());
    let mut second = Box::pin(client.call::<_, u32>(&2));
    begin(second.as_mut());
    let mut beginning = [0; 1000];
    let stream: &mut tokio::net::unix::OwnedReadHalf = peer.lines.get_mut().get_mut();
    tokio::io::AsyncReadExt::read_exact(stream, &mut beginning).await.unwrap();
    drop(peer);
    let serve = async {
        let mut peer = Peer::greet(&listener).await;
        for _ in 0..2 {
            let line = peer.line().await;
            peer.echo(&line).await;
        }
    };
    let (first, second, ()) = tokio::join!(first, second, serve);
    assert_eq!(first.unwrap(), large, "an incomplete line is no request");
    assert_eq!(second.unwrap(), 2);
}

#[tokio::test]
async fn a_call_waits_for_a_link_that_is_not_there_yet() {
    let place = Place::new();
    let client = options(&place).start().unwrap();
    let mut call = Box::pin(client.call::<_, u32>(&1));
    begin(call.as_mut());
    let serve = async {
        let mut watch = client.links().next().unwrap().watch();
        watch.until(|state| matches!(state, LinkState::Waiting { .. })).await.unwrap();
        let listener = place.listen_again();
        let mut peer = Peer::greet(&listener).await;
        let line = peer.line().await;
        peer.echo(&line).await;
    };
    let (answer, ()) = tokio::join!(call, serve);
    assert_eq!(answer.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_link_no_longer_than_its_deadline() {
    let place = Place::new();
    let client = options(&place).start().unwrap();
    let start = Instant::now();
    let limit = CallOptions::new().deadline(Duration::from_secs(3));
    let error = client.call_with::<_, u32>(&1, limit).await.unwrap_err();
    assert!(start.elapsed() >= Duration::from_secs(3) && start.elapsed() < Duration::from_secs(4));
    match &error {
        CallError::Timeout { limit_ms: 3000, sent: false, because: Some(because) } => {
            assert!(because.contains("peer.sock"), "{because}");
        }
        other => panic!("{other}"),
    }
    assert!(!error.may_have_run());
}

#[tokio::test]
async fn connecting_to_nothing_says_so_at_once() {
    let place = Place::new();
    let error = options(&place).connect().await.unwrap_err();
    assert!(matches!(&error, ConnectError::Io { .. }) && error.may_pass(), "{error}");
    assert!(error.to_string().contains("peer.sock"), "{error}");
}

#[tokio::test]
async fn the_state_of_a_link_can_be_watched() {
    let (place, listener) = Place::listen();
    let client = options(&place).start().unwrap();
    let link = client.links().next().unwrap();
    let mut watch = link.watch();
    let peer = Peer::greet(&listener).await;
    watch.until(LinkState::is_connected).await.unwrap();
    assert!(link.address().ends_with("peer.sock"));
    drop((peer, listener));
    watch.until(|state| !state.is_connected()).await.unwrap();
    let down = |state: &LinkState| match state {
        LinkState::Waiting { because, .. } => because.contains("refused"),
        _ => false,
    };
    watch.until(down).await.unwrap();
    assert!(link.offer().is_none());
    drop(client);
    assert!(watch.until(|_| false).await.is_none(), "it ends with the client");
}

#[tokio::test]
async fn attempts_that_are_used_up_end_the_link() {
    let place = Place::new();
    let client = ClientOptions::new()
        .address(Address::unix(&place.path))
        .backoff(|| Backoff::new(1).base(Duration::ZERO).max_attempts(3))
        .start()
        .unwrap();
    let error = client.call::<_, u32>(&1).await.unwrap_err();
    assert!(matches!(error, CallError::Unreachable(ConnectError::GaveUp { .. })), "{error}");
}

#[tokio::test]
async fn rings_that_nobody_offers_may_be_offered_later() {
    let name = format!("shm:nobody-offers-{}", std::process::id());
    let error = Client::connect(name.parse().unwrap()).await.unwrap_err();
    // Elsewhere than on Linux there are none, and never will be.
    assert_eq!(error.may_pass(), cfg!(target_os = "linux"), "{error}");
    assert!(error.to_string().contains(&name), "{error}");
}

#[test]
fn a_client_whose_runtime_ended_fails_its_calls() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let place = Place::new();
    let client = first.block_on(async { options(&place).start().unwrap() });
    drop(first);
    let error = second.block_on(client.call::<_, u32>(&1)).unwrap_err();
    assert!(matches!(error, CallError::Unreachable(ConnectError::RuntimeEnded)), "{error}");
}

#[tokio::test]
async fn several_peers_share_the_calls_and_the_one_that_is_away_gets_none() {
    let (one, listener_one) = Place::listen();
    let (two, listener_two) = Place::listen();
    let away = Place::new();
    let mut with_all = options(&one);
    for place in [&two, &away] {
        with_all = with_all.address(Address::unix(&place.path));
    }
    let client = with_all.start().unwrap();
    let (peer_one, peer_two) = tokio::join!(Peer::greet(&listener_one), Peer::greet(&listener_two));
    for link in client.links().take(2) {
        link.watch().until(LinkState::is_connected).await.unwrap();
    }
    client.ready().await.unwrap();
    let counts = [count_all(peer_one), count_all(peer_two)].map(tokio::spawn);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..400 {
        let client = client.clone();
        calls.spawn(async move { client.call::<_, u32>(&number).await.unwrap() });
    }
    calls.join_all().await;
    assert!(matches!(client.status().await, Err(CallError::SeveralPeers { links: 3 })));
    drop(client);
    let [one, two] = counts;
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!(one + two, 400);
    assert!(one > 100 && two > 100, "{one} and {two}");
}

#[tokio::test]
async fn a_busy_peer_gets_less_than_an_idle_one() {
    let (busy, listener_busy) = Place::listen();
    let (idle, listener_idle) = Place::listen();
    let client = options(&busy).address(Address::unix(&idle.path)).start().unwrap();
    let (mut busy_peer, idle_peer) =
        tokio::join!(Peer::greet(&listener_busy), Peer::greet(&listener_idle));
    for link in client.links() {
        link.watch().until(LinkState::is_connected).await.unwrap();
    }
    let idle_count = tokio::spawn(count_all(idle_peer));
    // One call at a time, until one has gone to the peer that never answers.
    let held = loop {
        let client = client.clone();
        let mut call = tokio::spawn(async move { client.call::<_, u32>(&0).await });
        tokio::select! {
            answer = &mut call => assert_eq!(answer.unwrap().unwrap(), 0),
            _ = busy_peer.line() => break call,
        }
    };
    for _ in 0..100 {
        assert_eq!(client.call::<_, u32>(&1).await.unwrap(), 1);
    }
    held.abort();
    assert!(held.await.is_err());
    drop(client);
    assert!(idle_count.await.unwrap() >= 100, "all that came later");
}

/// Echoes all calls, and says how many there were.
async fn count_all(mut peer: Peer) -> u32 {
    let mut count = 0;
    while let Some(line) = peer.next().await {
        count += 1;
        peer.echo(&line).await;
    }
    count
}

/// A real worker is killed again and again under load: every call ends once, with its own result
/// or as lost, and the client goes on with the next worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_under_load_answers_or_loses_each_call() {
    const KILLS: usize = 5;
    let place = Place::new();
    let mut worker = PythonWorker::start(&place.path, "lambda text: text.upper()").await;
    let client = options(&place).connect().await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..32 {
        let (client, stopped) = (client.clone(), stopped.clone());
        tasks.spawn(async move {
            let (mut answered, mut lost) = (0_usize, 0_usize);
            while !*stopped.borrow() {
                let text = format!("t{task}n{answered}");
                match client.call::<_, String>(&text).await {
                    Ok(result) => {
                        assert_eq!(result, text.to_uppercase());
                        answered += 1;
                    }
                    Err(CallError::LinkLost { .. }) => lost += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            (answered, lost)
        });
    }
    for _ in 0..KILLS {
        for _ in 0..50 {
            client.call_with::<_, String>("x", IDEMPOTENT).await.unwrap();
        }
        worker.child.kill().await.unwrap();
        std::fs::remove_file(&place.path).unwrap();
        worker = PythonWorker::start(&place.path, "lambda text: text.upper()").await;
    }
    for _ in 0..50 {
        client.call_with::<_, String>("x", IDEMPOTENT).await.unwrap();
    }
    stop.send(true).unwrap();
    let counts = tasks.join_all().await;
    let answered: usize = counts.iter().map(|(answered, _)| answered).sum();
    let lost: usize = counts.iter().map(|(_, lost)| lost).sum();
    assert!(answered > 0);
    assert!(lost <= 32 * KILLS, "each task loses at most one call to each death: {lost}");
    assert_eq!(client.links().next().unwrap().in_flight(), 0);
    drop(worker);
}
