//! Tests of dynamic registration and of listed clients.

use serde_json::{Value, json};

use super::fixture::{ISSUER, clients, configuration, redirects_of, sealer};
use crate::oauth::clients::fields::NAMELESS;
use crate::oauth::clients::registration::{MAXIMUM_BODY, MAXIMUM_REDIRECTS};
use crate::oauth::clients::{ClientError, ClientKind, Clients, Fetcher, RedirectRefusal, RegistrationError};
use crate::oauth::seal::Purpose;

/// The registration request of VS Code.
fn request() -> Value {
    json!({
        "client_name": "Visual Studio Code",
        "client_uri": "https://code.visualstudio.com",
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "response_types": ["code"],
        "redirect_uris": [
            "https://insiders.vscode.dev/redirect", "https://vscode.dev/redirect", "http://127.0.0.1/",
            "http://127.0.0.1:33418/",
        ],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    })
}

/// Returns the request with other members.
fn with(members: &Value) -> Vec<u8> {
    let mut request = request();
    request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    request.to_string().into_bytes()
}

fn registered(clients: &Clients, members: &Value) -> String {
    let answer = clients.register(&with(members)).unwrap();
    answer["client_id"].as_str().unwrap().to_owned()
}

fn refusal(members: &Value) -> (&'static str, u16, String) {
    let error = clients(json!({})).register(&with(members)).unwrap_err();
    (error.code(), error.status().as_u16(), error.to_string())
}

