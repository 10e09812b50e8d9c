//! Tests of exposure with the real kinds of Gateway API and cert-manager. The tests write status as their controllers
//! do.

use k8s_openapi::{api::networking::v1::Ingress, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    discovery::ApiResource,
};
use mcp_entra_crds::McpServer;
use serde_json::{Value, json};

use crate::harness::{Cluster, Space, find, mk_server, until};

pub(crate) fn api(space: &Space, kind: &str) -> Api<DynamicObject> {
    let (group, plural) = match kind {
        "Certificate" => ("cert-manager.io", "certificates"),
        "HTTPRoute" => ("gateway.networking.k8s.io", "httproutes"),
        "ListenerSet" => ("gateway.networking.k8s.io", "listenersets"),
        _ => ("gateway.networking.k8s.io", "gateways"),
    };
    let resource = ApiResource {
        group: group.into(),
        version: "v1".into(),
        api_version: format!("{group}/v1"),
        kind: kind.into(),
        plural: plural.into(),
    };
    Api::namespaced_with(space.client.clone(), &space.name, &resource)
}

pub(crate) async fn get(space: &Space, kind: &str, name: &str) -> Option<DynamicObject> {
    api(space, kind).get_opt(name).await.unwrap()
}

/// Waits for the object, and returns it.
pub(crate) async fn there(space: &Space, kind: &str, name: &str) -> DynamicObject {
    until(&format!("{kind} {name} is there"), async || get(space, kind, name).await.is_some()).await;
    get(space, kind, name).await.unwrap()
}

/// Writes a status as a controller does.
pub(crate) async fn say(space: &Space, kind: &str, name: &str, status: Value) {
    let patch = json!({"status": status});
    api(space, kind).patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

pub(crate) fn told(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": message,
           "lastTransitionTime": "2026-11-25T09:00:00Z"})
}

pub(crate) fn gateway(protocol: &str) -> Value {
    let tls = json!({"certificateRefs": [{"name": "edge-tls"}]});
    let listener = match protocol {
        "HTTPS" => json!({"name": "web", "port": 443, "protocol": "HTTPS", "tls": tls}),
        _ => json!({"name": "web", "port": 80, "protocol": "HTTP"}),
    };
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "shared"},
           "spec": {"gatewayClassName": "none", "listeners": [listener]}})
}

/// A server with this exposure, on its own host.
fn mk_exposed(exposure: Value) -> Value {
    let mut server = mk_server();
    let host = server["spec"]["exposure"]["host"].clone();
    server["spec"]["exposure"] = exposure;
    server["spec"]["exposure"]["host"] = host;
    server
}

pub(crate) fn by_listener() -> Value {
    mk_exposed(json!({"gateway": {"parentRefs": [{"name": "shared", "sectionName": "web"}]},
                      "tls": {"terminatedByGateway": true}}))
}

pub(crate) fn by_own_listener() -> Value {
    mk_exposed(json!({"gateway": {"parentRefs": [{"name": "shared"}]}, "tls": {"issuerRef": {"name": "ca"}}}))
}

pub(crate) async fn answer(space: &Space, name: &str, parent: Value, accepted: Value) {
    let resolved = told("ResolvedRefs", "True", "ResolvedRefs", "");
    let parents =
        json!([{"parentRef": parent, "controllerName": "edge.example/c", "conditions": [accepted, resolved]}]);
    say(space, "HTTPRoute", name, json!({"parents": parents})).await;
}

