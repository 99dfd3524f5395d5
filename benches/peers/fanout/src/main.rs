//! What it costs to hand messages to N processes: `fanout SOCKET N` takes lines from one connection
//! at a time, gives them to N children in turn, and each child gives back what it gets. Rings in
//! shared memory, an eventfd for each that sleeps, and nothing parsed but where a line ends.

mod ring;

use std::io::{Result, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use ring::{Bell, Link, SLOTS};

const INBOX_BYTES: usize = 256 << 10;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(socket), Some(count)) = (args.next(), args.next().and_then(|n| n.parse().ok()))
    else {
        panic!("fanout SOCKET N");
    };
    let own = Bell::new()?;
    let children = (0..count).map(|_| Child::start(own)).collect::<Result<_>>()?;
    let inbox = vec![0; INBOX_BYTES];
    let mut parent = Parent { own, children, turn: 0, inbox, kept: 0, answers: Vec::new() };
    let listener = UnixListener::bind(socket)?;
    loop {
        parent.serve(&mut listener.accept()?.0)?;
    }
}

struct Child {
    link: &'static Link,
    bell: Bell,
    in_flight: usize,
    /// Whether it got something in this turn.
    handed: bool,
}

impl Child {
    fn start(parent: Bell) -> Result<Self> {
        let (link, bell) = (Link::new()?, Bell::new()?);
        // SAFETY: there is one thread, so that the child may do whatever this process may.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error()),
            0 => give_back(link, bell, parent),
            _ => Ok(Self { link, bell, in_flight: 0, handed: false }),
        }
    }
}

/// What a child does: it sleeps as soon as there is nothing.
fn give_back(link: &Link, own: Bell, parent: Bell) -> ! {
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    loop {
        let mut any = false;
        while link.down.take(|message| link.up.put(message)) {
            any = true;
        }
        if any {
            parent.ring();
        } else {
            own.sleep(|| link.down.is_empty(), None);
        }
    }
}

struct Parent {
    own: Bell,
    children: Vec<Child>,
    /// Whose turn it is.
    turn: usize,
    inbox: Vec<u8>,
    /// Bytes of the inbox that were received and not handed out.
    kept: usize,
    /// Those of a turn.
    answers: Vec<u8>,
}

impl Parent {
    /// Serves one client until it hangs up.
    fn serve(&mut self, client: &mut UnixStream) -> Result<()> {
        self.kept = 0;
        loop {
            self.collect();
            client.write_all(&self.answers)?;
            let received = self.receive(client);
            let handed = self.hand_out();
            match received {
                Some(0) => return Ok(()),
                None if !handed && self.answers.is_empty() => self.sleep(client),
                _ => {}
            }
        }
    }

    fn collect(&mut self) {
        self.answers.clear();
        for child in &mut self.children {
            while child.link.up.take(|message| self.answers.extend_from_slice(message)) {
                child.in_flight -= 1;
            }
        }
    }

    /// What has come, as far as there is room for it.
    fn receive(&mut self, client: &UnixStream) -> Option<usize> {
        let room = &mut self.inbox[self.kept..];
        if room.is_empty() {
            return None;
        }
        let (start, flags) = (room.as_mut_ptr().cast(), libc::MSG_DONTWAIT);
        // SAFETY: the kernel writes into the inbox alone.
        let count = unsafe { libc::recv(client.as_raw_fd(), start, room.len(), flags) };
        let count = usize::try_from(count).ok()?;
        self.kept += count;
        Some(count)
    }

    /// Gives whole lines to the children in turn, and wakes those that sleep.
    fn hand_out(&mut self) -> bool {
        let (mut done, count) = (0, self.children.len());
        while let Some(end) = self.inbox[done..self.kept].iter().position(|&byte| byte == b'\n') {
            let mut in_turn = (self.turn..self.turn + count).map(|turn| turn % count);
            let Some(at) = in_turn.find(|&at| self.children[at].in_flight < SLOTS) else { break };
            let child = &mut self.children[at];
            child.link.down.put(&self.inbox[done..=done + end]);
            child.in_flight += 1;
            child.handed = true;
            self.turn = at + 1;
            done += end + 1;
        }
        self.inbox.copy_within(done..self.kept, 0);
        self.kept -= done;
        for child in self.children.iter_mut().filter(|child| child.handed) {
            child.handed = false;
            child.bell.ring();
        }
        done > 0
    }

    fn sleep(&self, client: &UnixStream) {
        let nothing = || self.children.iter().all(|child| child.link.up.is_empty());
        self.own.sleep(nothing, Some(client.as_raw_fd()));
    }
}
