//! The metrics: names, help, and the two formats.
//!
//! Owns the names, which are a promise. Refuses to count: a snapshot has the
//! numbers. No label ever names a client.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::process::Process;
use crate::{Histogram, Measure, MeasureKind, SlowReason, Snapshot};

/// How the samples are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
    /// `text/plain; version=0.0.4`.
    Text,
}

impl Format {
    /// The format that a field `Accept` asks for.
    pub(super) fn accepted(field: Option<&str>) -> Self {
        let ranges = field.unwrap_or_default().split(',');
        let mut wanted = (Self::Text, 0);
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().map(str::to_ascii_lowercase).as_deref() {
                Some("application/openmetrics-text") => Self::OpenMetrics,
                Some("text/plain" | "text/*" | "*/*") => Self::Text,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
            let quality = quality
                .parse::<f32>()
                .map_or(0, |quality| (quality * 1000.0) as u32);
            let is_other = format == Self::OpenMetrics
                && range.contains("version=")
                && !range.contains("version=1.0.0")
                && !range.contains("version=0.0.1");
            if quality > wanted.1 && !is_other {
                wanted = (format, quality);
            }
        }
        wanted.0
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// Writes every metric.
pub(super) fn write(snapshot: &Snapshot, process: &Process, dropped_lines: u64, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families(snapshot, process, dropped_lines))));
    let mut written = String::with_capacity(16 * 1024);
    // Writing to a string cannot fail.
    let _ = match format {
        Format::OpenMetrics => text::encode(&mut written, &registry),
        Format::Text => prometheus_text::encode(&mut written, &registry),
    };
    written
}

/// A metric with all its samples.
#[derive(Debug)]
struct Family {
    /// Without `_total`.
    name: String,
    help: &'static str,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    label: Option<(&'static str, String)>,
    value: Value,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Counter(u64),
    Seconds(f64),
    Gauge(f64),
    Histogram(Histogram),
    Info,
}

impl Value {
    const fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) | Self::Seconds(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Histogram(_) => MetricType::Histogram,
            Self::Info => MetricType::Info,
        }
    }
}

fn one(name: &str, help: &'static str, value: Value) -> Family {
    Family {
        name: name.to_owned(),
        help,
        samples: vec![Sample { label: None, value }],
    }
}

fn by_reason(name: &str, help: &'static str, counts: impl Iterator<Item = (&'static str, u64)>) -> Family {
    let sample = |(word, count): (&str, u64)| Sample {
        label: Some(("reason", word.to_owned())),
        value: Value::Counter(count),
    };
    Family {
        name: name.to_owned(),
        help,
        samples: counts.map(sample).collect(),
    }
}

fn families(snapshot: &Snapshot, process: &Process, dropped_lines: u64) -> Vec<Family> {
    let mut families = of_server(snapshot);
    families.push(one(
        "highwater_log_lines_dropped",
        "Lines that a log sink did not take in time",
        Value::Counter(dropped_lines),
    ));
    families.extend(of_service(&snapshot.measures));
    families.push(Family {
        name: "highwater_build".to_owned(),
        help: "The version of the program",
        samples: vec![Sample {
            label: Some(("version", env!("CARGO_PKG_VERSION").to_owned())),
            value: Value::Info,
        }],
    });
    families.extend(of_process(process));
    families
}

#[rustfmt::skip] // One metric a line.
fn of_server(snapshot: &Snapshot) -> Vec<Family> {
    let counters = &snapshot.counters;
    let counter = |name, help, value| one(name, help, Value::Counter(value));
    let gauge = |name, help, value: u64| one(name, help, Value::Gauge(value as f64));
    let would = SlowReason::ALL.into_iter().map(|reason| (reason.word(), counters.would_disconnect(reason)));
    let refused = counters.refused_clients + counters.address_refused_clients;
    vec![
        gauge("highwater_clients", "Clients that are connected", snapshot.clients as u64),
        gauge("highwater_max_clients", "Most clients at a time", snapshot.max_clients as u64),
        gauge("highwater_upstreams", "Upstreams that are connected", snapshot.upstreams as u64),
        counter("highwater_accepted_clients", "Clients that were accepted and served", counters.served_clients),
        counter("highwater_refused_clients", "Clients that were refused because all seats were taken", refused),
        by_reason("highwater_disconnects", "Clients that are gone, by reason", counters.closed_by_reason()),
        by_reason("highwater_would_disconnects", "Clients that shadow mode has kept, by the first rule that they broke", would),
        counter("highwater_over_limit_episodes", "Times that the queue of a client reached the limit", snapshot.over_limit_episodes),
        one("highwater_over_limit_seconds", "Time that clients were over the limit", Value::Histogram(snapshot.over_limit)),
        counter("highwater_received_bytes", "Bytes read from clients and upstreams", counters.received_bytes),
        counter("highwater_sent_bytes", "Bytes written to clients and upstreams", snapshot.sent_bytes),
        gauge("highwater_queued_bytes", "Bytes in all send queues and held by the service", snapshot.queued_bytes as u64),
        gauge("highwater_memory_budget_bytes", "What all send queues together may hold", snapshot.memory_budget_bytes as u64),
        gauge("highwater_kernel_bytes", "Memory that the kernel holds for all connections", snapshot.kernel_bytes),
        one("highwater_loop_lag_seconds", "How late the event loop was, ten times a second while it has work", Value::Histogram(snapshot.loop_lag)),
        counter("highwater_upstream_connects", "Connections made to upstreams", counters.upstreams),
        counter("highwater_upstream_connect_failures", "Attempts to connect to an upstream that failed", counters.failed_connects),
        counter("highwater_accept_failures", "Times that descriptors or memory ran out at an accept", counters.failed_accepts),
    ]
}

