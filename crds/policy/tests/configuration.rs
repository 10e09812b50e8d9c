//! Tests of clouds and of the configuration file.
#![cfg(test)] // without it, clippy treats functions that tests share as non-test code

use mcp_entra_policy::*;

fn configuration() -> ServerConfiguration {
    ServerConfiguration {
        server: ServerReference { namespace: "productivity".into(), name: "graph".into() },
        public_url: Some("https://graph.mcp.contoso.com/mcp".into()),
        path: "/mcp".into(),
        entra: EntraConfiguration {
            tenant_id: "8f6b0000-0000-0000-0000-00000000000a".into(),
            client_id: "1c2d0000-0000-0000-0000-00000000000b".into(),
            authority: Cloud::Public.authority().into(),
            audiences: vec![],
            required_scopes: vec!["mcp.access".into()],
            allowed_clients: vec![],
            token_versions: TokenVersion::by_default(),
            groups: GroupsSource::Resolve,
        },
        graph: GraphConfiguration {
            base_url: Cloud::Public.graph().into(),
            scopes: vec!["User.Read".into()],
            tools: vec!["get_user_details".into()],
            access: GraphAccess::OnBehalfOf,
        },
        probe: ProbeConfiguration { interval_seconds: 300 },
        rate_limit: RateLimitConfiguration::default(),
        audit: AuditConfiguration::default(),
        trusted_proxies: vec![],
        allowed_origins: vec![],
        authorization_server: None,
        backend: None,
    }
}

/// The verdict on a sound configuration with this change, or the words of its refusal.
fn validated(change: impl FnOnce(&mut ServerConfiguration)) -> Result<(), String> {
    let mut changed = configuration();
    change(&mut changed);
    changed.validate().map_err(|error| error.to_string())
}

/// The same with a backend over HTTP instead of the built-in tools.
fn validated_with_backend(path: &str, identity: BackendIdentity, sessions: BackendSessions) -> Result<(), String> {
    let transport = BackendTransport::StreamableHttp(HttpBackend { port: 3001, path: path.to_owned() });
    validated(|changed| {
        // A scope of the server itself may be written by these, too.
        changed.entra.audiences =
            vec!["https://mcp.contoso.com/Own".into(), "api://1c2d0000-0000-0000-0000-00000000000c".into()];
        changed.graph.tools.clear();
        changed.backend = Some(BackendConfiguration { transport, identity, sessions, pin: None });
    })
}

#[test]
fn a_sound_configuration_is_accepted_and_qualifies_its_scopes() {
    configuration().validate().unwrap();
    assert_eq!(configuration().qualified_scopes(), ["1c2d0000-0000-0000-0000-00000000000b/mcp.access"]);
}

#[test]
fn each_unsound_configuration_is_refused_with_the_field_named() {
    type Change = fn(&mut ServerConfiguration);
    let cases: [(&str, Change); 11] = [
        ("entra.tenantId", |c| c.entra.tenant_id = "contoso.com".into()),
        ("entra.tenantId", |c| c.entra.tenant_id = c.entra.tenant_id.to_uppercase()),
        ("entra.clientId", |c| c.entra.client_id = String::new()),
        ("entra.authority", |c| c.entra.authority = "http://login.example.com".into()),
        ("entra.authority", |c| c.entra.authority = "https://login.example.com/".into()),
        ("graph.baseUrl", |c| c.graph.base_url = "https://user@graph.example.com".into()),
        ("publicUrl", |c| c.public_url = Some("http://graph.mcp.contoso.com/mcp".into())),
        ("publicUrl", |c| c.path = "/other".into()),
        ("entra.requiredScopes", |c| c.entra.required_scopes.clear()),
        ("graph.scopes", |c| c.graph.scopes.clear()),
        ("graph.tools", |c| c.graph.tools.push("drop_database".into())),
    ];
    for (field, change) in cases {
        let error = validated(change).expect_err(field);
        assert!(error.starts_with(field), "{error} should name {field}");
    }
}

