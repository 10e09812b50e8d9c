//! MCP client for tests: it registers, opens the user's browser, and requests tokens. Tests change single parameters,
//! which stock clients do not support.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entra_emulator::sign_in::{Browser, Callback, Page};
use reqwest::Response;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::site::{OAuthSite, REDIRECT_URI};

/// A registered client, with one verifier.
pub(crate) struct McpClient<'a> {
    pub(crate) site: &'a OAuthSite,
    pub(crate) id: String,
    pub(crate) redirect_uri: String,
    pub(crate) verifier: String,
}

/// Tokens of a client.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct Tokens {
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
    pub(crate) scope: String,
}

impl<'a> McpClient<'a> {
    /// A client that registers itself with [`REDIRECT_URI`].
    pub(crate) async fn register(site: &'a OAuthSite) -> Self {
        let answer = register(site, json!({ "client_name": "Test client", "redirect_uris": [REDIRECT_URI] })).await;
        assert_eq!(answer.status(), 201);
        let document: Value = answer.json().await.unwrap();
        Self::known(site, document["client_id"].as_str().unwrap())
    }

    /// A client with this id.
    pub(crate) fn known(site: &'a OAuthSite, id: &str) -> Self {
        let verifier = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        Self { site, id: id.to_owned(), redirect_uri: REDIRECT_URI.to_owned(), verifier }
    }

    /// Returns the address for the user's browser. These parameters replace or extend the usual ones. An empty value
    /// removes one.
    pub(crate) fn authorize(&self, changes: &[(&str, &str)]) -> Url {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&self.verifier));
        let usual = [
            ("client_id", self.id.as_str()),
            ("response_type", "code"),
            ("redirect_uri", &self.redirect_uri),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("state", "client-state"),
            ("scope", "mcp.access"),
        ];
        let mut url = Url::parse(&self.site.url("/authorize")).unwrap();
        let changed = |name: &str| changes.iter().any(|(changed, _)| *changed == name);
        let usual = usual.into_iter().filter(|(name, _)| !changed(name));
        for (name, value) in usual.chain(changes.iter().copied()).filter(|(_, value)| !value.is_empty()) {
            url.query_pairs_mut().append_pair(name, value);
        }
        url
    }

    /// Opens the user's page.
    pub(crate) async fn consent_page(&self, browser: &Browser, changes: &[(&str, &str)]) -> Page {
        browser.open(self.authorize(changes).as_str()).await.unwrap().page().unwrap()
    }

    /// Goes as this user through all pages, back to the client.
    pub(crate) async fn approve(&self, browser: &Browser, user: &str, changes: &[(&str, &str)]) -> Callback {
        let entra = self.consent_page(browser, changes).await.press("approve").await.unwrap().page().unwrap();
        entra.sign_in(user).await.unwrap().callback().unwrap()
    }

    /// Returns the code of this user's sign-in.
    pub(crate) async fn code(&self, user: &str) -> String {
        let callback = self.approve(&self.site.browser(), user, &[]).await;
        callback.parameter("code").unwrap_or_else(|| panic!("no code in {}", callback.url))
    }

    /// Returns the answer of the token endpoint to this form.
    pub(crate) async fn ask(&self, form: &[(&str, &str)]) -> Response {
        self.site.http.post(self.site.url("/token")).form(form).send().await.unwrap()
    }

    /// The answer to a code.
    pub(crate) async fn redeem(&self, code: &str) -> Response {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", &self.id),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", &self.verifier),
        ];
        self.ask(&form).await
    }

    /// The answer to a refresh token.
    pub(crate) async fn refresh(&self, refresh_token: &str) -> Response {
        let form = [("grant_type", "refresh_token"), ("client_id", &self.id), ("refresh_token", refresh_token)];
        self.ask(&form).await
    }

    /// The tokens of a new session of this person.
    pub(crate) async fn sign_in(&self, user: &str) -> Tokens {
        tokens(self.redeem(&self.code(user).await).await).await
    }
}

/// The answer to a registration.
pub(crate) async fn register(site: &OAuthSite, metadata: Value) -> Response {
    site.http.post(site.url("/register")).json(&metadata).send().await.unwrap()
}

/// The tokens in an answer.
pub(crate) async fn tokens(answer: Response) -> Tokens {
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The OAuth error in an answer.
pub(crate) async fn error(answer: Response) -> String {
    let document: Value = answer.json().await.unwrap();
    document["error"].as_str().unwrap_or_else(|| panic!("no error in {document}")).to_owned()
}
