//! Tests of pods' reports, and of nudges.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;
use mcp_entra_crds::McpServer;
use mcp_entra_policy::revision;
use serde_json::json;

use crate::harness::{Space, find, mk_mapping, mk_server, until};

const REVISION: &str = "mcp-entra.dev/policy-revision";

#[tokio::test]
async fn federation_is_ready_while_every_ready_pods_last_probe_worked() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("FederationReady", "Unknown", "NoReadyPods").await;
    let (one, two) = (space.pod("one").await, space.pod("two").await);
    space.condition("FederationReady", "True", "ExchangeWorks").await;
    let issuer = || async { space.get::<McpServer>("graph").await.unwrap().status.unwrap().federation.unwrap().issuer };
    assert_eq!(issuer().await.as_deref(), Some("https://issuer.example/"));

    two.says(|report| {
        report.federation.works = Some(false);
        report.federation.message = Some("AADSTS70025: no credential; create it with the issuer above".into());
    });
    let failed = space.condition("FederationReady", "False", "ExchangeFailed").await;
    assert!(failed.message.contains("pod two, with the message: “AADSTS70025: no credential"), "{}", failed.message);

    two.says(|report| report.federation.works = Some(true));
    space.condition("FederationReady", "True", "ExchangeWorks").await;
    for pod in [&one, &two] {
        space.kill(&pod.name).await;
    }
    space.condition("FederationReady", "Unknown", "NoReadyPods").await;
    assert_eq!(issuer().await.as_deref(), Some("https://issuer.example/"), "the issuer stays known");
}

#[tokio::test]
async fn a_pod_with_an_old_policy_is_nudged_with_new_values_until_it_enforces_the_new_one() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    let pod = space.pod("one").await;
    pod.enforces(&space.policy().await);
    space.condition("AuthorizationReady", "True", "PolicyEnforced").await;
    space.quiet().await;

    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    let mut values = Vec::new();
    until("it was nudged three times", async || {
        let value = space.get::<Pod>("one").await.unwrap().annotations().get(REVISION).cloned();
        if values.last() != Some(&value) {
            values.push(value);
        }
        values.iter().flatten().count() >= 3
    })
    .await;
    space.condition("AuthorizationReady", "False", "PolicyLagging").await;

    pod.enforces(&space.policy().await);
    space.condition("AuthorizationReady", "True", "PolicyEnforced").await;
    space.quiet().await;
    let mark = space.mark();
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert_eq!(space.writes(mark).await, [], "a pod that enforces the policy is unchanged");
}

#[tokio::test]
async fn a_policy_that_arrives_within_the_grace_changes_no_condition() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    let pod = space.pod("one").await;
    pod.enforces(&space.policy().await);
    let before = space.condition("AuthorizationReady", "True", "PolicyEnforced").await;

    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    // It may have been nudged towards the policy before that, too.
    until("it was nudged towards the new policy", async || {
        let policy = space.policy().await;
        let annotations = space.get::<Pod>("one").await.unwrap().annotations().clone();
        let nudged = annotations.get(REVISION).is_some_and(|value| value.starts_with(&revision(policy.as_bytes())));
        policy.contains("Mcp.Reader") && nudged
    })
    .await;
    pod.enforces(&space.policy().await);
    space.quiet().await;
    let status = space.get::<McpServer>("graph").await.unwrap().status.unwrap();
    let after = find(&status.conditions, "AuthorizationReady").unwrap();
    assert_eq!((after.status.as_str(), after.last_transition_time), ("True", before.last_transition_time));
}

#[tokio::test]
async fn an_unreadable_policy_is_reported_with_the_pods_message() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    let pod = space.pod("one").await;
    pod.says(|report| report.policy.error = Some("unknown field `deny`".into()));
    let failed = space.condition("AuthorizationReady", "False", "PolicyUnreadable").await;
    assert!(failed.message.contains("unknown field `deny`"), "{}", failed.message);
}

