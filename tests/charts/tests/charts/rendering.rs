//! Tests of the chart's templates, rendered without a cluster.

use std::collections::BTreeSet;

use mcp_entra_crds::custom_resource_definitions;
use serde_json::{Value, json};
use testbed::chart::{OPERATOR, REGISTRY_VALUE, chart, rendered};
use testbed::helm::Helm;
use testbed::programs::program;
use testbed::stack::repository;
use testbed::supervisor::Supervisor;

use crate::values;

async fn helm() -> Helm {
    Helm::offline(&Supervisor::start().unwrap()).await.unwrap()
}

async fn render(values: &Value) -> Vec<Value> {
    rendered(&helm().await, &["--set-json", &values.to_string()]).await.unwrap()
}

fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap()
}

fn arguments(objects: &[Value]) -> Vec<String> {
    let container = &one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    serde_json::from_value(container["args"].clone()).unwrap()
}

/// A value for each option.
fn mk_every_option() -> Value {
    json!({
        "watchNamespaces": ["one", "two"],
        "allowedHosts": ["*.mcp.contoso.com"],
        "allowedImages": ["registry.contoso.com/*"],
        "allowedBackendImages": ["registry.contoso.com/mcp/*"],
        "allowedBackendResources": ["api://orders"],
        "allowedBackendSecrets": ["one/database"],
        "allowedAuthorities": ["https://login.contoso.com"],
        "allowedGraphs": ["https://graph.contoso.com"],
        "allowTrustBundles": true,
        "allowedIngressAnnotations": ["edge.contoso.com/*"],
        "allowedPodAnnotations": ["team.contoso.com/*"],
        "allowedPodLabels": ["team"],
        "allowedPriorityClasses": ["team"],
        "trustedProxies": ["10.0.0.0/8", "fd00::/8"],
        "monitoringNamespaces": ["monitoring"],
        "podMonitors": {"create": true, "label": "release=prometheus"},
        "podProxyUrl": "http://proxy:3128",
        "logFormat": "text",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn both_charts_pass_strict_lint() {
    let charts = [repository("charts/mcp-entra-crds"), repository("charts/mcp-entra")];
    helm().await.run(&["lint", "--strict", &charts[0], &charts[1]]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_installs_the_kinds_of_the_code_and_helm_keeps_them_on_removal() {
    for definition in custom_resource_definitions().unwrap() {
        let name = definition.metadata.name.clone();
        for keep in [true, false] {
            let objects = render(&json!({"crds": {"keep": keep}})).await;
            let mut found = objects.into_iter().find(|object| object["metadata"]["name"] == json!(name)).unwrap();
            let policy = found["metadata"].as_object_mut().unwrap().remove("annotations");
            assert_eq!(policy, keep.then(|| json!({"helm.sh/resource-policy": "keep"})));
            assert_eq!(found, serde_json::to_value(&definition).unwrap());
        }
    }
    let without = render(&json!({"crds": {"install": false}})).await;
    assert!(without.iter().all(|object| object["kind"] != "CustomResourceDefinition"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_option_in_the_chart_is_one_of_the_operator_and_every_option_has_a_value() {
    let arguments = arguments(&render(&mk_every_option()).await);
    let given = arguments.iter().filter_map(|argument| argument.strip_prefix("--"));
    let given: BTreeSet<_> = given.map(|option| option.split_once('=').map_or(option, |(name, _)| name)).collect();
    let program = tokio::task::spawn_blocking(|| program("mcp-entra-operator")).await.unwrap().unwrap();
    let help = std::process::Command::new(&program).args(["run", "--help"]).output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let options = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let mut options: BTreeSet<_> = options.map(|line| line.split([' ', '[', '=']).next().unwrap()).collect();
    // The pod itself determines these options.
    for own in ["operator-namespace", "identity"] {
        assert!(options.remove(own), "{own}");
    }
    assert_eq!(given, options);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_become_one_option_for_each_entry_and_unset_values_none() {
    let all = arguments(&render(&mk_every_option()).await);
    for expected in ["--watch-namespace=one", "--watch-namespace=two", "--pod-monitors=release=prometheus"] {
        assert!(all.iter().any(|argument| argument == expected), "{all:?}");
    }
    let none = arguments(&render(&json!({"podMonitors": {"create": true}})).await);
    assert!(none.contains(&"--pod-monitors".to_owned()));
    assert!(none.iter().all(|argument| !argument.contains("allow") && !argument.contains("watch")), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_replaces_the_tag_and_the_default_tag_is_the_charts_version() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let objects = render(&json!({"image": {"operator": {"digest": digest}, "server": {"tag": "next"}}})).await;
    let container = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], format!("localhost/mcp-entra-operator@{digest}"));
    assert!(arguments(&objects).contains(&"--server-image=localhost/mcp-entra-server:next".to_owned()));
    let objects = render(&json!({})).await;
    let container = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], format!("localhost/mcp-entra-operator:{}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_meets_the_restricted_standard_with_a_read_only_root() {
    let objects = render(&json!({})).await;
    let deployment = &one(&objects, "Deployment")["spec"]["template"]["spec"];
    for spec in [deployment, &one(&objects, "Pod")["spec"]] {
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for container in spec["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_watched_namespaces_the_only_cluster_role_may_list_and_watch() {
    let objects = render(&json!({"watchNamespaces": ["one"], "rbac": {"teamRoles": false}})).await;
    let cluster: Vec<_> = objects.iter().filter(|object| object["kind"] == "ClusterRole").collect();
    let [role] = cluster[..] else { panic!("{cluster:?}") };
    for rule in role["rules"].as_array().unwrap() {
        assert_eq!(rule["verbs"], json!(["list", "watch"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_policy_only_allows_monitoring() {
    let policy = |values: Value| async move { one(&render(&values).await, "NetworkPolicy")["spec"]["ingress"].clone() };
    assert_eq!(policy(json!({"networkPolicy": {"create": true}})).await, json!([]));
    let ingress = policy(json!({"networkPolicy": {"create": true}, "monitoringNamespaces": ["monitoring"]})).await;
    let selector = &ingress[0]["from"][0]["namespaceSelector"]["matchExpressions"][0];
    assert_eq!(selector["values"], json!(["monitoring"]));
    assert_eq!(ingress.as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_policy_lets_the_operator_try_all_ports_of_servers_and_of_no_other_pods() {
    let policy = one(&render(&json!({"networkPolicy": {"create": true}})).await, "NetworkPolicy").clone();
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let servers = json!({
        "namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "mcp-entra-server"}},
    });
    let (to_servers, others): (Vec<_>, Vec<_>) =
        policy["spec"]["egress"].as_array().unwrap().iter().partition(|rule| rule["to"] == json!([servers]));
    assert_eq!(to_servers, [&json!({"to": [servers]})], "a rule without ports allows all of them");
    let ports = others.iter().flat_map(|rule| rule["ports"].as_array().unwrap().iter().map(|port| &port["port"]));
    assert_eq!(ports.collect::<Vec<_>>(), [53, 53, 443, 6443], "DNS and the API server: {others:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_namespaced_object_is_in_the_releases_namespace_or_in_a_watched_one() {
    let mut values = mk_every_option();
    values["networkPolicy"] = json!({"create": true});
    for object in render(&values).await {
        let namespace = object["metadata"]["namespace"].as_str();
        let kind = object["kind"].as_str().unwrap();
        let is_of_cluster = kind.starts_with("Cluster") || kind == "CustomResourceDefinition";
        let expected: &[_] = if is_of_cluster { &[None] } else { &[Some(OPERATOR.0), Some("one"), Some("two")] };
        assert!(expected.contains(&namespace), "{kind} is in {namespace:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_look_like_numbers_stay_strings() {
    let mut values = values::everything();
    for (pointer, value) in [
        ("/watchNamespaces", json!(["1", "0x1f"])),
        ("/priorityClassName", json!("1e3")),
        ("/serviceAccount/name", json!("1.5")),
        ("/guardrails/allowedHosts/namespaces", json!({"1e3": ["graph.contoso.com"]})),
    ] {
        *values.pointer_mut(pointer).unwrap() = value;
    }
    let values = values.to_string();
    let release = ["template", "12", &chart(), "--namespace", "34", "--set", REGISTRY_VALUE, "--set-json", &values];
    let text = helm().await.run(&release).await.unwrap();
    let objects: Vec<Value> = text.split("\n---\n").map(|object| serde_yaml::from_str(object).unwrap()).collect();
    let mut namespaces = BTreeSet::new();
    for object in objects.iter().filter(|object| !object.is_null()) {
        let metadata = &object["metadata"];
        namespaces.extend(metadata.get("namespace").map(|namespace| namespace.as_str().unwrap()));
        for label in metadata["labels"].as_object().into_iter().flat_map(|labels| labels.values()) {
            assert!(label.is_string(), "{metadata}");
        }
        for subject in object["subjects"].as_array().into_iter().flatten() {
            assert_eq!([&subject["name"], &subject["namespace"]], ["1.5", "34"]);
        }
    }
    assert_eq!(namespaces, BTreeSet::from(["0x1f", "1", "34"]));
    let pods = &one(&objects, "Deployment")["spec"]["template"]["spec"];
    assert_eq!([&pods["priorityClassName"], &pods["serviceAccountName"]], ["1e3", "1.5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_charts_own_labels_and_annotations_win_and_occur_once() {
    let taken = json!({"helm.sh/chart": "x", "team": "a"});
    let annotations = json!({"kubectl.kubernetes.io/default-container": "x", "team.example/note": "a"});
    let labelled = json!({"create": true, "labels": taken});
    let objects = render(&json!({
        "podLabels": taken,
        "podAnnotations": annotations,
        "monitoring": {"serviceMonitor": labelled, "prometheusRule": labelled, "grafanaDashboard": labelled},
    }))
    .await;
    let pod = &one(&objects, "Deployment")["spec"]["template"]["metadata"];
    let kinds = ["ServiceMonitor", "PrometheusRule", "ConfigMap"];
    let labels = kinds.iter().map(|kind| &one(&objects, kind)["metadata"]["labels"]).chain([&pod["labels"]]);
    for labels in labels {
        assert!(labels["helm.sh/chart"].as_str().unwrap().starts_with("mcp-entra-"), "{labels}");
        assert_eq!(labels["team"], "a");
    }
    assert_eq!(pod["annotations"]["kubectl.kubernetes.io/default-container"], "operator");
    assert_eq!(pod["annotations"]["team.example/note"], "a");
}
