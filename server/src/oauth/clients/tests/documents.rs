//! Tests of client ID metadata documents: their URL and content.

use serde_json::{Value, json};

use super::fixture::{HOST, redirects_of};
use crate::oauth::clients::document::{self, DocumentError, DocumentUrl};
use crate::oauth::clients::redirects::Redirects;
use crate::oauth::clients::{Client, ClientKind};

const URL: &str = "https://client.example/oauth/client.json";

/// Parses a document with these members besides the required ones.
fn read(members: &Value) -> Result<Client, DocumentError> {
    let mut document =
        json!({"client_id": URL, "client_name": "Client", "redirect_uris": ["http://127.0.0.1/callback"]});
    document.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let redirects = Redirects::new(&["https://app.example/callback".to_owned()]);
    document::read(&DocumentUrl::read(URL).unwrap(), document.to_string().as_bytes(), &redirects)
}

#[test]
fn a_client_id_may_be_an_https_url_with_a_path() {
    let longest = format!("https://client.example/{}", "a".repeat(256 - 23));
    for url in [
        URL,
        "https://client.example/a",
        "https://client.example/a/",
        "https://client.example/a?b=c",
        "https://xn--bcher-kva.example/a",
        &longest,
    ] {
        assert_eq!(DocumentUrl::read(url).map(|url| url.as_str().to_owned()), Ok(url.to_owned()));
    }
}

#[test]
fn other_urls_are_not_client_ids() {
    let too_long = format!("https://client.example/{}", "a".repeat(256 - 22));
    for url in [
        "http://client.example/a",
        "https://client.example",
        "https://client.example/",
        "https://client.example?a",
        "https://client.example/a#b",
        "https://client.example/a#",
        "https://user@client.example/a",
        "https://user:secret@client.example/a",
        "https://@client.example/a",
        "https://client.example/../a",
        "https://client.example/a/./b",
        "https://client.example/a/%2e%2e/b",
        "https://client.example:443/a",
        "https://CLIENT.example/a",
        "HTTPS://client.example/a",
        "https://client.example./a",
        "https://client.example\\a",
        "https://client.example/a b",
        "https://client.example/\u{e4}",
        "https://b\u{fc}cher.example/a",
        "https://localhost/a",
        "https://kubernetes/a",
        "https://127.0.0.1/a",
        "https://2130706433/a",
        "https://0x7f.1/a",
        "https://8.8.8.8/a",
        "https://[::1]/a",
        "https://[2606:4700::1]/a",
        "https:///a",
        "https:client.example/a",
        "https://",
        &too_long,
    ] {
        assert!(matches!(DocumentUrl::read(url), Err(DocumentError::Url(_))), "{url}");
    }
}

#[test]
fn a_document_describes_a_client() {
    let redirect_uris = [
        "http://127.0.0.1/callback",
        "https://client.example/callback",
        "https://app.example/callback",
        "https://vscode.dev/redirect",
        // Dropped from the result.
        "https://www.client.example/callback",
        "https://client.example:8443/callback",
        "http://client.example/callback",
        "https://evil.example/callback",
        "client.example:/callback",
    ];
    let members = json!({
        "client_name": " Cli\u{202e}ent ",
        "redirect_uris": redirect_uris,
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "logo_uri": "javascript:x",
        "client_uri": 7,
    });
    let client = read(&members).unwrap();
    assert_eq!((&*client.id, &*client.reference, &*client.name), (URL, URL, "Client"));
    assert_eq!(client.kind, ClientKind::Document { host: HOST.to_owned() });
    assert_eq!(redirects_of(&client), redirect_uris[..4].iter().copied().collect());
}

#[test]
fn a_document_that_describes_no_usable_client_is_refused() {
    for members in [
        json!({"client_id": null}),
        json!({"client_id": "https://client.example/oauth/client.json/"}),
        json!({"client_id": "https://client.example/oauth/client.jso%6e"}),
        json!({"client_id": "https://CLIENT.example/oauth/client.json"}),
        json!({"client_id": "https://other.example/oauth/client.json"}),
    ] {
        assert_eq!(read(&members), Err(DocumentError::OtherClient), "{members}");
    }
    for members in [
        json!({"token_endpoint_auth_method": "private_key_jwt"}),
        json!({"token_endpoint_auth_method": "client_secret_basic"}),
        json!({"client_secret": "x"}),
    ] {
        let error = read(&members).unwrap_err();
        assert!(matches!(error, DocumentError::Authentication(_)), "{members}");
        assert!(error.to_string().contains("only public clients"), "{error}");
    }
    for redirect_uris in [json!([]), json!(["https://evil.example/"]), json!(["javascript:x"]), json!(null)] {
        let error = read(&json!({"redirect_uris": redirect_uris})).unwrap_err();
        assert!(matches!(error, DocumentError::Redirects(_)), "{redirect_uris}");
        assert!(error.to_string().contains("spec.authorizationServer.allowedRedirects"), "{error}");
    }
    for members in [
        json!({"client_id": 7}),
        json!({"client_name": {}}),
        json!({"redirect_uris": "http://127.0.0.1/"}),
        json!({"token_endpoint_auth_method": ["none"]}),
        json!({"grant_types": ["client_credentials"]}),
    ] {
        assert!(matches!(read(&members), Err(DocumentError::Field(_))), "{members}");
    }
}

#[test]
fn a_document_is_strict_json() {
    let url = DocumentUrl::read(URL).unwrap();
    let twice = format!(r#"{{"client_id":"{URL}","client_id":"{URL}","redirect_uris":["http://127.0.0.1/"]}}"#);
    for body in ["", "[]", "{", "<html>", &twice] {
        assert_eq!(document::read(&url, body.as_bytes(), &Redirects::new(&[])), Err(DocumentError::NotJson), "{body}");
    }
}
