//! Tests of a normal start of a server: its events, and the operator's requests to the API server.

use k8s_openapi::{
    api::{core::v1::Pod, events::v1::Event, networking::v1::Ingress},
    jiff::Timestamp,
};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testbed::control_plane::{AuditEvent, Marker};

use crate::{
    exposure::{answer, by_own_listener, gateway, say, there, told},
    harness::{Cluster, OPERATOR, Space, mk_server, until},
};

/// A namespace whose pods get a node at once.
async fn mk_space(cluster: &'static Cluster) -> Space {
    let space = Space::on(cluster).await;
    space.mutate(("", "pods"), &["CREATE"], &[("/spec/nodeName", "'none'")]).await;
    let probe: Pod = serde_json::from_value(json!({
        "metadata": {"name": "probe"},
        "spec": {"containers": [{"name": "a", "image": "b"}], "automountServiceAccountToken": false},
    }))
    .unwrap();
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    until("pods find a node at once", async || {
        let made = space.api::<Pod>().create(&parameters, &probe).await;
        made.is_ok_and(|pod| pod.spec.unwrap().node_name.is_some())
    })
    .await;
    space
}

/// Acts as the kubelet: the pod runs, and enforces the policy a moment later.
async fn runs(space: &Space) {
    let selected = ListParams::default().labels("app.kubernetes.io/instance=graph");
    let mut found = None;
    until("there is a pod", async || {
        found = space.api::<Pod>().list(&selected).await.unwrap().items.pop();
        found.is_some()
    })
    .await;
    let pod = space.runs(&found.unwrap().name_any()).await;
    pod.enforces(&space.policy().await);
}

