//! Tests of `spec.backend`.

use super::*;

fn mk_stdio() -> Value {
    let mut server = mk_server();
    server["spec"].as_object_mut().unwrap().remove("graph");
    server["spec"]["backend"] = json!({
        "image": "registry.example/mcp/time:1",
        "transport": "Stdio",
        "command": ["python", "-m", "mcp_server_time"],
        "args": ["--local-timezone", "Europe/Stockholm"],
        "env": [
            {"name": "TZ", "value": "UTC"},
            {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "graph-backend", "key": "api-key"}}},
        ],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
        "runAsUser": 1000,
        "writableDirs": ["/tmp", "/var/lib/data.1"],
        "identity": {"assertion": {}},
        "sessions": "PerPrincipal",
        "pin": {"get_current_time": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
        "egress": [{"cidr": "10.2.0.0/16", "ports": [5432]}],
    });
    server
}

fn mk_http() -> Value {
    let mut server = mk_stdio();
    let backend = server["spec"]["backend"].as_object_mut().unwrap();
    backend.extend(json!({"transport": "StreamableHttp", "port": 3001, "path": "/mcp"}).as_object().unwrap().clone());
    backend["identity"] = json!({"onBehalfOf": {"scope": "api://orders/access"}});
    server
}

fn mk_autoscaled_backend() -> Value {
    let mut server = mk_stdio();
    server["spec"].as_object_mut().unwrap().remove("replicas");
    server["spec"]["autoscaling"] = json!({"minReplicas": 2, "maxReplicas": 10});
    server
}

fn mk_signing_in() -> Value {
    let mut server = mk_stdio();
    server["spec"]["replicas"] = json!(1);
    server["spec"]["authorizationServer"] = json!({"sessionStore": {"memory": {}}});
    server
}

