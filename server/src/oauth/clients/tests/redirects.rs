//! Tests of redirect URIs: allowed and refused ones, matching, and addresses of answers.

use mcp_entra_policy::REFUSED_SCHEMES_PATTERN;
use proptest::prelude::*;
use url::Url;

use crate::oauth::clients::redirect_uri::{FORBIDDEN_SCHEMES, MAXIMUM_LENGTH, RedirectFault};
use crate::oauth::clients::redirects::Redirects;
use crate::oauth::clients::{Client, ClientKind, Destination, RedirectRefusal, RedirectUri};

const ALLOWED: [&str; 5] = [
    "https://app.example/callback",
    "https://xn--bcher-kva.example/callback",
    "com.example.app:/callback",
    // A forbidden scheme stays forbidden even if it is configured.
    "javascript:alert(1)",
    "https://*.example/callback",
];

fn redirects() -> Redirects {
    Redirects::new(&ALLOWED.map(str::to_owned))
}

fn client(redirect_uris: &[&str]) -> Client {
    Client {
        id: "id".to_owned(),
        reference: "id".to_owned(),
        name: "name".to_owned(),
        kind: ClientKind::Registered,
        redirect_uris: redirect_uris.iter().map(|text| RedirectUri::read(text).unwrap()).collect(),
    }
}

#[test]
fn the_configuration_refuses_exactly_the_forbidden_schemes() {
    let refused = REFUSED_SCHEMES_PATTERN.trim_start_matches("^(").trim_end_matches("):");
    let refused: Vec<_> = refused.split('|').filter(|scheme| !matches!(*scheme, "http" | "https")).collect();
    assert_eq!(refused, FORBIDDEN_SCHEMES);
}

#[test]
fn loopback_well_known_and_allowed_redirect_uris_may_be_registered() {
    for text in [
        "http://127.0.0.1",
        "http://127.0.0.1/",
        "http://127.0.0.1:33418",
        "http://127.0.0.1:33418/",
        "http://127.0.0.1:80/callback",
        "http://127.0.0.1:65535/callback",
        "http://localhost/callback",
        "http://localhost:8787/oauth/callback?from=browser",
        "http://localhost:8787?from=browser",
        "http://[::1]:1/callback",
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://www.cursor.com/agents/mcp/oauth/callback",
        "https://vscode.dev/redirect",
        "https://insiders.vscode.dev/redirect",
        "https://claude.ai/api/mcp/auth_callback",
        "https://claude.com/api/mcp/auth_callback",
        "https://chatgpt.com/connector_platform_oauth_redirect",
        "https://app.example/callback",
        "https://xn--bcher-kva.example/callback",
        "com.example.app:/callback",
    ] {
        assert_eq!(redirects().read(text).map(|uri| uri.as_str().to_owned()), Ok(text.to_owned()));
    }
}

