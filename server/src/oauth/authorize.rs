//! The start of a sign-in: the client's request and the person's decision about it, before Entra is involved.
//!
//! Nothing is stored until the person approves. The page's form carries the sealed request, bound to a cookie of the
//! browser that got the page.

use axum::http::{HeaderMap, header};
use axum::response::Response;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use url::Url;

use super::AuthorizationServer;
use super::addresses::Endpoint;
use super::browser::{Browser, Stop, redirect};
use super::clients::{Client, ClientError, ClientKind, Destination, DocumentError, RedirectUri};
use super::cookies::{self, BrowserCookie};
use super::pages::{self, Problem, ShownClient, Verification};
use super::parameters::Parameters;
use super::request::{AuthorizationRequest, RequestError};
use super::scopes::AskedScopes;
use super::seal::Purpose;
use super::session::SessionClient;
use super::sign_in::{Approved, Goal};
use crate::audit::Outcome;
use crate::entra::random;

/// Lifetime of the page, in seconds.
const PATIENCE: i64 = 600;

/// The sealed request in the page's form.
#[derive(Serialize, Deserialize)]
struct Pending {
    request: AuthorizationRequest,
    client: SessionClient,
    /// Name of the cookie that was set with the page.
    id: String,
    /// Hash of the cookie's value.
    browser: String,
    /// Time when the page was shown, in seconds since 1970.
    shown: i64,
}

impl AuthorizationServer {
    /// Shows the consent page, or returns the browser to the client.
    pub(super) async fn authorize(&self, browser: &Browser<'_>, query: &[u8]) -> Result<Response, Stop> {
        let parameters =
            Parameters::parse(query).map_err(|_| browser.stop(&Problem::Malformed { parameter: "query" }))?;
        let missing = |parameter| browser.stop(&Problem::Malformed { parameter });
        let client_id = parameters.get("client_id").ok_or_else(|| missing("client_id"))?;
        let client = self.clients.find(client_id).await.map_err(|error| self.unknown_client(browser, &error))?;
        let asked = parameters.get("redirect_uri");
        let redirect_uri = client
            .redirect(asked)
            .map_err(|_| browser.stop(&Problem::RedirectNotRegistered { asked: asked.unwrap_or_default() }))?;
        let policy = self.policy.in_force();
        let scopes = AskedScopes::read(parameters.get("scope"), &self.configuration, policy.policy());
        let text = redirect_uri.as_str().to_owned();
        match AuthorizationRequest::read(&parameters, &self.addresses, text, scopes) {
            Ok(request) => self.ask(browser, request, &client, &redirect_uri),
            // A client known only from its own document must not redirect browsers without a person's decision (RFC
            // 9700 section 4.11.2).
            Err(RequestError { error, .. })
                if matches!(client.kind, ClientKind::Document { .. }) && !redirect_uri.is_loopback() =>
            {
                Err(browser.stop(&Problem::Malformed { parameter: error }))
            }
            Err(RequestError { error, description }) => {
                browser.trail.decided(Outcome::Refused("oauth_request_malformed"));
                Ok(self.back(
                    &redirect_uri,
                    parameters.get("state"),
                    &[("error", error), ("error_description", description)],
                ))
            }
        }
    }

    fn unknown_client(&self, browser: &Browser<'_>, error: &ClientError) -> Stop {
        tracing::info!("client not accepted: {error}");
        browser.stop(&match error {
            ClientError::Unknown => Problem::UnknownClient,
            ClientError::NotListed => Problem::ClientNotAllowed { field: "spec.authorizationServer.clients" },
            ClientError::Withdrawn | ClientError::Document(DocumentError::Redirects(_)) => {
                Problem::ClientNotAllowed { field: "spec.authorizationServer.allowedRedirects" }
            }
            ClientError::Document(DocumentError::HostNotListed(_)) => {
                Problem::ClientNotAllowed { field: "spec.authorizationServer.clientMetadataHosts" }
            }
            ClientError::Document(_) => Problem::ClientUnreadable,
        })
    }

