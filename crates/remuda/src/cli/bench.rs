//! `remuda bench`: loads a running pool, and prints how long its calls take.

mod load;
#[cfg(test)]
mod open_loop;
mod plan;
mod report;
mod wire;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use remuda_net::Config as NetConfig;
use remuda_protocol::{Raw, json_string};

use crate::cli::connection::ConnectionError;
use crate::cli::{exit, number, say};
use load::Load;
use plan::{End, Pace, Plan};

/// Load a running pool, and print how long its calls take.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// Where the pool is: unix:PATH, tcp:HOST:PORT, tls:HOST:PORT or shm:NAME [default: REMUDA_ADDR,
    /// else the socket of this user]
    #[arg(long, value_name = "ADDR")]
    to: Option<String>,

    /// Measure so many calls
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true, conflicts_with = "duration",
          value_parser = number::whole(1..=u64::MAX))]
    calls: Option<u64>,

    /// Measure for so long [default: 10s]
    #[arg(short = 'd', long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration)]
    duration: Option<Duration>,

    /// Closed loop: keep N calls in flight, each followed by the next [default: 1]
    #[arg(short = 'i', long, value_name = "N", allow_negative_numbers = true, conflicts_with = "rate",
          value_parser = number::whole::<u32>(1..=IN_FLIGHT_MAX))]
    in_flight: Option<u32>,

    /// Open loop: R calls a second, whether or not answers come; a call's time counts from when
    /// it was due
    #[arg(short = 'r', long, value_name = "R", allow_negative_numbers = true, value_parser = rate)]
    rate: Option<f64>,

    /// Spread the calls over C connections
    #[arg(short = 'c', long, value_name = "C", allow_negative_numbers = true, default_value_t = 1,
          value_parser = number::whole::<u32>(1..=CONNECTIONS_MAX))]
    connections: u32,

    /// The job, as text
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "body_json",
        default_value = "sixty bytes of text, which is about what a short job carries"
    )]
    body: String,

    /// The job, as a JSON value
    #[arg(long, value_name = "JSON")]
    body_json: Option<String>,

    /// Call for so long before the measurement begins
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration, default_value = "1s")]
    warmup: Duration,

    /// How long each call may take, waiting included [default: for ever]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration)]
    timeout: Option<Duration>,

    /// Give up a pool that answers no call for so long, and for --timeout: with -n at any time, else
    /// once the time is over
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = number::duration, default_value = "30s")]
    patience: Duration,

    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  remuda bench                                 10 s, one call after the other
  remuda bench -i 64 -n 1000000 --json
  remuda bench -r 5000 -d 30s -c 8             5,000 calls a second, come what may
  remuda bench --to shm:upper -i 64            over rings in shared memory

A TIME is seconds (2, 0.5), or has a unit: 50us, 150ms, 2s, 5m, 1h, 1d.

Exit status: 0 every call had its result, 1 some had not, or the pool cut it short; 255 any other
error.";

/// How long it measures unless it is told.
const DURATION: Duration = Duration::from_secs(10);
/// The most calls in flight, in the closed loop; in the open loop, more wait here for their turn.
const IN_FLIGHT_MAX: u32 = 1 << 18;
/// The most connections.
const CONNECTIONS_MAX: u32 = 4096;
/// The lowest rate, in calls a second: one in twelve days.
const RATE_MIN: f64 = 1e-6;
/// The highest rate, in calls a second.
const RATE_MAX: f64 = 1e8;
/// The status if some calls had no result.
const CALLS_FAILED: u8 = 1;

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> ExitCode {
    let plan = match plan(args) {
        Ok(plan) => plan,
        Err(message) => return exit::error(message),
    };
    let in_flight = match plan.pace {
        Pace::Closed { in_flight } => in_flight as usize,
        Pace::Open { .. } => plan.in_flight_max as usize,
    };
    let default = NetConfig::default();
    let send_limit = (plan.body.len() + CALL_BYTES).saturating_mul(in_flight);
    let send_limit = send_limit.clamp(default.send_limit, SEND_LIMIT_MAX);
    let net = NetConfig { send_limit, ..default };
    let shown = std::io::stderr().is_terminal();
    let measured = remuda_net::run_local(net, async move {
        let (mut wires, mut pool) = (Vec::new(), 0);
        for _ in 0..args.connections {
            let (wire, offer) = wire::open(args.to.as_deref()).await?;
            wires.push(wire);
            pool = offer.pid;
        }
        Ok::<_, ConnectionError>((Load::start(plan, wires).finish(shown).await, pool))
    });
    let (measured, pool) = match measured {
        Ok(Ok(measured)) => measured,
        Ok(Err(error)) => return exit::error(error),
        Err(error) => return exit::error(error),
    };
    let text = match args.json {
        true => format!("{}\n", report::json(&measured, pool)),
        false => report::text(&measured, pool),
    };
    if let Err(status) = say::out(text) {
        return status;
    }
    if let Some(why) = &measured.cut {
        say::line(format_args!("remuda: {why}"));
    }
    let all_done = measured.failures() == 0 && measured.cut.is_none();
    if all_done { ExitCode::SUCCESS } else { CALLS_FAILED.into() }
}

/// The most bytes that may wait to be sent on a connection.
const SEND_LIMIT_MAX: usize = 4 << 30;
/// About how many bytes a call has besides its body.
const CALL_BYTES: usize = 128;
/// In the open loop, the most bytes of calls in flight: a pool that reads nothing leaves them here.
const OPEN_BYTES_MAX: usize = 512 << 20;

fn plan(args: &BenchArgs) -> Result<Plan, String> {
    let body = match &args.body_json {
        Some(json) => Raw::new(json.as_bytes())
            .map_err(|error| format!("--body-json is not a JSON value: {error}"))?
            .as_bytes()
            .to_vec(),
        None => {
            let mut body = Vec::new();
            json_string(&mut body, args.body.as_bytes()).map_err(|error| error.to_string())?;
            body
        }
    };
    let pace = match args.rate {
        Some(rate) => Pace::Open { rate },
        None => Pace::Closed { in_flight: args.in_flight.unwrap_or(1) },
    };
    if let Pace::Closed { in_flight } = pace
        && in_flight < args.connections
    {
        return Err(format!(
            "{} connections need as many calls in flight: say --in-flight {0}",
            args.connections
        ));
    }
    let end = match args.calls {
        Some(calls) => End::Calls(calls),
        None => End::After(args.duration.unwrap_or(DURATION)),
    };
    if end == End::After(Duration::ZERO) {
        return Err("--duration 0 measures nothing: give a time".into());
    }
    if args.patience.is_zero() {
        return Err("--patience 0 waits for no answer: give a time".into());
    }
    let timeout_ms = args.timeout.map(|time| time.as_millis() as u64);
    let fit = u32::try_from(OPEN_BYTES_MAX / (body.len() + CALL_BYTES)).unwrap_or(u32::MAX);
    let in_flight_max = fit.clamp(1, IN_FLIGHT_MAX);
    let (warmup, patience) = (args.warmup, args.patience);
    Ok(Plan { pace, end, warmup, body, timeout_ms, patience, in_flight_max })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (RATE_MIN..=RATE_MAX).contains(&rate) => Ok(rate),
        _ => Err(format!(
            "`{text}` is no rate: give calls a second, at least {RATE_MIN} and at most {RATE_MAX}"
        )),
    }
}