#[tokio::test]
async fn a_client_registers_itself_and_is_found_by_the_id_that_it_got() {
    let clients = clients(json!({}));
    let mut answer = clients.register(&with(&json!({}))).unwrap();
    let issued_at = answer["client_id_issued_at"].take().as_i64().unwrap();
    assert!((jiff::Timestamp::now().as_second() - issued_at).abs() < 60);
    let id = answer["client_id"].take().as_str().unwrap().to_owned();
    let expected = json!({
        "client_id": null,
        "client_id_issued_at": null,
        "client_name": "Visual Studio Code",
        "redirect_uris": request()["redirect_uris"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    assert_eq!(answer, expected);
    assert!(id.len() < 300, "{} characters", id.len());

    let client = clients.find(&id).await.unwrap();
    assert_eq!((&*client.id, &*client.name, &client.kind), (&*id, "Visual Studio Code", &ClientKind::Registered));
    let digits = client.reference.strip_prefix("registered:").unwrap();
    assert!(digits.len() == 16 && digits.chars().all(|digit| digit.is_ascii_hexdigit()), "{digits}");
    assert_eq!(client.redirect(Some("http://127.0.0.1:59656/")).unwrap().as_str(), "http://127.0.0.1:59656/");
    assert_eq!(client.redirect(Some("https://claude.ai/api/mcp/auth_callback")), Err(RedirectRefusal::NotRegistered));
}

#[tokio::test]
async fn a_redirect_uri_that_may_not_be_registered_is_dropped_and_the_client_registered() {
    let clients = clients(json!({"allowedRedirects": ["https://app.example/callback"]}));
    let redirect_uris =
        ["https://evil.example/", "https://app.example/callback", "javascript:x", "http://localhost/cb"];
    let answer = clients.register(&with(&json!({"redirect_uris": redirect_uris}))).unwrap();
    let kept = ["https://app.example/callback", "http://localhost/cb"];
    assert_eq!(answer["redirect_uris"], json!(kept));
    let client = clients.find(answer["client_id"].as_str().unwrap()).await.unwrap();
    assert_eq!(redirects_of(&client), kept.into());
}

#[test]
fn a_client_without_any_redirect_uri_that_may_be_registered_learns_why_and_what_to_do() {
    let (code, status, text) = refusal(&json!({"redirect_uris": ["https://evil.example/", "javascript:x"]}));
    assert_eq!((code, status), ("invalid_redirect_uri", 400));
    for part in ["redirect_uris[0]", "neither on this computer nor", "spec.authorizationServer.allowedRedirects"] {
        assert!(text.contains(part), "{text}");
    }
    for redirect_uris in [json!([]), json!(null), json!("http://127.0.0.1/"), json!([1]), json!({})] {
        let (code, status, text) = refusal(&json!({"redirect_uris": redirect_uris}));
        assert_eq!((code, status), ("invalid_redirect_uri", 400), "{text}");
    }
}

#[test]
fn whatever_authentication_a_client_asks_for_it_gets_none() {
    for method in [json!("client_secret_basic"), json!("private_key_jwt"), json!(null), json!(7)] {
        let answer = clients(json!({})).register(&with(&json!({"token_endpoint_auth_method": method}))).unwrap();
        assert_eq!(answer["token_endpoint_auth_method"], "none");
        assert!(answer.get("client_secret").is_none() && answer.get("client_secret_expires_at").is_none());
    }
}

#[test]
fn grants_that_are_not_served_are_refused_and_an_empty_list_is_not() {
    for members in [
        json!({"grant_types": ["client_credentials"]}),
        json!({"grant_types": "authorization_code"}),
        json!({"response_types": ["token"]}),
        json!({"client_name": ["x"]}),
    ] {
        let (code, status, text) = refusal(&members);
        assert_eq!((code, status), ("invalid_client_metadata", 400), "{text}");
    }
    registered(&clients(json!({})), &json!({"grant_types": [], "response_types": [], "scope": 7, "contacts": {}}));
}

#[test]
fn a_request_that_is_not_strict_json_is_refused() {
    for body in
        ["", "[]", "null", "{", r#"{"redirect_uris":["http://127.0.0.1/"],"redirect_uris":["http://127.0.0.1/"]}"#]
    {
        assert_eq!(clients(json!({})).register(body.as_bytes()), Err(RegistrationError::NotJson), "{body}");
    }
}

#[test]
fn a_request_is_bounded_in_length_redirect_uris_and_what_is_sealed() {
    let clients = clients(json!({}));
    let padded = |length: usize| {
        let mut body = with(&json!({}));
        body.resize(length, b' ');
        clients.register(&body)
    };
    assert!(padded(MAXIMUM_BODY).is_ok());
    assert_eq!(padded(MAXIMUM_BODY + 1), Err(RegistrationError::TooLong));

    let many = |count: usize, path: usize| {
        let uris: Vec<String> = (0..count).map(|n| format!("http://127.0.0.1/{n}/{}", "a".repeat(path))).collect();
        clients.register(&with(&json!({"redirect_uris": uris})))
    };
    assert!(many(MAXIMUM_REDIRECTS, 0).is_ok());
    assert_eq!(many(MAXIMUM_REDIRECTS + 1, 0), Err(RegistrationError::TooMany));
    assert!(many(3, 450).is_ok());
    assert_eq!(many(4, 450), Err(RegistrationError::TooLarge));

    let ports: Vec<String> = (1..=50).map(|port| format!("http://127.0.0.1:{port}/callback")).collect();
    assert!(registered(&clients, &json!({"redirect_uris": ports})).len() < 150);
}

#[tokio::test]
async fn a_name_is_cleaned_before_it_is_sealed() {
    let clients = clients(json!({}));
    for (name, expected) in [(json!("Ev\u{202e}il\n"), "Evil"), (json!(null), NAMELESS)] {
        let id = registered(&clients, &json!({"client_name": name}));
        assert_eq!(clients.find(&id).await.unwrap().name, expected);
    }
}

#[tokio::test]
async fn an_id_that_was_not_made_for_clients_of_this_server_is_unknown() {
    let ours = clients(json!({}));
    let id = registered(&ours, &json!({}));
    assert!(ours.find(&id).await.is_ok());
    let plain = br#"["name","http://127.0.0.1/"]"#;
    let sealed = |issuer, purpose, owner| sealer(1, issuer).seal(purpose, owner, plain).unwrap();
    assert!(ours.find(&sealed(ISSUER, Purpose::Client, "")).await.is_ok());
    for other in [
        sealed("https://mcp.example/other", Purpose::Client, ""),
        sealed(ISSUER, Purpose::Code, ""),
        sealed(ISSUER, Purpose::Request, ""),
        sealed(ISSUER, Purpose::Client, "owner"),
        format!("{id}A"),
        id[1..].to_owned(),
        String::new(),
        "http://client.example/client.json".to_owned(),
        "A".repeat(100_000),
    ] {
        assert_eq!(ours.find(&other).await, Err(ClientError::Unknown), "{other}");
    }
}

#[tokio::test]
async fn registrations_end_when_their_epoch_is_replaced_after_a_compromise() {
    let id = registered(&clients(json!({})), &json!({}));
    let of_epoch =
        |number| Clients::new(&configuration(json!({})), sealer(number, ISSUER), Fetcher::new(None, None).unwrap());
    assert!(of_epoch(1).find(&id).await.is_ok());
    assert_eq!(of_epoch(2).find(&id).await, Err(ClientError::Unknown));
}

#[tokio::test]
async fn a_redirect_uri_that_is_no_longer_allowed_is_removed_from_registrations() {
    let (app, loopback) = ("https://app.example/callback", "http://127.0.0.1/");
    let before = clients(json!({"allowedRedirects": [app]}));
    let both = registered(&before, &json!({"redirect_uris": [app, loopback]}));
    let one = registered(&before, &json!({"redirect_uris": [app]}));
    let after = clients(json!({}));
    assert_eq!(redirects_of(&before.find(&both).await.unwrap()), [app, loopback].into());
    assert_eq!(redirects_of(&after.find(&both).await.unwrap()), [loopback].into());
    assert_eq!(after.find(&one).await, Err(ClientError::Withdrawn));
}

#[tokio::test]
async fn with_listed_clients_other_clients_are_refused() {
    let id = registered(&clients(json!({})), &json!({}));
    let listed = json!({
        "clientId": "portal",
        "name": "Portal",
        "redirectUris": ["https://portal.example/callback", "http://localhost/cb", "https://portal.example/x#y"],
    });
    for (registration, is_let_in) in [("Dynamic", true), ("Listed", false)] {
        let clients = clients(json!({"clientRegistration": registration, "clients": [listed]}));
        let portal = clients.find("portal").await.unwrap();
        assert_eq!((&*portal.reference, &*portal.name, &portal.kind), ("portal", "Portal", &ClientKind::Listed));
        assert_eq!(redirects_of(&portal), ["http://localhost/cb", "https://portal.example/callback"].into());
        assert!(portal.redirect(Some("http://localhost:81/cb")).is_ok());
        assert_eq!(clients.find(&id).await.is_ok(), is_let_in);
        assert_eq!(clients.register(&with(&json!({}))).is_ok(), is_let_in);
        assert!(clients.find("Portal").await.is_err());
    }
    let clients = clients(json!({"clientRegistration": "Listed"}));
    for id in [&*id, "unknown", "https://client.example/client.json"] {
        assert_eq!(clients.find(id).await, Err(ClientError::NotListed));
    }
    let error = clients.register(&with(&json!({}))).unwrap_err();
    assert_eq!((error.code(), error.status().as_u16()), ("invalid_client_metadata", 403));
    assert!(error.to_string().contains("spec.authorizationServer.clients"), "{error}");
}