#[test]
fn an_origin_is_written_as_browsers_send_it_and_encrypted_unless_it_is_this_machines() {
    let allowed = |origin: &str| {
        validated(|changed| changed.allowed_origins = vec!["https://apps.contoso.com".into(), origin.to_owned()])
    };
    for origin in [
        "https://inspector.contoso.com",
        "https://inspector.contoso.com:8443",
        "https://10.0.0.7",
        "http://localhost:6274",
        "http://127.0.0.1:6274",
        "http://[::1]:6274",
        "http://localhost",
    ] {
        allowed(origin).unwrap();
    }
    for origin in [
        "*",
        "null",
        "",
        "https://*.contoso.com",
        "https://inspector.contoso.com/",
        "https://inspector.contoso.com/page",
        "https://Inspector.contoso.com",
        "https://user@inspector.contoso.com",
        "https://inspector.contoso.com:443",
        "https://inspector.contoso.com:0",
        "http://localhost:80",
        "http://inspector.contoso.com",
        "http://localhost.contoso.com",
        "http://127.0.0.1.contoso.com",
        "inspector.contoso.com",
        "https://a.example\nhttps://b.example",
        "https://a.example\n",
    ] {
        let error = allowed(origin).expect_err(origin);
        assert!(error.starts_with("allowedOrigins: "), "{error}");
    }
}

#[test]
fn resources_of_microsofts_own_are_refused_as_audience_and_as_client_id_with_the_next_step() {
    let with_audience = |audience: &str| {
        let audiences = vec!["https://graph.mcp.contoso.com/mcp".into(), audience.to_owned()];
        validated(|changed| changed.entra.audiences = audiences)
    };
    with_audience("api://1c2d0000-0000-0000-0000-00000000000b").unwrap();
    with_audience("https://graph.microsoft.com.contoso.com").unwrap();
    for domain in MICROSOFT_DOMAINS {
        let error = with_audience(&format!("https://{domain}/")).expect_err(domain);
        assert!(error.starts_with("entra.audiences: ") && error.contains("; use the client id"), "{error}");
    }
    for id in MICROSOFT_APPLICATIONS {
        with_audience(&format!("api://{id}")).expect_err(id);
        let error = validated(|changed| changed.entra.client_id = (*id).to_owned()).expect_err(id);
        assert!(error.starts_with("entra.clientId: ") && error.contains("a resource of Microsoft"), "{error}");
    }
}

#[test]
fn each_cloud_has_an_authority_a_graph_and_an_audience_of_its_own_kind() {
    let facts: Vec<_> = [Cloud::Public, Cloud::USGov, Cloud::USGovDoD, Cloud::China]
        .map(|cloud| (cloud.authority(), cloud.graph(), cloud.federation_audience()))
        .to_vec();
    assert_eq!(
        facts[0],
        ("https://login.microsoftonline.com", "https://graph.microsoft.com", "api://AzureADTokenExchange")
    );
    assert_eq!(
        facts[1],
        ("https://login.microsoftonline.us", "https://graph.microsoft.us", "api://AzureADTokenExchangeUSGov")
    );
    assert_eq!(
        facts[2],
        ("https://login.microsoftonline.us", "https://dod-graph.microsoft.us", "api://AzureADTokenExchangeUSGov")
    );
    assert_eq!(
        facts[3],
        (
            "https://login.partner.microsoftonline.cn",
            "https://microsoftgraph.chinacloudapi.cn",
            "api://AzureADTokenExchangeChina"
        )
    );
}

#[test]
fn a_client_that_is_no_guid_no_version_and_a_rate_of_nothing_are_refused() {
    let refused = |change: fn(&mut ServerConfiguration)| validated(change).unwrap_err();
    validated(|changed| changed.entra.allowed_clients = vec!["77aa0000-0000-0000-0000-00000000000c".into()]).unwrap();
    assert!(refused(|changed| changed.entra.allowed_clients = vec!["VS Code".into()]).contains("entra.allowedClients"));
    assert!(refused(|changed| changed.entra.token_versions.clear()).contains("entra.tokenVersions"));
    assert!(refused(|changed| changed.rate_limit.per_user.requests = 0).contains("rateLimit.perUser"));
    assert!(refused(|changed| changed.rate_limit.per_user.per_seconds = 0).contains("rateLimit.perUser"));
}