    fn ask(
        &self,
        browser: &Browser<'_>,
        request: AuthorizationRequest,
        client: &Client,
        redirect_uri: &RedirectUri,
    ) -> Result<Response, Stop> {
        let (value, id) = (random(), random());
        let pending = Pending {
            client: SessionClient::of(client),
            id: id.expose_secret().to_owned(),
            browser: cookies::hash(value.expose_secret()),
            shown: super::now(),
            request,
        };
        let sealed = self.sealer.seal_value(Purpose::Request, &pending);
        let sealed = sealed.map_err(|_| browser.stop(&Problem::Internal))?;
        let asked = &pending.request.scopes;
        let permissions: Vec<String> = asked.graph.iter().cloned().collect();
        let (action, callback) = (self.addresses.url(Endpoint::Consent), self.addresses.url(Endpoint::Callback));
        let page = pages::Consent {
            namespace: &self.configuration.server.namespace,
            client: shown(&pending.client),
            destination: match redirect_uri.shown() {
                Destination::ThisComputer => pages::Destination::ThisComputer,
                Destination::Website(host) => pages::Destination::Host(host),
                Destination::App(scheme) => pages::Destination::App(scheme),
            },
            permissions: &permissions,
            scopes: &asked.extra(&self.configuration),
            context: asked.context.as_deref(),
            action: &action,
            request: &sealed,
            callback: &callback,
        };
        let mut response = page.show(&browser.visit);
        let cookie = BrowserCookie::Consent.set(&pending.id, value.expose_secret(), PATIENCE);
        response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
        Ok(response)
    }

    /// Handles the person's decision.
    pub(super) async fn consent(&self, browser: &Browser<'_>, body: &[u8]) -> Result<Response, Stop> {
        if !self.is_own_form(browser.headers) {
            return Err(browser.stop(&Problem::ForeignForm));
        }
        let form = Parameters::parse(body).map_err(|_| browser.stop(&Problem::Malformed { parameter: "request" }))?;
        let too_old = || browser.stop(&Problem::TooOld);
        let sealed = form.get("request").unwrap_or_default();
        let pending: Pending = self.sealer.open_value(Purpose::Request, sealed).ok_or_else(too_old)?;
        if super::now().saturating_sub(pending.shown) > PATIENCE {
            return Err(too_old());
        }
        let value = BrowserCookie::Consent.read(&pending.id, browser.headers);
        if !value.is_some_and(|value| cookies::is_hash_of(&pending.browser, &value)) {
            return Err(browser.stop(&Problem::OtherBrowser));
        }
        browser.trail.client(&pending.client.reference);
        let Pending { request, client, id, .. } = pending;
        if !self.clients.admit(&client.id, &client.kind) {
            return Err(browser.stop(&Problem::ClientNotAllowed { field: "spec.authorizationServer" }));
        }
        let redirect_uri = RedirectUri::read(&request.redirect_uri).map_err(|_| too_old())?;
        let mut response = match form.get("decision") {
            Some("approve") => {
                browser.trail.decided(Outcome::Done("consent_given"));
                self.send_to_entra(browser, Goal::Client(Box::new(Approved { request, client })), None).await?
            }
            _ => {
                browser.trail.decided(Outcome::Refused("consent_declined"));
                let declined = [("error", "access_denied"), ("error_description", "the person declined")];
                self.back(&redirect_uri, request.state.as_deref(), &declined)
            }
        };
        let used = BrowserCookie::Consent.set(&id, "", 0);
        response.headers_mut().extend(used.map(|cookie| (header::SET_COOKIE, cookie)));
        Ok(response)
    }

    /// Returns the browser to the client, with its `state` and the issuer (RFC 9207).
    pub(super) fn back(&self, redirect_uri: &RedirectUri, state: Option<&str>, answer: &[(&str, &str)]) -> Response {
        redirect(self.way_back(redirect_uri, state, answer).as_str())
    }

    /// Returns the address of an answer to the client.
    pub(super) fn way_back(&self, redirect_uri: &RedirectUri, state: Option<&str>, answer: &[(&str, &str)]) -> Url {
        let issuer = self.addresses.issuer();
        let state = state.map(|state| ("state", state));
        let parameters: Vec<_> = answer.iter().copied().chain(state).chain([("iss", issuer.as_str())]).collect();
        redirect_uri.with(&parameters)
    }

    /// True if, according to the browser, a form comes from a page of this server.
    pub(super) fn is_own_form(&self, headers: &HeaderMap) -> bool {
        let value = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
        match (value("sec-fetch-site"), value("origin")) {
            (Some(site), _) => site == "same-origin",
            // Pages with the policy `no-referrer` have the origin `null`.
            (None, Some(origin)) => origin == "null" || origin == self.addresses.origin(),
            (None, None) => true,
        }
    }
}

/// Returns a client in the form for pages.
pub(super) fn shown(client: &SessionClient) -> ShownClient<'_> {
    let verification = match &client.kind {
        ClientKind::Listed => Verification::Listed,
        ClientKind::Document { host } => Verification::Published { host },
        ClientKind::Registered => Verification::Registered,
    };
    ShownClient { name: &client.name, verification }
}
