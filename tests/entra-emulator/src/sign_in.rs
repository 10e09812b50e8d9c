//! Headless user: follows the real pages from the authorization request to the tokens, as a browser and a public client
//! would.

mod browser;
mod cookies;
mod html;

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use regex::Regex;
use reqwest::{Client, header::LOCATION, redirect::Policy};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::{
    EntraEmulator,
    keys::{hashed, random_token},
    pages::USER_INPUT,
};

pub use browser::{Browser, Callback, Page, Shown, Step};
pub use cookies::{Cookie, SameSite};
pub use html::{Button, Form, Link};

const TIME_OUT: Duration = Duration::from_secs(30);

/// Address of the sign-in, and its trusted certificates.
#[derive(Clone, Debug)]
pub struct Authority {
    /// `https://localhost:PORT`
    pub url: String,
    /// The authority's certificate authority.
    pub ca_pem: String,
}

impl From<&EntraEmulator> for Authority {
    fn from(emulator: &EntraEmulator) -> Self {
        Self { url: emulator.authority().to_owned(), ca_pem: emulator.ca_pem().to_owned() }
    }
}

/// Result of a sign-in.
#[derive(Clone, Debug, Deserialize)]
pub struct Tokens {
    /// Access token for the resource of the requested scopes.
    pub access_token: String,
    /// Refresh token, with `offline_access`.
    pub refresh_token: Option<String>,
    /// ID token, with `openid`.
    pub id_token: Option<String>,
    /// Lifetime in seconds.
    pub expires_in: u64,
    /// The scopes granted, separated by spaces.
    #[serde(default)]
    pub scope: String,
}

/// An authorization code and the values that redeem it.
#[derive(Clone, Debug)]
pub struct AuthorizationCode {
    /// The code.
    pub code: String,
    /// PKCE's `code_verifier`.
    pub verifier: String,
}

/// Returns an HTTP client that trusts only this authority, follows no redirect and uses no proxy.
///
/// # Errors
/// If the authority's certificates are not PEM.
pub fn http_client(ca_pem: &str) -> anyhow::Result<Client> {
    Ok(Client::builder()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(ca_pem.as_bytes())?)
        .no_proxy()
        .redirect(Policy::none())
        .timeout(TIME_OUT)
        .build()?)
}

/// A user's sign-in to a public client.
#[derive(Clone, Copy, Debug)]
pub struct SignIn<'a> {
    /// The authority that the user signs in at.
    pub authority: &'a Authority,
    /// The user's tenant.
    pub tenant: Uuid,
    /// The public client.
    pub client: Uuid,
    /// A redirect URI of the client.
    pub redirect_uri: &'a str,
    /// The user's principal name.
    pub user: &'a str,
    /// The scopes that the client asks for.
    pub scopes: &'a [&'a str],
    /// Claims of a claims challenge as JSON, if the sign-in answers one.
    pub claims: Option<&'a str>,
}

impl SignIn<'_> {
    /// Signs the user in: the page, the form, the code, the tokens.
    ///
    /// # Errors
    /// Returns the text of Entra's refusal.
    pub async fn tokens(self) -> anyhow::Result<Tokens> {
        let Self { authority, tenant, client, redirect_uri, .. } = self;
        let code = self.code().await?;
        let answer = http_client(&authority.ca_pem)?
            .post(format!("{}/{tenant}/oauth2/v2.0/token", authority.url))
            .form(&[
                ("grant_type", "authorization_code"),
                ("client_id", &client.to_string()),
                ("code", &code.code),
                ("redirect_uri", redirect_uri),
                ("code_verifier", &code.verifier),
            ])
            .send()
            .await?;
        if answer.status().is_success() {
            return Ok(answer.json().await?);
        }
        let refusal: Value = answer.json().await?;
        bail!("the code was refused: {}", refusal.get("error_description").unwrap_or(&refusal))
    }

    /// Signs the user in up to the code.
    ///
    /// # Errors
    /// Returns the text of Entra's refusal.
    pub async fn code(self) -> anyhow::Result<AuthorizationCode> {
        let Self { authority, tenant, client, redirect_uri, user, scopes, claims } = self;
        let http = http_client(&authority.ca_pem)?;
        let verifier = random_token();
        let state = random_token();
        let page = http
            .get(format!("{}/{tenant}/oauth2/v2.0/authorize", authority.url))
            .query(&[
                ("client_id", client.to_string().as_str()),
                ("response_type", "code"),
                ("redirect_uri", redirect_uri),
                ("response_mode", "query"),
                ("scope", &scopes.join(" ")),
                ("state", &state),
                ("nonce", &random_token()),
                ("code_challenge", &hashed(&verifier)),
                ("code_challenge_method", "S256"),
            ])
            .query(&claims.map(|claims| ("claims", claims)).as_slice())
            .send()
            .await?;
        // An error for the client has the same way as a code.
        if let Some(location) = page.headers().get(LOCATION) {
            return code_from(location.to_str()?, &state).map(|code| AuthorizationCode { code, verifier });
        }
        let (action, mut inputs) = read_form(&page.text().await?)?;
        inputs.push((USER_INPUT.to_owned(), user.to_owned()));
        let answer = http.post(action).form(&inputs).send().await?;
        let Some(location) = answer.headers().get(LOCATION) else {
            bail!("{user} cannot sign in: {}", alert(&answer.text().await?)?);
        };
        code_from(location.to_str()?, &state).map(|code| AuthorizationCode { code, verifier })
    }
}

fn code_from(location: &str, state: &str) -> anyhow::Result<String> {
    let location = Url::parse(location).context("the redirect has no address")?;
    let find =
        |wanted: &str| location.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
    ensure!(find("state").as_deref() == Some(state), "the redirect does not have our state");
    match find("code") {
        Some(code) => Ok(code),
        None => bail!("no code: {}", find("error_description").or(find("error")).unwrap_or_default()),
    }
}

/// The only form of the sign-in page: its target and its hidden inputs.
fn read_form(page: &str) -> anyhow::Result<(String, Vec<(String, String)>)> {
    let action = Regex::new(r#"<form method="post" action="([^"]*)">"#)?;
    let input = Regex::new(r#"<input type="hidden" name="([^"]*)" value="([^"]*)">"#)?;
    let decode = |text: &str| html_escape::decode_html_entities(text).into_owned();
    let Some((_, [action])) = action.captures(page).map(|found| found.extract()) else {
        bail!("there is no sign-in page: {}", alert(page)?);
    };
    let inputs = input.captures_iter(page).map(|found| {
        let (_, [name, value]) = found.extract();
        (decode(name), decode(value))
    });
    Ok((decode(action), inputs.collect()))
}

fn alert(page: &str) -> anyhow::Result<String> {
    let alert = Regex::new(r#"<p role="alert">([^<]*)</p>"#)?;
    let found = alert.captures(page).map(|found| found.extract());
    let text = found.map_or(page, |(_, [text])| text);
    Ok(html_escape::decode_html_entities(text).into_owned())
}