fn authorization_server() -> AuthorizationServerConfiguration {
    AuthorizationServerConfiguration {
        session_store: SessionStore::Valkey(ValkeyStore {
            url: "rediss://sessions.example:6380/1".into(),
            username: Some("graph".into()),
            key_prefix: "productivity/graph/".into(),
        }),
        keys: KeyEpochs {
            registration: 1,
            epochs: vec![KeyEpoch { number: 1, used_from: 0 }, KeyEpoch { number: 3, used_from: 900 }],
            after_compromise: None,
        },
        client_registration: ClientRegistration::Listed,
        clients: vec![ListedClient {
            client_id: "copilot-studio".into(),
            name: "Copilot Studio".into(),
            redirect_uris: ["https://global.consent.azure-apim.net/redirect/graph".to_owned()].into(),
        }],
        allowed_redirects: vec!["cursor://anysphere.cursor-retrieval/oauth/callback".into()],
        client_metadata_hosts: vec!["client.example".into()],
        user_consent_scopes: vec!["User.Read".into()],
        serves_root: true,
    }
}

#[test]
fn an_unsound_authorization_server_is_refused_with_the_field_named_and_a_sound_one_is_not() {
    let check = |change: fn(&mut AuthorizationServerConfiguration)| {
        validated(|changed| change(changed.authorization_server.insert(authorization_server())))
    };
    check(|_| {}).unwrap();
    check(|server| server.session_store = SessionStore::Memory {}).unwrap();
    type Change = fn(&mut AuthorizationServerConfiguration);
    let url = |server: &mut AuthorizationServerConfiguration, url: &str| {
        let SessionStore::Valkey(valkey) = &mut server.session_store else { panic!() };
        valkey.url = url.into();
    };
    for bad in
        ["redis://sessions.example", "rediss://user:word@sessions.example", "rediss://sessions.example/a", "rediss://"]
    {
        let change = |changed: &mut ServerConfiguration| {
            url(changed.authorization_server.insert(authorization_server()), bad);
        };
        let error = validated(change).expect_err(bad);
        assert!(error.starts_with("authorizationServer.sessionStore.valkey.url: "), "{error}");
    }
    let cases: [(&str, Change); 13] = [
        ("sessionStore.valkey.keyPrefix", |server| {
            let SessionStore::Valkey(valkey) = &mut server.session_store else { panic!() };
            valkey.key_prefix.clear();
        }),
        ("keys", |server| server.keys.epochs.clear()),
        ("keys", |server| server.keys.registration = 2),
        ("keys", |server| server.keys.epochs.reverse()),
        ("keys", |server| server.keys.epochs[1].number = 1),
        ("clients", |server| server.clients.clear()),
        ("clients.clientId", |server| server.clients[0].client_id = "Copilot Studio".into()),
        ("clients.clientId", |server| server.clients.push(server.clients[0].clone())),
        ("clients.redirectUris", |server| server.clients[0].redirect_uris.clear()),
        ("clients.redirectUris", |server| server.clients[0].redirect_uris = ["http://evil.example/".to_owned()].into()),
        ("allowedRedirects", |server| server.allowed_redirects.push("javascript:/alert(1)".into())),
        ("clientMetadataHosts", |server| server.client_metadata_hosts.push("https://client.example".into())),
        ("userConsentScopes", |server| server.user_consent_scopes.push("Mail.Read".into())),
    ];
    for (field, change) in cases {
        let error = check(change).expect_err(field);
        assert!(error.starts_with(&format!("authorizationServer.{field}: ")), "{error} should name {field}");
    }
    let mut inside = ServerConfiguration { public_url: None, ..configuration() };
    inside.authorization_server = Some(authorization_server());
    assert!(inside.validate().unwrap_err().to_string().starts_with("authorizationServer: requires publicUrl"));
}

