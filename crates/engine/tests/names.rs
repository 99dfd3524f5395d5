//! What a program names of a pool's interface, by this crate alone.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use remuda_engine::net::run_local;
use remuda_engine::{
    Address, BadJson, BadJsonKind, DispatchConfig, End, Finished, NewJob, Pool, PoolConfig, Raw,
    Restart, ThreadHandler, WorkerId, WorkerKind, net_config,
};

fn echo(body: Raw<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    out.extend_from_slice(body.as_bytes());
    Ok(())
}

#[test]
fn a_pool_is_written_by_the_names_of_one_crate() {
    let mut config = PoolConfig::new(WorkerKind::Threads(ThreadHandler::new(echo)));
    let restart = Restart::default();
    config.dispatch = DispatchConfig { num_workers: 1, restart, ..DispatchConfig::default() };
    config.attach = Vec::<Address>::new();
    let result = run_local(net_config(), async move {
        let pool = Pool::start(config).unwrap();
        pool.submit(NewJob { number: 1, body: "abc".into(), text: true }).unwrap();
        pool.flush();
        let mut finished = Finished::default();
        assert!(pool.finished(&mut finished).await.unwrap());
        let _worker: Option<WorkerId> = finished.jobs[0].facts.worker;
        match &finished.jobs[0].end {
            End::Done { at, .. } => finished.bytes[at.clone()].to_vec(),
            End::Failed(failed) => panic!("{failed:?}"),
        }
    });
    assert_eq!(result.unwrap(), b"\"abc\"");
    let error: BadJson = Raw::new(b"{").unwrap_err();
    assert_eq!(error.kind, BadJsonKind::Syntax);
}
