//! `/metrics`: the pool's status in Prometheus' words. `docs/metrics.md` says what each means.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeMetric, MetricEncoder, NoLabelSet, text::encode,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use remuda_engine::{BUCKETS, Code, RestartReason, WorkerState};
use serde_json::Value;

use crate::http::server::Traffic;

/// The metrics of a pool with such a status.
pub(super) fn text(status: Value, traffics: &[Arc<Traffic>; 2]) -> Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { status, traffics: traffics.clone() }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// The pool at the moment of a scrape.
#[derive(Debug)]
struct Scrape {
    status: Value,
    traffics: [Arc<Traffic>; 2],
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut writer = Writer(encoder);
        self.workers(&mut writer)?;
        self.jobs(&mut writer)?;
        self.doors(&mut writer)
    }
}

impl Scrape {
    fn workers(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let status = &self.status;
        let flag = |name: &str| u64::from(status[name].as_bool().unwrap_or(false));
        writer.gauge(
            "remuda_ready",
            "1 if a job that came now would find a worker",
            flag("ready"),
        )?;
        let draining = u64::from(status["phase"] != "running");
        writer.gauge("remuda_draining", "1 once the pool takes no more jobs", draining)?;
        writer.gauge(
            "remuda_overloaded",
            "1 while the newest jobs go first",
            flag("overloaded"),
        )?;
        writer.gauge("remuda_resetting", "1 while the workers are replaced", flag("resetting"))?;
        let uptime = status["uptime_ms"].as_f64().unwrap_or(0.0) / 1e3;
        writer.gauge_in("remuda_uptime", "Since the pool started", Unit::Seconds, uptime)?;
        let workers = status["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let in_state = |state: &WorkerState| {
            let is = |worker: &&Value| worker["state"] == state.as_str();
            (state.as_str(), workers.iter().filter(is).count() as u64)
        };
        let states = WorkerState::ALL.iter().map(in_state);
        writer.gauges("remuda_workers", "Workers by state", None, "state", states)?;
        let memory = workers.iter().filter_map(|worker| {
            Some((worker["slot"].as_u64()?.to_string(), worker["memory"].as_u64()?))
        });
        let help = "Resident memory of the worker in a slot";
        writer.gauges("remuda_worker_memory", help, Some(Unit::Bytes), "slot", memory)?;
        let cpu = workers.iter().filter_map(|worker| {
            Some((worker["slot"].as_u64()?.to_string(), worker["cpu_ms"].as_u64()? as f64 / 1e3))
        });
        let help = "Processor time of the worker that is in a slot now";
        writer.gauges("remuda_worker_cpu", help, Some(Unit::Seconds), "slot", cpu)?;
        let help = "Workers that were started";
        writer.counter("remuda_workers_started", help, number(&status["workers_started"]))?;
        let help = "Starts of workers that failed since the last one that succeeded";
        writer.gauge("remuda_starts_failed", help, number(&status["starts_failed"]))?;
        let restarts = RestartReason::ALL
            .iter()
            .map(|reason| (reason.as_str(), number(&status["restarts"][reason.as_str()])));
        let help = "Workers that were replaced or started again, by reason";
        writer.counters("remuda_worker_restarts", help, "reason", restarts)
    }

    fn jobs(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let status = &self.status;
        let jobs = &status["jobs"];
        writer.counter(
            "remuda_jobs_accepted",
            "Jobs that were accepted",
            number(&jobs["accepted"]),
        )?;
        let failed =
            Code::ALL.iter().map(|code| (code.as_str(), number(&jobs["failed"][code.as_str()])));
        let outcomes = std::iter::once(("done", number(&jobs["done"]))).chain(failed);
        let help = "Jobs that ended, by outcome: done, or the code; refused ones included";
        writer.counters("remuda_jobs", help, "outcome", outcomes)?;
        let help = "Jobs that were queued again after a try that failed";
        writer.counter("remuda_jobs_retried", help, number(&jobs["retried"]))?;
        writer.gauge("remuda_queue_length", "Jobs in the queue", number(&status["queued"]))?;
        let oldest = status["oldest_wait_ms"].as_f64().unwrap_or(0.0) / 1e3;
        let help = "How long the first job of the queue has waited";
        writer.gauge_in("remuda_queue_oldest_wait", help, Unit::Seconds, oldest)?;
        writer.gauge(
            "remuda_jobs_running",
            "Jobs that workers have",
            number(&status["in_flight"]),
        )?;
        let help = "From a job's arrival until it was started";
        writer.histogram("remuda_job_wait", help, &status["wait_us"])?;
        let help = "From a job's start until its end";
        writer.histogram("remuda_job_run", help, &status["run_us"])
    }

    fn doors(&self, writer: &mut Writer<'_>) -> Result<(), Error> {
        let help = "Open connections that speak the protocol";
        writer.gauge("remuda_connections", help, number(&self.status["connections"]))?;
        let open = self.traffics.iter().map(|door| (door.name, door.connections() as u64));
        writer.gauges(
            "remuda_http_connections",
            "Open HTTP connections",
            None,
            "listener",
            open,
        )?;
        let name = "remuda_http_responses";
        let help = "HTTP responses by listener and status";
        let mut metric = writer.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for traffic in &self.traffics {
            for (status, count) in traffic.responses() {
                let labels =
                    [("listener", traffic.name.to_owned()), ("status", status.to_string())];
                ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Writes metrics of each kind.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn gauge_in(&mut self, name: &str, help: &str, unit: Unit, value: f64) -> Result<(), Error> {
        let metric = self.0.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
        ConstGauge::new(value).encode(metric)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        let metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(metric)
    }

    fn gauges<L: AsRef<str>, N: EncodeGaugeValue + Copy>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        label: &str,
        values: impl Iterator<Item = (L, N)>,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (of, value) in values {
            ConstGauge::new(value).encode(metric.encode_family(&[(label, of.as_ref())])?)?;
        }
        Ok(())
    }

    fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'v str, u64)>,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            ConstCounter::new(value).encode(metric.encode_family(&[(label, of)])?)?;
        }
        Ok(())
    }

    /// A histogram of seconds from the engine's summary in microseconds.
    fn histogram(&mut self, name: &str, help: &str, summary: &Value) -> Result<(), Error> {
        let unit = Some(&Unit::Seconds);
        let mut metric: MetricEncoder<'_> =
            self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        let count = number(&summary["count"]);
        let sum = summary["sum_us"].as_f64().unwrap_or(0.0) / 1e6;
        // The engine counts up to each bound; Prometheus' encoder wants what is in between.
        let mut below = 0;
        let mut buckets = Vec::with_capacity(BUCKETS.len() + 1);
        for (at, bound) in BUCKETS.into_iter().enumerate() {
            let up_to = number(&summary["buckets"][at]).max(below);
            buckets.push((bound, up_to - below));
            below = up_to;
        }
        buckets.push((f64::INFINITY, count.saturating_sub(below)));
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}
