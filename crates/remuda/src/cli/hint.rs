//! What a wrong command line may need to be told beyond what clap says.

use clap::Error;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// A line to go with the error, if there is one that helps.
pub(crate) fn of(error: &Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let wrong = text(ContextKind::InvalidArg)?;
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            // `--jobs <N>` is also REMUDA_JOBS, which clap doesn't name.
            let long = wrong.split_whitespace().next()?.strip_prefix("--")?;
            let variable = format!("REMUDA_{}", long.replace('-', "_").to_uppercase());
            let value = std::env::var(&variable).ok()?;
            let given = text(ContextKind::InvalidValue).unwrap_or_default();
            (value == given).then(|| format!("the environment has {variable}={value}"))
        }
        // Only usages of `map` and `serve` have a command.
        ErrorKind::UnknownArgument
            if !wrong.starts_with('-') && error.to_string().contains("<COMMAND>...") =>
        {
            Some(format!("if `{wrong}` is the worker's command, it comes after `--`"))
        }
        _ => None,
    }
}