/// Acts as the ingress controller.
async fn leads_by_ingress(space: &Space) {
    until("there is an Ingress", async || space.get::<Ingress>("graph").await.is_some()).await;
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    space.api::<Ingress>().patch_status("graph", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

/// Acts as cert-manager and as the Gateway. The Gateway finds no certificate at first, and notices it a moment late.
async fn leads_by_own_listener(space: &Space) {
    let told = |type_: &str, status: &str, reason: &str| {
        let mut condition = told(type_, status, reason, "because");
        condition["lastTransitionTime"] = json!(Timestamp::now());
        condition
    };
    for kind in ["ListenerSet", "HTTPRoute"] {
        there(space, kind, "graph").await;
    }
    there(space, "Certificate", "graph-tls").await;
    let listener = |conditions: &Value| json!([{"name": "https", "attachedRoutes": 0, "supportedKinds": [], "conditions": conditions}]);
    let parent =
        json!({"group": "gateway.networking.k8s.io", "kind": "ListenerSet", "name": "graph", "sectionName": "https"});
    let missing = json!([told("ResolvedRefs", "False", "InvalidCertificateRef")]);
    let invalid = json!([told("Accepted", "False", "ListenersNotValid")]);
    say(space, "ListenerSet", "graph", json!({"conditions": invalid, "listeners": listener(&missing)})).await;
    answer(space, "graph", parent.clone(), told("Accepted", "False", "NoMatchingParent")).await;
    let issuing = [told("Issuing", "True", "DoesNotExist"), told("Ready", "False", "DoesNotExist")];
    say(space, "Certificate", "graph-tls", json!({"conditions": issuing})).await;
    until("the status reports that cert-manager is working", async || {
        let pending = space.condition("CertificateReady", "False", "CertificatePending").await;
        pending.message.contains("is issuing")
    })
    .await;
    space.condition("Exposed", "False", "CertificatePending").await;

    let until = Timestamp::from_second(Timestamp::now().as_second() + 3600).unwrap().to_string();
    let ready = [told("Ready", "True", "Ready")];
    say(space, "Certificate", "graph-tls", json!({"conditions": ready, "notAfter": until, "renewalTime": until})).await;
    space.condition("CertificateReady", "True", "CertificateValid").await;
    space.condition("Exposed", "False", "RoutePending").await;
    let accepted = json!([told("Accepted", "True", "Accepted")]);
    say(space, "ListenerSet", "graph", json!({"conditions": accepted, "listeners": listener(&accepted)})).await;
    answer(space, "graph", parent, told("Accepted", "True", "Accepted")).await;
}

/// Returns type and reason of each event about the server.
async fn events(space: &Space) -> Vec<(String, String)> {
    let events = space.api::<Event>().list(&Default::default()).await.unwrap();
    let about =
        |event: &Event| event.regarding.as_ref().is_some_and(|about| about.kind.as_deref() == Some("McpServer"));
    events.items.into_iter().filter(about).map(|event| (event.type_.unwrap(), event.reason.unwrap())).collect()
}

/// Returns the operator's requests to the API server since then, except its lease and its watches. Events and nudges
/// are left out, too, since they depend on the speed of pods.
async fn requests(space: &Space, since: Marker) -> Vec<String> {
    let mut all = space.cluster.plane.audit().requests(since, OPERATOR).await.unwrap();
    all.retain(|asked| asked.verb != "watch" && !matches!(asked.resource.as_str(), "leases" | "events" | "pods"));
    let said = |AuditEvent { verb, resource, subresource, name, .. }: AuditEvent| {
        let subresource = subresource.map_or_else(String::new, |subresource| format!("/{subresource}"));
        let name = name.unwrap_or_default();
        let name = name.rsplit_once('-').filter(|_| name.starts_with("claim-")).map_or(name.as_str(), |(kind, _)| kind);
        format!("{verb} {resource}{subresource} {name}")
    };
    all.into_iter().map(said).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_normal_start_of_a_server_has_few_events_no_warning_and_almost_no_reads() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start().await.unwrap()));
    let operator = cluster.operator().await.unwrap();
    let always = [
        "create configmaps claim-audience",
        "patch configmaps graph-policy",
        "patch serviceaccounts graph",
        "patch configmaps graph-config",
        "patch services graph",
        "patch deployments graph",
        "patch poddisruptionbudgets graph",
    ];
    let mut unexposed = mk_server();
    unexposed["spec"].as_object_mut().unwrap().remove("exposure");
    let ways = [
        (unexposed, vec![]),
        (mk_server(), vec!["create configmaps claim-host", "patch ingresses graph"]),
        (
            by_own_listener(),
            vec![
                "create configmaps claim-host",
                "patch certificates graph-tls",
                "patch listenersets graph",
                "patch httproutes graph",
            ],
        ),
    ];
    for (server, more) in ways {
        let space = mk_space(cluster).await;
        space.apply(gateway("HTTPS")).await;
        let mark = space.mark();
        space.apply(server.clone()).await;
        if !server["spec"]["exposure"]["ingress"].is_null() {
            leads_by_ingress(&space).await;
        } else if !server["spec"]["exposure"].is_null() {
            leads_by_own_listener(&space).await;
        }
        runs(&space).await;
        space.condition("Ready", "True", "Ready").await;
        space.quiet().await;

        let events = events(&space).await;
        let reasons: Vec<&str> = events.iter().map(|(_, reason)| reason.as_str()).collect();
        assert!(events.len() <= 3 && reasons.contains(&"Ready"), "{more:?}: {events:?}");
        assert!(events.iter().all(|(type_, _)| type_ == "Normal"), "{more:?}: {events:?}");

        let mut requests = requests(&space, mark).await;
        let all = requests.len();
        requests.retain(|request| request != "patch mcpservers/status graph");
        let statuses = all - requests.len();
        // An applied child is read if its watch does not show it yet. Reconciles that read on purpose read all of them.
        let (reads, mut requests): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| request.starts_with("get "));
        assert!(reads.len() < always.len() / 2, "{more:?}: {reads:?}");
        requests.sort();
        let mut expected: Vec<&str> = always.iter().copied().chain(more.iter().copied()).collect();
        expected.sort_unstable();
        assert_eq!(requests, expected);
        // The first sight, the start, and readiness; for a certificate, each step that is awaited above.
        assert!((2..=if more.len() > 2 { 6 } else { 3 }).contains(&statuses), "{more:?}: {statuses}");
    }
    operator.shutdown.cancel();
    operator.ended.await.unwrap().unwrap();
}
