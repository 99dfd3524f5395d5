//! Document 004's names are all there, and mean what it says.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use remuda_threads::iterator::{RecvAllIterator, RecvBurstIterator};
use remuda_threads::{
    DownMsg, Receiver, RecvError, SendError, Sender, SyncSender, TryRecvError, TrySendError, UpMsg,
    WorkerPool, WorkerReceiver, WorkerSender,
};

type Pool = WorkerPool<u32, u32>;

fn worker(tx: WorkerSender<u32>, rx: WorkerReceiver<u32>) {
    // The alias is what it wraps.
    let rx: Receiver<DownMsg<u32>> = rx;
    while let Ok(DownMsg::Other(number)) = rx.recv() {
        let sent: Result<(), SendError<u32>> = tx.send(number + 1);
        sent.unwrap();
    }
    let ended: Result<DownMsg<u32>, TryRecvError> = rx.try_recv();
    assert_eq!(ended, Err(TryRecvError::Disconnected));
    let last: Result<(), TrySendError<u32>> = tx.try_send(99);
    last.unwrap();
    // What the worker's end wraps has the same methods.
    let _: fn(&SyncSender<u32>, u32) -> Result<(), SendError<u32>> = SyncSender::send;
}

#[test]
fn the_documents_names_work_together() {
    let mut pool = Pool::new(4);
    assert_eq!(pool.recv(), Err(RecvError));
    let first = pool.execute(worker).unwrap();
    let down: &Sender<DownMsg<u32>> = pool.get(first).unwrap().sender();
    down.send(DownMsg::Other(1)).unwrap();
    let message: UpMsg<u32> = pool.recv_msg().unwrap();
    assert_eq!((message.worker, message.body), (first, 2));
    let burst: RecvBurstIterator<'_, u32, u32> = pool.recv_burst();
    assert_eq!(burst.count(), 0);
    let rest: RecvAllIterator<u32, u32> = pool.stop();
    assert_eq!(rest.collect::<Vec<_>>(), [99]);
}
