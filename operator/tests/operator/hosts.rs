//! Tests of an operator that allows no host: it removes no exposure, and adds none.

use std::time::Duration;

use k8s_openapi::api::networking::v1::Ingress;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mcp_entra_crds::McpServer;
use mcp_entra_operator::RunError;
use serde_json::json;

use crate::harness::{Cluster, Operator, find, mk_server, status_of, until};

async fn until_ready(operator: &Operator) {
    until("the operator is ready", async || status_of(&operator.url, "/readyz").await == Some(200)).await;
}

async fn end(operator: Operator) {
    operator.shutdown.cancel();
    operator.ended.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_without_a_list_of_hosts_deletes_no_exposure_and_creates_none() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.plane.client().unwrap();
    let servers = Api::<McpServer>::namespaced(client.clone(), "default");
    let ingresses = Api::<Ingress>::namespaced(client, "default");
    let url = async || servers.get("graph").await.unwrap().status.and_then(|status| status.url);
    servers.patch("graph", &PatchParams::apply("kubectl"), &Patch::Apply(mk_server())).await.unwrap();
    let open = cluster.operator().await.unwrap();
    until("the server is exposed", async || {
        ingresses.get_opt("graph").await.unwrap().is_some() && url().await.is_some()
    })
    .await;
    end(open).await;

    let exposed = ingresses.get("graph").await.unwrap();
    let forgetful = cluster.operator_with(|options| options.allowed_hosts.clear()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), forgetful.ended).await.expect("it ends").unwrap();
    let error = ended.unwrap_err();
    assert!(matches!(error, RunError::NoHostAllowed(_)), "{error}");
    let host = servers.get("graph").await.unwrap().spec.exposure.unwrap().host;
    assert!(error.to_string().contains(&format!("allowedHosts: [\"{host}\"]")), "{error}");
    assert_eq!(ingresses.get("graph").await.unwrap().metadata.resource_version, exposed.metadata.resource_version);

    // Without exposed servers it runs, and refuses new requests. A restart does not count a request as an exposure.
    let hidden = json!({"spec": {"exposure": null}});
    let exposure = mk_server()["spec"]["exposure"].clone();
    let open = cluster.operator().await.unwrap();
    servers.patch("graph", &PatchParams::default(), &Patch::Merge(hidden)).await.unwrap();
    until("nothing is exposed", async || ingresses.get_opt("graph").await.unwrap().is_none() && url().await.is_none())
        .await;
    end(open).await;
    for _ in 0..2 {
        let closed = cluster.operator_with(|options| options.allowed_hosts.clear()).await.unwrap();
        until_ready(&closed).await;
        let asked = json!({"spec": {"exposure": exposure}});
        servers.patch("graph", &PatchParams::default(), &Patch::Merge(asked)).await.unwrap();
        until("the host is refused", async || {
            let status = servers.get("graph").await.unwrap().status.unwrap();
            let accepted = find(&status.conditions, "Accepted").unwrap();
            accepted.reason == "HostNotAllowed" && accepted.message.contains("allowedHosts")
        })
        .await;
        assert!(ingresses.get_opt("graph").await.unwrap().is_none());
        assert_eq!(url().await, None);
        end(closed).await;
    }
}