#[test]
fn a_redirect_uri_is_https_this_machine_or_a_programs_own_scheme_and_has_no_fragment() {
    for uri in [
        "https://client.example/callback?from=mcp",
        "https://client.example:8443",
        "http://127.0.0.1:33418/",
        "http://localhost/callback",
        "http://[::1]:1/",
        "cursor://anysphere.cursor-retrieval/oauth/callback",
        "com.example.app:/callback",
    ] {
        assert!(is_redirect_uri(uri), "{uri}");
    }
    for uri in [
        "",
        "http://client.example/",
        "http://localhost.evil.example/",
        "https://client.example/#fragment",
        "https://user@client.example/",
        "https://client.example/a b",
        "javascript:/alert(1)",
        "data:/text",
        "mailto:/someone",
        "intent:/open",
        "file:///etc/passwd",
        "HTTPS://client.example/",
        "https:/client.example",
        "app:callback",
    ] {
        assert!(!is_redirect_uri(uri), "{uri}");
    }
}

/// Returns the error for an HTTP backend with this on-behalf-of scope.
fn with_scope(scope: &str) -> Result<(), String> {
    let identity = BackendIdentity::OnBehalfOf(BackendScope { scope: scope.into() });
    validated_with_backend("/mcp", identity, BackendSessions::PerPrincipal)
}

#[test]
fn a_backend_gets_tokens_for_another_application_and_never_for_the_server_itself() {
    for scope in [
        "api://1c2d0000-0000-0000-0000-0000000000ff/access",
        "api://time/access",
        "https://mcp.contoso.com/own/time/access",
        "https://mcp.contoso.com/time/access",
        "https://mcp.contoso.com/access",
        "https://graph.mcp.contoso.com/access",
    ] {
        with_scope(scope).unwrap();
    }
    for scope in [
        "api://1c2d0000-0000-0000-0000-00000000000b/access",
        "api://1C2D0000-0000-0000-0000-00000000000B/access",
        "api://1c2d0000-0000-0000-0000-00000000000b//access",
        "api:///1c2d0000-0000-0000-0000-00000000000b/access",
        "api://8f6b0000-0000-0000-0000-00000000000a/1c2d0000-0000-0000-0000-00000000000b/access",
        "api://1c2d0000-0000-0000-0000-00000000000b/sub/access",
        "https://1c2d0000-0000-0000-0000-00000000000b/access",
        "api://1c2d0000-0000-0000-0000-00000000000c/access",
        "https://mcp.contoso.com/own/access",
        "https://mcp.contoso.com/Own//access",
        "api://mcp.contoso.com/own/access",
        "https://graph.mcp.contoso.com/mcp/access",
    ] {
        let error = with_scope(scope).expect_err(scope);
        assert!(error.starts_with("backend.identity.onBehalfOf.scope: "), "{error}");
        assert!(error.contains("the backend's own app registration"), "{error}");
    }
    assert!(with_scope("api://time").unwrap_err().contains("write one scope with its resource"));
}

#[test]
fn the_last_slash_of_a_backends_scope_divides_resource_and_name() {
    for (scope, parts) in [
        ("api://time/access", ("api://time", "access")),
        ("https://mcp.contoso.com/time/.default", ("https://mcp.contoso.com/time", ".default")),
    ] {
        assert_eq!(BackendScope { scope: scope.into() }.parts(), parts);
    }
}

#[test]
fn a_backend_is_reached_at_this_pod_alone_and_callers_share_no_session_with_one_that_knows_them() {
    let shared = BackendSessions::Shared;
    for path in ["/", "/mcp", "/a/b//c"] {
        validated_with_backend(path, BackendIdentity::None, shared).unwrap();
    }
    for path in ["", "mcp", "//evil.example/mcp", "/\\evil.example/mcp", "/mcp?x", "/mcp#x", "/m cp"] {
        let refused = validated_with_backend(path, BackendIdentity::None, shared).expect_err(path);
        assert!(refused.starts_with("backend."), "{path}: {refused}");
    }
    let refused = validated_with_backend("/mcp", BackendIdentity::Assertion {}, shared).unwrap_err();
    assert!(refused.contains("backend.sessions"), "{refused}");
    validated_with_backend("/mcp", BackendIdentity::Assertion {}, BackendSessions::PerPrincipal).unwrap();
}