#[test]
fn other_redirect_uris_may_not_be_registered() {
    use RedirectFault::{
        AnswerParameter, Characters, Fragment, NotAbsolute, NotAllowed, NotNormal, PlainHttp, Scheme, TooLong,
        UserInfo, Wildcard,
    };
    let long = format!("http://127.0.0.1/{}", "a".repeat(MAXIMUM_LENGTH));
    for (text, fault) in [
        // Neighbours of allowed ones.
        ("https://app.example/callback/", NotAllowed),
        ("https://app.example/callback?x=1", NotAllowed),
        ("https://app.example/callback2", NotAllowed),
        ("https://app.example:8443/callback", NotAllowed),
        ("https://app.example.evil.example/callback", NotAllowed),
        ("https://evil.example/callback", NotAllowed),
        ("cursor://anysphere.cursor-mcp/oauth/callback/", NotAllowed),
        ("cursor://anysphere.cursor-mcp/oauth/callback?x", NotAllowed),
        ("cursor://anysphere.cursor-mcp/oauth/Callback", NotAllowed),
        ("cursor://evil/oauth/callback", NotAllowed),
        ("vscode://vscode.dev/redirect", NotAllowed),
        ("https://vscode.dev/redirect?url=https://evil.example", NotAllowed),
        ("com.example.app:/callback2", NotAllowed),
        ("https://127.0.0.1/callback", NotAllowed),
        ("https://localhost/callback", NotAllowed),
        // Not in the normal form of browsers.
        ("https://app.example:443/callback", NotNormal),
        ("https://APP.example/callback", NotNormal),
        ("HTTPS://app.example/callback", NotNormal),
        ("https://app.example./callback", NotNormal),
        ("https://app.example/x/../callback", NotNormal),
        ("https://app.example/%2e%2e/callback", NotNormal),
        ("https:app.example/callback", NotNormal),
        ("https:///app.example/callback", NotNormal),
        ("https://@app.example/callback", NotNormal),
        ("https://0x7f.1/callback", NotNormal),
        ("http://127.0.0.1/./callback", NotNormal),
        ("http://127.0.0.1/a/%2E%2e/callback", NotNormal),
        ("http://127.0.0.1:080/callback", NotNormal),
        ("http://127.0.0.1:0/callback", NotNormal),
        ("http://127.0.0.1:/callback", NotNormal),
        ("http://127.0.0.1/call\"back", NotNormal),
        ("https://b\u{fc}cher.example/callback", Characters),
        ("https://\u{430}pp.example/callback", Characters),
        ("http://127.0.0.1/call back", Characters),
        ("http://127.0.0.1/callback\r\nLocation: https://evil.example", Characters),
        ("\thttp://127.0.0.1/callback", Characters),
        ("http://127.0.0.1/\0", Characters),
        ("http://127.0.0.1\\@evil.example/callback", Characters),
        ("https:\\\\app.example\\callback", Characters),
        // http outside the own machine.
        ("http://app.example/callback", PlainHttp),
        ("http://127.0.0.1.evil.example/callback", PlainHttp),
        ("http://localhost.evil.example/callback", PlainHttp),
        ("http://localhost./callback", PlainHttp),
        ("http://LOCALHOST/callback", PlainHttp),
        ("http://localhostx/callback", PlainHttp),
        ("http://127.0.0.2/callback", PlainHttp),
        ("http://127.1/callback", PlainHttp),
        ("http://2130706433/callback", PlainHttp),
        ("http://0x7f000001/callback", PlainHttp),
        ("http://017700000001/callback", PlainHttp),
        ("http://0.0.0.0/callback", PlainHttp),
        ("http://[::ffff:127.0.0.1]/callback", PlainHttp),
        ("http://[0:0:0:0:0:0:0:1]/callback", PlainHttp),
        ("http:127.0.0.1/callback", PlainHttp),
        ("http://169.254.169.254/latest", PlainHttp),
        ("http://localhost@evil.example/callback", UserInfo),
        ("http://127.0.0.1:80@evil.example/callback", UserInfo),
        ("http://user:secret@127.0.0.1/callback", UserInfo),
        ("https://user@app.example/callback", UserInfo),
        // Never allowed, whatever the configuration says.
        ("javascript:alert(1)", Scheme),
        ("JavaScript://127.0.0.1/%0Aalert(1)", Scheme),
        ("data:text/html,x", Scheme),
        ("vbscript:x", Scheme),
        ("file:///etc/passwd", Scheme),
        ("blob:https://app.example/1", Scheme),
        ("intent://x", Scheme),
        ("https://*.example/callback", Wildcard),
        ("http://127.0.0.1/*", Wildcard),
        ("http://127.0.0.1/callback#x", Fragment),
        ("https://app.example/callback#", Fragment),
        ("http://127.0.0.1/callback?code=1", AnswerParameter),
        ("http://127.0.0.1/callback?x=1&st%61te=2", AnswerParameter),
        ("/callback", NotAbsolute),
        ("//evil.example/callback", NotAbsolute),
        ("", NotAbsolute),
        ("127.0.0.1:80/callback", NotAbsolute),
        ("http://127.0.0.1:65536/callback", NotAbsolute),
        ("http://[::1/callback", NotAbsolute),
        (&long, TooLong),
    ] {
        assert_eq!(redirects().read(text), Err(fault), "{text}");
    }
}

#[test]
fn the_longest_redirect_uri_may_be_registered() {
    let start = "http://127.0.0.1/";
    let longest = format!("{start}{}", "a".repeat(MAXIMUM_LENGTH - start.len()));
    assert!(redirects().read(&longest).is_ok());
    assert_eq!(redirects().read(&format!("{longest}a")), Err(RedirectFault::TooLong));
}

#[test]
fn a_request_may_name_a_registered_redirect_uri_and_on_loopback_any_port() {
    let client = client(&["http://127.0.0.1/", "http://localhost:8080/callback?a=1", "https://app.example/callback"]);
    for asked in [
        "http://127.0.0.1/",
        "http://127.0.0.1",
        "http://127.0.0.1:59656/",
        "http://127.0.0.1:59656",
        "http://localhost/callback?a=1",
        "http://localhost:1/callback?a=1",
        "https://app.example/callback",
    ] {
        assert_eq!(client.redirect(Some(asked)).unwrap().as_str(), asked);
    }
    for asked in [
        "",
        "http://127.0.0.1:59656/callback",
        "http://127.0.0.1/?a=1",
        "http://localhost/",
        "http://[::1]/",
        "https://127.0.0.1/",
        "http://localhost:8080/callback",
        "http://localhost:8080/callback?a=2",
        "http://localhost:8080/callback?a=1&b=2",
        "http://localhost:8080/callback/?a=1",
        "http://127.0.0.1:1@evil.example/",
        "http://127.0.0.1:1.evil.example/",
        "https://app.example/callback/",
        "https://app.example/callback?x",
        "https://app.example/callback#x",
        "https://app.example:444/callback",
        "https://app.example:443/callback",
        "https://app.example/x/../callback",
        "https://APP.example/callback",
        "https://app.example/callback ",
    ] {
        assert_eq!(client.redirect(Some(asked)), Err(RedirectRefusal::NotRegistered), "{asked}");
    }
}

