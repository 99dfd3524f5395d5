//! A worker that gives back what comes. `--sockets` keeps it on its socket, where it else goes on
//! over rings; `--asleep` has it never look for jobs before it sleeps.

use std::process::ExitCode;
use std::time::Duration;

use remuda_worker::Worker;

fn main() -> ExitCode {
    let mut worker = Worker::raw(|body, out: &mut Vec<u8>| {
        out.extend_from_slice(body.as_bytes());
        Ok::<(), String>(())
    });
    for option in std::env::args().skip(1) {
        worker = match option.as_str() {
            "--sockets" => worker.shm(false),
            "--asleep" => worker.spin(Duration::ZERO),
            other => {
                eprintln!("echo-worker: no such option: {other}");
                return ExitCode::FAILURE;
            }
        };
    }
    worker.run()
}