#[tokio::test]
async fn a_route_is_exposed_while_every_gateway_accepts_it_and_the_message_of_each_is_quoted() {
    let space = Space::new().await;
    space.apply(gateway("HTTPS")).await;
    space.apply(by_listener()).await;
    there(&space, "HTTPRoute", "graph").await;
    let pending = space.condition("Exposed", "False", "RoutePending").await;
    assert!(pending.message.contains("Gateway shared (listener web) has not reported"), "{}", pending.message);

    let parent =
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "shared", "sectionName": "web"});
    answer(&space, "graph", parent.clone(), told("Accepted", "True", "Accepted", "")).await;
    let exposed = space.condition("Exposed", "True", "RouteAccepted").await;
    assert!(exposed.message.contains("Gateway shared"), "{}", exposed.message);
    assert!(space.get::<Ingress>("graph").await.is_none());

    let refused = told("Accepted", "False", "NotAllowedByListeners", "this namespace is not welcome");
    answer(&space, "graph", parent, refused).await;
    let rejected = space.condition("Exposed", "False", "RouteRejected").await;
    assert!(
        rejected.message.contains("NotAllowedByListeners: “this namespace is not welcome”; ask"),
        "{}",
        rejected.message
    );
    let conditions = space.get::<McpServer>("graph").await.unwrap().status.unwrap().conditions;
    assert_eq!(find(&conditions, "Ready").unwrap().status, "False");
}

#[tokio::test]
async fn a_listener_that_does_not_terminate_tls_is_refused_and_a_route_to_it_is_deleted() {
    let space = Space::new().await;
    space.apply(gateway("HTTPS")).await;
    space.apply(by_listener()).await;
    space.condition("Accepted", "True", "Accepted").await;
    there(&space, "HTTPRoute", "graph").await;
    space.apply(gateway("HTTP")).await;
    let refused = space.condition("Accepted", "False", "TlsRequired").await;
    assert!(refused.message.contains("listener web of Gateway"), "{}", refused.message);
    until("the route is gone", async || get(&space, "HTTPRoute", "graph").await.is_none()).await;
    space.apply(gateway("HTTPS")).await;
    there(&space, "HTTPRoute", "graph").await;
}

#[tokio::test]
async fn a_missing_listener_gets_no_route_and_a_route_to_a_removed_one_is_deleted() {
    let space = Space::new().await;
    space.apply(by_listener()).await;
    let pending = space.condition("Exposed", "False", "GatewayNotFound").await;
    assert!(pending.message.contains(&format!("there is no Gateway {}/shared,", space.name)), "{}", pending.message);
    space.condition("Accepted", "True", "Accepted").await;
    space.condition("Programmed", "True", "Applied").await;
    assert!(get(&space, "HTTPRoute", "graph").await.is_none());
    space.apply(gateway("HTTPS")).await;
    there(&space, "HTTPRoute", "graph").await;
    let mut renamed = gateway("HTTPS");
    renamed["spec"]["listeners"][0]["name"] = json!("webs");
    space.apply(renamed).await;
    until("the route is gone", async || get(&space, "HTTPRoute", "graph").await.is_none()).await;
    until("the missing listener is named", async || {
        let pending = space.condition("Exposed", "False", "GatewayNotFound").await;
        pending.message.contains("no listener web of Gateway")
    })
    .await;
}

