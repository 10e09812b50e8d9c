//! Single steps of a sign-in, with any cookies and headers: requests that attackers send, and browsers do not send by
//! themselves.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entra_emulator::sign_in::{Browser, Callback, Page};
use reqwest::Response;
use reqwest::header::HeaderMap;
use serde_json::Value;
use url::Url;

use super::mcp_client::McpClient;
use super::site::OAuthSite;

/// A consent page of a browser.
pub(crate) struct Shown {
    pub(crate) page: Page,
    /// The sealed request in its form.
    pub(crate) request: String,
    /// Cookie of the page, in the form of a request.
    pub(crate) cookie: String,
}

impl Shown {
    /// Opens the page of this client's request in a new browser.
    pub(crate) async fn to(client: &McpClient<'_>, changes: &[(&str, &str)]) -> Self {
        let browser = client.site.browser();
        let page = client.consent_page(&browser, changes).await;
        let input = |name: &str| {
            let forms = page.forms().unwrap();
            let found = forms[0].inputs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            found.unwrap_or_else(|| panic!("no input {name} in {}", page.html))
        };
        let request = input("request");
        let cookie = cookie(client.site, &browser, "consent");
        Self { request, cookie, page }
    }

    /// Returns the answer to an approval with this cookie and these additional headers.
    pub(crate) async fn approve(&self, site: &OAuthSite, cookie: &str, headers: &[(&str, &str)]) -> Response {
        self.decide(site, "approve", cookie, headers).await
    }

    /// The answer to this decision.
    pub(crate) async fn decide(
        &self,
        site: &OAuthSite,
        decision: &str,
        cookie: &str,
        headers: &[(&str, &str)],
    ) -> Response {
        let form = [("request", self.request.as_str()), ("decision", decision)];
        let mut request = site.http.post(site.url("/consent")).form(&form);
        if !cookie.is_empty() {
            request = request.header("cookie", cookie);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }
}

/// A browser on its way back from Entra, stopped just before our callback.
pub(crate) struct Returning {
    /// Address of our callback, with Entra's code.
    pub(crate) callback: Url,
    /// The cookie of the sign-in.
    pub(crate) cookie: String,
}

impl Returning {
    /// Starts this user's sign-in through this client.
    pub(crate) async fn of(client: &McpClient<'_>, user: &str) -> Self {
        // The browser also stops at our callback.
        let browser = client.site.browser().leaving_at(&client.site.url("/callback")).unwrap();
        let callback = client.approve(&browser, user, &[]).await;
        let cookie = cookie(client.site, &browser, "sign-in");
        Self { callback: callback.url, cookie }
    }

    /// The answer to the callback with this cookie.
    pub(crate) async fn open(&self, site: &OAuthSite, cookie: &str) -> Response {
        get(site, self.callback.as_str(), cookie).await
    }
}

/// The answer to a GET with these cookies.
pub(crate) async fn get(site: &OAuthSite, url: &str, cookie: &str) -> Response {
    let request = site.http.get(url);
    let request = if cookie.is_empty() { request } else { request.header("cookie", cookie) };
    request.send().await.unwrap()
}

/// Returns the browser's cookie of this step, in the form of a request.
pub(crate) fn cookie(site: &OAuthSite, browser: &Browser, step: &str) -> String {
    let cookies = browser.cookies(&site.url("/")).unwrap();
    let found = cookies.iter().find(|cookie| cookie.name.starts_with(&format!("__Host-mcp-{step}-")));
    let cookie = found.unwrap_or_else(|| panic!("no cookie of {step} among {cookies:?}"));
    format!("{}={}", cookie.name, cookie.value)
}

/// Returns the address that an answer redirects to.
pub(crate) fn location(answer: &Response) -> Url {
    let location = answer.headers().get("location").unwrap_or_else(|| panic!("no redirect: {answer:?}"));
    Url::parse(location.to_str().unwrap()).unwrap()
}

/// A parameter of an address.
pub(crate) fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

/// Returns the answer of the authorization endpoint that was sent back to the client.
pub(crate) async fn answered(client: &McpClient<'_>, changes: &[(&str, &str)]) -> Callback {
    client.site.browser().open(client.authorize(changes).as_str()).await.unwrap().callback().unwrap()
}

/// Returns a header's value; empty if there is none.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// Header and claims of a JWT.
pub(crate) fn decoded(jwt: &str) -> (Value, Value) {
    let mut parts = jwt.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let mut part = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    (part(), part())
}
