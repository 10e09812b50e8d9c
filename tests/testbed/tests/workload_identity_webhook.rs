//! Tests of the azure-workload-identity webhook's contract, and of its pods on the node.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use serde_json::{Value, json};
use testbed::shared::Shared;
use testbed::workload_identity_webhook::WorkloadIdentityWebhook;

use crate::node::{Bed, shell};
use crate::{control_plane, until};

fn webhook() {
    static WEBHOOK: Shared<WorkloadIdentityWebhook> = Shared::new();
    WEBHOOK
        .get_or_start(async || {
            WorkloadIdentityWebhook::start(control_plane().client()?, "the-tenant", "https://login.example/").await
        })
        .unwrap();
}

/// Runs a pod of the account `graph` that prints its environment, and returns the output.
async fn printed(bed: &Bed, name: &str, labels: Value) -> Vec<String> {
    let script = r#"echo "$AZURE_CLIENT_ID"; echo "$AZURE_TENANT_ID"; echo "$AZURE_AUTHORITY_HOST"; \
        cat "$AZURE_FEDERATED_TOKEN_FILE"; echo; echo end; sleep 100"#;
    let mut container = shell(script);
    container["env"] = json!([{ "name": "AZURE_TENANT_ID", "value": "my own" }]);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": labels },
        "spec": {
            "serviceAccountName": "graph", "containers": [container],
            "nodeSelector": { "kubernetes.io/hostname": bed.namespace },
        },
    }))
    .unwrap();
    bed.api().create(&PostParams::default(), &pod).await.unwrap();
    let mut lines = Vec::new();
    until(&format!("{name} has printed everything"), async || {
        let log = bed.node.logs(&bed.namespace, name).unwrap_or_default();
        lines = log.lines().map(str::to_owned).collect();
        lines.last().is_some_and(|last| last == "end")
    })
    .await;
    lines
}

#[tokio::test]
async fn only_a_pod_with_the_label_gets_the_token_and_the_variables_of_its_account() {
    webhook();
    let bed = Bed::start().await;
    let annotations = json!({
        "azure.workload.identity/client-id": "the-client",
        "azure.workload.identity/service-account-token-expiration": "7200",
    });
    bed.create::<ServiceAccount>(json!({ "metadata": { "name": "graph", "annotations": annotations } })).await;
    let lines = printed(&bed, "with", json!({ "azure.workload.identity/use": "true" })).await;
    let [client, tenant, authority, token, _] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!([client, authority], ["the-client", "https://login.example/"]);
    assert_eq!(tenant, "my own", "variables of the pod itself stay");
    let payload = token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok()).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["aud"], json!(["api://AzureADTokenExchange"]));
    assert_eq!(claims["sub"], format!("system:serviceaccount:{}:graph", bed.namespace));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 7200);
    let pod = bed.pod("with").await;
    let file = pod.spec.unwrap().containers[0].env.clone().unwrap();
    let file = file.iter().find(|variable| variable.name == "AZURE_FEDERATED_TOKEN_FILE").unwrap();
    assert_eq!(file.value.as_deref(), Some("/var/run/secrets/azure/wi/token/azure-identity-token"));

    let lines = printed(&bed, "without", json!({ "azure.workload.identity/use": "false" })).await;
    assert_eq!(lines.first().map(String::as_str), Some(""), "{lines:?}");
    assert!(
        bed.pod("without").await.spec.unwrap().volumes.unwrap().iter().all(|one| one.name != "azure-identity-token")
    );
    bed.stop().await;
}