#[rustfmt::skip] // One metric a line.
fn of_process(process: &Process) -> Vec<Family> {
    vec![
        one("process_cpu_seconds", "Processor time used, user and system", Value::Seconds(process.cpu_seconds)),
        one("process_resident_memory_bytes", "Resident memory", Value::Gauge(process.resident_bytes as f64)),
        one("process_virtual_memory_bytes", "Virtual memory", Value::Gauge(process.virtual_bytes as f64)),
        one("process_open_fds", "Open descriptors", Value::Gauge(process.open_descriptors as f64)),
        one("process_max_fds", "Most open descriptors", Value::Gauge(process.most_descriptors as f64)),
        one("process_start_time_seconds", "When the process started, since the epoch", Value::Gauge(process.started_seconds)),
    ]
}

/// Measures of one name are one family.
fn of_service(measures: &[Measure]) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for measure in measures {
        let name = format!("highwater_{}", measure.name);
        let value = match measure.kind {
            MeasureKind::Counter => Value::Counter(measure.value),
            MeasureKind::Gauge => Value::Gauge(measure.value as f64),
        };
        let sample = Sample {
            label: measure.label.clone(),
            value,
        };
        match families.last_mut().filter(|family| family.name == name) {
            Some(family) => family.samples.push(sample),
            None => families.push(Family {
                name,
                help: measure.help,
                samples: vec![sample],
            }),
        }
    }
    families
}

#[derive(Debug)]
struct Families(Vec<Family>);

type Label = [(&'static str, String); 1];

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let Some(first) = family.samples.first() else {
                continue;
            };
            let mut metric =
                encoder.encode_descriptor(&family.name, family.help, None, first.value.kind())?;
            for sample in &family.samples {
                match &sample.label {
                    Some(label) if matches!(sample.value, Value::Info) => {
                        metric.encode_info(&std::slice::from_ref(label))?
                    }
                    Some(label) => {
                        encode(metric.encode_family(&std::slice::from_ref(label))?, &sample.value)?
                    }
                    None => encode_unlabelled(&mut metric, &sample.value)?,
                }
            }
        }
        Ok(())
    }
}

fn encode(mut metric: MetricEncoder<'_>, value: &Value) -> fmt::Result {
    encode_unlabelled(&mut metric, value)
}

fn encode_unlabelled(metric: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
    const NONE: Option<&Exemplar<Label, f64>> = None;
    match value {
        Value::Counter(count) => metric.encode_counter(count, NONE),
        Value::Seconds(seconds) => metric.encode_counter(seconds, NONE),
        Value::Gauge(number) => metric.encode_gauge(number),
        Value::Histogram(histogram) => {
            let buckets: Vec<(f64, u64)> = histogram.buckets().collect();
            metric.encode_histogram::<Label>(histogram.sum().as_secs_f64(), histogram.count(), &buckets, None)
        }
        Value::Info => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        // As Prometheus 2.42 asks.
        let scrape = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(scrape)), Format::OpenMetrics);
        for accept in [
            None,
            Some("*/*"),
            Some("text/html,application/xhtml+xml,*/*;q=0.8"),
            Some("text/plain;version=0.0.4"),
            Some("application/openmetrics-text;q=0.1, text/plain;q=0.9"),
        ] {
            assert_eq!(Format::accepted(accept), Format::Text, "{accept:?}");
        }
    }

    fn samples(format: Format) -> Vec<String> {
        let written = write(&Snapshot::default(), &Process::default(), 7, format);
        let mut samples: Vec<String> = written
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.replace(".0\"}", "\"}").trim_end_matches(".0").to_owned())
            .collect();
        samples.sort();
        samples
    }

    #[test]
    fn both_formats_have_the_same_samples_and_every_reason_from_the_start() {
        let samples = [samples(Format::OpenMetrics), samples(Format::Text)];
        assert_eq!(samples[0], samples[1]);
        for sample in [
            "highwater_clients 0",
            "highwater_disconnects_total{reason=\"write timeout\"} 0",
            "highwater_disconnects_total{reason=\"end not acknowledged\"} 0",
            "highwater_disconnects_total{reason=\"half-closed\"} 0",
            "highwater_log_lines_dropped_total 7",
            "highwater_loop_lag_seconds_bucket{le=\"+Inf\"} 0",
            "highwater_over_limit_seconds_count 0",
        ] {
            assert!(
                samples[0].iter().any(|line| line == sample),
                "{sample}: {samples:#?}"
            );
        }
    }
}