#[tokio::test]
async fn a_bad_backend_is_refused_with_the_field_named() {
    let secret = |name: &str| json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "a"}}});
    let valued = |name: &str| json!({"name": name, "value": "x"});
    let egress = |cidr: &str| json!({"cidr": cidr, "ports": [443]});
    let digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let pins = (0..257).map(|number| (format!("a{number}"), json!(digest))).collect::<serde_json::Map<_, _>>();
    const AT: &str = "/spec/backend";
    let at = |member: &str| format!("{AT}/{member}");
    let mut cases: Vec<(String, Value, &str)> = vec![
        ("/spec/graph".into(), json!({"scopes": ["User.Read"]}), "exactly one of spec.graph and spec.backend"),
        (AT.into(), json!(null), "exactly one of spec.graph and spec.backend"),
        ("/spec/networkPolicy".into(), json!(null), "spec.backend requires spec.networkPolicy"),
        (at("image"), json!(null), "spec.backend.image"),
        (at("image"), json!("an image"), "spec.backend.image"),
        (at("transport"), json!("Sse"), "spec.backend.transport"),
        (at("command"), json!([]), "command is required"),
        (at("command"), json!(null), "command is required"),
        (at("command"), many(65, |_| json!("a")), "spec.backend.command"),
        (at("command/0"), json!("a".repeat(4097)), "spec.backend.command"),
        (at("args"), many(65, |_| json!("a")), "spec.backend.args"),
        (at("args/0"), json!("a".repeat(4097)), "spec.backend.args"),
        (at("port"), json!(3001), "port and path are allowed only with transport: StreamableHttp"),
        (at("path"), json!("/mcp"), "port and path are allowed only with transport: StreamableHttp"),
        (at("env"), many(65, |number| valued(&format!("A{number}"))), "spec.backend.env"),
        (at("env/-"), valued("TZ"), "spec.backend.env"),
        (at("env/-"), valued("NOT A NAME"), "spec.backend.env"),
        (at("env/-"), json!({"name": "A", "value": "a".repeat(4097)}), "spec.backend.env"),
        (
            at("env/0/valueFrom"),
            secret("graph-backend")["valueFrom"].clone(),
            "value and valueFrom must not both be set",
        ),
        (at("env/-"), json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}), "fieldRef"),
        (at("env/-"), secret("Anybodys"), "valueFrom.secretKeyRef.name"),
        (at("env/-"), secret("any/bodys"), "valueFrom.secretKeyRef.name"),
        (at("env/-"), secret("graph-0123abcd-oauth-1"), "a key of an authorization server"),
        (at("env/-"), secret("graph-backend-0123abcd-oauth-1"), "a key of an authorization server"),
        (at("env/1/valueFrom/secretKeyRef/key"), json!("../a"), "valueFrom.secretKeyRef.key"),
        (at("env/1/valueFrom/secretKeyRef/optional"), json!(true), "optional"),
        (at("resources/requests/cpu"), json!("much"), "spec.backend.resources.requests.cpu"),
        (at("runAsUser"), json!(0), "spec.backend.runAsUser"),
        (at("runAsUser"), json!(65532), "65532 is the user of the companion"),
        (at("writableDirs"), many(9, |number| json!(format!("/{number}"))), "spec.backend.writableDirs"),
        (at("writableDirs/-"), json!("/tmp"), "spec.backend.writableDirs"),
        (at("identity"), json!({}), "exactly one of none, assertion and onBehalfOf"),
        (at("identity/none"), json!({}), "exactly one of none, assertion and onBehalfOf"),
        (at("identity"), json!({"onBehalfOf": {"scope": "api://orders/access"}}), "use identity.assertion"),
        (at("sessions"), json!("PerCall"), "spec.backend.sessions"),
        (at("sessions"), json!("Shared"), "use PerPrincipal"),
        (at("pin"), json!({}), "spec.backend.pin"),
        (at("pin"), json!(pins), "spec.backend.pin"),
        (at("pin"), json!({"a": "sha256:0"}), "spec.backend.pin"),
        (at("pin"), json!({"a".repeat(129): digest}), "a tool name must have 1 to 128 characters"),
        (at("egress"), many(17, |_| egress("10.0.0.0/8")), "spec.backend.egress"),
        (at("egress/-"), egress("10.0.0.0"), "a range of addresses such as"),
        (at("egress/-"), egress("10.2.3.4/16"), "a range of addresses such as"),
        (at("egress/-"), json!({"cidr": "10.0.0.0/8", "ports": []}), "spec.backend.egress"),
        (at("egress/-"), json!({"cidr": "10.0.0.0/8", "ports": [0]}), "spec.backend.egress"),
        (at("egress/-"), json!({"cidr": "10.0.0.0/8", "ports": [443, 443]}), "spec.backend.egress"),
        (at("securityContext"), json!({"runAsUser": 0}), ".spec.backend.securityContext"),
        (at("volumeMounts"), json!([]), ".spec.backend.volumeMounts"),
    ];
    for name in ["AZURE_CLIENT_SECRET", "AZURE_PASSWORD", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_FEDERATED_TOKEN_FILE"]
    {
        cases.push((at("env/-"), valued(name), "a backend has no credential in Entra"));
    }
    for folder in ["/", "tmp", "/a b", "/tmp/"] {
        cases.push((at("writableDirs/-"), json!(folder), "spec.backend.writableDirs"));
    }
    for folder in ["/..", "/a/../etc", "/a/.", "/proc/1", "/sys", "/dev", "/run/mcp-entra", "/run/mcp-entra/shim"] {
        cases.push((at("writableDirs/-"), json!(folder), "a folder must be an absolute path without"));
    }
    for cidr in [
        "169.254.169.254/32",
        "169.254.169.252/32",
        "169.254.0.0/16",
        "168.63.129.16/32",
        "100.100.100.200/32",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
    ] {
        cases.push((at("egress/-"), egress(cidr), "must not be the metadata service of a cloud"));
    }
    let cases = cases.iter().map(|(pointer, value, named)| (pointer.as_str(), value.clone(), *named)).collect();
    assert_refused::<McpServer>(mk_stdio, cases).await;
    let cases = vec![
        ("/spec/backend/port", json!(null), "port is required with transport: StreamableHttp"),
        ("/spec/backend/port", json!(0), "spec.backend.port"),
        ("/spec/backend/port", json!(65536), "spec.backend.port"),
        ("/spec/backend/port", json!(8080), "are ports of the companion"),
        ("/spec/backend/port", json!(8081), "are ports of the companion"),
        ("/spec/backend/path", json!("mcp"), "spec.backend.path"),
        ("/spec/backend/path", json!("/mcp?a"), "spec.backend.path"),
        ("/spec/backend/identity/onBehalfOf/scope", json!("User.Read"), "spec.backend.identity.onBehalfOf.scope"),
    ];
    assert_refused::<McpServer>(mk_http, cases).await;
    let cpu = "spec.backend.resources.requests.cpu is required";
    let cases = vec![
        ("/spec/backend/resources", json!(null), cpu),
        ("/spec/backend/resources/requests", json!({"memory": "1Gi"}), cpu),
    ];
    assert_refused::<McpServer>(mk_autoscaled_backend, cases).await;
    let consent = (
        "/spec/authorizationServer/userConsentScopes",
        json!(["User.Read"]),
        "without spec.graph, the list must be empty",
    );
    assert_refused::<McpServer>(mk_signing_in, vec![consent]).await;
}

