//! Tests of refused values, and their error messages.

use std::{collections::BTreeSet, fs};

use testbed::chart::{REGISTRY_VALUE, chart};
use testbed::helm::Helm;
use testbed::stack::repository;
use testbed::supervisor::Supervisor;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Values that are unknown, contradict each other, or have the wrong type, with the part that the refusal names.
const REFUSED: [(&str, &str); 40] = [
    (r#"{"unknown": 1}"#, "additional properties 'unknown'"),
    (r#"{"image": {"tag": "1"}}"#, "additional properties 'tag'"),
    (r#"{"image": {"registry": "https://images.contoso.com"}}"#, "/image/registry"),
    (r#"{"image": {"registry": "registry.contoso.com/"}}"#, "/image/registry"),
    (r#"{"image": {"pullPolicy": "Sometimes"}}"#, "/image/pullPolicy"),
    (r#"{"image": {"operator": {"repository": ""}}}"#, "/image/operator/repository"),
    (r#"{"image": {"operator": {"tag": "1", "digest": "DIGEST"}}}"#, "/image/operator/tag"),
    (r#"{"image": {"server": {"tag": "1", "digest": "DIGEST"}}}"#, "/image/server/tag"),
    (r#"{"image": {"server": {"digest": "sha256:0123"}}}"#, "/image/server/digest"),
    (r#"{"imagePullSecrets": ["registry"]}"#, "/imagePullSecrets/0"),
    (r#"{"crds": {"enabled": true}}"#, "additional properties 'enabled'"),
    (r#"{"crds": {"install": "yes"}}"#, "/crds/install"),
    (r#"{"watchNamespaces": ["Team"]}"#, "/watchNamespaces/0"),
    (r#"{"watchNamespaces": ["team", "team"]}"#, "/watchNamespaces"),
    (r#"{"watchNamespaces": "team"}"#, "/watchNamespaces"),
    (r#"{"allowedHosts": ["https://mcp.contoso.com"]}"#, "/allowedHosts/0"),
    (r#"{"allowedHosts": ["*.*"]}"#, "/allowedHosts/0"),
    (r#"{"allowedAuthorities": ["http://login.contoso.com"]}"#, "/allowedAuthorities/0"),
    (r#"{"allowedBackendSecrets": ["database"]}"#, "/allowedBackendSecrets/0"),
    (r#"{"allowedBackendSecrets": ["team/*"]}"#, "/allowedBackendSecrets/0"),
    (r#"{"allowedBackendSecrets": ["team/a/b"]}"#, "/allowedBackendSecrets/0"),
    (r#"{"allowedGraphs": ["https://graph.contoso.com/v1.0"]}"#, "/allowedGraphs/0"),
    (r#"{"trustedProxies": ["10.0.0.0"]}"#, "/trustedProxies/0"),
    (r#"{"trustedProxies": ["10.0.0.0/33"]}"#, "/trustedProxies/0"),
    (r#"{"trustedProxies": ["256.0.0.0/8"]}"#, "/trustedProxies/0"),
    (r#"{"podMonitors": {"label": "release=prometheus"}}"#, "/podMonitors/label"),
    (r#"{"podMonitors": {"create": true, "label": "prometheus"}}"#, "/podMonitors/label"),
    (r#"{"podProxyUrl": "proxy:3128"}"#, "/podProxyUrl"),
    (r#"{"upgradesAtOnce": 0}"#, "/upgradesAtOnce"),
    (r#"{"leaseDurationSeconds": 2}"#, "/leaseDurationSeconds"),
    (r#"{"logFormat": "xml"}"#, "/logFormat"),
    (r#"{"env": [{"name": "POD_NAMESPACE", "value": "other"}]}"#, "/env/0/name"),
    (r#"{"replicas": 0}"#, "/replicas"),
    (r#"{"podDisruptionBudget": {"minAvailable": 1}}"#, "additional properties 'minAvailable'"),
    (r#"{"podLabels": {"app.kubernetes.io/name": "other"}}"#, "/podLabels/app.kubernetes.io~1name"),
    (r#"{"priorityClassName": "a\n      hostNetwork: true"}"#, "/priorityClassName"),
    (r#"{"nodeSelector": {"gpu": true}}"#, "/nodeSelector/gpu"),
    (r#"{"serviceAccount": {"name": ""}}"#, "/serviceAccount/name"),
    (r#"{"networkPolicy": {"apiServerPorts": []}}"#, "/networkPolicy/apiServerPorts"),
    (r#"{"networkPolicy": {"apiServerCidrs": ["fd00::/129"]}}"#, "/networkPolicy/apiServerCidrs/0"),
];

async fn helm() -> Helm {
    Helm::offline(&Supervisor::start().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_contradictory_and_malformed_values_are_refused_by_name() {
    let helm = helm().await;
    for (values, named) in REFUSED {
        let values = values.replace("DIGEST", DIGEST);
        let template = ["template", "mcp-entra", &chart(), "--set-json", &values];
        let refusal = helm.refused(&template).await.unwrap();
        assert!(refusal.contains("don't meet the specifications") && refusal.contains(named), "{values}: {refusal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_the_installation_fails_and_names_the_value() {
    let refusal = helm().await.refused(&["template", "mcp-entra", &chart()]).await.unwrap();
    assert!(refusal.contains("--set image.registry=registry.example.com/platform"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_policy_that_would_block_the_configured_prometheus_is_refused() {
    let helm = helm().await;
    let (scraped, confined) = ("--set=monitoring.serviceMonitor.create=true", "--set=networkPolicy.create=true");
    let chart = chart();
    let template = ["template", "mcp-entra", &chart, "--set", REGISTRY_VALUE];
    let both = [&template[..], &[scraped, confined]].concat();
    let refusal = helm.refused(&both).await.unwrap();
    assert!(refusal.contains("--set 'monitoringNamespaces={monitoring}'"), "{refusal}");
    helm.run(&[&both[..], &["--set=monitoringNamespaces={monitoring}"]].concat()).await.unwrap();
    for one in [scraped, confined] {
        helm.run(&[&template[..], &[one]].concat()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_chart_without_the_definitions_fails() {
    let supervisor = Supervisor::start().unwrap();
    let copy = supervisor.folder().join("mcp-entra-crds");
    fs::create_dir_all(copy.join("templates")).unwrap();
    for file in ["Chart.yaml", "values.yaml", "values.schema.json", "templates/definitions.yaml"] {
        fs::copy(repository(&format!("charts/mcp-entra-crds/{file}")), copy.join(file)).unwrap();
    }
    let helm = Helm::offline(&supervisor).await.unwrap();
    let refusal = helm.refused(&["template", "crds", &copy.display().to_string()]).await.unwrap();
    assert!(refusal.contains("Run `helm package`"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_value_of_the_chart_of_the_kinds_is_refused() {
    let chart = repository("charts/mcp-entra-crds");
    let refusal = helm().await.refused(&["template", "crds", &chart, "--set=kept=true"]).await.unwrap();
    assert!(refusal.contains("additional properties 'kept'"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_an_older_chart_upgrade_or_fail_with_the_missing_value_and_the_flag() {
    let template = repository("charts/mcp-entra/templates/values/_with-defaults.tpl");
    let template = fs::read_to_string(template).unwrap();
    let paths = template.lines().nth(1).unwrap().split(' ');
    let helm = helm().await;
    // Each top-level key, as if this version had added it, and one below it.
    let mut tops: BTreeSet<&str> = paths.filter_map(|path| path.split('.').next()).collect();
    // The schema requires it before anything is rendered.
    tops.remove("image");
    for lacking in tops.into_iter().chain(["monitoring.serviceMonitor", "guardrails.refuseOrphaning.enabled"]) {
        let unset = format!("--set={lacking}=null");
        let template = ["template", "mcp-entra", &chart(), "--set", REGISTRY_VALUE, &unset];
        let refusal = helm.refused(&template).await.unwrap();
        assert!(refusal.contains(lacking) && refusal.contains("--reset-then-reuse-values"), "{lacking}: {refusal}");
    }
    // A value that is empty by default may be absent.
    let unset =
        ["template", "mcp-entra", &chart(), "--set", REGISTRY_VALUE, "--set=podLabels=null", "--set=affinity=null"];
    helm.run(&unset).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_that_depends_on_these_may_name_a_condition() {
    let helm = helm().await;
    let template = ["template", "mcp-entra", &chart(), "--set", REGISTRY_VALUE, "--set=enabled=true"];
    helm.run(&template).await.unwrap();
    helm.run(&["template", "crds", &repository("charts/mcp-entra-crds"), "--set=enabled=true"]).await.unwrap();
    let refusal = helm.refused(&[&template[..5], &["--set=enable=true"]].concat()).await.unwrap();
    assert!(refusal.contains("enable"), "{refusal}");
}
