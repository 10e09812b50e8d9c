//! Values to render and install the charts with.

use std::fs;

use json_patch::merge;
use serde_json::{Value, json};
use testbed::stack::repository;

/// Returns values with every option enabled, and an example of each value that is empty by default.
pub(crate) fn everything() -> Value {
    let text = fs::read_to_string(repository("charts/mcp-entra/values.yaml")).unwrap();
    let mut values: Value = serde_yaml::from_str(&text).unwrap();
    switch_on(&mut values);
    merge(
        &mut values,
        &json!({
            "image": {"server": {"digest": format!("sha256:{}", "0".repeat(64))}},
            "imagePullSecrets": [{"name": "registry"}],
            "allowedHosts": ["*.mcp.contoso.com"],
            "allowedBackendSecrets": ["productivity/database"],
            "extraArgs": ["--lease-duration-seconds=15"],
            "env": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector.example:4318"}],
            "podLabels": {"team": "platform"},
            "podAnnotations": {"example.com/note": "a"},
            "priorityClassName": "system-cluster-critical",
            "tolerations": [{"key": "platform", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}]}}},
            "serviceAccount": {"annotations": {"example.com/note": "a"}},
            "networkPolicy": {"apiServerCidrs": ["10.0.0.0/16"]},
            "monitoringNamespaces": ["monitoring"],
            "monitoring": {
                "serviceMonitor": {"labels": {"release": "prometheus"}},
                "prometheusRule": {"labels": {"release": "prometheus"}},
            },
            "guardrails": {
                "namespaceSelector": {"matchLabels": {"guarded": "true"}},
                "allowedRegistries": {"registries": ["localhost"]},
                "allowedHosts": {"default": ["*.example.com"], "namespaces": {"productivity": ["graph.contoso.com"]}},
                "requireTls": {"ingressClasses": ["https-only"]},
                "onlyOperatorWrites": {"exemptUsers": ["restorer"], "exemptGroups": ["platform"]},
            },
        }),
    );
    values
}

/// Returns the same values for two namespaces.
pub(crate) fn namespaced() -> Value {
    let mut values = everything();
    merge(&mut values, &json!({"watchNamespaces": ["productivity", "sales"]}));
    values
}

fn switch_on(values: &mut Value) {
    match values {
        Value::Bool(on) => *on = true,
        Value::Object(members) => members.values_mut().for_each(switch_on),
        _ => {}
    }
}