#[tokio::test]
async fn a_pod_that_only_has_the_labels_is_neither_trusted_nor_nudged() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    let labels = space.get::<Deployment>("graph").await.unwrap().spec.unwrap().template.metadata.unwrap().labels;
    let namesake = json!({"labels": labels, "annotations": {"mcp-entra.dev/server-uid": "a-deleted-one"}});
    space.pod_like("namesake", &namesake).await;
    space.pod_like("stranger", &json!({"labels": labels})).await;
    space.quiet().await;
    for name in ["namesake", "stranger"] {
        assert!(!space.get::<Pod>(name).await.unwrap().annotations().contains_key(REVISION));
    }
    space.condition("FederationReady", "Unknown", "NoReadyPods").await;
}

#[tokio::test]
async fn a_pod_with_an_older_configuration_does_not_count_for_the_newest() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.pod("one").await;
    space.condition("FederationReady", "True", "ExchangeWorks").await;
    space.edit::<McpServer>("graph", json!({"spec": {"entra": {"requiredScopes": ["other"]}}})).await;
    space.condition("FederationReady", "Unknown", "NoReadyPods").await;
    let one = space.get::<Pod>("one").await.unwrap();
    assert!(one.metadata.deletion_timestamp.is_none(), "it is there and ready, but of another configuration");
    space.pod("two").await;
    space.condition("FederationReady", "True", "ExchangeWorks").await;
}

#[tokio::test]
async fn the_servers_status_follows_any_report_of_a_pod() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    let pod = space.pod("one").await;
    pod.enforces(&space.policy().await);
    let mut good = None;
    pod.says(|report| good = Some(serde_json::to_value(&*report).unwrap()));
    let mut good = good.unwrap();
    good["graph"]["missingPermissions"] = json!(["User.Read"]);
    // Members that are absent in a healthy report.
    for pointer in ["/policy/error", "/federation/message", "/federation/lastProbe", "/keys/error"] {
        *good.pointer_mut(pointer).unwrap() = json!("fine");
    }
    let fields = strings(&good, "");
    assert_eq!(fields.len(), 10, "{fields:?}");
    let hostile = format!("\u{1b}[2J\u{202e}\r\n”; all is well\u{0}{}", "x".repeat(40_000));
    for field in fields {
        let mut bad = good.clone();
        *bad.pointer_mut(&field).unwrap() = json!(hostile);
        for works in [false, true] {
            bad["federation"]["works"] = json!(works);
            pod.says(|report| *report = serde_json::from_value(bad.clone()).unwrap());
            let (state, reason) = if works { ("True", "ExchangeWorks") } else { ("False", "ExchangeFailed") };
            space.condition("FederationReady", state, reason).await;
            let server = space.get::<McpServer>("graph").await.unwrap();
            let ready = find(&server.status.as_ref().unwrap().conditions, "Ready").unwrap();
            assert_eq!(ready.status, "False", "{field}: {ready:?}");
            let status = serde_json::to_value(server.status).unwrap();
            for pointer in strings(&status, "") {
                let text = status.pointer(&pointer).unwrap().as_str().unwrap();
                assert!(
                    !text.contains(['\n', '\u{1b}', '\u{202e}']) && text.len() < 5000,
                    "{field}: {pointer}: {text}"
                );
                assert!(!text.contains("”; all is well"), "no quotation ends early: {field}: {pointer}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_ready_server_becomes_unready_when_its_pod_reports_a_failure_of_any_length() {
    let space = Space::new().await;
    let mut server = mk_server();
    server["spec"].as_object_mut().unwrap().remove("exposure");
    space.apply(server).await;
    let name = space.bound_pod().await;
    let pod = space.runs(&name).await;
    pod.enforces(&space.policy().await);
    pod.says(|report| report.federation.works = Some(true));
    space.condition("Ready", "True", "Ready").await;
    pod.says(|report| {
        report.federation.works = Some(false);
        report.federation.message = Some("x".repeat(40_000));
    });
    space.condition("Ready", "False", "ExchangeFailed").await;
}

/// Returns the places of texts in a document.
fn strings(value: &serde_json::Value, at: &str) -> Vec<String> {
    match value {
        serde_json::Value::String(_) => vec![at.to_owned()],
        serde_json::Value::Array(items) => {
            items.iter().enumerate().flat_map(|(number, item)| strings(item, &format!("{at}/{number}"))).collect()
        }
        serde_json::Value::Object(members) => {
            members.iter().flat_map(|(name, member)| strings(member, &format!("{at}/{name}"))).collect()
        }
        _ => Vec::new(),
    }
}
