//! Tests of images: their registries must be listed, and their digests pinned.

use kube::Client;
use serde_json::{Value, json};

use super::cluster::{Guarded, IMAGE, TEAM, mk_server};
use super::requests::{Answer, assert_refused, create, objects, patch, patch_part};

const PINNED: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// Returns a pod without an owner, with this image.
pub(super) fn mk_pod(image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
        "spec": {"containers": [{"name": "server", "image": image}]},
    })
}

fn mk_server_pod(image: &str) -> Value {
    let mut pod = mk_pod(image);
    pod["metadata"]["labels"] = json!({"app.kubernetes.io/name": "mcp-entra-server"});
    pod
}

async fn ask_server(client: &Client, image: &str) -> Answer {
    let mut server = mk_server("image");
    server["spec"]["image"] = json!(image);
    create(client, TEAM, &server, true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_only_use_pinned_images_of_listed_registries() {
    let client = Guarded::get().await.person();
    for image in [IMAGE.to_owned(), format!("registry.example:5000/any/image:1@{PINNED}")] {
        ask_server(&client, &image).await.unwrap();
    }
    create(&client, TEAM, &mk_server("image"), true).await.unwrap();
    for image in [
        format!("registry.example/mcp-entra-evil/server@{PINNED}"),
        format!("registry.example/mcp-entra@{PINNED}"),
        format!("registry.example.evil.example/mcp-entra/server@{PINNED}"),
        format!("evil.example/registry.example/mcp-entra/server@{PINNED}"),
        format!("mcp-entra-server@{PINNED}"),
    ] {
        assert_refused(
            ask_server(&client, &image).await,
            "allowed-registries-of-servers",
            "ask the cluster administrator",
        );
    }
    for image in [
        "registry.example/mcp-entra/server".to_owned(),
        "registry.example/mcp-entra/server:1".to_owned(),
        "registry.example/mcp-entra/server@sha256:bbbb".to_owned(),
        format!("registry.example/mcp-entra/server@{PINNED}:1"),
        format!("registry.example/mcp-entra/server@sha512:{}", "b".repeat(128)),
    ] {
        assert_refused(ask_server(&client, &image).await, "require-digests-of-servers", "IMAGE@sha256:DIGEST");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_of_a_backend_is_checked_as_the_servers_own() {
    let client = Guarded::get().await.person();
    let ask = async |image: &str| {
        let mut server = mk_server("image");
        server["spec"].as_object_mut().unwrap().remove("graph");
        server["spec"]["backend"] = json!({"image": image, "transport": "StreamableHttp", "port": 3001});
        server["spec"]["networkPolicy"] = json!({"allowFrom": [{"podSelector": {}}]});
        create(&client, TEAM, &server, true).await
    };
    ask(IMAGE).await.unwrap();
    let evil = format!("docker.io/evil@{PINNED}");
    assert_refused(ask(&evil).await, "allowed-registries-of-servers", &evil);
    let moved = "registry.example/mcp-entra/server:1";
    assert_refused(ask(moved).await, "require-digests-of-servers", moved);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_image_of_a_servers_pod_is_checked() {
    // By the platform: another guardrail refuses such a pod to all other users.
    let client = Guarded::get().await.as_user("dora", &["platform"]);
    create(&client, TEAM, &mk_server_pod(IMAGE), true).await.unwrap();
    for (image, guardrail) in [
        (format!("docker.io/evil@{PINNED}"), "allowed-registries-of-pods"),
        ("registry.example/mcp-entra/server:1".to_owned(), "require-digests-of-pods"),
    ] {
        assert_refused(create(&client, TEAM, &mk_server_pod(&image), true).await, guardrail, &image);
        let other = json!({"name": "other", "image": image});
        for (list, entry) in [
            ("initContainers", other.clone()),
            ("containers", other),
            ("volumes", json!({"name": "other", "image": {"reference": image}})),
        ] {
            let mut pod = mk_server_pod(IMAGE);
            match pod["spec"][list].as_array_mut() {
                Some(there) => there.push(entry),
                None => pod["spec"][list] = json!([entry]),
            }
            assert_refused(create(&client, TEAM, &pod, true).await, guardrail, &image);
        }
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "probe", "labels": {"app.kubernetes.io/name": "mcp-entra-server"}},
            "spec": {
                "selector": {"matchLabels": {"app": "probe"}},
                "template": {"metadata": {"labels": {"app": "probe"}}, "spec": mk_pod(&image)["spec"]},
            },
        });
        assert_refused(create(&client, TEAM, &deployment, true).await, guardrail, &image);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_added_to_a_running_servers_pod_is_checked_too() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    let client = guarded.as_user("dora", &["platform"]);
    create(&client, &namespace, &mk_server_pod(IMAGE), false).await.unwrap();
    let pods = objects(&client, &namespace, "v1", "Pod");
    let debug = |image: &str| json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": image}]}});
    patch_part(&pods, "probe", "ephemeralcontainers", &debug(IMAGE)).await.unwrap();
    let evil = format!("docker.io/evil@{PINNED}");
    let answer = patch_part(&pods, "probe", "ephemeralcontainers", &debug(&evil)).await;
    assert_refused(answer, "allowed-registries-of-pods", &evil);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_pods_may_have_any_image_until_they_become_a_servers_pod() {
    let guarded = Guarded::get().await;
    let namespace = guarded.namespace().await;
    let client = guarded.as_user("dora", &["platform"]);
    let evil = format!("docker.io/evil@{PINNED}");
    create(&client, &namespace, &mk_pod(&evil), false).await.unwrap();
    let pods = objects(&client, &namespace, "v1", "Pod");
    patch(&pods, "probe", &json!({"metadata": {"labels": {"app": "evil"}}})).await.unwrap();
    let label = json!({"metadata": {"labels": {"app.kubernetes.io/name": "mcp-entra-server"}}});
    assert_refused(patch(&pods, "probe", &label).await, "allowed-registries-of-pods", &evil);
}
