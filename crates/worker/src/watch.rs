//! Looking for the next call at a socket, before the thread sleeps on it.
//!
//! A wake-up across processors takes longer than a short job. So the worker looks for a while,
//! and offers its processor to others between its looks; but only while calls mostly come that
//! fast, and nobody else needs the processor.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// What a wait that was short enough for watching adds to the credit.
const EARNED: i32 = 1;
/// What one that was longer takes from it.
const LOST: i32 = 2;
const CREDIT_MAX: i32 = 16;
const CREDIT_MIN: i32 = -16;

pub(crate) struct Watch<'a> {
    stream: &'a UnixStream,
    limit: Duration,
    /// Above zero: waits are mostly short.
    credit: i32,
}

impl<'a> Watch<'a> {
    /// Watches at most for `limit` at a time; never, if that is zero.
    pub(crate) fn new(stream: &'a UnixStream, limit: Duration) -> Self {
        Self { stream, limit, credit: 0 }
    }

    /// What is there at once or soon; `None` if that is nothing. Between its looks it does `offer`,
    /// which says when that was over.
    fn soon(
        &mut self,
        into: &mut [u8],
        begun: Instant,
        mut offer: impl FnMut() -> Instant,
    ) -> io::Result<Option<usize>> {
        let mut looked = begun;
        while self.credit > 0 {
            match recv(self.stream, &mut *into, RecvFlags::DONTWAIT) {
                Ok((_, count)) => return Ok(Some(count)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let before = std::mem::replace(&mut looked, offer());
            if looked - before > self.limit {
                // Somebody else had the processor all the time.
                self.credit = CREDIT_MIN;
            }
            if looked - begun > self.limit {
                break;
            }
        }
        Ok(None)
    }
}

fn offer_processor() -> Instant {
    yield_now();
    Instant::now()
}

impl Read for Watch<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.limit.is_zero() {
            return self.stream.read(into);
        }
        let begun = Instant::now();
        let count = match self.soon(into, begun, offer_processor)? {
            Some(count) => count,
            None => self.stream.read(into)?,
        };
        self.credit = match begun.elapsed() <= self.limit {
            true => (self.credit + EARNED).min(CREDIT_MAX),
            false => (self.credit - LOST).max(CREDIT_MIN),
        };
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn watching_begins_when_waits_are_short_and_ends_when_they_are_long() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut watch = Watch::new(&ours, LONG);
        let mut read = [0; 4];
        for _ in 0..100 {
            theirs.write_all(b"call").unwrap();
            assert_eq!(watch.read(&mut read).unwrap(), 4);
        }
        assert_eq!(watch.credit, CREDIT_MAX);
        watch.limit = Duration::from_nanos(1);
        for _ in 0..100 {
            theirs.write_all(b"call").unwrap();
            assert_eq!(watch.read(&mut read).unwrap(), 4);
        }
        assert_eq!(watch.credit, CREDIT_MIN);
    }

    #[test]
    fn what_comes_while_it_watches_is_read_and_so_is_the_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut watch = Watch { credit: CREDIT_MAX, ..Watch::new(&ours, LONG) };
        let sender = std::thread::spawn(move || theirs.write_all(b"call").unwrap());
        let mut read = [0; 8];
        assert_eq!(watch.read(&mut read).unwrap(), 4);
        sender.join().unwrap();
        assert_eq!(watch.read(&mut read).unwrap(), 0);
    }

    #[test]
    fn a_long_wait_counts_for_two_short_ones() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut watch = Watch::new(&ours, LONG);
        let mut credits = Vec::new();
        for limit in [LONG, LONG, LONG, Duration::from_nanos(1), LONG] {
            watch.limit = limit;
            theirs.write_all(b"call").unwrap();
            assert_eq!(watch.read(&mut [0; 4]).unwrap(), 4);
            credits.push(watch.credit);
        }
        assert_eq!(credits, [1, 2, 3, 1, 2]);
    }

    /// Looks for what doesn't come, where each offer takes so long: how many there were.
    fn offers(watch: &mut Watch<'_>, each: Duration) -> u32 {
        let (begun, mut count) = (Instant::now(), 0);
        let offer = || {
            count += 1;
            assert!(count < 100, "it looks for ever");
            begun + each * count
        };
        assert_eq!(watch.soon(&mut [0; 4], begun, offer).unwrap(), None);
        count
    }

    #[test]
    fn it_looks_for_its_time_and_no_longer() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        // A look that waited itself would end here.
        ours.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let began = Instant::now();
        let mut watch =
            Watch { credit: CREDIT_MAX, ..Watch::new(&ours, Duration::from_micros(50)) };
        assert_eq!(offers(&mut watch, Duration::from_micros(10)), 6);
        assert_eq!(watch.credit, CREDIT_MAX);
        assert!(began.elapsed() < Duration::from_secs(30), "a look waited");
    }

    #[test]
    fn it_leaves_the_processor_to_who_keeps_it() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut watch =
            Watch { credit: CREDIT_MAX, ..Watch::new(&ours, Duration::from_micros(50)) };
        assert_eq!(offers(&mut watch, Duration::from_micros(51)), 1);
        assert_eq!(watch.credit, CREDIT_MIN);
        assert_eq!(offers(&mut watch, Duration::from_micros(1)), 0);
        watch.credit = 0;
        assert_eq!(offers(&mut watch, Duration::from_micros(1)), 0);
    }

    #[test]
    fn what_comes_between_two_looks_is_found_by_the_second() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut watch = Watch { credit: 1, ..Watch::new(&ours, LONG) };
        let begun = Instant::now();
        let offer = || {
            theirs.write_all(b"call").unwrap();
            begun
        };
        assert_eq!(watch.soon(&mut [0; 8], begun, offer).unwrap(), Some(4));
    }

    #[test]
    fn a_connection_that_broke_is_an_error_and_not_looked_at_again() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(b"unread").unwrap();
        drop(theirs);
        let mut watch = Watch { credit: CREDIT_MAX, ..Watch::new(&ours, LONG) };
        let error = watch.read(&mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn without_a_time_it_never_watches() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut watch = Watch::new(&ours, Duration::ZERO);
        theirs.write_all(b"call").unwrap();
        assert_eq!(watch.read(&mut [0; 8]).unwrap(), 4);
        assert_eq!(watch.credit, 0);
    }
}
