//! Logs as JSON lines on standard error, and metrics in the Prometheus text format.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use mcp_entra_policy::ServerStatus;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Most log lines that wait while the reader of standard error is slow. Further lines are lost: no request waits for
/// a log.
const WAITING_LINES: usize = 2048;

/// Logs to standard error like [`log_to`], by default at `info`. Standard output belongs to the audit log.
pub fn log_to_stderr() -> WorkerGuard {
    log_to(std::io::stderr(), LevelFilter::INFO)
}

/// Logs to this place, at the levels in `RUST_LOG` or else at this level. A terminal gets readable text, everything
/// else JSON lines. A separate thread writes them. Dropping the guard writes the last lines, for at most about a
/// second.
pub fn log_to(place: impl Write + IsTerminal + Send + 'static, level: LevelFilter) -> WorkerGuard {
    let is_terminal = place.is_terminal();
    let (place, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES).thread_name("log").finish(place);
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level.to_string()));
    let targets = Targets::new()
        .with_default(LevelFilter::TRACE)
        // It logs an error that our answer already reports, and prints paths of its own sources.
        .with_target("rustls_platform_verifier", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer().with_writer(place);
    let lines = if is_terminal { lines.boxed() } else { lines.json().flatten_event(true).boxed() };
    // Only tests install a second subscriber in one process; the first one is enough.
    let _ = tracing_subscriber::registry().with(filter).with(targets).with(lines).try_init();
    guard
}

/// Labels of a judged request. All values come from fixed sets, none from outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    decision: &'static str,
    reason: &'static str,
}

/// Label of a run of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabel {
    run: String,
}

/// Counters and gauges.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Histogram,
    policy_usable: Gauge,
    keys: Gauge,
    keys_age_seconds: Gauge,
    federation_works: Gauge,
    audit_chain_lines: Family<RunLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("mcp_entra_server");
        let metrics = Self {
            requests: Family::default(),
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            policy_usable: Gauge::default(),
            keys: Gauge::default(),
            keys_age_seconds: Gauge::default(),
            federation_works: Gauge::default(),
            audit_chain_lines: Family::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Requests judged, by method and decision", metrics.requests.clone());
        registry.register("request_duration_seconds", "Seconds from request to answer", metrics.duration.clone());
        registry.register(
            "policy_usable",
            "1 if the newest policy document is in force, 0 if an older one or none is",
            metrics.policy_usable.clone(),
        );
        registry.register("keys", "Usable signing keys of Entra", metrics.keys.clone());
        registry.register(
            "keys_age_seconds",
            "Seconds since the signing keys were fetched, -1 before",
            metrics.keys_age_seconds.clone(),
        );
        registry.register(
            "federation_works",
            "1 if the last probe of the federated credential worked, 0 if it failed, -1 before the first",
            metrics.federation_works.clone(),
        );
        registry.register(
            "audit_chain_lines",
            "Lines in the hash chain of the audit log, by run; absent without audit.hashChain",
            metrics.audit_chain_lines.clone(),
        );
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts a judged request.
    pub fn count(&self, method: &'static str, decision: &'static str, reason: &'static str, latency: Duration) {
        self.requests.get_or_create(&RequestLabels { method, decision, reason }).inc();
        self.duration.observe(latency.as_secs_f64());
    }

    /// Sets the number of lines in the chain of this run.
    pub fn audit_chain(&self, run: &str, lines: u64) {
        let lines = i64::try_from(lines).unwrap_or(i64::MAX);
        self.audit_chain_lines.get_or_create(&RunLabel { run: run.to_owned() }).set(lines);
    }

    /// Returns all metrics in the Prometheus text format, with this status.
    pub fn encode(&self, status: &ServerStatus) -> Result<String, std::fmt::Error> {
        self.policy_usable.set(i64::from(status.policy.revision.is_some() && status.policy.error.is_none()));
        self.keys.set(i64::try_from(status.keys.count).unwrap_or(i64::MAX));
        self.keys_age_seconds
            .set(status.keys.age_seconds.map_or(-1, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX)));
        self.federation_works.set(status.federation.works.map_or(-1, i64::from));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_table_lists_every_metric() {
        let metrics = Metrics::default();
        metrics.count("tools/call", "allowed", "granted", Duration::from_secs(1));
        metrics.audit_chain("run", 1);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics.registry).unwrap();
        let table = documentation::metrics(&text);
        assert_eq!(table.lines().count(), 2 + 7, "{table}");
        documentation::hold_section("docs/reference/metrics.md", "## mcp-entra-server", &table);
    }
}
