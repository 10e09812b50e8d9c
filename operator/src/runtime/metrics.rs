//! Metrics of the operator. No label holds an object's name: the number of names is unbounded.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The operator's metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    reconciles: Family<ReconcileLabels, Counter>,
    durations: Family<KindLabels, Histogram>,
    poll_errors: Counter,
    status_write_errors: Family<KindLabels, Counter>,
    leader: Gauge,
    queued: Family<KindLabels, Gauge>,
    running: Family<KindLabels, Gauge>,
    requests: Family<RequestLabels, Counter>,
    orphaned_pods: Gauge,
}

/// The outcome of a reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum PassResult {
    /// Done. The object is reconciled again later.
    Settled,
    /// A change is in progress.
    Waiting,
    /// The reconcile failed, and is retried.
    Transient,
    /// The reconcile failed, and fails again until something changes.
    Terminal,
}

/// The kind of the reconciled object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(clippy::enum_variant_names, reason = "the kinds' own names")]
pub(crate) enum Kind {
    McpServer,
    McpRoleMapping,
    ClusterMcpRoleMapping,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    kind: Kind,
    outcome: PassResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: Kind,
}

impl Metrics {
    /// Registers the metrics.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 16))),
            poll_errors: Counter::default(),
            status_write_errors: Family::default(),
            leader: Gauge::default(),
            queued: Family::default(),
            running: Family::default(),
            requests: Family::default(),
            orphaned_pods: Gauge::default(),
        };
        registry.register("mcp_entra_operator_reconciles", "Reconciles by outcome", metrics.reconciles.clone());
        registry.register(
            "mcp_entra_operator_reconcile_duration_seconds",
            "Duration of a reconcile in seconds",
            metrics.durations.clone(),
        );
        registry.register(
            "mcp_entra_operator_pod_status_errors",
            "Failed polls of a pod's status",
            metrics.poll_errors.clone(),
        );
        registry.register(
            "mcp_entra_operator_status_write_errors",
            "Failed writes of a status; the last status stays",
            metrics.status_write_errors.clone(),
        );
        // Start at 0: the first failure must show as an increase.
        for kind in [Kind::McpServer, Kind::McpRoleMapping, Kind::ClusterMcpRoleMapping] {
            drop(metrics.status_write_errors.get_or_create(&KindLabels { kind }));
        }
        registry.register(
            "mcp_entra_operator_leader",
            "1 while this replica leads and reconciles, 0 while it follows",
            metrics.leader.clone(),
        );
        registry.register(
            "mcp_entra_operator_queue_depth",
            "Objects that are due but wait, because the maximum number of reconciles runs",
            metrics.queued.clone(),
        );
        registry.register("mcp_entra_operator_running_reconciles", "Reconciles that run now", metrics.running.clone());
        registry.register(
            "mcp_entra_operator_api_requests",
            "Requests to the API server by verb and HTTP status (none without an answer); a retried request counts once",
            metrics.requests.clone(),
        );
        registry.register(
            "mcp_entra_operator_orphaned_pods",
            "Running pods of deleted McpServers that do not report the deny-all policy yet",
            metrics.orphaned_pods.clone(),
        );
        metrics
    }

    /// Returns the gauge of objects of a kind that wait for a reconcile.
    pub(crate) fn queued(&self, kind: Kind) -> Gauge {
        self.queued.get_or_create(&KindLabels { kind }).clone()
    }

    /// Returns the gauge of running reconciles of a kind.
    pub(crate) fn running(&self, kind: Kind) -> Gauge {
        self.running.get_or_create(&KindLabels { kind }).clone()
    }

    /// Counts a request to the API server, with the status of the answer, if there is one.
    pub(crate) fn request(&self, verb: &'static str, code: Option<u16>) {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        self.requests.get_or_create(&RequestLabels { verb, code }).inc();
    }

    /// Reports whether this replica leads.
    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Counts a reconcile.
    pub(crate) fn pass(&self, kind: Kind, outcome: PassResult, duration: Duration) {
        self.reconciles.get_or_create(&ReconcileLabels { kind, outcome }).inc();
        self.durations.get_or_create(&KindLabels { kind }).observe(duration.as_secs_f64());
    }

    /// Counts a write of a status that failed.
    pub(crate) fn status_not_written(&self, kind: Kind) {
        self.status_write_errors.get_or_create(&KindLabels { kind }).inc();
    }

    /// Reports the number of pods of deleted McpServers that may still enforce the old policy.
    pub(crate) fn orphaned_pods(&self, count: usize) {
        self.orphaned_pods.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a failed poll of a pod.
    pub(crate) fn poll_failed(&self) {
        self.poll_errors.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_table_lists_every_metric() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.pass(Kind::McpServer, PassResult::Settled, Duration::from_secs(1));
        metrics.request("get", Some(200));
        let _ = (metrics.queued(Kind::McpServer), metrics.running(Kind::McpServer));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let table = documentation::metrics(&text);
        assert_eq!(table.lines().count(), 2 + 9, "{table}");
        documentation::hold_section("docs/reference/metrics.md", "## mcp-entra-operator", &table);
    }
}
