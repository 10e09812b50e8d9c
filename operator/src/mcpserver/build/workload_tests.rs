//! Tests of the children that set the number of pods, their identity, their scheduling and their clients.

use serde_json::{Value, json};

use super::{
    tests::{Children, hash, mk_children, mk_children_with},
    *,
};
use crate::{
    mcpserver::{resolved::ResolvedAccount, validate::tests::mk_options},
    objects::{
        child::ChildKind,
        drift::drift,
        names::{ALLOW_SERVER, TEMPLATE_HASH},
    },
    runtime::options::{Options, PodMonitors},
};

/// Returns the children of a server, after a merge patch of its spec.
fn built(changes: Value) -> Children {
    mk_children(|server| {
        let mut spec = serde_json::to_value(&server.spec).unwrap();
        json_patch::merge(&mut spec, &changes);
        server.spec = serde_json::from_value(spec).unwrap();
    })
}

fn deployment(changes: Value) -> Value {
    built(changes).remove(&ChildKind::Deployment).unwrap()
}

fn with_autoscaling(fewest: i32) -> Value {
    json!({"autoscaling": {"minReplicas": fewest, "maxReplicas": 10, "targetCpuUtilization": 70}})
}

#[test]
fn the_deployment_names_a_number_of_pods_only_where_the_spec_does() {
    assert_eq!(deployment(json!({"replicas": 3}))["spec"]["replicas"], 3);
    assert!(deployment(json!({}))["spec"].get("replicas").is_none());
    let children = built(with_autoscaling(2));
    assert!(children[&ChildKind::Deployment]["spec"].get("replicas").is_none());
    let spec = &children[&ChildKind::Autoscaler]["spec"];
    assert_eq!(spec["scaleTargetRef"], json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "graph"}));
    assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&json!(2), &json!(10)));
    let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}});
    assert_eq!(spec["metrics"], json!([{"type": "Resource", "resource": cpu}]));
    assert!(!built(json!({})).contains_key(&ChildKind::Autoscaler));
}

#[test]
fn several_pods_are_drained_one_at_a_time_and_a_single_pod_blocks_no_drain() {
    let has_budget = |changes| built(changes).contains_key(&ChildKind::DisruptionBudget);
    assert!(has_budget(json!({"replicas": 2})) && has_budget(with_autoscaling(2)));
    assert!(has_budget(json!({})), "others may scale it");
    assert!(!has_budget(json!({"replicas": 1})) && !has_budget(json!({"replicas": 0})));
    let autoscaling = |most: i32| json!({"autoscaling": {"minReplicas": 1, "maxReplicas": most}});
    assert!(has_budget(autoscaling(2)) && !has_budget(autoscaling(1)));
    let children = built(json!({"replicas": 2}));
    let spec = &children[&ChildKind::DisruptionBudget]["spec"];
    assert_eq!((&spec["maxUnavailable"], &spec["unhealthyPodEvictionPolicy"]), (&json!(1), &json!("AlwaysAllow")));
    assert_eq!(spec["selector"], children[&ChildKind::Deployment]["spec"]["selector"]);
}

