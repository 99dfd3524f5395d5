//! What a worker's process uses: its memory, and its processor time.

use std::time::Duration;

/// What a process uses at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Resident memory, in bytes.
    pub(crate) memory: u64,
    /// Processor time since its start, user and system, all its threads.
    pub(crate) cpu: Duration,
}

impl Usage {
    /// What that process uses; `None` for one that is gone.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Reads the one line of `/proc/PID/stat`.
    fn parse(line: &[u8]) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold both of them,
        // spaces, and what is no UTF-8: the kernel cuts it after 15 bytes.
        let name_end = line.iter().rposition(|byte| *byte == b')')?;
        let mut fields = str::from_utf8(line.get(name_end + 1..)?).ok()?.split_ascii_whitespace();
        let mut number = |skipped: usize| fields.nth(skipped)?.parse::<u64>().ok();
        let (user, system, pages) = (number(11)?, number(0)?, number(8)?);
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        Some(Self {
            memory: pages * rustix::param::page_size() as u64,
            cpu: Duration::from_millis((user + system) * 1000 / ticks),
        })
    }
}

/// What a worker used of a processor lately.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    cpu: Duration,
    at: Duration,
    percent: Option<u32>,
}

impl Load {
    /// Takes note of how much processor time was used until `at`, on the pool's clock.
    pub(crate) fn sample(&mut self, at: Duration, cpu: Duration) {
        let (used, passed) = (cpu.saturating_sub(self.cpu), at.saturating_sub(self.at));
        let percent = (used.as_micros() * 100).checked_div(passed.as_micros());
        *self = Self { cpu, at, percent: percent.and_then(|percent| u32::try_from(percent).ok()) };
    }

    /// Processor time since its start, at the last sample; `None` before the first.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        self.percent.map(|_| self.cpu)
    }

    /// The share of one processor that it used between the last two samples, or since the pool
    /// started; `None` before the first.
    pub(crate) fn percent(&self) -> Option<u32> {
        self.percent
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_line_is_read_whatever_the_program_is_called() {
        let line =
            b"7 (a b) c\xc3) ) S 1 7 7 0 -1 4194560 300 0 2 0 150 50 0 0 20 0 1 0 99 9000 25 1 1";
        let usage = Usage::parse(line).unwrap();
        assert_eq!(usage.memory, 25 * rustix::param::page_size() as u64);
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(usage.cpu, Duration::from_millis(200_000 / ticks));
        assert_eq!(Usage::parse(b"7 (cut"), None);
        assert_eq!(Usage::parse(b"7 (cut) S 1 2"), None);
    }

    #[test]
    fn a_program_whose_name_is_no_utf8_has_memory() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(std::ffi::OsStr::from_bytes(b"mod\xc3"));
        // By a process of its own: nobody can run what a child of this one has open.
        let copied = std::process::Command::new("cp").arg("/bin/sleep").arg(&program).status();
        assert!(copied.unwrap().success());
        let mut running = std::process::Command::new(&program).arg("60").spawn().unwrap();
        let usage = Usage::of(running.id());
        running.kill().unwrap();
        running.wait().unwrap();
        assert!(usage.is_some());
    }

    #[test]
    fn this_process_has_memory() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.memory > 100_000, "{usage:?}");
        assert_eq!(Usage::of(u32::MAX), None);
    }

    #[test]
    fn the_share_is_of_the_time_between_two_samples() {
        let mut load = Load::default();
        assert_eq!((load.percent(), load.cpu()), (None, None));
        let ms = Duration::from_millis;
        load.sample(ms(1000), ms(100));
        load.sample(ms(2000), ms(1000));
        assert_eq!((load.percent(), load.cpu()), (Some(90), Some(ms(1000))));
        load.sample(ms(2000), ms(1000));
        assert_eq!(load.percent(), None, "no time has passed");
    }
}