#[tokio::test]
async fn the_neighbours_of_bad_backends_are_accepted() {
    let secret = |name: &str| json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "a"}}});
    let digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let pins = (0..256).map(|number| (format!("a{number}"), json!(digest))).collect::<serde_json::Map<_, _>>();
    let cases = vec![
        ("/spec/backend/args", json!(null)),
        ("/spec/backend/command", many(64, |_| json!("a"))),
        ("/spec/backend/env", json!(null)),
        ("/spec/backend/env", many(64, |number| json!({"name": format!("A{number}")}))),
        ("/spec/backend/env/-", json!({"name": "AZURE_CLIENT_ID", "value": "x"})),
        ("/spec/backend/env/-", secret("graph-backend.database")),
        // The operator decides on these.
        ("/spec/backend/env/-", secret("anybodys")),
        ("/spec/backend/env/-", secret("other-backend.1")),
        ("/spec/backend/env/-", secret("graph-backend.a-0123abcd-oauth-1")),
        ("/spec/backend/resources", json!(null)),
        ("/spec/backend/runAsUser", json!(null)),
        ("/spec/backend/runAsUser", json!(65533)),
        ("/spec/backend/writableDirs", json!(null)),
        ("/spec/backend/writableDirs", json!([])),
        ("/spec/backend/writableDirs/-", json!("/process")),
        ("/spec/backend/writableDirs/-", json!("/home/..a/b")),
        ("/spec/backend/identity", json!(null)),
        ("/spec/backend/identity", json!({"none": {}})),
        ("/spec/backend/sessions", json!(null)),
        ("/spec/backend/pin", json!(null)),
        ("/spec/backend/pin", json!(pins)),
        ("/spec/backend/egress", json!(null)),
        ("/spec/backend/egress/-", json!({"cidr": "0.0.0.0/0", "ports": [1, 65535]})),
        ("/spec/backend/egress/-", json!({"cidr": "2001:db8::/32", "ports": [443]})),
        ("/spec/backend/egress/-", json!({"cidr": "169.253.169.254/32", "ports": [53]})),
    ];
    assert_accepted::<McpServer>(mk_stdio, cases).await;
    let cases = vec![
        ("/spec/backend/command", json!(null)),
        ("/spec/backend/path", json!(null)),
        ("/spec/backend/path", json!("/")),
        ("/spec/backend/port", json!(65535)),
        ("/spec/backend/identity", json!({"assertion": {}})),
        ("/spec/backend/identity/onBehalfOf/scope", json!("https://orders.example/.default")),
    ];
    assert_accepted::<McpServer>(mk_http, cases).await;
    let limited = ("/spec/backend/resources", json!({"limits": {"cpu": 1}}));
    assert_accepted::<McpServer>(mk_autoscaled_backend, vec![limited]).await;
    assert_accepted::<McpServer>(mk_signing_in, vec![("/spec/suspend", json!(true))]).await;
}
