//! What goes over a connection while it lives: requests out, answers in.

use std::io;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use remuda_protocol::{Answer, Framer, Reply};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::Link;
use super::slots::Delivered;
use crate::answer::Answered;
use crate::stream::{Reader, Writer};

/// What the buffers for requests may keep of their memory.
const KEEP_BYTES: usize = 256 * 1024;

/// How long answers are still read from a peer that takes no more requests.
const LAST_ANSWERS_WAIT: Duration = Duration::from_secs(1);

/// Carries requests and answers until the connection is of no more use, and says why it isn't.
pub(crate) async fn carry(
    link: &Link,
    reader: &mut Reader,
    writer: &mut Writer,
    framer: &mut Framer,
) -> Arc<str> {
    let mut incoming = Incoming { link, answers: Vec::new(), wakers: Vec::new() };
    let failed = tokio::select! {
        biased;
        because = incoming.read(reader, framer) => return because,
        error = write(link, writer) => error,
    };
    // A peer that died may have answered before: what it said is read to its end.
    match timeout(LAST_ANSWERS_WAIT, incoming.read(reader, framer)).await {
        Ok(because) => because,
        Err(_) => format!("writing to it failed: {failed}").into(),
    }
}

/// Writes all that callers enqueue, in as few writes as possible. Ends with an error only.
async fn write(link: &Link, writer: &mut Writer) -> io::Error {
    let mut batch = Vec::new();
    loop {
        link.to_write.notified().await;
        // Let the callers that are ready enqueue too, so that all of them share one write.
        yield_now().await;
        if let Err(error) = write_batches(link, writer, &mut batch).await {
            return error;
        }
    }
}

async fn write_batches(link: &Link, writer: &mut Writer, batch: &mut Vec<u8>) -> io::Result<()> {
    while link.take_batch(batch) {
        let mut unsent = &batch[..];
        while !unsent.is_empty() {
            let written = writer.write(unsent).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            link.wrote(written);
            unsent = &unsent[written..];
        }
        writer.flush().await?;
    }
    Ok(())
}

impl Link {
    /// Exchanges the written batch for what was enqueued meanwhile; `false` if that is nothing.
    fn take_batch(&self, batch: &mut Vec<u8>) -> bool {
        batch.clear();
        batch.shrink_to(KEEP_BYTES);
        let mut line = self.lock();
        std::mem::swap(&mut line.out, batch);
        line.is_writing = !batch.is_empty();
        line.is_writing
    }

    fn wrote(&self, bytes: usize) {
        self.lock().written += bytes as u64;
    }
}

/// The reading half, and what it found in what it read last.
struct Incoming<'l> {
    link: &'l Link,
    answers: Vec<(u64, Answered)>,
    wakers: Vec<Waker>,
}

impl Incoming<'_> {
    /// Reads and hands out answers until the end, and says what that was.
    async fn read(&mut self, reader: &mut Reader, framer: &mut Framer) -> Arc<str> {
        loop {
            let wrong = self.take_lines(framer).err();
            let unknown = self.deliver();
            if let Some(because) = wrong.or(unknown) {
                return because.into();
            }
            match reader.read(framer.spare()).await {
                Ok(0) => return "it closed the connection".into(),
                Ok(n) => framer.filled(n),
                Err(error) => return format!("reading from it failed: {error}").into(),
            }
        }
    }

    /// Takes all complete lines in. Those before a wrong one still count.
    fn take_lines(&mut self, framer: &mut Framer) -> Result<(), String> {
        while let Some(line) = framer.next_line().map_err(|error| error.to_string())? {
            let reply = Reply::parse(line)
                .map_err(|bad| format!("it sent a line that is no reply: {bad}"))?;
            match (reply.id.map(remuda_protocol::Id::number), reply.answer) {
                (Some(Some(id)), answer) => self.answers.push((id, answer.into())),
                (None, Answer::Error(failure)) => {
                    let code = failure.code_text.decode();
                    return Err(format!("it refused a line: {code}: {}", failure.error.decode()));
                }
                _ => return Err("it sent a reply whose id it was not given".to_owned()),
            }
        }
        Ok(())
    }

    /// Gives the answers to their callers, all under one lock.
    fn deliver(&mut self) -> Option<String> {
        if self.answers.is_empty() {
            return None;
        }
        let mut unknown = None;
        let mut ended = 0;
        let mut line = self.link.lock();
        for (id, answered) in self.answers.drain(..) {
            match line.slots.answer(id, answered) {
                Delivered::To(waker) => {
                    ended += 1;
                    self.wakers.extend(waker);
                }
                Delivered::ToNobody => ended += 1,
                Delivered::Unknown => unknown = Some(id),
            }
        }
        drop(line);
        self.link.permits.add_permits(ended);
        self.wakers.drain(..).for_each(Waker::wake);
        unknown.map(|id| format!("it answered request {id}, which is not under way"))
    }
}
