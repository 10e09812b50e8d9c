//! Tests of TLS: exposures that could be served in plain text.

use serde_json::{Value, json};

use super::cluster::{Guarded, TEAM, mk_ingress, mk_server};
use super::requests::{Answer, assert_refused, create};

async fn ask(exposure: Value) -> Answer {
    let mut server = mk_server("tls");
    server["spec"]["exposure"] = exposure;
    create(&Guarded::get().await.person(), TEAM, &server, true).await
}

fn mk_gateway(ends_tls: bool) -> Value {
    let parent = json!({"name": "shared", "namespace": "infra", "sectionName": "https"});
    json!({
        "host": "tls.mcp.contoso.com", "gateway": {"parentRefs": [parent]}, "tls": {"terminatedByGateway": ends_tls},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_must_have_a_listed_class_that_serves_https_only() {
    ask(mk_ingress("tls.mcp.contoso.com")).await.unwrap();
    let mut plain = mk_ingress("tls.mcp.contoso.com");
    for class in [json!("nginx"), json!("https"), json!("https-only-not")] {
        plain["ingress"]["className"] = class.clone();
        assert_refused(ask(plain.clone()).await, "require-tls", class.as_str().unwrap());
    }
    plain["ingress"] = json!({});
    assert_refused(ask(plain).await, "require-tls", "the default class");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_terminates_tls_or_the_server_has_a_certificate() {
    ask(mk_gateway(true)).await.unwrap();
    assert_refused(ask(mk_gateway(false)).await, "require-tls", "must not be false");
    let mut own = mk_gateway(true);
    own["gateway"]["parentRefs"] = json!([{"name": "shared", "namespace": "infra"}]);
    own["tls"] = json!({"secretName": "graph-tls"});
    ask(own).await.unwrap();
    create(&Guarded::get().await.person(), TEAM, &mk_server("tls"), true).await.unwrap();
}
