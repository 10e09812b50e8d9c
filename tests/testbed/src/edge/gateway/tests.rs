//! Tests of the decisions, without a cluster.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::certificates::CertificateAuthority;
use crate::edge::table::Table;

fn object<K: DeserializeOwned>(kind: &str, namespace: &str, name: &str, spec: Value) -> Arc<K> {
    let metadata =
        json!({ "name": name, "namespace": namespace, "uid": format!("{namespace}/{name}"), "generation": 3 });
    let object =
        json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec });
    Arc::new(serde_json::from_value(object).unwrap())
}

/// Returns a listener for `*.example.com` with the certificate in the Secret `cert`.
fn listener(allowed: Value) -> Value {
    json!({
        "name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.example.com",
        "tls": { "certificateRefs": [{ "name": "cert" }] },
        "allowedRoutes": { "namespaces": allowed },
    })
}

fn secret(namespace: &str) -> Arc<Secret> {
    let issued = CertificateAuthority::new("test").unwrap().issue(&["*.example.com"]).unwrap();
    let (certificate, key) = (issued.certificate_pem.into_bytes(), issued.key_pem.into_bytes());
    let data = [("tls.crt", certificate), ("tls.key", key)];
    let encoded = data.map(|(name, value)| (name.to_owned(), k8s_openapi::ByteString(value)));
    let mut secret = Secret { data: Some(encoded.into_iter().collect()), ..Secret::default() };
    (secret.metadata.namespace, secret.metadata.name) = (Some(namespace.to_owned()), Some("cert".to_owned()));
    Arc::new(secret)
}

/// Returns a Gateway `infra/shared` that every namespace may attach to, and a Service `apps/web`.
fn objects() -> Objects {
    let gateway = json!({
        "gatewayClassName": "ours",
        "listeners": [listener(json!({ "from": "All" }))],
        "allowedListeners": { "namespaces": { "from": "Selector", "selector": { "matchLabels": { "team": "apps" } } } },
    });
    let namespace = |name: &str, team: &str| -> Arc<Namespace> {
        Arc::new(serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "team": team } } })).unwrap())
    };
    let slice = json!({
        "metadata": { "name": "web", "namespace": "apps", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4", "ports": [{ "port": 8080 }], "endpoints": [{ "addresses": ["10.244.0.1"] }],
    });
    Objects {
        classes: vec![object("GatewayClass", "", "ours", json!({ "controllerName": CONTROLLER }))],
        gateways: vec![object("Gateway", "infra", "shared", gateway)],
        namespaces: vec![namespace("apps", "apps"), namespace("others", "others")],
        services: vec![Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": "web", "namespace": "apps" }, "spec": { "ports": [{ "port": 80 }] },
            }))
            .unwrap(),
        )],
        slices: vec![Arc::new(serde_json::from_value(slice).unwrap())],
        secrets: vec![secret("infra")],
        ..Objects::default()
    }
}

fn route(namespace: &str, hostname: &str, parent: Value) -> Arc<HTTPRoute> {
    let spec = json!({
        "parentRefs": [parent], "hostnames": [hostname],
        "rules": [{
            "matches": [{ "path": { "type": "PathPrefix", "value": "/mcp" } }],
            "backendRefs": [{ "name": "web", "port": 80 }],
        }],
    });
    object("HTTPRoute", namespace, "web", spec)
}

fn shared() -> Value {
    json!({ "name": "shared", "namespace": "infra" })
}

/// Returns the reasons of Accepted and ResolvedRefs of the only route, if it is ours.
fn verdict(objects: &Objects) -> Option<(String, String)> {
    let decision = Decision::new(objects);
    let attachment = decision.attachments.first()?;
    let status = status::of_route(&attachment.route, &[attachment]).unwrap();
    let parent = &status["parents"][0];
    assert_eq!(parent["controllerName"], CONTROLLER);
    assert_eq!(parent["conditions"][0]["observedGeneration"], 3);
    let reason = |at: usize| parent["conditions"][at]["reason"].as_str().unwrap().to_owned();
    Some((reason(0), reason(1)))
}

fn with(change: impl FnOnce(&mut Objects)) -> Objects {
    let mut objects = objects();
    objects.routes = vec![route("apps", "a.example.com", shared())];
    change(&mut objects);
    objects
}

fn is_served(objects: &Objects, path: &str) -> bool {
    Table::new(Decision::new(objects).rules()).route("a.example.com", path).is_some()
}

fn reasons(accepted: &str, resolved: &str) -> Option<(String, String)> {
    Some((accepted.to_owned(), resolved.to_owned()))
}

#[test]
fn a_route_that_its_gateway_allows_is_served_below_its_path() {
    let objects = with(|_| ());
    assert_eq!(verdict(&objects), reasons("Accepted", "ResolvedRefs"));
    assert!(is_served(&objects, "/mcp/x") && !is_served(&objects, "/mcpx"));
}

