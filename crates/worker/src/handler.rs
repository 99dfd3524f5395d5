//! Handlers: functions of several shapes behind one trait, and what protects the worker from them.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Display;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use memchr::memchr2;
use remuda_protocol::{Bodies, Raw};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::KEEP_BYTES;

/// A function that a worker serves. It may panic.
pub(crate) trait Handler: Send + Sync {
    /// Appends the result for one body to `out`, or says what is wrong.
    fn one(&self, body: Raw<'_>, out: &mut Vec<u8>) -> Result<(), String>;

    /// Runs the function for a batch at once, if it takes a list: a result or a message for each.
    fn list(&self, _bodies: Bodies<'_>) -> Option<Vec<Result<Vec<u8>, String>>> {
        None
    }
}

/// Runs `body`, and turns a panic into a message.
pub(crate) fn guarded<T>(body: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    // What a handler broke in its own state when it panicked is its own to see; this crate's is not
    // touched.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(panic_message(&*panic)))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("without a message"))
}

/// The message of an error. The alternate form makes some types show their causes too.
fn message(error: &impl Display) -> String {
    format!("{error:#}")
}

fn read<T: DeserializeOwned>(body: Raw<'_>) -> Result<T, String> {
    body.parse()
        .map_err(|error| format!("the body has another shape than the handler takes: {error}"))
}

fn write(result: &impl Serialize, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    serde_json::to_writer(&mut *out, result)
        .map_err(|error| format!("the result can't be written as JSON: {error}"))?;
    // A raw value inside the result may bring line breaks along, which would end the message.
    if memchr2(b'\n', b'\r', &out[start..]).is_some() {
        let written = out.split_off(start);
        out.extend(written.into_iter().filter(|byte| !matches!(byte, b'\n' | b'\r')));
    }
    Ok(())
}

/// A function of one value.
pub(crate) struct Each<F, T, R, E> {
    pub(crate) function: F,
    pub(crate) types: PhantomData<fn(T) -> (R, E)>,
}

impl<F, T, R, E> Handler for Each<F, T, R, E>
where
    F: Fn(T) -> Result<R, E> + Send + Sync,
    T: DeserializeOwned,
    R: Serialize,
    E: Display,
{
    fn one(&self, body: Raw<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let result = (self.function)(read(body)?).map_err(|error| message(&error))?;
        write(&result, out)
    }
}

thread_local! {
    /// What a function has written, on this thread.
    static WRITTEN: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A function that reads and writes JSON text itself.
pub(crate) struct Plain<F, E> {
    pub(crate) function: F,
    pub(crate) types: PhantomData<fn() -> E>,
}

impl<F, E> Handler for Plain<F, E>
where
    F: Fn(Raw<'_>, &mut Vec<u8>) -> Result<(), E> + Send + Sync,
    E: Display,
{
    fn one(&self, body: Raw<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        // A buffer of its own: the function can append, but not spoil what stands before. It is
        // kept for the next call, which so allocates nothing.
        let mut written = WRITTEN.take();
        written.clear();
        (self.function)(body, &mut written).map_err(|error| message(&error))?;
        let json =
            Raw::new(&written).map_err(|error| format!("the handler's result is {error}"))?;
        remuda_protocol::encode::push_body(out, json.as_bytes());
        if written.capacity() <= KEEP_BYTES {
            WRITTEN.set(written);
        }
        Ok(())
    }
}

/// A function of a list of values.
pub(crate) struct Lists<F, T, R, E> {
    pub(crate) function: F,
    pub(crate) types: PhantomData<fn(T) -> (R, E)>,
}

impl<F, T, R, E> Lists<F, T, R, E>
where
    F: Fn(Vec<T>) -> Result<Vec<R>, E> + Send + Sync,
    E: Display,
{
    fn call(&self, values: Vec<T>) -> Result<Vec<R>, String> {
        let count = values.len();
        let results = guarded(|| (self.function)(values).map_err(|error| message(&error)))?;
        if results.len() != count {
            return Err(format!(
                "the handler gave {} results for {count} bodies: give one for each",
                results.len()
            ));
        }
        Ok(results)
    }
}

impl<F, T, R, E> Handler for Lists<F, T, R, E>
where
    F: Fn(Vec<T>) -> Result<Vec<R>, E> + Send + Sync,
    T: DeserializeOwned,
    R: Serialize,
    E: Display,
{
    fn one(&self, body: Raw<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let results = self.call(vec![read(body)?])?;
        results.first().map_or(Ok(()), |result| write(result, out))
    }

    fn list(&self, bodies: Bodies<'_>) -> Option<Vec<Result<Vec<u8>, String>>> {
        // A body that can't be read fails alone; the others go to the function together.
        let mut values = Vec::with_capacity(bodies.len());
        let mut outcomes: Vec<Result<Vec<u8>, String>> = Vec::with_capacity(bodies.len());
        for body in bodies {
            outcomes.push(read(body).map(|value| {
                values.push(value);
                Vec::new()
            }));
        }
        if values.is_empty() {
            return Some(outcomes);
        }
        let read = outcomes.iter_mut().filter(|outcome| outcome.is_ok());
        match self.call(values) {
            Ok(results) => {
                for (outcome, result) in read.zip(results) {
                    let mut out = Vec::new();
                    *outcome = guarded(|| write(&result, &mut out)).map(|()| out);
                }
            }
            Err(error) => read.for_each(|outcome| *outcome = Err(error.clone())),
        }
        Some(outcomes)
    }
}
