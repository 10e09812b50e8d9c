//! Validation of the backend: its part of the configuration, its image, and its access to the users' identity. Pure.

use mcp_entra_crds::{Backend, BackendIdentity as Asked, McpServerSpec, OnBehalfOf, Transport};
use mcp_entra_policy::{BackendConfiguration, BackendIdentity, BackendScope, BackendTransport, HttpBackend};

use crate::{
    conditions::condition::Reason,
    mcpserver::{
        keys::names::is_name_of_any,
        validate::refusal::{Refusal, refuse},
    },
    objects::owner::Owner,
    runtime::options::{Options, matches_any},
};

/// Validates the backend.
pub(super) fn validate(
    owner: &Owner,
    spec: &McpServerSpec,
    options: &Options,
) -> Result<Option<BackendConfiguration>, Refusal> {
    let backend = match (&spec.graph, &spec.backend) {
        (Some(_), None) => return Ok(None),
        (None, Some(backend)) => backend,
        _ => return invalid("set exactly one of spec.graph and spec.backend"),
    };
    if spec.network_policy.is_none() {
        return invalid("spec.backend needs spec.networkPolicy; list the peers that may reach the server in allowFrom");
    }
    image(&backend.image, options)?;
    user(backend)?;
    secrets(owner, backend, options)?;
    Ok(Some(BackendConfiguration {
        transport: transport(backend)?,
        identity: identity(spec, backend.identity.as_ref(), options)?,
        sessions: backend.sessions,
        pin: backend.pin.clone(),
    }))
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Refusal> {
    refuse(Reason::InvalidConfiguration, message)
}

/// Checks the image. It runs in the namespace, with the network of the pods and the Secrets of the backend.
fn image(image: &str, options: &Options) -> Result<(), Refusal> {
    if matches_any(&options.allowed_backend_images, image) {
        return Ok(());
    }
    refuse(
        Reason::ImageNotAllowed,
        format!(
            "spec.backend.image: {image} is not allowed; use an allowed image, or ask the administrator of mcp-entra-operator to start it with --allowed-backend-image={image}"
        ),
    )
}

/// Checks the user. A backend with the server's user could take the server's ports, and receive the tokens of callers.
fn user(backend: &Backend) -> Result<(), Refusal> {
    if backend.run_as_user != Some(Backend::COMPANION_USER) {
        return Ok(());
    }
    invalid(format!(
        "spec.backend.runAsUser: {} is the user of the server's own container, whose ports a backend with that user could take; use another user, or remove the field",
        Backend::COMPANION_USER
    ))
}

/// Checks the Secrets of variables. A variable shows a Secret to the author of the command, so only Secrets with the
/// backend's name are allowed, and those that the operator allows.
fn secrets(owner: &Owner, backend: &Backend, options: &Options) -> Result<(), Refusal> {
    let named = backend.env.iter().filter_map(|variable| Some(&variable.value_from.as_ref()?.secret_key_ref.name));
    named.into_iter().try_for_each(|name| secret(owner, name, options))
}

fn secret(Owner { namespace, name: server, .. }: &Owner, secret: &str, options: &Options) -> Result<(), Refusal> {
    let rest = secret.strip_prefix(server.as_str()).and_then(|rest| rest.strip_prefix("-backend"));
    if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
        return Ok(());
    }
    let own = format!("use a Secret named {server}-backend, or {server}-backend. with a suffix");
    if is_name_of_any(secret) {
        return invalid(format!(
            "spec.backend.env: Secret {secret} has the name of an authorization server's key, which no backend may read; {own}"
        ));
    }
    let listed = format!("{namespace}/{secret}");
    if options.allowed_backend_secrets.contains(&listed) {
        return Ok(());
    }
    invalid(format!(
        "spec.backend.env: the name of Secret {secret} does not belong to this server's backend; {own}, or ask the administrator of mcp-entra-operator to start it with --allowed-backend-secret={listed}"
    ))
}

fn transport(backend: &Backend) -> Result<BackendTransport, Refusal> {
    match (backend.transport, backend.port) {
        (Transport::Stdio, None) if backend.path.is_none() && !backend.command.is_empty() => {
            Ok(BackendTransport::Stdio {})
        }
        (Transport::Stdio, _) => invalid(
            "spec.backend: transport Stdio needs a command, and allows neither port nor path; correct spec.backend",
        ),
        (Transport::StreamableHttp, port) => {
            let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else {
                return invalid(
                    "spec.backend.port: transport StreamableHttp needs the port that the backend listens on; set it",
                );
            };
            let path = backend.path.as_deref().unwrap_or(Backend::DEFAULT_PATH).to_owned();
            Ok(BackendTransport::StreamableHttp(HttpBackend { port, path }))
        }
    }
}

