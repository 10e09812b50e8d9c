//! Tests that alerts and dashboard use exported metrics, and that each alert has instructions.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use mcp_entra_server::telemetry;
use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::{Value, json};
use testbed::stack::repository;

use crate::guardrails::cluster::Guarded;
use crate::openapi::render;
use crate::values;

/// Labels that a scrape adds.
const OF_A_SCRAPE: [&str; 2] = ["namespace", "pod"];

/// Labels of each exported metric.
type Exported = BTreeMap<String, BTreeSet<String>>;

/// Parses the metrics of the text format, with the names that Prometheus uses.
fn read(text: &str, into: &mut Exported) {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
        // Our label values have no comma and no equals sign.
        let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        into.entry(name.to_owned()).or_default().extend(labels);
    }
}

async fn exported() -> Exported {
    let mut exported = Exported::new();
    read(&Guarded::get().await.metrics().await, &mut exported);
    let metrics = telemetry::Metrics::default();
    metrics.count("tools/call", "refused", "not_granted", Duration::from_millis(1));
    let status = json!({
        "version": "1", "policy": {"revision": null, "error": null},
        "federation": {"identity": null, "works": null, "message": null, "lastProbe": null},
        "keys": {"count": 0, "ageSeconds": null},
    });
    read(&metrics.encode(&serde_json::from_value(status).unwrap()).unwrap(), &mut exported);
    exported
}

/// Returns the metrics in an expression, each with its label matchers.
#[derive(Default)]
struct Asked(Vec<(String, Vec<String>)>);

impl Asked {
    fn of(expression: &str) -> Self {
        let parsed = parser::parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let mut asked = Self::default();
        let Ok(_) = walk_expr(&mut asked, &parsed);
        assert!(!asked.0.is_empty(), "{expression} uses no metric");
        asked
    }

    fn add(&mut self, selector: &VectorSelector) {
        let labels = selector.matchers.matchers.iter().map(|matcher| matcher.name.clone());
        self.0.push((selector.name.clone().unwrap_or_default(), labels.collect()));
    }
}

impl ExprVisitor for Asked {
    type Error = Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Infallible> {
        match expression {
            Expr::VectorSelector(selector) => self.add(selector),
            Expr::MatrixSelector(range) => self.add(&range.vs),
            _ => {}
        }
        Ok(true)
    }
}

#[track_caller]
fn assert_exported(exported: &Exported, expression: &str) {
    for (metric, labels) in Asked::of(expression).0 {
        let known = exported.get(&metric).unwrap_or_else(|| panic!("{metric} is not exported: {expression}"));
        for label in labels {
            assert!(known.contains(&label) || OF_A_SCRAPE.contains(&&*label), "{metric} has no {label}: {expression}");
        }
    }
}

async fn rendered(kind: &str, name: &str) -> Value {
    let all = render(&values::everything(), "1.37.0").await;
    all.into_iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name).unwrap()
}

async fn alerts() -> Vec<Value> {
    let rule = rendered("PrometheusRule", "mcp-entra-operator").await;
    let groups = rule["spec"]["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_uses_exported_metrics_in_the_namespace_of_the_release() {
    let exported = exported().await;
    for alert in alerts().await {
        let expression = alert["expr"].as_str().unwrap();
        assert_exported(&exported, expression);
        let operators = expression.contains("mcp_entra_operator_");
        assert_eq!(operators, expression.contains("namespace=\"mcp-entra-system\""), "{expression}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_uses_exported_metrics() {
    let exported = exported().await;
    let dashboard = rendered("ConfigMap", "mcp-entra-operator-dashboard").await;
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard: Value = serde_json::from_str(dashboard["data"]["mcp-entra.json"].as_str().unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let targets: Vec<&Value> = panels.flat_map(|panel| panel["targets"].as_array().unwrap()).collect();
    assert!(targets.len() > 15);
    for target in targets {
        assert_exported(&exported, &target["expr"].as_str().unwrap().replace("$__rate_interval", "5m"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exported_metric_is_in_an_alert_or_a_panel() {
    let shown = fs::read_to_string(repository("charts/mcp-entra/dashboards/mcp-entra.json")).unwrap()
        + &fs::read_to_string(repository("charts/mcp-entra/alerts/mcp-entra.yaml")).unwrap();
    let ours = exported().await.into_keys().filter(|metric| !metric.ends_with("_sum") && !metric.ends_with("_count"));
    let idle: Vec<String> = ours.filter(|metric| !shown.contains(metric)).collect();
    assert!(idle.is_empty(), "{idle:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_names_the_problem_the_next_step_and_a_document() {
    let alerts = alerts().await;
    let names: BTreeSet<&str> = alerts.iter().map(|alert| alert["alert"].as_str().unwrap()).collect();
    assert_eq!(names.len(), alerts.len());
    for alert in &alerts {
        let annotation = |name: &str| alert["annotations"][name].as_str().unwrap();
        assert!(!annotation("summary").is_empty() && annotation("description").len() > 60, "{alert}");
        assert!(alert["for"].is_string() && alert["labels"]["severity"].is_string(), "{alert}");
        let (file, term) = annotation("runbook").split_once(": ").unwrap();
        let page = fs::read_to_string(repository(file)).unwrap();
        assert!(page.contains(&format!("`{term}`")), "{file} does not mention {term}");
    }
}

#[test]
fn missing_metrics_and_labels_are_found() {
    let mut exported = Exported::new();
    read("# TYPE a counter\na_total{kind=\"McpServer\",code=\"200\"} 1\nb 2\n", &mut exported);
    assert_exported(&exported, "sum by (kind) (rate(a_total{kind=\"x\",namespace=\"y\"}[5m])) > 0 and b");
    for wrong in ["rate(a[5m])", "c > 0", "b{kind=\"x\"}", "sum(rate(a_total{verb=\"x\"}[5m]))", "absent(c)", "sum(("] {
        assert!(std::panic::catch_unwind(|| assert_exported(&exported, wrong)).is_err(), "{wrong}");
    }
}
