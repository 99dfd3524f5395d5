//! Descriptors, children and signals.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use remuda_net::{
    ReadyFd, child_exited, readable, signals, spawn_with_handle, writable, yield_now,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

async fn a_pipe_tells_when_it_can_be_read_or_written() {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writable(&writer).await.unwrap();
    let waiting = spawn_with_handle(readable(&reader));
    yield_now().await;
    assert!(!waiting.is_finished());
    writer.write_all(b"x").unwrap();
    waiting.await.unwrap().unwrap();
    reader.read_exact(&mut [0]).unwrap();
    drop(writer);
    readable(&reader).await.unwrap();
}

async fn a_registered_descriptor_is_waited_for_again_and_again() {
    let flags = rustix::event::EventfdFlags::NONBLOCK;
    let counter = rustix::event::eventfd(0, flags).unwrap();
    let ready = ReadyFd::readable(&counter).unwrap();
    let other = counter.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        for _ in 0..1_000 {
            rustix::io::write(&other, &1_u64.to_ne_bytes()).unwrap();
        }
    });
    let mut total = 0;
    while total < 1_000 {
        ready.ready().await.unwrap();
        let mut bytes = [0; 8];
        while rustix::io::read(&counter, &mut bytes).is_ok() {
            total += u64::from_ne_bytes(bytes);
        }
    }
    thread.join().unwrap();
}

async fn a_file_cannot_be_waited_for() {
    let file = tempfile::tempfile().unwrap();
    // epoll refuses; io_uring says that it is always ready.
    let outcome = readable(&file.as_fd()).await;
    let mio = remuda_net::backend() == Some(remuda_net::Backend::Mio);
    assert_eq!(outcome.is_err(), mio);
}

async fn a_childs_end_is_seen() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let exited = spawn_with_handle(child_exited(&pidfd));
    yield_now().await;
    assert!(!exited.is_finished());
    drop(child.stdin.take());
    exited.await.unwrap().unwrap();
    assert!(child.try_wait().unwrap().unwrap().success());
    // An end that has been is seen at once.
    let mut child = Command::new("true").spawn().unwrap();
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    child_exited(&pidfd).await.unwrap();
    child.wait().unwrap();
}

async fn signals_come_as_often_as_they_are_delivered() {
    let mut received = signals(&[libc::SIGUSR1, libc::SIGUSR2]).unwrap();
    let me = rustix::process::getpid();
    // Two of a kind that are pending at once are one, so each is awaited before the next. (The
    // other driver's test may run in this process too: there may be more than were sent here.)
    for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGUSR1, libc::SIGUSR1] {
        let named = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(me, named).unwrap();
        while received.recv().await != signal {}
    }
    assert!(signals(&[libc::SIGKILL]).is_err());
}

on_both_drivers!(
    a_pipe_tells_when_it_can_be_read_or_written,
    a_registered_descriptor_is_waited_for_again_and_again,
    a_file_cannot_be_waited_for,
    a_childs_end_is_seen,
    signals_come_as_often_as_they_are_delivered,
);
