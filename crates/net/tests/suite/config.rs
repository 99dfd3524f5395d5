//! The configuration's ranges.

use std::time::Duration;

use remuda_net::{Backend, Config, NetError};

#[test]
fn the_default_is_valid() {
    Config::default().validate().unwrap();
    assert_eq!(Config::default().backend, Backend::Auto);
}

#[test]
fn each_field_outside_its_range_is_named() {
    type Change = fn(&mut Config);
    let changes: [(&str, Change); 14] = [
        ("workers", |config| config.workers = 0),
        ("max_connections", |config| config.max_connections = 0),
        ("backlog", |config| config.backlog = 100_000),
        ("recv_buffer_bytes", |config| config.recv_buffer_bytes = 1),
        ("recv_limit", |config| config.recv_limit = 1),
        ("send_limit", |config| config.send_limit = 0),
        ("send_slab_bytes", |config| config.send_slab_bytes = 8 << 20),
        ("send_pool_bytes", |config| config.send_pool_bytes = 1),
        ("close_linger", |config| config.close_linger = Duration::MAX),
        ("accept_pause", |config| config.accept_pause = Duration::ZERO),
        ("tick", |config| config.tick = Some(Duration::ZERO)),
        ("tls_handshake_timeout", |config| config.tls_handshake_timeout = Duration::ZERO),
        ("uring_entries", |config| config.uring_entries = 1),
        ("uring_buffers", |config| config.uring_buffers = 3),
    ];
    for (name, change) in changes {
        let mut config = Config::default();
        change(&mut config);
        let Err(NetError::Config { field, .. }) = config.validate() else {
            panic!("{name} was taken");
        };
        assert_eq!(field, name);
        assert!(remuda_net::run_local(config, async {}).is_err());
    }
}