#[tokio::test]
async fn the_servers_own_listener_and_certificate_are_reported_until_they_work_and_afterwards() {
    let space = Space::new().await;
    space.apply(gateway("HTTPS")).await;
    space.apply(by_own_listener()).await;
    let certificate = there(&space, "Certificate", "graph-tls").await;
    assert_eq!(certificate.data["spec"]["issuerRef"]["kind"], "Issuer");
    space.condition("CertificateReady", "False", "CertificatePending").await;
    space.condition("Exposed", "False", "RoutePending").await;

    let set = there(&space, "ListenerSet", "graph").await;
    assert_eq!(set.data["spec"]["parentRef"]["name"], "shared");
    let missing = told("ResolvedRefs", "False", "InvalidCertificateRef", "Secret graph-tls does not exist");
    let listener = |conditions: Value| json!([{"name": "https", "attachedRoutes": 0, "supportedKinds": [], "conditions": conditions}]);
    let accepted = || json!([told("Accepted", "True", "Accepted", "")]);
    say(&space, "ListenerSet", "graph", json!({"conditions": accepted(), "listeners": listener(json!([missing]))}))
        .await;
    let waiting = space.condition("Exposed", "False", "CertificatePending").await;
    assert!(waiting.message.contains("Gateway shared waits for the certificate"), "{}", waiting.message);

    let until = |seconds: i64| Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap().to_string();
    let valid = |ready: Value, not_after: String| json!({"conditions": [ready], "notAfter": not_after, "renewalTime": not_after});
    say(&space, "Certificate", "graph-tls", valid(told("Ready", "True", "Ready", "up to date"), until(3600))).await;
    space.condition("CertificateReady", "True", "CertificateValid").await;
    let rejected = space.condition("Exposed", "False", "ListenerRejected").await;
    assert!(rejected.message.contains("Secret graph-tls does not exist"), "{}", rejected.message);
    say(&space, "ListenerSet", "graph", json!({"conditions": accepted(), "listeners": listener(accepted())})).await;
    let parent =
        json!({"group": "gateway.networking.k8s.io", "kind": "ListenerSet", "name": "graph", "sectionName": "https"});
    answer(&space, "graph", parent, told("Accepted", "True", "Accepted", "")).await;
    space.condition("Exposed", "True", "RouteAccepted").await;
    space.condition("Programmed", "True", "Applied").await;
    space.quiet().await;

    // No event announces its expiry.
    say(&space, "Certificate", "graph-tls", valid(told("Ready", "True", "Ready", "up to date"), until(2))).await;
    space.condition("CertificateReady", "False", "CertificateExpired").await;
    let failed = told("Ready", "False", "DoesNotExist", "the order was denied");
    say(&space, "Certificate", "graph-tls", json!({"conditions": [failed], "notAfter": null, "renewalTime": null}))
        .await;
    let failed = space.condition("CertificateReady", "False", "CertificateFailed").await;
    assert!(failed.message.contains("the order was denied"), "{}", failed.message);
}

#[tokio::test]
async fn a_younger_server_of_the_host_shares_the_older_ones_listener_and_gets_its_own_after_its_deletion() {
    let space = Space::new().await;
    space.apply(gateway("HTTPS")).await;
    let older = by_own_listener();
    let host = older["spec"]["exposure"]["host"].clone();
    space.apply(older).await;
    there(&space, "ListenerSet", "graph").await;
    let mut younger = by_own_listener();
    // Also the younger one by name, in case both are created within a second.
    younger["metadata"]["name"] = json!("younger");
    younger["spec"]["exposure"]["host"] = host;
    younger["spec"]["exposure"]["path"] = json!("/younger");
    space.apply(younger).await;
    let route = there(&space, "HTTPRoute", "younger").await;
    assert_eq!(route.data["spec"]["parentRefs"][0]["name"], "graph");
    space.condition_of("younger", "Programmed", "True", "Applied").await;
    assert!(get(&space, "ListenerSet", "younger").await.is_none());
    assert!(get(&space, "Certificate", "younger-tls").await.is_none());
    space.delete::<McpServer>("graph").await;
    there(&space, "ListenerSet", "younger").await;
    until("it uses its own listener", async || {
        get(&space, "HTTPRoute", "younger").await.unwrap().data["spec"]["parentRefs"][0]["name"] == "younger"
    })
    .await;
}

#[tokio::test]
async fn from_ingress_to_gateway_the_new_exposure_works_before_the_old_one_is_deleted() {
    let space = Space::new().await;
    space.apply(gateway("HTTPS")).await;
    let mut server = mk_server();
    server["spec"]["exposure"]["ingress"]["annotations"] = json!({"edge.example/body-size": "1m"});
    space.apply(server).await;
    space.condition("Programmed", "True", "Applied").await;
    assert_eq!(space.get::<Ingress>("graph").await.unwrap().annotations()["edge.example/body-size"], "1m");
    let mark = space.mark();
    let exposure = json!({"ingress": null, "gateway": {"parentRefs": [{"name": "shared", "sectionName": "web"}]},
                          "tls": {"secretName": null, "terminatedByGateway": true}});
    space.edit::<McpServer>("graph", json!({"spec": {"exposure": exposure}})).await;
    until("the Ingress is gone", async || space.get::<Ingress>("graph").await.is_none()).await;
    let writes: Vec<_> = space.writes(mark).await.into_iter().map(|write| (write.verb, write.resource)).collect();
    let at = |verb: &str, resource: &str| {
        writes.iter().position(|(found, of)| (found.as_str(), of.as_str()) == (verb, resource)).unwrap()
    };
    assert!(at("patch", "httproutes") < at("delete", "ingresses"), "{writes:?}");
}

