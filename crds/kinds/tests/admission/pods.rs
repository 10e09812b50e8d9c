//! Tests of the fields of an McpServer for its pods.

use super::*;

/// Returns a term of pod affinity.
fn term(more: Value) -> Value {
    let mut term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}});
    term.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    term
}

fn required(affinity: &str, more: Value) -> Value {
    json!({affinity: {"requiredDuringSchedulingIgnoredDuringExecution": [term(more)]}})
}

fn preferred(affinity: &str, more: Value) -> Value {
    let term = json!({"weight": 1, "podAffinityTerm": term(more)});
    json!({affinity: {"preferredDuringSchedulingIgnoredDuringExecution": [term]}})
}

#[tokio::test]
async fn what_a_server_says_badly_of_its_pods_is_refused_with_the_field_named() {
    let named = |count: usize| (0..count).map(|number| (format!("a{number}"), json!("b"))).collect::<Value>();
    let peer = |peer: Value| ("/spec/networkPolicy/allowFrom/-", peer, "each peer must have an ipBlock");
    let affinity =
        |affinity: Value| ("/spec/podTemplate/affinity", affinity, "a term selects only pods of this namespace");
    let cases = vec![
        ("/spec/entra/federation/injection", json!("Sidecar"), "spec.entra.federation.injection"),
        (
            "/spec/entra/federation",
            json!({"injection": "Webhook", "tokenExpirationSeconds": 3599}),
            "tokenExpirationSeconds must be at least 3600",
        ),
        ("/spec/entra/federation/serviceAccountName", json!("Other"), "spec.entra.federation.serviceAccountName"),
        ("/spec/autoscaling", json!({"minReplicas": 1, "maxReplicas": 2}), "must not both be set"),
        ("/spec/networkPolicy", json!({}), "spec.networkPolicy.allowFrom"),
        ("/spec/networkPolicy/allowFrom", json!([]), "spec.networkPolicy.allowFrom"),
        ("/spec/networkPolicy/allowFrom", many(17, |_| json!({"podSelector": {}})), "spec.networkPolicy.allowFrom"),
        peer(json!({})),
        peer(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})),
        ("/spec/networkPolicy/allowFrom/-", json!({"ipBlock": {"cidr": "10.0.0.0"}}), "ipBlock.cidr must be a range"),
        (
            "/spec/networkPolicy/allowFrom/-",
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}),
            "ipBlock.cidr must be a range",
        ),
        ("/spec/networkPolicy/egress", json!([{}]), ".spec.networkPolicy.egress"),
        ("/spec/podTemplate/labels", named(33), "spec.podTemplate.labels"),
        ("/spec/podTemplate/labels", json!({"a": "b".repeat(64)}), "spec.podTemplate.labels"),
        ("/spec/podTemplate/labels", json!({"app.kubernetes.io/instance": "other"}), "reserved for the operator"),
        ("/spec/podTemplate/labels", json!({"azure.workload.identity/use": "true"}), "reserved for the operator"),
        ("/spec/podTemplate/labels", json!({"mcp-entra.dev/a": "b"}), "reserved for the operator"),
        ("/spec/podTemplate/annotations", named(33), "spec.podTemplate.annotations"),
        ("/spec/podTemplate/annotations", json!({"mcp-entra.dev/server-uid": "b"}), "reserved for the operator"),
        (
            "/spec/podTemplate/annotations",
            json!({"azure.workload.identity/inject-proxy-sidecar": "true"}),
            "reserved for the operator",
        ),
        ("/spec/podTemplate/nodeSelector", named(33), "spec.podTemplate.nodeSelector"),
        ("/spec/podTemplate/tolerations", many(17, |_| json!({})), "spec.podTemplate.tolerations"),
        ("/spec/podTemplate/affinity/nodeName", json!("a"), ".spec.podTemplate.affinity.nodeName"),
        affinity(required("podAntiAffinity", json!({"namespaceSelector": {}}))),
        affinity(required("podAffinity", json!({"namespaces": ["kube-system"]}))),
        affinity(preferred("podAntiAffinity", json!({"namespaces": ["kube-system"]}))),
        affinity(preferred("podAffinity", json!({"namespaceSelector": {}}))),
        (
            "/spec/podTemplate/topologySpreadConstraints/0/whenUnsatisfiable",
            json!("Never"),
            "spec.podTemplate.topologySpreadConstraints[0].whenUnsatisfiable",
        ),
        ("/spec/podTemplate/topologySpreadConstraints/0/labelSelector", json!({}), "labelSelector"),
        ("/spec/podTemplate/priorityClassName", json!("system-cluster-critical"), "reserved for the cluster"),
        ("/spec/podTemplate/imagePullSecrets/-", json!({"name": "registry"}), "spec.podTemplate.imagePullSecrets"),
        ("/spec/podTemplate/resources/requests/cpu", json!("much"), "spec.podTemplate.resources.requests.cpu"),
        ("/spec/podTemplate/resources/limits/memory", json!(-1), "spec.podTemplate.resources.limits.memory"),
        (
            "/spec/podTemplate/resources/limits/memory",
            json!(1_000_000_000_000_u64),
            "spec.podTemplate.resources.limits.memory",
        ),
        ("/spec/podTemplate/resources/limits/gpu", json!("1"), ".spec.podTemplate.resources.limits.gpu"),
        ("/spec/podTemplate/securityContext", json!({"runAsUser": 0}), ".spec.podTemplate.securityContext"),
        ("/spec/podTemplate/hostNetwork", json!(true), ".spec.podTemplate.hostNetwork"),
        ("/spec/podTemplate/serviceAccountName", json!("other"), ".spec.podTemplate.serviceAccountName"),
        ("/spec/podTemplate/containers", json!([]), ".spec.podTemplate.containers"),
    ];
    assert_refused::<McpServer>(mk_server, cases).await;
    let cases = vec![
        ("/spec/replicas", json!(2), "must not both be set"),
        ("/spec/autoscaling/minReplicas", json!(0), "spec.autoscaling.minReplicas"),
        ("/spec/autoscaling/minReplicas", json!(11), "minReplicas must not be greater than maxReplicas"),
        ("/spec/autoscaling/maxReplicas", json!(null), "spec.autoscaling.maxReplicas"),
        ("/spec/autoscaling/maxReplicas", json!(101), "spec.autoscaling.maxReplicas"),
        ("/spec/autoscaling/targetCpuUtilization", json!(0), "spec.autoscaling.targetCpuUtilization"),
    ];
    assert_refused::<McpServer>(mk_autoscaled, cases).await;
}

