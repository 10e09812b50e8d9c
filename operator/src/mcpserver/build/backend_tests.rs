//! Tests of the children of a server with a backend.

use serde_json::{Value, json};

use super::{
    tests::{Children, mk_children, mk_children_with},
    workload_tests::{all_changes_are_drift, is_drift},
    *,
};
use crate::{
    mcpserver::{resolved::ResolvedAccount, validate::tests::mk_options},
    objects::{child::ChildKind, fixtures::mk_backend_server, names::TEMPLATE_HASH},
};

/// Returns the children of a server with a backend, after a merge patch of its spec.
fn built(changes: Value) -> Children {
    mk_children(|server| {
        let mut spec = serde_json::to_value(&mk_backend_server().spec).unwrap();
        json_patch::merge(&mut spec, &changes);
        server.spec = serde_json::from_value(spec).unwrap();
    })
}

fn template(changes: Value) -> Value {
    built(changes)[&ChildKind::Deployment]["spec"]["template"].clone()
}

fn http() -> Value {
    json!({"backend": {"transport": "StreamableHttp", "port": 3001, "command": null, "args": null}})
}

#[test]
fn a_backend_over_stdio_is_a_sidecar_whose_shim_the_servers_image_brings() {
    let pod = &template(json!({}))["spec"];
    let [_, install, backend] = pod["initContainers"].as_array().unwrap().as_slice() else { panic!("{pod:#}") };
    assert_eq!(
        (&install["name"], &install["image"], &install["command"]),
        (
            &json!("install-shim"),
            &json!("registry.example/mcp-entra-server:1"),
            &json!(["/mcp-entra-shim", "install", "/run/mcp-entra/shim"])
        )
    );
    assert!(install.get("restartPolicy").is_none());
    assert_eq!((&backend["name"], &backend["restartPolicy"]), (&json!("backend"), &json!("Always")));
    assert_eq!(backend["image"], "registry.example/mcp/time:1");
    let socket = "/run/mcp-entra/backend/backend.sock";
    let shim = "/run/mcp-entra/shim/mcp-entra-shim";
    assert_eq!(backend["command"], json!([shim, "serve", "--socket", socket, "--max-processes", "128", "--"]));
    let args = json!(["python", "-m", "mcp_server_time", "--local-timezone", "Europe/Stockholm"]);
    assert_eq!(backend["args"], args);
    assert_eq!(
        backend["volumeMounts"],
        json!([
            {"name": "backend-shim", "mountPath": "/run/mcp-entra/shim", "readOnly": true},
            {"name": "backend-socket", "mountPath": "/run/mcp-entra/backend"},
            {"name": "backend-writable-0", "mountPath": "/tmp"},
        ])
    );
    let volumes =
        Vec::from_iter(pod["volumes"].as_array().unwrap().iter().filter(|volume| volume["emptyDir"] != Value::Null));
    assert_eq!(
        json!(volumes),
        json!([
            {"name": "backend-socket", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "backend-shim", "emptyDir": {"sizeLimit": "10Mi"}},
            {"name": "backend-writable-0", "emptyDir": {"sizeLimit": "256Mi"}},
        ])
    );
    let server = &pod["containers"][0];
    assert!(
        server["args"].as_array().unwrap().windows(2).any(|pair| pair == [json!("--backend-socket"), json!(socket)])
    );
    let mounts = server["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().any(|mount| mount["name"] == "backend-socket" && mount["readOnly"] == true));
    assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_backend_over_http_runs_its_image_as_it_is_and_needs_neither_shim_nor_socket() {
    let pod = &template(http())["spec"];
    let [_, backend] = pod["initContainers"].as_array().unwrap().as_slice() else { panic!("{pod:#}") };
    assert!(backend.get("command").is_none() && backend.get("args").is_none());
    assert_eq!(backend["restartPolicy"], "Always");
    assert!(backend.get("startupProbe").is_none(), "it would delay the server");
    let text = pod.to_string();
    assert!(!text.contains("backend-socket") && !text.contains("backend-shim"), "{text}");
    let mut commanded = http();
    commanded["backend"]["command"] = json!(["node"]);
    commanded["backend"]["args"] = json!(["server.js"]);
    let pod = &template(commanded)["spec"];
    let backend = &pod["initContainers"][1];
    assert_eq!((&backend["command"], &backend["args"]), (&json!(["node"]), &json!(["server.js"])));
}

#[test]
fn a_sidecar_of_the_servers_user_holds_its_ports_before_the_backend_starts_as_another_user() {
    let user = |pod: &Value, container: &Value| {
        let own = container["securityContext"].get("runAsUser");
        own.unwrap_or(&pod["securityContext"]["runAsUser"]).clone()
    };
    for changes in [json!({}), http()] {
        let pod = &template(changes)["spec"];
        let containers = pod["initContainers"].as_array().unwrap();
        let (holder, backend, server) = (&containers[0], containers.last().unwrap(), &pod["containers"][0]);
        assert_eq!((&holder["name"], &holder["restartPolicy"]), (&json!("hold-ports"), &json!("Always")));
        assert_eq!(holder["image"], server["image"]);
        let arguments = server["args"].as_array().unwrap();
        let after = |option: &str| &arguments[arguments.iter().position(|argument| argument == option).unwrap() + 1];
        let command = json!(["/mcp-entra-shim", "hold", after("--listen"), after("--admin-listen")]);
        assert_eq!(holder["command"], command);
        let resources = json!({"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"memory": "64Mi"}});
        assert_eq!(holder["resources"], resources);
        assert_eq!((user(pod, holder), user(pod, server)), (json!(65532), json!(65532)));
        assert_eq!(user(pod, backend), 65533);
        // The socket between them is the group's.
        assert_eq!(
            (&pod["securityContext"]["runAsGroup"], &pod["securityContext"]["fsGroup"]),
            (&json!(65532), &json!(65532))
        );
        assert!(backend["securityContext"].get("runAsGroup").is_none());
        for member in ["env", "envFrom", "volumeMounts", "ports"] {
            assert!(holder.get(member).is_none(), "{holder:#}");
        }
    }
}

#[test]
fn only_the_servers_container_has_a_token_or_a_volume_of_the_servers() {
    for changes in [json!({}), http()] {
        let pod = &template(changes)["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        for container in pod["initContainers"].as_array().unwrap() {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            assert!(mounts.iter().all(|mount| mount["name"].as_str().unwrap().starts_with("backend-")), "{mounts:?}");
            let text = container.to_string();
            assert!(!text.contains("AZURE_") && !text.contains("/etc/mcp-entra"), "{text}");
        }
    }
}

#[test]
fn the_webhook_skips_every_container_except_the_servers() {
    let webhook = |mut changes: Value| {
        changes["entra"] = json!({"federation": {"injection": "Webhook"}});
        template(changes)["metadata"]["annotations"]["azure.workload.identity/skip-containers"].clone()
    };
    assert_eq!(webhook(json!({})), "hold-ports;install-shim;backend");
    assert_eq!(webhook(http()), "hold-ports;backend");
    let without = template(json!({}));
    assert!(without["metadata"]["annotations"].get("azure.workload.identity/skip-containers").is_none());
}

#[test]
fn containers_of_a_backend_are_restricted_bounded_and_run_as_the_configured_user() {
    let pod = &template(json!({"backend": {"runAsUser": 1000, "resources": {"limits": {"memory": "1Gi"}}}}))["spec"];
    for container in pod["initContainers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!((&context["runAsNonRoot"], &context["readOnlyRootFilesystem"]), (&json!(true), &json!(true)));
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert!(container["resources"]["limits"].get("memory").is_some());
    }
    assert!(pod["initContainers"][1]["securityContext"].get("runAsUser").is_none());
    let backend = &pod["initContainers"][2];
    assert_eq!(backend["securityContext"]["runAsUser"], 1000);
    assert_eq!(backend["resources"], json!({"requests": {"cpu": "50m"}, "limits": {"memory": "1Gi"}}));
    let default = &template(json!({}))["spec"]["initContainers"][2];
    let resources = json!({"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}});
    assert_eq!(default["resources"], resources);
}

#[test]
fn a_backend_has_the_variables_that_the_spec_names_and_a_home_that_it_can_write_to() {
    let env = |backend: Value| template(json!({"backend": backend}))["spec"]["initContainers"][2]["env"].clone();
    let home = |folder: &str| json!({"name": "HOME", "value": folder});
    assert_eq!(env(json!({})), json!([home("/tmp")]));
    assert_eq!(env(json!({"writableDirs": ["/data", "/tmp"]})), json!([home("/data")]));
    assert_eq!(env(json!({"env": [home("/home/me")]})), json!([home("/home/me")]));
    assert_eq!(env(json!({"writableDirs": []})), Value::Null);
    let secret = json!({"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "graph-backend", "key": "api-key"}}});
    assert_eq!(env(json!({"env": [secret]})), json!([home("/tmp"), secret]));
}

#[test]
fn pods_reach_the_backends_egress_and_no_metadata_service() {
    let egress = |changes: Value| built(changes)[&ChildKind::NetworkPolicy]["spec"]["egress"].clone();
    let tcp = |port: i32| json!([{"port": port, "protocol": "TCP"}]);
    let dns = json!({"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]});
    let anywhere = json!({"ports": tcp(443), "to": [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32"]}},
        {"ipBlock": {"cidr": "::/0", "except": ["fd00:ec2::254/128", "fd20:ce::254/128"]}},
        {"namespaceSelector": {}},
    ]});
    assert_eq!(egress(json!({})), json!([dns, anywhere]));
    let asked = json!({"backend": {"egress": [
        {"cidr": "10.2.0.0/16", "ports": [5432]}, {"cidr": "169.0.0.0/8", "ports": [80]},
    ]}});
    assert_eq!(
        egress(asked),
        json!([
            dns, anywhere,
            {"ports": tcp(5432), "to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}]},
            {"ports": tcp(80), "to": [{"ipBlock": {"cidr": "169.0.0.0/8", "except": ["169.254.0.0/16"]}}]},
        ])
    );
}

#[test]
fn a_change_of_egress_restarts_no_pod_and_a_change_of_the_backend_does() {
    let before = template(json!({}));
    assert_eq!(template(json!({"backend": {"egress": [{"cidr": "10.2.0.0/16", "ports": [5432]}]}})), before);
    for restarting in [
        json!({"args": []}),
        json!({"identity": {"assertion": {}}}),
        json!({"sessions": "Shared"}),
        json!({"pin": {"add": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}}),
        json!({"runAsUser": 1000}),
    ] {
        assert_ne!(template(json!({"backend": restarting})), before, "{restarting}");
    }
}

#[test]
fn every_change_of_a_child_is_drift_except_an_added_sidecar() {
    let key = json!({"secretKeyRef": {"name": "graph-backend", "key": "api-key"}});
    let whole = json!({"backend": {
        "env": [{"name": "TZ", "value": "UTC"}, {"name": "API_KEY", "valueFrom": key}],
        "resources": {"requests": {"cpu": "0.1"}, "limits": {"memory": "1Gi"}},
        "runAsUser": 1000, "writableDirs": ["/tmp", "/var/lib/data"],
        "egress": [{"cidr": "10.2.0.0/16", "ports": [5432]}],
    }});
    for transport in [json!({}), http()] {
        let mut changes = whole.clone();
        json_patch::merge(&mut changes, &transport);
        let seen = all_changes_are_drift(built(changes));
        assert!(seen > 150, "{seen}");
    }

    let desired = &built(json!({}))[&ChildKind::Deployment];
    let mut there = desired.clone();
    let containers = there.pointer_mut("/spec/template/spec/initContainers").unwrap().as_array_mut().unwrap();
    containers.insert(0, json!({"name": "theirs", "image": "x"}));
    assert!(!is_drift(&there, desired));
}

#[test]
fn a_server_without_a_backend_has_no_init_container() {
    let held = Held { root: true, listener_of: None };
    let children = mk_children_with(held, &mk_options(), ResolvedAccount::Unset, |_| {});
    let deployment = &children[&ChildKind::Deployment];
    assert!(deployment["spec"]["template"]["spec"].get("initContainers").is_none());
    assert_ne!(deployment["metadata"]["annotations"][TEMPLATE_HASH], Value::Null);
}