#[test]
fn a_request_without_redirect_uri_means_the_only_one_unless_its_port_may_be_any() {
    let only = client(&["https://app.example/callback"]);
    assert_eq!(only.redirect(None).unwrap().as_str(), "https://app.example/callback");
    for several in [
        client(&["http://127.0.0.1/"]),
        client(&["https://app.example/callback", "https://app.example/other"]),
        client(&["https://app.example/callback", "http://127.0.0.1/"]),
    ] {
        assert_eq!(several.redirect(None), Err(RedirectRefusal::Missing));
    }
}

#[test]
fn the_target_of_an_answer_is_shown() {
    for (text, shown) in [
        ("http://[::1]:8080/callback", Destination::ThisComputer),
        ("http://localhost", Destination::ThisComputer),
        ("https://app.example/callback", Destination::Website("app.example")),
        ("https://app.example:8443/callback", Destination::Website("app.example:8443")),
        ("https://xn--bcher-kva.example/callback", Destination::Website("xn--bcher-kva.example")),
        ("cursor://anysphere.cursor-mcp/oauth/callback", Destination::App("cursor")),
    ] {
        assert_eq!(RedirectUri::read(text).unwrap().shown(), shown, "{text}");
    }
}

#[test]
fn an_answer_keeps_the_query_of_its_redirect_uri() {
    for (text, expected) in [
        ("http://127.0.0.1:1", "http://127.0.0.1:1/?code=a%26b&iss=https%3A%2F%2Fh%2Fmcp"),
        ("https://app.example/c?x=1&y", "https://app.example/c?x=1&y&code=a%26b&iss=https%3A%2F%2Fh%2Fmcp"),
        ("com.example.app:/c", "com.example.app:/c?code=a%26b&iss=https%3A%2F%2Fh%2Fmcp"),
        ("com.example.app:c", "com.example.app:c?code=a%26b&iss=https%3A%2F%2Fh%2Fmcp"),
    ] {
        let answer = RedirectUri::read(text).unwrap().with(&[("code", "a&b"), ("iss", "https://h/mcp")]);
        assert_eq!(answer.as_str(), expected);
    }
}

/// Redirect URIs, many of them nearly correct.
fn redirect_uri() -> impl Strategy<Value = String> {
    let origin = prop_oneof![
        Just("http://127.0.0.1"),
        Just("http://localhost"),
        Just("http://[::1]"),
        Just("https://app.example"),
        Just("cursor://anysphere.cursor-mcp"),
        Just("com.example.app:"),
    ];
    let port = prop_oneof![Just(String::new()), (1_u16..).prop_map(|port| format!(":{port}"))];
    let rest = "(/[ -~]{0,12})?([?][ -~]{0,12})?";
    (origin, port, rest).prop_map(|(origin, port, rest)| format!("{origin}{port}{rest}"))
}

proptest! {
    #[test]
    fn an_answer_goes_to_the_registered_origin_and_path_and_adds_only_its_parameters(
        registered in redirect_uri(), port in 1_u16.., values in proptest::collection::vec(("[a-z]{1,5}", any::<String>()), 1..4),
    ) {
        let Ok(registered_uri) = RedirectUri::read(&registered) else { return Ok(()) };
        let registered_url = Url::parse(&registered).unwrap();
        let asked = match registered_uri.is_loopback() {
            true => {
                let mut url = registered_url.clone();
                url.set_port(Some(port)).unwrap();
                url.to_string()
            }
            false => registered.clone(),
        };
        let parameters: Vec<(&str, &str)> = values.iter().map(|(name, value)| (&**name, &**value)).collect();
        let answer = client(&[&registered]).redirect(Some(&asked)).unwrap().with(&parameters);
        let answer = Url::parse(answer.as_str()).unwrap();

        prop_assert_eq!(answer.scheme(), registered_url.scheme());
        prop_assert_eq!(answer.host(), registered_url.host());
        prop_assert_eq!(answer.port(), Url::parse(&asked).unwrap().port());
        prop_assert_eq!(answer.path(), registered_url.path());
        prop_assert_eq!(answer.fragment(), None);
        prop_assert_eq!((answer.username(), answer.password()), ("", None));
        let before = registered_url.query_pairs().count();
        let own: Vec<_> = registered_url.query_pairs().collect();
        prop_assert_eq!(answer.query_pairs().take(before).collect::<Vec<_>>(), own);
        let added: Vec<(String, String)> =
            answer.query_pairs().skip(before).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        prop_assert_eq!(added, values);
    }

    #[test]
    fn no_text_is_accepted_beyond_loopback_and_the_lists(text in "[ -~]{0,40}") {
        if let Ok(uri) = redirects().read(&text) {
            prop_assert!(uri.is_loopback() || ALLOWED.contains(&&*text), "{}", text);
        }
    }
}