#[test]
fn a_route_that_does_not_match_its_gateway_gets_a_reason_and_is_not_served() {
    let to = |parent: Value| move |objects: &mut Objects| objects.routes = vec![route("apps", "a.example.com", parent)];
    let section = json!({ "name": "shared", "namespace": "infra", "sectionName": "other" });
    let objects = with(to(section));
    assert_eq!(verdict(&objects), reasons("NoMatchingParent", "ResolvedRefs"));
    assert!(!is_served(&objects, "/mcp"));

    let objects = with(|objects| {
        let spec = json!({ "gatewayClassName": "ours", "listeners": [listener(json!({ "from": "Same" }))] });
        objects.gateways = vec![object("Gateway", "infra", "shared", spec)];
    });
    assert_eq!(verdict(&objects), reasons("NotAllowedByListeners", "ResolvedRefs"));
    assert!(!is_served(&objects, "/mcp"));

    let objects = with(|objects| objects.routes = vec![route("apps", "a.example.org", shared())]);
    assert_eq!(verdict(&objects), reasons("NoMatchingListenerHostname", "ResolvedRefs"));

    // The edge writes no status for another controller's Gateway, nor for one that does not exist.
    let foreign = with(|objects| {
        objects.classes = vec![object("GatewayClass", "", "ours", json!({ "controllerName": "example.com/other" }))];
    });
    assert_eq!(verdict(&foreign), None);
    assert_eq!(verdict(&with(to(json!({ "name": "shared" })))), None);
}

#[test]
fn a_missing_service_is_reported_and_answered_with_an_error_of_the_server() {
    let objects = with(|objects| objects.services.clear());
    assert_eq!(verdict(&objects), reasons("Accepted", "BackendNotFound"));
    let table = Table::new(Decision::new(&objects).rules());
    assert_eq!(table.route("a.example.com", "/mcp").unwrap().service, None);
}

#[test]
fn without_its_certificate_a_listener_is_not_programmed_and_serves_nothing() {
    let objects = with(|objects| objects.secrets.clear());
    assert_eq!(verdict(&objects), reasons("Accepted", "ResolvedRefs"));
    assert!(!is_served(&objects, "/mcp"));
    let decision = Decision::new(&objects);
    let status = status::of_parent(0, &decision.parents, &decision.attachments).unwrap();
    let listener = &status["listeners"][0];
    let of = |kind: &str| {
        let conditions = listener["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        (found["status"].as_str().unwrap().to_owned(), found["reason"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("ResolvedRefs"), ("False".to_owned(), "InvalidCertificateRef".to_owned()));
    assert_eq!(of("Programmed"), ("False".to_owned(), "Invalid".to_owned()));
    assert_eq!(of("Accepted"), ("True".to_owned(), "Accepted".to_owned()));
    assert_eq!(listener["attachedRoutes"], 1);
    let message = status["conditions"][1]["message"].as_str().unwrap();
    assert!(message.contains("there is no Secret infra/cert"), "{message}");
}

#[test]
fn a_listener_set_counts_where_its_gateway_allows_its_namespace() {
    let set = |namespace: &str| -> Arc<ListenerSet> {
        let mut own = listener(json!({ "from": "Same" }));
        own["hostname"] = json!("a.example.com");
        object("ListenerSet", namespace, "own", json!({ "parentRef": shared(), "listeners": [own] }))
    };
    for (namespace, is_allowed) in [("apps", true), ("others", false)] {
        let objects = with(|objects| {
            objects.sets = vec![set(namespace)];
            objects.secrets = vec![secret(namespace)];
            objects.routes = vec![route(namespace, "a.example.com", json!({ "kind": "ListenerSet", "name": "own" }))];
        });
        let decision = Decision::new(&objects);
        let status = status::of_parent(1, &decision.parents, &decision.attachments).unwrap();
        let accepted = &status["conditions"][0];
        assert_eq!(accepted["reason"], if is_allowed { "Accepted" } else { "NotAllowed" });
        assert_eq!(accepted["status"], if is_allowed { "True" } else { "False" });
        assert_eq!(is_served(&objects, "/mcp"), is_allowed);
    }
}

#[test]
fn entries_of_other_controllers_and_times_of_unchanged_conditions_stay() {
    let objects = with(|objects| {
        let theirs = json!({ "parentRef": { "name": "x" }, "controllerName": "example.com/other", "conditions": [] });
        let long_ago = json!({
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "observedGeneration": 2, "lastTransitionTime": "2020-01-01T00:00:00Z",
        });
        let ours = json!({ "parentRef": shared(), "controllerName": CONTROLLER, "conditions": [long_ago] });
        let mut with_status = (*objects.routes[0]).clone();
        with_status.status = Some(json!({ "parents": [theirs, ours] }));
        objects.routes = vec![Arc::new(with_status)];
    });
    let decision = Decision::new(&objects);
    let attachment = &decision.attachments[0];
    let status = status::of_route(&attachment.route, &[attachment]).unwrap();
    assert_eq!(status["parents"][0]["controllerName"], "example.com/other");
    let conditions = &status["parents"][1]["conditions"];
    assert_eq!(conditions[0]["lastTransitionTime"], "2020-01-01T00:00:00Z");
    assert_ne!(conditions[1]["lastTransitionTime"], "2020-01-01T00:00:00Z");
}
