//! Tests of `operatorBounds`. The operator's account has every right here, so that RBAC refuses nothing first.

use kube::Client;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::{Value, json};

use super::cluster::{Guarded, IMAGE, OPERATOR, TEAM, until};
use super::images::mk_pod;
use super::requests::{Answer, assert_refused, create, delete, objects, patch, patch_part};

const REVISION: &str = "mcp-entra.dev/policy-revision";

async fn operator() -> Client {
    Guarded::get().await.as_user(OPERATOR, &[])
}

/// Returns the pods of the team, and the name of one.
async fn a_pod() -> (Api<DynamicObject>, String) {
    let pods = objects(&operator().await, TEAM, "v1", "Pod");
    let mut name = None;
    until("there is a pod", async || {
        name = pods.list(&ListParams::default()).await.unwrap().items.first().map(ResourceExt::name_any);
        name.is_some()
    })
    .await;
    (pods, name.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_changes_only_one_annotation_of_a_servers_pod() {
    let (pods, pod) = a_pod().await;
    patch(&pods, &pod, &json!({"metadata": {"annotations": {REVISION: "abc.1"}}})).await.unwrap();
    for change in [
        json!({"metadata": {"annotations": {"sidecar.example/inject": "true"}}}),
        json!({"metadata": {"annotations": {REVISION: "abc", "mcp-entra.dev/server-uid": "other"}}}),
        json!({"metadata": {"annotations": {REVISION: "abc", "mcp-entra.dev/server-uid": null}}}),
        json!({"metadata": {"annotations": null}}),
        json!({"metadata": {"labels": {"team": "other"}}}),
        json!({"metadata": {"labels": {"pod-template-hash": null}}}),
        json!({"metadata": {"ownerReferences": null}}),
        json!({"metadata": {"finalizers": ["example.com/stay"]}}),
        json!({"spec": {"activeDeadlineSeconds": 1}}),
    ] {
        assert_refused(patch(&pods, &pod, &change).await, "operator-bounds", "policy-revision");
    }
    assert_refused(delete(&pods, &pod).await, "operator-bounds", "policy-revision");
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": IMAGE}]}});
    assert_refused(patch_part(&pods, &pod, "ephemeralcontainers", &debug).await, "operator-bounds", "policy-revision");
    let status = json!({"status": {"message": "fine"}});
    assert_refused(patch_part(&pods, &pod, "status", &status).await, "operator-bounds", "policy-revision");
    assert_refused(create(&operator().await, TEAM, &mk_pod(IMAGE), true).await, "operator-bounds", "policy-revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_cannot_change_other_pods() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    create(&guarded.person(), &namespace, &mk_pod("nginx"), false).await.unwrap();
    let pods = objects(&operator().await, &namespace, "v1", "Pod");
    let nudge = json!({"metadata": {"annotations": {REVISION: "abc"}}});
    assert_refused(patch(&pods, "probe", &nudge).await, "operator-bounds", "policy-revision");
}

/// Returns the metadata of a child, with these changes.
fn mk_child(change: impl FnOnce(&mut Value)) -> Value {
    let mut metadata = json!({
        "name": "child",
        "labels": {"app.kubernetes.io/managed-by": "mcp-entra-operator", "app.kubernetes.io/name": "mcp-entra-server"},
        "ownerReferences": [{
            "apiVersion": "mcp-entra.dev/v1alpha1", "kind": "McpServer", "name": "child", "uid": "u", "controller": true,
        }],
    });
    change(&mut metadata);
    metadata
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_creates_only_children_of_servers() {
    let client = operator().await;
    let map = |metadata: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    create(&client, TEAM, &map(mk_child(|_| {})), true).await.unwrap();
    for metadata in [
        mk_child(|metadata| metadata["ownerReferences"] = json!([])),
        mk_child(|metadata| metadata["ownerReferences"][0]["controller"] = json!(false)),
        mk_child(|metadata| metadata["ownerReferences"][0]["kind"] = json!("Deployment")),
        mk_child(|metadata| metadata["ownerReferences"][0]["apiVersion"] = json!("mcp-entra.devious/v1")),
    ] {
        let answer = create(&client, TEAM, &map(metadata), true).await;
        assert_refused(answer, "operator-bounds", "only child objects of McpServers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_writes_only_claims_in_its_own_namespace() {
    let (client, system) = (operator().await, "mcp-entra-system");
    let map = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}});
    let claim = || json!({"mcp-entra.dev/claim": "host", "app.kubernetes.io/managed-by": "mcp-entra-operator"});
    create(&client, system, &map("claim-host-0", claim()), true).await.unwrap();
    for (namespace, name, labels) in [
        (TEAM, "claim-host-0", claim()),
        (system, "claim-host-0", json!({"app.kubernetes.io/managed-by": "mcp-entra-operator"})),
        (system, "mcp-entra-operator-allowed-hosts-2", claim()),
    ] {
        let answer = create(&client, namespace, &map(name, labels), true).await;
        assert_refused(answer, "operator-bounds", "claims in its own namespace");
    }
    // An object that is not a claim cannot become one.
    let maps = objects(&client, system, "v1", "ConfigMap");
    let answer = patch(&maps, "mcp-entra-operator-allowed-hosts", &json!({"metadata": {"labels": claim()}})).await;
    assert_refused(answer, "operator-bounds", "claims in its own namespace");
    let person = Guarded::get().await.person();
    let answer = create(&person, system, &map("claim-host-0", claim()), true).await;
    assert_refused(answer, "only-operator-writes", "configmaps of an McpServer");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_adopts_only_offered_objects() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    let (person, client) = (guarded.person(), operator().await);
    for (name, annotations) in [("offered", json!({"mcp-entra.dev/adopt": "offered"})), ("theirs", json!({"a": "b"}))] {
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "annotations": annotations}});
        create(&person, &namespace, &map, false).await.unwrap();
    }
    let maps = objects(&client, &namespace, "v1", "ConfigMap");
    let owner = json!({"metadata": {"ownerReferences": mk_child(|_| {})["ownerReferences"]}});
    patch(&maps, "offered", &owner).await.unwrap();
    let without_taking = patch(&maps, "offered", &json!({"data": {"a": "b"}})).await;
    assert_refused(without_taking, "operator-bounds", "only child objects of McpServers");
    assert_refused(
        patch(&maps, "theirs", &owner).await,
        "operator-bounds",
        "objects with the annotation mcp-entra.dev/adopt",
    );
    let offer = json!({"metadata": {"annotations": {"mcp-entra.dev/adopt": "child"}}});
    assert_refused(patch(&maps, "theirs", &offer).await, "operator-bounds", "only child objects of McpServers");
    for name in ["offered", "theirs"] {
        assert_refused(delete(&maps, name).await, "operator-bounds", "only child objects of McpServers");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn children_of_the_operator_select_no_other_pods_and_add_no_entry_from_outside() {
    let client = operator().await;
    let make = async |version: &str, kind: &str, spec: &Value| {
        let child = json!({"apiVersion": version, "kind": kind, "metadata": mk_child(|_| {}), "spec": spec});
        create(&client, TEAM, &child, true).await
    };
    let (servers, others) = (json!({"app.kubernetes.io/name": "mcp-entra-server"}), json!({"app": "other"}));

    let service = |selector: &Value, more: Value| {
        let mut spec = json!({"selector": selector, "ports": [{"port": 80}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    make("v1", "Service", &service(&servers, json!({"type": "ClusterIP"}))).await.unwrap();
    for more in [
        json!({"type": "LoadBalancer"}),
        json!({"type": "NodePort"}),
        json!({"type": "ExternalName", "externalName": "other.example"}),
        json!({"externalIPs": ["192.0.2.1"]}),
    ] {
        let answer = make("v1", "Service", &service(&servers, more)).await;
        assert_refused(answer, "operator-bounds", "only Services of type ClusterIP");
    }

    let policy = |selector: Value| ("networking.k8s.io/v1", "NetworkPolicy", json!({"podSelector": selector}));
    let budget =
        |selector: Value| ("policy/v1", "PodDisruptionBudget", json!({"maxUnavailable": 1, "selector": selector}));
    for (version, kind, spec) in [policy, budget].map(|make| make(json!({"matchLabels": servers}))) {
        make(version, kind, &spec).await.unwrap();
    }
    let mut kept_out =
        vec![("v1", "Service", service(&others, json!({}))), ("v1", "Service", service(&Value::Null, json!({})))];
    for selector in [json!({}), json!({"matchLabels": others})] {
        kept_out.extend([policy(selector.clone()), budget(selector)]);
    }
    for (version, kind, spec) in kept_out {
        assert_refused(make(version, kind, &spec).await, "operator-bounds", "that select servers' pods");
    }

    let target = |kind: &str, name: &str| json!({"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name}});
    let autoscaler = async |spec: Value| make("autoscaling/v2", "HorizontalPodAutoscaler", &spec).await;
    autoscaler(target("Deployment", "child")).await.unwrap();
    for spec in [target("Deployment", "other"), target("StatefulSet", "child")] {
        assert_refused(autoscaler(spec).await, "operator-bounds", "Deployment with their owner's name");
    }
}

/// Returns the Secret of a key epoch, with these changes.
fn mk_key(change: impl FnOnce(&mut Value)) -> Value {
    let name = "child-0123abcd-oauth-1";
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
        "metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": "u", "controller": true},
        ]},
        "data": {"key": "AAAA"},
    });
    change(&mut secret);
    secret
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_creates_only_secrets_with_keys_of_servers() {
    let (client, words) = (operator().await, "only Secrets that are keys");
    create(&client, TEAM, &mk_key(|_| {}), true).await.unwrap();
    for secret in [
        mk_key(|secret| secret["type"] = json!("example.com/other")),
        mk_key(|secret| secret["immutable"] = json!(false)),
        mk_key(|secret| secret["data"] = json!({"key": "AAAA", "more": "AAAA"})),
        mk_key(|secret| secret["data"] = json!({"password": "AAAA"})),
        mk_key(|secret| secret["data"] = json!({})),
        mk_key(|secret| secret["metadata"]["name"] = json!("child-0123abcd-oauth-2")),
        mk_key(|secret| secret["metadata"]["ownerReferences"] = json!([])),
        mk_key(|secret| secret["metadata"]["ownerReferences"][0]["controller"] = json!(false)),
        mk_key(|secret| secret["metadata"]["ownerReferences"][0]["kind"] = json!("Pod")),
        mk_key(|secret| secret["metadata"]["ownerReferences"][0]["apiVersion"] = json!("other/v1")),
        mk_key(|secret| secret["metadata"]["ownerReferences"] = mk_child(|_| {})["ownerReferences"].clone()),
        mk_key(|secret| secret["metadata"]["finalizers"] = json!(["example.com/stay"])),
        mk_key(|secret| {
            secret["metadata"]["name"] = json!("anybodys");
            secret["metadata"]["ownerReferences"][0]["name"] = json!("anybodys");
        }),
    ] {
        assert_refused(create(&client, TEAM, &secret, true).await, "operator-bounds", words);
    }
    // Such a Secret would contain a token of that account.
    let account = json!({"kubernetes.io/service-account.name": "default"});
    let token = mk_key(|secret| {
        secret["type"] = json!("kubernetes.io/service-account-token");
        secret["metadata"]["annotations"] = account;
    });
    assert_refused(create(&client, TEAM, &token, true).await, "operator-bounds", words);

    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    let person = guarded.person();
    let password =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}, "data": {"key": "AAAA"}});
    create(&person, &namespace, &password, false).await.unwrap();
    let secrets = objects(&client, &namespace, "v1", "Secret");
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_refused(patch(&secrets, "theirs", &label).await, "operator-bounds", words);
    assert_refused(delete(&secrets, "theirs").await, "operator-bounds", words);
    let before = create(&person, &namespace, &mk_key(|_| {}), true).await;
    assert_refused(before, "only-operator-writes", "secrets of an McpServer (by label or owner)");
}

/// Returns a Deployment of a child, with a changed spec of its pods.
async fn ask(change: &Value) -> Answer {
    ask_labelled("mcp-entra-server", change).await
}

async fn ask_labelled(name: &str, change: &Value) -> Answer {
    let token = json!({"serviceAccountToken": {"audience": "api://AzureADTokenExchange", "path": "token"}});
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "containers": [{"name": "server", "image": IMAGE, "securityContext": {"allowPrivilegeEscalation": false}}],
        "volumes": [
            {"name": "config", "configMap": {"name": "child-config"}},
            {"name": "identity", "projected": {"sources": [token]}},
        ],
    });
    for (member, value) in change.as_object().unwrap() {
        spec[member] = value.clone();
    }
    let labels = json!({"app.kubernetes.io/name": name});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": mk_child(|_| {}),
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    });
    create(&operator().await, TEAM, &deployment, true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_the_operator_get_only_tokens_for_entra_no_secret_and_nothing_of_the_node() {
    let container = |more: Value| {
        let mut container =
            json!({"name": "server", "image": IMAGE, "securityContext": {"allowPrivilegeEscalation": false}});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([container])
    };
    let token = |token: Value| json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": token}]}}]);
    for let_in in [
        json!({}),
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": token(json!({"audience": "api://AzureADTokenExchangeUSGov", "path": "token"}))}),
        json!({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "child-0123abcd-oauth-1"}}]}}]}),
        json!({"volumes": [{"name": "v", "secret": {"secretName": "child-session-store"}}]}),
        json!({"containers": container(json!({"env": [{"name": "TZ", "value": "UTC"}]}))}),
        json!({"containers": container(json!({"ports": [{"containerPort": 8080}]}))}),
    ] {
        ask(&let_in).await.unwrap();
    }
    assert_refused(ask_labelled("other", &json!({})).await, "operator-bounds", "only servers' pods");
    let of_secret = json!({"secretKeyRef": {"name": "s", "key": "k"}});
    for kept_out in [
        json!({"automountServiceAccountToken": true}),
        json!({"automountServiceAccountToken": null}),
        json!({"hostNetwork": true}),
        json!({"hostPID": true}),
        json!({"hostIPC": true}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
        json!({"volumes": [{"name": "v", "secret": {"secretName": "session-store-tls"}}]}),
        json!({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]}),
        json!({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "other-0123abcd-oauth-1"}}]}}]}),
        json!({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "child-0123abcd-oauth-1-x"}}]}}]}),
        json!({"volumes": token(json!({"path": "token"}))}),
        json!({"volumes": token(json!({"audience": "https://kubernetes.default.svc", "path": "token"}))}),
        json!({"containers": container(json!({"securityContext": {}}))}),
        json!({"containers": container(json!({"securityContext":
            {"allowPrivilegeEscalation": false, "capabilities": {"add": ["NET_ADMIN"]}}}))}),
        json!({"containers": container(json!({"ports": [{"containerPort": 8080, "hostPort": 8080}]}))}),
        json!({"containers": container(json!({"env": [{"name": "A", "valueFrom": of_secret}]}))}),
        json!({"containers": container(json!({"envFrom": [{"secretRef": {"name": "s"}}]}))}),
        json!({"initContainers": container(json!({"name": "init", "securityContext": {}}))}),
    ] {
        assert_refused(ask(&kept_out).await, "operator-bounds", "tokens only for Entra");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_reads_only_its_named_secrets_in_its_own_container_and_no_volume_of_the_server() {
    let container = |name: &str, more: Value| {
        let mut container =
            json!({"name": name, "image": IMAGE, "securityContext": {"allowPrivilegeEscalation": false}});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container
    };
    let of = |name: &str, more: Value| json!({"initContainers": [container(name, more)]});
    let secret =
        |name: &str| json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]});
    let mounting = |volume: &str| json!({"volumeMounts": [{"name": volume, "mountPath": "/x"}]});
    let with_volume = |volume: Value| {
        let mut change = of("backend", mounting("backend-socket"));
        change["volumes"] = json!([volume]);
        change
    };
    let empty = json!({"name": "backend-socket", "emptyDir": {"medium": "Memory"}});
    for let_in in [
        of("backend", json!({"restartPolicy": "Always"})),
        of("backend", secret("child-backend")),
        of("backend", secret("child-backend.database")),
        of("backend", secret("shared-database")),
        of("install-shim", json!({})),
        of("hold-ports", json!({"restartPolicy": "Always"})),
        with_volume(empty),
    ] {
        ask(&let_in).await.unwrap();
    }
    let token = json!({"serviceAccountToken": {"audience": "api://AzureADTokenExchange", "path": "token"}});
    let other = IMAGE.replace("mcp-entra-server", "other");
    for kept_out in [
        of("backend", secret("child")),
        of("backend", secret("child-backends")),
        of("backend", secret("other-backend")),
        // A key of the server child-backend.
        of("backend", secret("child-backend-0123abcd-oauth-1")),
        of("backend", secret("shared-databases")),
        // Allowed in another namespace.
        of("backend", secret("other-database")),
        // A listed key of the server child.
        of("backend", secret("child-0123abcd-oauth-1")),
        of("install-shim", secret("child-backend")),
        of("install-shim", secret("shared-database")),
        of("other", json!({})),
        of("hold-ports", secret("child-backend")),
        of("hold-ports", mounting("identity")),
        of("hold-ports", json!({"image": &other})),
        of("install-shim", json!({"image": &other})),
        of("backend", json!({"envFrom": [{"secretRef": {"name": "child-backend"}}]})),
        of("backend", mounting("identity")),
        of("install-shim", mounting("config")),
        json!({"containers": [container("backend", secret("child-backend"))]}),
        json!({"containers": [container("backend", secret("shared-database"))]}),
        json!({"containers": [container("server", secret("shared-database"))]}),
        with_volume(json!({"name": "backend-socket", "secret": {"secretName": "shared-database"}})),
        with_volume(json!({"name": "backend-socket", "projected": {"sources": [token]}})),
        with_volume(json!({"name": "backend-socket", "configMap": {"name": "anybodys"}})),
    ] {
        assert_refused(ask(&kept_out).await, "operator-bounds", "tokens only for Entra");
    }
}
