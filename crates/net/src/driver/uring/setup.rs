//! Trying whether io_uring works here: denied by a sandbox, switched off, or too old are all
//! found out by asking for what is needed.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::config::Config;

/// Completions for each submission that the queue has room for: a multishot receive makes many.
const COMPLETIONS_PER_ENTRY: u32 = 8;
/// The kernel's limit for completion queues.
const COMPLETIONS_MAX: u32 = 65_536;

/// Makes a ring as the driver needs it, or says in words what is missing.
pub(super) fn try_ring(config: &Config) -> Result<IoUring, String> {
    let completions = (config.uring_entries * COMPLETIONS_PER_ENTRY).min(COMPLETIONS_MAX);
    // One thread alone submits, and the kernel's part of completions runs in that thread's
    // `enter`, so nothing interrupts it (6.1). All of a batch is submitted though one fails.
    let uring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(completions)
        .build(config.uring_entries)
        .map_err(|error| in_words("io_uring_setup", &error))?;
    let mut probe = Probe::new();
    let probed = uring.submitter().register_probe(&mut probe);
    probed.map_err(|error| in_words("io_uring_register", &error))?;
    let needed = [
        ("accept", opcode::AcceptMulti::CODE),
        ("receive", opcode::RecvMulti::CODE),
        ("send", opcode::Send::CODE),
        ("sendmsg", opcode::SendMsg::CODE),
        ("timeout", opcode::Timeout::CODE),
        ("poll", opcode::PollAdd::CODE),
        ("cancel", opcode::AsyncCancel2::CODE),
    ];
    for (name, code) in needed {
        if !probe.is_supported(code) {
            return Err(format!("io_uring lacks the {name} operation here"));
        }
    }
    let params = uring.params();
    if !(params.is_feature_nodrop() && params.is_feature_ext_arg()) {
        return Err("io_uring is older than Linux 5.11's".into());
    }
    if !params.is_feature_skip_cqe_on_success() {
        return Err("io_uring is older than Linux 5.17's".into());
    }
    Ok(uring)
}

/// What a failure of a system call means.
pub(super) fn in_words(call: &str, error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::EPERM) => "denied, by a seccomp filter or kernel.io_uring_disabled",
        Some(libc::ENOSYS) => "not in this kernel, or hidden by a sandbox",
        Some(libc::EINVAL) => "older than Linux 6.1's",
        Some(libc::ENOMEM) => "over the limit for locked memory (ulimit -l)",
        Some(libc::EMFILE | libc::ENFILE) => "out of descriptors",
        _ => "failed",
    };
    format!("{call}: {why} ({error})")
}
