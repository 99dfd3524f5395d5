//! How both sides of a pair meet: by a name, at a listener, or over a socket of their own.
#![cfg(all(target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod pairs;

use std::os::unix::net::UnixStream;
use std::thread;

use pairs::small;
use remuda_shm::{ShmError, SpscFace, SpscHandle, SpscListener};

#[test]
fn a_name_leads_to_one_application() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("run");
    let options = small(4, 64);
    let connect = || SpscHandle::connect_in(&directory, "engine", &options);
    assert!(matches!(connect(), Err(ShmError::NotFound { .. })));
    let face = SpscFace::create_in(&directory, "engine", &options).unwrap();
    let again = SpscFace::create_in(&directory, "engine", &options);
    assert!(matches!(again, Err(ShmError::NameTaken { .. })));
    face.try_send(b"before you came").unwrap();
    let handle = connect().unwrap();
    assert_eq!(handle.recv_blocking().as_deref(), Some(&b"before you came"[..]));
    assert!(connect().is_err(), "a second application is refused");
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "no file is left");
    handle.try_send(b"hello").unwrap();
    assert_eq!(face.recv_blocking().as_deref(), Some(&b"hello"[..]));
}

#[test]
fn of_many_that_connect_at_once_one_is_served() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("run");
    let options = small(4, 64).touch(false);
    for _ in 0..20 {
        let face = SpscFace::create_in(&directory, "engine", &options).unwrap();
        let served = thread::scope(|scope| {
            let connect = || SpscHandle::connect_in(&directory, "engine", &options).ok();
            let all: Vec<_> = (0..4).map(|_| scope.spawn(connect)).collect();
            all.into_iter().filter_map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(served.len(), 1);
        face.try_send(b"x").unwrap();
        assert!(served[0].recv_blocking().is_some());
    }
}

#[test]
fn a_face_that_goes_takes_its_name_with_it() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("run");
    let face = SpscFace::create_in(&directory, "engine", &small(4, 64)).unwrap();
    drop(face);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[test]
fn a_listener_makes_a_pair_for_each_application() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("run");
    let options = small(4, 64);
    let listener = SpscListener::bind_in(&directory, "pool", options.clone()).unwrap();
    assert!(listener.accept().unwrap().is_none());
    let applications: Vec<_> = (0..3)
        .map(|_| {
            let (directory, options) = (directory.clone(), options.clone());
            thread::spawn(move || SpscHandle::connect_in(&directory, "pool", &options).unwrap())
        })
        .collect();
    let mut faces = Vec::new();
    while faces.len() < 3 {
        let ready = &mut [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
        rustix::event::poll(ready, None).unwrap();
        faces.extend(listener.accept().unwrap());
    }
    faces.iter().for_each(|face| face.try_send(b"welcome").unwrap());
    for application in applications {
        let application = application.join().unwrap();
        assert_eq!(application.recv_blocking().as_deref(), Some(&b"welcome"[..]));
    }
}

#[test]
fn the_socket_is_the_callers_again_after_the_pair_was_handed_over() {
    use std::io::{Read, Write};
    let (mut engine, mut application) = UnixStream::pair().unwrap();
    engine.write_all(b"").unwrap();
    let face = SpscFace::over(&engine, &small(4, 64)).unwrap();
    engine.write_all(b"{\"op\":\"call\"}\n").unwrap();
    let handle = SpscHandle::over(&application, &small(1, 1)).unwrap();
    let mut line = [0; 14];
    application.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"{\"op\":\"call\"}\n");
    drop((engine, application));
    handle.try_send(b"the pair lives on").unwrap();
    assert!(face.recv_blocking().is_some());
}

#[test]
fn an_offer_that_makes_no_sense_is_an_error() {
    use std::io::Write;
    for (bytes, what) in [(&b"HTTP/1.1 400 Bad Request\r\n\r\n....."[..], "magic"), (b"", "close")]
    {
        let (mut engine, application) = UnixStream::pair().unwrap();
        engine.write_all(bytes).unwrap();
        drop(engine);
        let refused = SpscHandle::over(&application, &small(1, 1));
        assert!(matches!(refused, Err(ShmError::BadOffer(_))), "{what}");
    }
    let (mut engine, application) = UnixStream::pair().unwrap();
    let geometry = remuda_shm::Geometry::new(1, 1).unwrap();
    engine.write_all(&remuda_shm::Offer::Pair(geometry).encode()).unwrap();
    let refused = SpscHandle::over(&application, &small(1, 1));
    assert!(matches!(refused, Err(ShmError::BadOffer(_))), "an offer without descriptors");
}
