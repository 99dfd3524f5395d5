//! What it costs to hand messages to N processes: `fanout SOCKET N` takes lines of all who connect,
//! gives them to N children in turn, and each child gives back what it gets. Rings in shared memory,
//! an eventfd for each that sleeps, each line kept until it is answered, and nothing parsed but where
//! one ends.

mod buffers;
mod child;
mod front;
mod kept;
mod ring;

use std::io::Result;
use std::os::unix::net::UnixListener;

use child::Child;
use front::Front;
use kept::Kept;
use ring::Bell;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(socket), Some(count)) = (args.next(), args.next().and_then(|n| n.parse().ok()))
    else {
        panic!("fanout SOCKET N");
    };
    let own = Bell::new()?;
    let children = (0..count).map(|_| Child::start(own)).collect::<Result<_>>()?;
    let front = Front::new(UnixListener::bind(socket)?, own)?;
    let handed = Vec::new();
    let mut parent = Parent { own, front, children, turn: 0, kept: Kept::default(), handed };
    loop {
        parent.turn()?;
    }
}

struct Parent {
    own: Bell,
    front: Front,
    children: Vec<Child>,
    /// Whose turn it is.
    turn: usize,
    kept: Kept,
    /// Those who got something that had come in this turn.
    handed: Vec<usize>,
}

impl Parent {
    fn turn(&mut self) -> Result<()> {
        let mut any = false;
        for at in 0..self.children.len() {
            any |= self.collect(at);
        }
        let asleep =
            !any && self.own.lie_down(|| self.children.iter().all(|c| c.link.up.is_empty()));
        let Self { front, children, turn, kept, handed, .. } = self;
        front.turn(asleep, |conn, line| {
            let place = kept.put(conn, line);
            match in_turn(children, turn).filter(|_| !kept.any_waits()) {
                Some(at) => {
                    let child = &mut children[at];
                    child.put(place, line);
                    if !std::mem::replace(&mut child.handed, true) {
                        handed.push(at);
                    }
                }
                None => kept.wait(place),
            }
        })?;
        self.own.get_up();
        for at in self.handed.drain(..) {
            self.children[at].handed = false;
            self.children[at].bell.ring();
        }
        Ok(())
    }

    /// Takes the answers of a child, and at once gives it as much as it has room for.
    fn collect(&mut self, at: usize) -> bool {
        let (child, front, kept) = (&mut self.children[at], &mut self.front, &mut self.kept);
        let mut any = false;
        while child.link.up.take(|place, answer| front.answer(kept.answered(place), answer)) {
            child.in_flight -= 1;
            any = true;
        }
        let mut handed = false;
        while any
            && child.has_room()
            && let Some((place, line)) = kept.next()
        {
            child.put(place, line);
            handed = true;
        }
        if handed {
            child.bell.ring();
        }
        any
    }
}

/// The next child in turn that has room.
fn in_turn(children: &[Child], turn: &mut usize) -> Option<usize> {
    let count = children.len();
    let at = (*turn..*turn + count).map(|turn| turn % count).find(|&at| children[at].has_room())?;
    *turn = at + 1;
    Some(at)
}