#[test]
fn pods_are_spread_over_nodes_and_zones_unless_the_spec_says_otherwise() {
    let spread = |changes| {
        let deployment = deployment(changes);
        deployment["spec"]["template"]["spec"]["topologySpreadConstraints"].as_array().unwrap().clone()
    };
    let default = spread(json!({}));
    let keys: Vec<_> = default.iter().map(|constraint| &constraint["topologyKey"]).collect();
    assert_eq!(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
    assert!(default.iter().all(|constraint| constraint["whenUnsatisfiable"] == "ScheduleAnyway"));
    assert!(
        default
            .iter()
            .all(|constraint| constraint["labelSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "graph")
    );

    let given = json!({"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"});
    let own = spread(json!({"podTemplate": {"topologySpreadConstraints": [given]}}));
    assert_eq!((own.len(), &own[0]["maxSkew"], &own[0]["topologyKey"]), (1, &json!(2), &json!("rack")));
    assert_eq!(own[0]["labelSelector"], default[0]["labelSelector"]);
}

#[test]
fn additions_of_the_spec_never_replace_the_operators_own_labels_and_annotations() {
    // The API server rejects such names, but the operator must not depend on that.
    let options = Options {
        allowed_pod_labels: vec!["*".into()],
        allowed_pod_annotations: vec!["*".into()],
        allowed_priority_classes: vec!["apps".into()],
        ..mk_options()
    };
    let children = mk_children_with(
        Held { root: true, listener_of: None },
        &options,
        ResolvedAccount::Unset,
        |server| {
            server.spec.pod_template = serde_json::from_value(json!({
            "labels": {"team": "sales", "app.kubernetes.io/instance": "other"},
            "annotations": {"team.example/a": "b", "mcp-entra.dev/server-uid": "other", "mcp-entra.dev/configuration-hash": "0"},
            "nodeSelector": {"pool": "apps"},
            "tolerations": [{"key": "apps", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "priorityClassName": "apps",
            "imagePullSecrets": [{"name": "registry"}],
            "resources": {"requests": {"cpu": "0.5"}},
        }))
        .unwrap();
        },
    );
    let template = &children[&ChildKind::Deployment]["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["team"], "sales");
    assert_eq!(template["metadata"]["labels"]["app.kubernetes.io/instance"], "graph");
    assert_eq!(template["metadata"]["annotations"]["team.example/a"], "b");
    assert_eq!(template["metadata"]["annotations"]["mcp-entra.dev/server-uid"], "uid-1");
    assert_ne!(*hash(&children[&ChildKind::Deployment]), "0");
    let pod = &template["spec"];
    assert_eq!(pod["nodeSelector"], json!({"pool": "apps"}));
    assert_eq!(pod["tolerations"], json!([{"key": "apps", "operator": "Exists"}]));
    assert_eq!(pod["affinity"], json!({"podAntiAffinity": {}}));
    assert_eq!((&pod["priorityClassName"], &pod["imagePullSecrets"]), (&json!("apps"), &json!([{"name": "registry"}])));
    assert_eq!(pod["containers"][0]["resources"]["requests"], json!({"cpu": "500m", "memory": "64Mi"}));
    let selector = &children[&ChildKind::Deployment]["spec"]["selector"]["matchLabels"];
    assert!(selector.get("team").is_none(), "a selector is immutable");
}

#[test]
fn scheduling_fields_that_the_spec_omits_are_left_to_others() {
    let pod = &deployment(json!({}))["spec"]["template"]["spec"];
    for member in ["nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"] {
        assert!(pod.get(member).is_none(), "{member}");
    }
}

#[test]
fn clients_reach_the_endpoint_and_only_operator_and_monitoring_the_admin_port() {
    let clients = json!([{"namespaceSelector": {"matchLabels": {"team": "edge"}}}]);
    let children = built(json!({"networkPolicy": {"allowFrom": clients}}));
    let spec = &children[&ChildKind::NetworkPolicy]["spec"];
    let port = |port: Value, protocol: &str| json!({"port": port, "protocol": protocol});
    let namespace = |name: &str| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
    assert_eq!(
        spec["ingress"],
        json!([
            {"from": clients, "ports": [port(json!("http"), "TCP")]},
            {"from": [namespace("mcp-entra-system"), namespace("monitoring")], "ports": [port(json!("admin"), "TCP")]},
        ])
    );
    assert_eq!(
        spec["egress"],
        json!([
            {"ports": [port(json!(53), "UDP"), port(json!(53), "TCP")]},
            {"ports": [port(json!(443), "TCP")]},
        ])
    );
    assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(spec["podSelector"], children[&ChildKind::Deployment]["spec"]["selector"]);
    assert!(!built(json!({})).contains_key(&ChildKind::NetworkPolicy));
}

#[test]
fn with_the_webhook_pods_are_labelled_for_injection_and_have_no_projected_token() {
    let federation = json!({"injection": "Webhook", "tokenExpirationSeconds": 7200});
    let children = built(json!({"entra": {"federation": federation}}));
    let deployment = &children[&ChildKind::Deployment];
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["azure.workload.identity/use"], "true");
    assert!(deployment["spec"]["selector"]["matchLabels"].get("azure.workload.identity/use").is_none());
    assert!(deployment["metadata"]["labels"].get("azure.workload.identity/use").is_none());
    let pod = &template["spec"];
    assert!(pod["volumes"].as_array().unwrap().iter().all(|volume| volume.get("projected").is_none()));
    let text = serde_json::to_string(pod).unwrap();
    assert!(!text.contains("AZURE_") && !text.contains("/var/run/secrets"), "{text}");
    let account = &children[&ChildKind::ServiceAccount];
    assert_eq!(
        account["metadata"]["annotations"],
        json!({
            "azure.workload.identity/client-id": "1c2d0000-0000-0000-0000-00000000000b",
            "azure.workload.identity/tenant-id": "8f6b0000-0000-0000-0000-00000000000a",
            "azure.workload.identity/service-account-token-expiration": "7200",
        })
    );
    assert_eq!(
        (&account["automountServiceAccountToken"], &pod["automountServiceAccountToken"]),
        (&json!(false), &json!(false))
    );
    assert!(built(json!({}))[&ChildKind::ServiceAccount]["metadata"].get("annotations").is_none());
}

#[test]
fn a_foreign_service_account_is_used_and_is_not_a_child() {
    let account = ResolvedAccount::Existing([(ALLOW_SERVER.to_owned(), "graph".to_owned())].into());
    let held = Held { root: true, listener_of: None };
    let children = mk_children_with(held, &mk_options(), account, |server| {
        let federation = json!({"serviceAccountName": "shared"});
        server.spec.entra.federation = Some(serde_json::from_value(federation).unwrap());
    });
    assert!(!children.contains_key(&ChildKind::ServiceAccount));
    let pod = &children[&ChildKind::Deployment]["spec"]["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["automountServiceAccountToken"]), (&json!("shared"), &json!(false)));
    assert_eq!(deployment(json!({}))["spec"]["template"]["spec"]["serviceAccountName"], "graph");
}

#[test]
fn a_pod_monitor_is_built_only_if_the_operator_is_configured_for_it() {
    let with = |monitors: &str| {
        let options = Options { pod_monitors: Some(monitors.parse().unwrap()), ..mk_options() };
        mk_children_with(Held { root: true, listener_of: None }, &options, ResolvedAccount::Unset, |_| {})
    };
    let children = with("release=prometheus");
    let monitor = &children[&ChildKind::PodMonitor];
    assert_eq!(monitor["spec"]["podMetricsEndpoints"], json!([{"port": "admin", "path": "/metrics"}]));
    assert_eq!(monitor["spec"]["selector"], children[&ChildKind::Deployment]["spec"]["selector"]);
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert!(with("")[&ChildKind::PodMonitor]["metadata"]["labels"].get("release").is_none());
    let ours = with("app.kubernetes.io/managed-by=other");
    assert_eq!(
        ours[&ChildKind::PodMonitor]["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        "mcp-entra-operator"
    );
    assert!(!built(json!({})).contains_key(&ChildKind::PodMonitor));
    assert!("release".parse::<PodMonitors>().is_err() && "=x".parse::<PodMonitors>().is_err());
}

#[test]
fn only_changes_that_pods_read_at_their_start_restart_them() {
    let template = |changes| deployment(changes)["spec"]["template"].clone();
    let before = template(json!({}));
    let network = json!({"networkPolicy": {"allowFrom": [{"podSelector": {}}]}});
    for live in [json!({"replicas": 5}), with_autoscaling(2), network] {
        assert_eq!(template(live.clone()), before, "{live}");
    }
    let webhook =
        |seconds: i32| json!({"entra": {"federation": {"injection": "Webhook", "tokenExpirationSeconds": seconds}}});
    for restarting in [
        json!({"podTemplate": {"resources": {"limits": {"memory": "1Gi"}}}}),
        json!({"entra": {"federation": {"tokenExpirationSeconds": 7200}}}),
        json!({"podTemplate": {"env": [{"name": "RUST_LOG", "value": "debug"}]}}),
        webhook(3600),
    ] {
        assert_ne!(template(restarting.clone()), before, "{restarting}");
    }
    // The webhook reads the account's annotations only when a pod is created.
    assert_ne!(template(webhook(3600)), template(webhook(7200)));
}

/// Returns the pointers to all scalar values of a document.
fn leaves(value: &Value, at: &str) -> Vec<String> {
    let escaped = |key: &String| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(members) => {
            members.iter().flat_map(|(key, member)| leaves(member, &format!("{at}/{}", escaped(key)))).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(index, item)| leaves(item, &format!("{at}/{index}"))).collect()
        }
        _ => vec![at.to_owned()],
    }
}

pub(super) fn is_drift(there: &Value, desired: &Value) -> bool {
    drift(&serde_json::from_value(there.clone()).unwrap(), desired).unwrap().is_some()
}

/// Changes each value of the children, one at a time, and fails unless it is drift. Returns the number of values.
pub(super) fn all_changes_are_drift(children: Children) -> usize {
    let mut seen = 0;
    for (kind, desired) in children {
        for pointer in leaves(&desired, "").iter().filter(|at| !matches!(at.as_str(), "/apiVersion" | "/kind")) {
            let mut changed = desired.clone();
            let value = changed.pointer_mut(pointer).unwrap();
            *value = match value {
                Value::String(text) => json!(format!("{text}x")),
                Value::Bool(flag) => json!(!*flag),
                Value::Number(number) => json!(number.as_i64().unwrap() + 1),
                _ => continue,
            };
            assert!(is_drift(&changed, &desired), "{kind:?}: {pointer}");
            seen += 1;
        }
    }
    seen
}

#[test]
fn every_change_of_a_child_is_drift_and_additions_to_pods_are_not() {
    let children = built(json!({"replicas": 2, "networkPolicy": {"allowFrom": [{"podSelector": {}}]}}));
    let seen = all_changes_are_drift(children);
    assert!(seen > 100, "{seen}");

    let template = json!({
        "nodeSelector": {"pool": "apps"}, "tolerations": [{"key": "apps", "operator": "Exists"}],
        "env": [{"name": "TZ", "value": "UTC"}], "imagePullSecrets": [{"name": "registry"}],
    });
    let webhook = json!({"federation": {"injection": "Webhook"}});
    for changes in [json!({}), json!({"podTemplate": template}), json!({"entra": webhook})] {
        let desired = deployment(changes);
        for (pointer, key, entry) in [
            ("/metadata/labels", "theirs", json!("x")),
            ("/metadata/annotations", "theirs", json!("x")),
            ("/spec/template/metadata/labels", "theirs", json!("x")),
            ("/spec/template/metadata/annotations", "theirs", json!("x")),
            ("/spec/template/spec/nodeSelector", "theirs", json!("x")),
            ("/spec/template/spec/tolerations", "", json!({"key": "theirs", "operator": "Exists"})),
            ("/spec/template/spec/containers", "", json!({"name": "sidecar", "image": "x"})),
            ("/spec/template/spec/initContainers", "", json!({"name": "sidecar", "image": "x"})),
            ("/spec/template/spec/volumes", "", json!({"name": "theirs", "emptyDir": {}})),
            ("/spec/template/spec/imagePullSecrets", "", json!({"name": "theirs"})),
            ("/spec/template/spec/topologySpreadConstraints", "", json!({"topologyKey": "rack", "maxSkew": 1})),
            ("/spec/template/spec/containers/0/env", "", json!({"name": "THEIRS", "value": "x"})),
            ("/spec/template/spec/containers/0/envFrom", "", json!({"configMapRef": {"name": "theirs"}})),
            ("/spec/template/spec/containers/0/volumeMounts", "", json!({"name": "theirs", "mountPath": "/x"})),
            ("/spec/template/spec/containers/0/ports", "", json!({"name": "theirs", "containerPort": 1})),
        ] {
            let (parent, member) = pointer.rsplit_once('/').unwrap();
            // Others can add anywhere: at the front.
            let mut there = desired.clone();
            let list = &mut there.pointer_mut(parent).unwrap()[member];
            match list {
                Value::Array(items) => items.insert(0, entry.clone()),
                Value::Null if key.is_empty() => *list = json!([entry]),
                map => map[key] = entry,
            }
            assert!(!is_drift(&there, &desired), "{pointer}");
        }
    }
}

#[test]
fn the_hash_of_an_unchanged_pod_template_stays() {
    // A changed hash rolls out every server of a fleet after an upgrade of the operator.
    let affinity = json!({
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}},
        ]},
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "rack", "labelSelector": {"matchLabels": {"a": "b"}}},
        ]},
    });
    let template = json!({
        "env": [{"name": "TZ", "value": "UTC"}],
        "nodeSelector": {"pool": "apps"},
        "tolerations": [{"key": "apps", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
        "imagePullSecrets": [{"name": "registry"}],
        "resources": {"limits": {"cpu": 1}},
        "affinity": affinity,
    });
    let template_hash = |changes| deployment(changes)["metadata"]["annotations"][TEMPLATE_HASH].clone();
    for (mut changes, hash) in [
        (json!({}), "4487a5f11c590635"),
        (json!({"podTemplate": template}), "d669fd2ad4951c8a"),
        (json!({"entra": {"federation": {"injection": "Webhook"}}}), "7b06f4757fd56793"),
    ] {
        // Pinned with a scope that covers one of the two tools. Neither affects the pods.
        changes["graph"] = json!({"scopes": ["User.Read"]});
        assert_eq!(template_hash(changes.clone()), hash, "{changes}");
    }
}
