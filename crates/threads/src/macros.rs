//! The loop heads of a worker.

/// The content of the next [`DownMsg::Other`](crate::DownMsg::Other); breaks the loop that it
/// stands in when the worker is to stop.
///
/// Waits for a message, and through a pause. Takes a
/// [`WorkerReceiver`](crate::WorkerReceiver), and optionally the label of the loop to break. In a
/// `loop` whose value is used, add `=>` and the value to break with.
///
/// ```
/// use remuda_threads::{DownMsg, WorkerPool};
///
/// let mut pool: WorkerPool<u32, u32> = WorkerPool::new(8);
/// pool.execute(|tx, rx| {
///     let mut done = 0;
///     loop {
///         let number = remuda_threads::recv_break!(rx);
///         done += 1;
///         if tx.send(number * 2).is_err() {
///             break;
///         }
///     }
///     tx.send(done).ok();
/// })?;
/// pool.broadcast_one(DownMsg::Other(21)).ok();
/// assert_eq!(pool.stop_and_join(), [42, 1]);
/// # Ok::<(), remuda_threads::SpawnError>(())
/// ```
#[macro_export]
macro_rules! recv_break {
    ($rx:expr $(, $label:lifetime)? $(=> $value:expr)? $(,)?) => {{
        // A statement of its own keeps clippy from asking users for a `while let`.
        let next = $crate::Receiver::next_other(&$rx);
        match next {
            ::core::result::Result::Ok(body) => body,
            ::core::result::Result::Err($crate::Stopped) => break $($label)? $($value)?,
        }
    }};
}

/// As [`recv_break!`](crate::recv_break), without waiting for a message: `Some` of the content,
/// or `None` if there's no message at the moment.
///
/// For workers that have work of their own between messages. A pause is waited through.
///
/// ```
/// use remuda_threads::WorkerPool;
///
/// let mut pool: WorkerPool<u64, u64> = WorkerPool::new(8);
/// pool.execute(|tx, rx| {
///     let mut step = 1;
///     let mut count = 0;
///     loop {
///         if let Some(other_step) = remuda_threads::try_recv_break!(rx) {
///             step = other_step;
///         }
///         count += step;
///         if tx.send(count).is_err() {
///             break;
///         }
///     }
/// })?;
/// assert_eq!(pool.recv(), Ok(1));
/// assert_eq!(pool.recv(), Ok(2));
/// drop(pool);
/// # Ok::<(), remuda_threads::SpawnError>(())
/// ```
#[macro_export]
macro_rules! try_recv_break {
    ($rx:expr $(, $label:lifetime)? $(=> $value:expr)? $(,)?) => {{
        // A statement of its own keeps clippy from asking users for a `while let`.
        let next = $crate::Receiver::try_next_other(&$rx);
        match next {
            ::core::result::Result::Ok(body) => body,
            ::core::result::Result::Err($crate::Stopped) => break $($label)? $($value)?,
        }
    }};
}