fn identity(spec: &McpServerSpec, asked: Option<&Asked>, options: &Options) -> Result<BackendIdentity, Refusal> {
    match asked {
        None | Some(Asked { none: Some(_), assertion: None, on_behalf_of: None }) => Ok(BackendIdentity::None),
        Some(Asked { none: None, assertion: Some(_), on_behalf_of: None }) => Ok(BackendIdentity::Assertion {}),
        Some(Asked { none: None, assertion: None, on_behalf_of: Some(OnBehalfOf { scope }) }) => {
            resource(spec, scope, options)?;
            Ok(BackendIdentity::OnBehalfOf(BackendScope { scope: scope.clone() }))
        }
        Some(_) => invalid("spec.backend.identity: set exactly one of none, assertion and onBehalfOf"),
    }
}

/// Checks the resource of a scope. With tokens for the server's own registration, a backend could call the server as
/// its users. It could misuse tokens for another resource.
fn resource(spec: &McpServerSpec, scope: &str, options: &Options) -> Result<(), Refusal> {
    let field = "spec.backend.identity.onBehalfOf.scope";
    let resource = scope.rsplit_once('/').map_or(scope, |(resource, _)| resource);
    let bare = |audience: &str| {
        let lower = audience.to_ascii_lowercase();
        let bare = ["api://", "https://"].iter().find_map(|scheme| lower.strip_prefix(scheme)).unwrap_or(&lower);
        bare.trim_end_matches('/').to_owned()
    };
    let own = std::iter::once(&spec.entra.client_id).chain(&spec.entra.audiences);
    if own.into_iter().any(|audience| bare(audience) == bare(resource)) {
        return refuse(
            Reason::ResourceNotAllowed,
            format!(
                "{field}: {resource} is this server's own app registration, so the backend could call the server as its users; create a separate app registration for the backend's resource, and use that"
            ),
        );
    }
    if options.allowed_backend_resources.iter().any(|allowed| allowed == resource) {
        return Ok(());
    }
    refuse(
        Reason::ResourceNotAllowed,
        format!(
            "{field}: {resource} is not allowed; use identity.assertion, or ask the administrator of mcp-entra-operator to start it with --allowed-backend-resource={resource}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use mcp_entra_policy::{BackendSessions, ServerConfiguration};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        mcpserver::{
            resolved::Resolved,
            validate::{tests::mk_options, validate},
        },
        objects::fixtures::{mk_backend_server, mk_owner},
    };

    fn check(changes: Value) -> Result<ServerConfiguration, Refusal> {
        let mut server = mk_backend_server();
        let mut spec = serde_json::to_value(&server.spec).unwrap();
        json_patch::merge(&mut spec, &changes);
        server.spec = serde_json::from_value(spec).unwrap();
        let validated = validate(&server, &mk_owner(), &Resolved::default(), &mk_options())?;
        Ok(serde_yaml::from_str(&validated.configuration).unwrap())
    }

    fn assert_refused(changes: Value, reason: Reason, told: &str) {
        let refusal = check(changes.clone()).unwrap_err();
        assert_eq!(refusal.reason, reason, "{changes}");
        assert!(refusal.message.contains(told), "{changes}: {}", refusal.message);
    }

    fn http(more: Value) -> Value {
        let mut backend = json!({"transport": "StreamableHttp", "port": 3001, "command": null, "args": null});
        json_patch::merge(&mut backend, &more);
        json!({"backend": backend})
    }

    #[test]
    fn a_server_with_a_backend_offers_no_built_in_tools_and_reads_only_groups_from_graph() {
        let configuration = check(json!({})).unwrap();
        configuration.validate().unwrap();
        assert_eq!((configuration.graph.tools.len(), configuration.graph.scopes), (0, vec!["User.Read".to_owned()]));
        let backend = configuration.backend.unwrap();
        assert_eq!(backend.transport, BackendTransport::Stdio {});
        assert_eq!((backend.identity, backend.sessions), (BackendIdentity::None, BackendSessions::PerPrincipal));
        assert_eq!(backend.pin, None);
    }

    #[test]
    fn the_backend_fields_of_the_spec_reach_the_configuration() {
        let digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let backend = check(http(json!({
            "identity": {"onBehalfOf": {"scope": "api://orders/access"}}, "sessions": "PerPrincipal", "pin": {"add": digest},
        })));
        let backend = backend.unwrap().backend.unwrap();
        let endpoint = HttpBackend { port: 3001, path: "/mcp".into() };
        assert_eq!(backend.transport, BackendTransport::StreamableHttp(endpoint));
        assert_eq!(backend.identity, BackendIdentity::OnBehalfOf(BackendScope { scope: "api://orders/access".into() }));
        assert_eq!(backend.sessions, BackendSessions::PerPrincipal);
        assert_eq!(backend.pin.unwrap()["add"], digest);
        let path = check(http(json!({"path": "/"}))).unwrap().backend.unwrap().transport;
        assert_eq!(path, BackendTransport::StreamableHttp(HttpBackend { port: 3001, path: "/".into() }));
        let asserted = check(json!({"backend": {"identity": {"assertion": {}}}})).unwrap().backend.unwrap();
        assert_eq!(asserted.identity, BackendIdentity::Assertion {});
    }

    #[test]
    fn values_that_the_definition_refuses_are_also_refused_here() {
        for (changes, told) in [
            (json!({"graph": {"scopes": ["User.Read"]}}), "exactly one of spec.graph and spec.backend"),
            (json!({"backend": null}), "exactly one of spec.graph and spec.backend"),
            (json!({"networkPolicy": null}), "list the peers"),
            (json!({"backend": {"command": null}}), "needs a command"),
            (json!({"backend": {"runAsUser": 65532}}), "could take; use another user, or remove the field"),
            (json!({"backend": {"port": 3001}}), "neither port nor path"),
            (http(json!({"port": null})), "the port that the backend listens on; set it"),
            (json!({"backend": {"identity": {"none": {}, "assertion": {}}}}), "exactly one of none"),
            (json!({"backend": {"identity": {"onBehalfOf": {"scope": "api://orders/access"}}}}), "use the assertion"),
        ] {
            assert_refused(changes, Reason::InvalidConfiguration, told);
        }
    }

    #[test]
    fn only_allowed_backend_images_are_accepted() {
        let image = |image: &str| json!({"backend": {"image": image}});
        check(image("registry.example/mcp/time@sha256:0")).unwrap();
        for refused in ["registry.example/mcp", "registry.example/mcp2/time:1", "evil/registry.example/mcp/time"] {
            assert_refused(image(refused), Reason::ImageNotAllowed, &format!("--allowed-backend-image={refused}"));
        }
        // Images that are allowed for servers are not allowed for backends.
        assert_refused(image("registry.example/one:1"), Reason::ImageNotAllowed, "--allowed-backend-image=");
    }

    fn secret(name: &str) -> Value {
        let reference = json!({"secretKeyRef": {"name": name, "key": "a"}});
        json!({"backend": {"env": [{"name": "A", "valueFrom": reference}]}})
    }

    #[test]
    fn a_secret_is_read_only_if_its_name_says_that_it_is_for_this_servers_backend() {
        for ours in ["graph-backend", "graph-backend.database", "graph-backend.a-0123abcd-oauth-1"] {
            check(secret(ours)).unwrap();
        }
        for refused in ["graph", "other-backend", "graph-backends"] {
            assert_refused(secret(refused), Reason::InvalidConfiguration, "use a Secret named graph-backend");
        }
        let next = "--allowed-backend-secret=productivity/other-backend";
        assert_refused(secret("other-backend"), Reason::InvalidConfiguration, next);
    }

    #[test]
    fn a_secret_with_another_name_is_read_where_the_operator_allows_it_in_its_namespace_alone() {
        check(secret("shared-database")).unwrap();
        // The last one is allowed in another namespace.
        for refused in ["shared-databases", "shared", "shared-database.a", "shared-prefix-1", "sales-database"] {
            let next = format!("--allowed-backend-secret=productivity/{refused}");
            assert_refused(secret(refused), Reason::InvalidConfiguration, &next);
        }
        let mut second = secret("shared-database");
        let other = json!({"name": "B", "valueFrom": {"secretKeyRef": {"name": "shared", "key": "a"}}});
        second["backend"]["env"].as_array_mut().unwrap().push(other);
        assert_refused(second, Reason::InvalidConfiguration, "productivity/shared");
    }

    #[test]
    fn a_key_of_an_authorization_server_is_never_read_although_the_operator_allows_its_name() {
        // A key of an McpServer graph-backend. The options allow it.
        let key = "graph-backend-0123abcd-oauth-1";
        assert_refused(
            secret(key),
            Reason::InvalidConfiguration,
            "no backend may read; use a Secret named graph-backend",
        );
    }

    #[test]
    fn users_tokens_go_only_to_allowed_resources_and_never_to_the_servers_own() {
        let scope = |scope: &str| http(json!({"identity": {"onBehalfOf": {"scope": scope}}}));
        check(scope("api://orders/access")).unwrap();
        for refused in ["api://orders2/access", "api://orders/deep/access", "https://orders/access"] {
            assert_refused(scope(refused), Reason::ResourceNotAllowed, "--allowed-backend-resource=");
        }
        let own = ["api://1c2d0000-0000-0000-0000-00000000000b", "api://1C2D0000-0000-0000-0000-00000000000B"];
        for own in own {
            assert_refused(scope(&format!("{own}/access")), Reason::ResourceNotAllowed, "own app registration");
        }
        let mut audience = scope("api://orders/access");
        audience["entra"] = json!({"audiences": ["api://orders"]});
        assert_refused(audience, Reason::ResourceNotAllowed, "own app registration");
    }
}
