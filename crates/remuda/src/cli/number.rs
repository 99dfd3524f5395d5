//! Numbers, durations and sizes as people write and read them.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// A number with commas between its thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Reads a whole number within `limits`.
pub(crate) fn whole<N>(
    limits: RangeInclusive<N>,
) -> impl Fn(&str) -> Result<N, String> + Clone + Send + Sync + 'static
where
    N: FromStr + PartialOrd + Display + Clone + Send + Sync + 'static,
{
    move |text| match text.parse() {
        Ok(number) if limits.contains(&number) => Ok(number),
        _ => Err(format!("give a whole number from {} to {}", limits.start(), limits.end())),
    }
}

/// Reads how many workers there are to be, at most `max`: a number, or one by the number of cores,
/// as GNU parallel has it: `+N` more than there are cores, `-N` fewer, `N%` of them; at least one.
pub(crate) fn workers(
    max: u32,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync + 'static {
    move |text| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        by_cores(text, max, cores as f64)
    }
}

fn by_cores(text: &str, max: u32, cores: f64) -> Result<u32, String> {
    let ways = format!(
        "give a whole number from 1 to {max}, or one by the cores: +N more, -N fewer, N% of them"
    );
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse::<f64>().ok().filter(|_| is_number(text));
    let (wanted, relative) = match (text.strip_suffix('%'), text.split_at_checked(1)) {
        (Some(percent), _) => (number(percent).map(|percent| cores * percent / 100.0), true),
        (None, Some(("+", more))) => (number(more).map(|more| cores + more), true),
        (None, Some(("-", fewer))) => (number(fewer).map(|fewer| cores - fewer), true),
        _ => (number(text), false),
    };
    match wanted.map(f64::floor) {
        Some(0.0) if !relative => {
            Err(format!("0, as many as possible, is not to be had: {ways} (100%: one for each)"))
        }
        Some(wanted) if wanted <= f64::from(max) => Ok(wanted.max(1.0) as u32),
        Some(wanted) => Err(format!("that is {wanted} workers: {ways}")),
        None => Err(ways),
    }
}

/// The longest time that is taken: a thousand years, which any clock can be asked to add.
const TIME_MAX: Duration = Duration::from_secs(1000 * 365 * 86_400);

/// Reads a time: a number of seconds, or one with `us`, `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a time: give seconds (2, 0.5), or 50us, 150ms, 2s, 5m, 1h, 1d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let time = Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())?;
    if time > TIME_MAX {
        return Err(format!("`{text}` is longer than a thousand years"));
    }
    Ok(time)
}

/// Reads a size: a number of bytes, or one with `K`, `M`, `G` (powers of 1024; `KiB` and `KB` too).
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: give bytes, or 64K, 16M, 2G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_shl(shift).filter(|n| n >> shift == number).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn whole_numbers() {
        let read = whole(1..=1024_u16);
        assert_eq!(read("1024"), Ok(1024));
        for text in ["", "0", "1025", "70000", "-1", "50%", "abc", "1.5"] {
            assert_eq!(read(text), Err("give a whole number from 1 to 1024".into()), "{text}");
        }
    }

    #[test]
    fn workers_are_numbers_or_go_by_the_cores() {
        for (text, workers) in [
            ("1", 1),
            ("1024", 1024),
            ("+0", 6),
            ("+2", 8),
            ("-1", 5),
            ("-6", 1),
            ("-600", 1),
            ("100%", 6),
            ("50%", 3),
            ("75%", 4),
            ("1%", 1),
            ("200%", 12),
        ] {
            assert_eq!(by_cores(text, 1024, 6.0), Ok(workers), "{text}");
        }
        for text in
            ["", "%", "+", "-", "--1", "++1", "+1%", "-50%", "1.5", "abc", "1e3", "inf", "nan%"]
        {
            let told = by_cores(text, 1024, 6.0).unwrap_err();
            assert!(told.starts_with("give a whole number from 1 to 1024, or one by"), "{told}");
        }
        for (text, told) in [
            ("0", "0, as many as possible, is not to be had: give a whole number from 1 to 1024"),
            ("1025", "that is 1025 workers: give a whole number from 1 to 1024"),
            ("+1019", "that is 1025 workers"),
            ("99999999999999999999%", "workers: give"),
        ] {
            let said = by_cores(text, 1024, 6.0).unwrap_err();
            assert!(said.contains(told), "{said}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(duration("50us"), Ok(Duration::from_micros(50)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("365000d"), Ok(TIME_MAX));
        for text in ["", "s", "-1", "2 s", "1y", "nan", "inf", "365001d", "1e19", "1e300"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("17"), Ok(17));
        assert_eq!(bytes("16M"), Ok(16 << 20));
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        for text in ["", "K", "-1", "1.5M", "99999999999999G"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
