//! Metric of conditions by type and status. Each scrape counts the objects in the caches.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::reflector::Store;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{family::Family, gauge::Gauge},
};

use crate::{
    runtime::metrics::Kind,
    watch::stores::{WatchedClusterMapping, WatchedMapping, WatchedServer},
};

/// Counts the conditions of all watched objects.
pub(crate) struct Census {
    pub(crate) servers: Store<WatchedServer>,
    pub(crate) mappings: Store<WatchedMapping>,
    pub(crate) cluster_mappings: Store<WatchedClusterMapping>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    kind: Kind,
    r#type: String,
    status: String,
}

type Counts = Family<ConditionLabels, Gauge>;

impl Census {
    fn counts(&self) -> Counts {
        let counts = Counts::default();
        for server in self.servers.state() {
            let status = server.0.as_ref().ok().and_then(|server| server.status.as_ref());
            count(&counts, Kind::McpServer, status.map(|status| status.conditions.as_slice()));
        }
        for mapping in self.mappings.state() {
            let status = mapping.0.as_ref().ok().and_then(|mapping| mapping.status.as_ref());
            count(&counts, Kind::McpRoleMapping, status.map(|status| status.conditions.as_slice()));
        }
        for mapping in self.cluster_mappings.state() {
            let status = mapping.0.as_ref().ok().and_then(|mapping| mapping.status.as_ref());
            count(&counts, Kind::ClusterMcpRoleMapping, status.map(|status| status.conditions.as_slice()));
        }
        counts
    }
}

fn count(counts: &Counts, kind: Kind, conditions: Option<&[Condition]>) {
    for condition in conditions.unwrap_or_default() {
        let labels = ConditionLabels { kind, r#type: condition.type_.clone(), status: condition.status.clone() };
        counts.get_or_create(&labels).inc();
    }
}

impl Collector for Census {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.counts();
        let metric = encoder.encode_descriptor(
            "mcp_entra_operator_conditions",
            "Objects by kind that have a condition with this type and status",
            None,
            counts.metric_type(),
        )?;
        counts.encode(metric)
    }
}

impl fmt::Debug for Census {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Census").finish_non_exhaustive()
    }
}
