//! The page of a person's own sessions: it lists the clients that act for the person, and ends unwanted sessions.
//!
//! The person signs in with Entra first. Then the browser holds a sealed cookie for a quarter of an hour.

use axum::http::header;
use axum::response::Response;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::AuthorizationServer;
use super::addresses::Endpoint;
use super::authorize::shown;
use super::browser::{Browser, Stop, redirect};
use super::cookies::{self, BrowserCookie};
use super::pages::{self, Problem, ShownSession};
use super::parameters::Parameters;
use super::seal::Purpose;
use super::sign_in::{Goal, unavailable};
use crate::audit::Outcome;
use crate::entra::random;
use crate::token::User;

/// Lifetime of the visit, in seconds.
const PATIENCE: i64 = 900;

/// The person who views their sessions.
#[derive(Serialize, Deserialize)]
struct Visitor {
    tenant_id: String,
    object_id: String,
    username: String,
    /// A random value in the page's forms.
    csrf: String,
    /// End of the visit, in seconds since 1970.
    until: i64,
}

impl AuthorizationServer {
    /// Shows the page, or sends the browser to Entra first.
    pub(super) async fn own_sessions(&self, browser: &Browser<'_>) -> Result<Response, Stop> {
        match self.visitor(browser) {
            Some(visitor) => self.show_sessions(browser, &visitor, None).await,
            None => self.send_to_entra(browser, Goal::Sessions, None).await,
        }
    }

    /// Ends one session of the person, or all.
    pub(super) async fn end_own_sessions(&self, browser: &Browser<'_>, body: &[u8]) -> Result<Response, Stop> {
        if !self.is_own_form(browser.headers) {
            return Err(browser.stop(&Problem::ForeignForm));
        }
        let form = Parameters::parse(body).map_err(|_| browser.stop(&Problem::Malformed { parameter: "session" }))?;
        let visitor = self.visitor(browser).ok_or_else(|| browser.stop(&Problem::TooOld))?;
        if !form.get("csrf").is_some_and(|csrf| cookies::is_hash_of(csrf, &visitor.csrf)) {
            return Err(browser.stop(&Problem::ForeignForm));
        }
        let sessions = self.sessions.of_person(&visitor.tenant_id, &visitor.object_id).await;
        let sessions = sessions.map_err(|error| unavailable(browser, &error))?;
        let is_all = form.get("all") == Some("true");
        let mut ended = 0;
        for (id, session) in sessions {
            if is_all || form.get("session") == Some(&*cookies::hash(&id)) {
                self.sessions.end(&id).await.map_err(|error| unavailable(browser, &error))?;
                browser.trail.concerns(&visitor.tenant_id, &visitor.object_id, &session.client.reference);
                browser.trail.decided(Outcome::Done("session_revoked"));
                ended += 1;
            }
        }
        self.show_sessions(browser, &visitor, Some(ended)).await
    }

    /// Gives the signed-in person access to their sessions.
    pub(super) fn to_sessions(&self, browser: &Browser<'_>, user: &User, username: &str) -> Result<Response, Stop> {
        let visitor = Visitor {
            tenant_id: user.tenant_id.clone(),
            object_id: user.object_id.clone(),
            username: username.to_owned(),
            csrf: random().expose_secret().to_owned(),
            until: super::now().saturating_add(PATIENCE),
        };
        let sealed = self.sealer.seal_value(Purpose::Browser, &visitor);
        let sealed = sealed.map_err(|_| browser.stop(&Problem::Internal))?;
        let mut response = redirect(&self.addresses.url(Endpoint::Sessions));
        let cookie = BrowserCookie::Sessions.set(&self.addresses.issuer(), &sealed, PATIENCE);
        response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
        Ok(response)
    }

    fn visitor(&self, browser: &Browser<'_>) -> Option<Visitor> {
        let sealed = BrowserCookie::Sessions.read(&self.addresses.issuer(), browser.headers)?;
        let visitor: Visitor = self.sealer.open_value(Purpose::Browser, &sealed)?;
        let began = visitor.until.saturating_sub(PATIENCE);
        (super::now() < visitor.until && self.sessions.is_recent_enough(began)).then_some(visitor)
    }

    async fn show_sessions(
        &self,
        browser: &Browser<'_>,
        visitor: &Visitor,
        ended: Option<usize>,
    ) -> Result<Response, Stop> {
        let sessions = self.sessions.of_person(&visitor.tenant_id, &visitor.object_id).await;
        let sessions = sessions.map_err(|error| unavailable(browser, &error))?;
        let handles: Vec<String> = sessions.iter().map(|(id, _)| cookies::hash(id)).collect();
        let time = |seconds| Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        let rows: Vec<ShownSession<'_>> = sessions
            .iter()
            .zip(&handles)
            .map(|((_, session), handle)| ShownSession {
                handle,
                client: shown(&session.client),
                since: time(session.began),
                last_used: time(session.refreshed),
            })
            .collect();
        let page = pages::Sessions {
            signed_in_as: &visitor.username,
            sessions: &rows,
            action: &self.addresses.url(Endpoint::Sessions),
            connect: &self.addresses.url(Endpoint::Connect),
            csrf: &cookies::hash(&visitor.csrf),
            ended,
        };
        Ok(page.show(&browser.visit))
    }
}