#[tokio::test]
async fn the_neighbours_of_what_a_server_says_badly_of_its_pods_are_accepted() {
    let labels = |count: usize| (0..count).map(|number| (format!("a{number}"), json!("b"))).collect::<Value>();
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}]}]}}});
    let cases = vec![
        ("/spec/entra/federation", json!({"injection": "Webhook"})),
        ("/spec/entra/federation", json!({"serviceAccountName": "shared.accounts-1"})),
        ("/spec/networkPolicy", json!(null)),
        ("/spec/networkPolicy/allowFrom/-", json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}})),
        ("/spec/networkPolicy/allowFrom/-", json!({"ipBlock": {"cidr": "2001:db8::/32"}})),
        ("/spec/networkPolicy/allowFrom/-", json!({"podSelector": {}, "namespaceSelector": {}})),
        ("/spec/podTemplate/labels", labels(32)),
        ("/spec/podTemplate/labels", json!({"app": "b".repeat(63)})),
        ("/spec/podTemplate/annotations", json!({"a.example/b": "c".repeat(4096)})),
        ("/spec/podTemplate/nodeSelector", labels(32)),
        ("/spec/podTemplate/affinity", affinity),
        ("/spec/podTemplate/affinity", required("podAntiAffinity", json!({}))),
        ("/spec/podTemplate/affinity", preferred("podAffinity", json!({}))),
        ("/spec/podTemplate/topologySpreadConstraints", json!(null)),
        ("/spec/podTemplate/priorityClassName", json!("system")),
        ("/spec/podTemplate/resources/requests/cpu", json!(2)),
        ("/spec/podTemplate/resources/requests/cpu", json!("0.25")),
        ("/spec/podTemplate/resources/limits/memory", json!(3_000_000_000_u64)),
        ("/spec/podTemplate/resources/limits/ephemeral-storage", json!("1Gi")),
    ];
    assert_accepted::<McpServer>(mk_server, cases).await;
    let cases =
        vec![("/spec/autoscaling/minReplicas", json!(10)), ("/spec/autoscaling/targetCpuUtilization", json!(null))];
    assert_accepted::<McpServer>(mk_autoscaled, cases).await;
}