#[tokio::test]
async fn an_annotation_that_the_operator_does_not_allow_is_not_passed_on() {
    let space = Space::new().await;
    let mut server = mk_server();
    server["spec"]["exposure"]["ingress"]["annotations"] =
        json!({"nginx.ingress.kubernetes.io/server-snippet": "evil"});
    space.apply(server).await;
    let refused = space.condition("Accepted", "False", "AnnotationsNotAllowed").await;
    assert!(refused.message.contains("--allowed-ingress-annotation="), "{}", refused.message);
    assert!(space.get::<Ingress>("graph").await.is_none());
}

#[tokio::test]
async fn a_parent_that_others_add_to_a_route_is_removed() {
    let space = Space::new().await;
    space.apply(gateway("HTTPS")).await;
    space.apply(by_listener()).await;
    let before = there(&space, "HTTPRoute", "graph").await.data["spec"].clone();
    space.condition("Programmed", "True", "Applied").await;
    space.quiet().await;
    let parent = json!([{"op": "add", "path": "/spec/parentRefs/-", "value": {"name": "public"}}]);
    let patch = Patch::Json::<()>(serde_json::from_value(parent).unwrap());
    api(&space, "HTTPRoute").patch("graph", &PatchParams::default(), &patch).await.unwrap();
    until("the parent is gone", async || there(&space, "HTTPRoute", "graph").await.data["spec"] == before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_kind_is_reported_and_its_installation_noticed_without_a_restart() {
    let cluster = Cluster::bare().await.unwrap();
    let client = cluster.plane.client().unwrap();
    let servers = Api::<McpServer>::namespaced(client.clone(), "default");
    let operator = cluster.operator().await.unwrap();
    servers.patch("graph", &PatchParams::apply("kubectl"), &Patch::Apply(by_own_listener())).await.unwrap();
    let reason = async |type_: &str| {
        let status = servers.get("graph").await.unwrap().status.unwrap_or_default();
        find(&status.conditions, type_).map(|condition| (condition.reason, condition.message))
    };
    for type_ in ["Programmed", "Exposed", "CertificateReady"] {
        until(&format!("{type_} names what is missing"), async || {
            reason(type_).await.is_some_and(|(reason, _)| reason == "KindNotServed")
        })
        .await;
    }
    let (_, message) = reason("Programmed").await.unwrap();
    assert!(
        message.contains("Certificate of cert-manager") && message.contains("HTTPRoute of Gateway API"),
        "{message}"
    );

    cluster.install_others().await.unwrap();
    until("everything is applied", async || reason("Programmed").await.unwrap().0 == "Applied").await;
    assert_eq!(reason("CertificateReady").await.unwrap().0, "CertificatePending");
    operator.shutdown.cancel();
    operator.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_host_that_a_server_no_longer_names_is_no_longer_routed_to_it_even_if_its_spec_is_refused() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    let elsewhere =
        json!({"spec": {"suspend": true, "exposure": {"host": format!("elsewhere.{}.example", space.name)}}});
    space.edit::<McpServer>("graph", elsewhere).await;
    until("the Ingress of the old host is gone", async || space.get::<Ingress>("graph").await.is_none()).await;
    space.condition("Programmed", "Unknown", "Suspended").await;
    space.edit::<McpServer>("graph", json!({"spec": {"suspend": false}})).await;
    until("there is one of the new host", async || space.get::<Ingress>("graph").await.is_some()).await;
}

#[tokio::test]
async fn a_terminating_server_is_not_exposed_although_a_finalizer_delays_its_deletion() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.edit::<McpServer>("graph", json!({"metadata": {"finalizers": ["team.example/hold"]}})).await;
    space.delete::<McpServer>("graph").await;
    until("the Ingress is gone", async || space.get::<Ingress>("graph").await.is_none()).await;
    assert!(space.get::<McpServer>("graph").await.is_some());
    space.edit::<McpServer>("graph", json!({"metadata": {"finalizers": null}})).await;
}
