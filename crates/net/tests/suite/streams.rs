//! Messages of several parts, and a connection as a stream of `futures-io`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use remuda_net::{Config, ConnStream, NetError, join, spawn_with_handle, yield_now};

use crate::drivers::{half_pair, pair, run_beside, same_driver, take, take_all};

/// Memory that tells when it is dropped.
struct Guarded(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Guarded {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

async fn parts_arrive_in_order_and_guards_are_dropped_when_they_have_gone() {
    let (left, right) = pair();
    let dropped = Arc::new(AtomicUsize::new(0));
    let guarded = |byte, len| Guarded(vec![byte; len], Arc::clone(&dropped));
    let builder = left.send_parts().copy(b"head").guard(guarded(1, 100_000)).copy(b"mid");
    let builder = builder.copy(b"dle").guard(guarded(2, 1 << 20)).copy(b"").copy(b"tail");
    let total = builder.len();
    assert_eq!(total, 4 + 100_000 + 6 + (1 << 20) + 4);
    let sent = spawn_with_handle(builder.submit().unwrap());
    yield_now().await;
    assert!(dropped.load(Ordering::SeqCst) < 2, "the second guard is still needed");
    let all = take(right, total).await;
    assert_eq!(sent.await.unwrap().unwrap(), total);
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
    let mut expected = b"head".to_vec();
    expected.extend([1].repeat(100_000));
    expected.extend(b"middle");
    expected.extend([2].repeat(1 << 20));
    expected.extend(b"tail");
    assert!(all == expected);
    assert!(left.send_parts().is_empty());
    assert_eq!(left.send_parts().submit().unwrap().await.unwrap(), 0);
}

async fn of_parts_all_are_accepted_or_none() {
    let config = Config { send_slab_bytes: 1 << 10, send_pool_bytes: 8 << 10, ..same_driver() };
    run_beside(config, || async {
        let (left, right) = pair();
        let owner = Arc::new(vec![7_u8; 100]);
        let weak = Arc::downgrade(&owner);
        struct Shared(Arc<Vec<u8>>);
        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        let builder = left.send_parts().copy(b"first").guard(Shared(owner)).copy(&[0; 9_000]);
        assert!(matches!(builder.submit_nowait(), Err(NetError::SendPoolExhausted { .. })));
        assert_eq!((left.unsent(), weak.strong_count()), (0, 0));
        left.send_parts().copy(b"fits").submit_nowait().unwrap();
        left.close();
        assert_eq!(take_all(right).await, b"fits");
        assert!(matches!(left.send_parts().copy(b"x").submit(), Err(NetError::Closed)));
    });
}

async fn a_closed_connection_lets_go_of_guards() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let (conn, peer) = half_pair();
    let guard = Guarded(vec![3; 8 << 20], Arc::clone(&dropped));
    let sent = conn.send_parts().guard(guard).submit().unwrap();
    yield_now().await;
    drop(peer);
    assert!(matches!(sent.await, Err(NetError::PeerGone(_))));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

async fn lines_and_blocks_go_through_the_adapter() {
    let (left, right) = pair();
    let writer = async {
        let mut stream = ConnStream::new(left);
        for number in 0..1_000 {
            stream.write_all(format!("line {number}\n").as_bytes()).await.unwrap();
        }
        stream.write_all(&vec![b'x'; 3 << 20]).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(stream.conn().unsent(), 0);
        stream.close().await.unwrap();
    };
    let reader = async {
        let mut stream = ConnStream::new(right);
        let mut line = String::new();
        for number in 0..1_000 {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, format!("line {number}\n"));
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest.len(), 3 << 20);
    };
    join(writer, reader).await;
}

async fn a_reset_is_the_adapters_error() {
    let (conn, peer) = crate::drivers::tcp_pair();
    socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(peer);
    let error = ConnStream::new(conn).read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

on_both_drivers!(
    parts_arrive_in_order_and_guards_are_dropped_when_they_have_gone,
    of_parts_all_are_accepted_or_none,
    a_closed_connection_lets_go_of_guards,
    lines_and_blocks_go_through_the_adapter,
    a_reset_is_the_adapters_error,
);
