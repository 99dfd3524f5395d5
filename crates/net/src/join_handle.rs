//! A spawned task's output, and the power to end it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::runtime;

/// Why a task has no output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It was aborted, or the runtime ended.
    #[error("the task was aborted")]
    Aborted,
    /// It panicked.
    #[error("the task panicked")]
    Panicked,
}

struct Shared<T> {
    output: Option<Result<T, JoinError>>,
    done: bool,
    waker: Option<Waker>,
}

/// Awaits a task. Dropping it lets the task run on.
pub struct JoinHandle<T> {
    shared: Rc<RefCell<Shared<T>>>,
    task: u64,
}

impl<T> JoinHandle<T> {
    /// Ends the task at its next suspension, or at once if it isn't running.
    pub fn abort(&self) {
        runtime::with(|core| core.abort(self.task));
    }

    /// Whether the task is over, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.shared.borrow().done
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If it is polled after it resolved.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = self.shared.borrow_mut();
        if let Some(output) = shared.output.take() {
            return Poll::Ready(output);
        }
        assert!(!shared.done, "a JoinHandle was polled after it had given its output");
        shared.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Notes the end of the task, however it comes.
struct Finish<T>(Rc<RefCell<Shared<T>>>);

impl<T> Drop for Finish<T> {
    fn drop(&mut self) {
        let waker = {
            let mut shared = self.0.borrow_mut();
            if !shared.done {
                let panicking = std::thread::panicking();
                let error = if panicking { JoinError::Panicked } else { JoinError::Aborted };
                shared.output = Some(Err(error));
            }
            shared.done = true;
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Spawns a task and gives a handle to await it or to abort it.
///
/// # Panics
/// If no runtime runs on this thread.
#[track_caller]
pub fn spawn_with_handle<T: 'static>(future: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    let shared = Rc::new(RefCell::new(Shared { output: None, done: false, waker: None }));
    let finish = Finish(Rc::clone(&shared));
    let task = async move {
        let output = future.await;
        let mut shared = finish.0.borrow_mut();
        shared.output = Some(Ok(output));
        shared.done = true;
        drop(shared);
        drop(finish);
    };
    let task = runtime::must(|core| core.spawn(Box::pin(task)));
    JoinHandle { shared, task }
}
