//! The PodMonitor, by which the Prometheus operator finds the pods' metrics. Not a ServiceMonitor: that finds what a
//! Service leads to, and the admin port is in none.

use serde_json::json;

use super::{deployment::ADMIN_PORT_NAME, gateway::object};
use crate::{
    objects::{
        child::{Child, ChildKind},
        owner::Owner,
    },
    runtime::options::PodMonitors,
};

pub(super) fn pod_monitor(owner: &Owner, monitors: &PodMonitors) -> Child {
    let spec = json!({
        "selector": {"matchLabels": owner.selector()},
        "podMetricsEndpoints": [{"port": ADMIN_PORT_NAME, "path": "/metrics"}],
    });
    let mut child = object(owner.child_metadata(ChildKind::PodMonitor), ChildKind::PodMonitor, spec);
    if let Some((key, value)) = &monitors.label
        && let Some(labels) = child.object.pointer_mut("/metadata/labels").and_then(serde_json::Value::as_object_mut)
    {
        labels.entry(key).or_insert_with(|| json!(value));
    }
    child
}
