//! A sign-in with Entra: the redirect to Entra, and the callback with a code.
//!
//! A callback is accepted only from the redirected browser (checked by a cookie), only once (by the record of
//! `state`), and only with Entra's answer to this request (by verifier and nonce).

use std::time::Duration;

use axum::http::header;
use axum::response::Response;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::AuthorizationServer;
use super::browser::{Browser, Stop, redirect};
use super::clients::RedirectUri;
use super::cookies::{self, BrowserCookie};
use super::grants::{CODE_LIFETIME, Code, Grant, user};
use super::pages::{Notice, Problem, Visit};
use super::parameters::Parameters;
use super::records::RecordError;
use super::request::{AuthorizationRequest, Prompt};
use super::seal::Purpose;
use super::session::{Person, Session, SessionClient};
use super::sessions::SessionKeeper;
use crate::audit::Outcome;
use crate::entra::{Asked, ClaimsChallenge, EntraTokens, Proof, Remedy, SignInError, StsError, random};
use crate::token::{Remedy as TokenRemedy, User};

/// Time that a person has for Entra's pages.
const PATIENCE: Duration = Duration::from_secs(600);
/// Seconds of [`PATIENCE`].
const PATIENCE_SECONDS: i64 = 600;

/// A client's request that the person approved.
#[derive(Serialize, Deserialize)]
pub(super) struct Approved {
    /// The request.
    pub(super) request: AuthorizationRequest,
    /// The client.
    pub(super) client: SessionClient,
}

/// Purpose of a sign-in.
#[derive(Serialize, Deserialize)]
pub(super) enum Goal {
    /// A client gets a code.
    Client(Box<Approved>),
    /// The person views their sessions.
    Sessions,
}

/// A browser that was sent to Entra.
#[derive(Serialize, Deserialize)]
struct Transaction {
    goal: Goal,
    verifier: Zeroizing<String>,
    nonce: Zeroizing<String>,
    /// Hash of the cookie's value.
    browser: String,
    /// The claims that the sign-in must satisfy, as JSON.
    claims: Option<String>,
    /// True if the browser was sent a second time, because of stored claims for this person.
    is_second: bool,
}

/// Entra's answer: a person, and the tokens of their session.
struct Answer<'a> {
    user: &'a User,
    username: String,
    tokens: EntraTokens,
}

impl AuthorizationServer {
    /// Sends the browser to Entra.
    pub(super) async fn send_to_entra(
        &self,
        browser: &Browser<'_>,
        goal: Goal,
        kept: Option<&ClaimsChallenge>,
    ) -> Result<Response, Stop> {
        let drawn = self.limits.decide(browser.address);
        drawn.map_err(|refused| browser.stop(&Problem::TooManyRequests { retry_after: refused.wait }))?;
        let (state, value, proof) = (random(), random(), Proof::random());
        let (scopes, stepped_up, prompt) = match &goal {
            Goal::Client(approved) => {
                let request = &approved.request;
                let scopes = request.scopes.at_entra(&self.configuration);
                (scopes, request.scopes.claims(), request.prompt.map(Prompt::name))
            }
            Goal::Sessions => (Vec::new(), None, None),
        };
        let claims = kept.or(stepped_up.as_ref());
        let asked = Asked { scopes: &scopes, claims, prompt, login_hint: None };
        let url = self.entra.authorization_url(state.expose_secret(), &proof, asked);
        let transaction = Transaction {
            goal,
            verifier: Zeroizing::new(proof.verifier.expose_secret().to_owned()),
            nonce: Zeroizing::new(proof.nonce.expose_secret().to_owned()),
            browser: cookies::hash(value.expose_secret()),
            claims: claims.map(|claims| claims.as_json().to_owned()),
            is_second: kept.is_some(),
        };
        let stored = self.records.put_new(Purpose::Transaction, state.expose_secret(), &transaction, PATIENCE).await;
        stored.map_err(|error| unavailable(browser, &error))?;
        let mut response = redirect(url.as_str());
        let cookie = BrowserCookie::SignIn.set(state.expose_secret(), value.expose_secret(), PATIENCE_SECONDS);
        response.headers_mut().extend(cookie.map(|cookie| (header::SET_COOKIE, cookie)));
        Ok(response)
    }

    /// Handles Entra's answer and sends the browser on.
    pub(super) async fn callback(&self, browser: &Browser<'_>, query: &[u8]) -> Result<Response, Stop> {
        let malformed = |parameter| browser.stop(&Problem::Malformed { parameter });
        let parameters = Parameters::parse(query).map_err(|_| malformed("query"))?;
        let Some(state) = parameters.get("state") else {
            // An administrator's consent also returns here, without a sign-in.
            let tenant = parameters.get("tenant") == Some(&self.configuration.entra.tenant_id);
            return match parameters.get("admin_consent") {
                Some("True") if tenant => Ok(Notice::AdministratorApproved.show(&browser.visit)),
                _ => Err(malformed("state")),
            };
        };
        let Some(value) = BrowserCookie::SignIn.read(state, browser.headers) else {
            return Err(browser.stop(&Problem::OtherBrowser));
        };
        // Checked before the record is taken, so that another browser cannot use it up.
        let kept = self.records.get::<Transaction>(Purpose::Transaction, state).await;
        let kept = kept.map_err(|error| unavailable(browser, &error))?;
        if kept.is_some_and(|kept| !cookies::is_hash_of(&kept.value.browser, &value)) {
            return Err(browser.stop(&Problem::OtherBrowser));
        }
        let taken = self.records.take::<Transaction>(Purpose::Transaction, state).await;
        let taken = taken.map_err(|error| unavailable(browser, &error))?;
        let transaction = taken.ok_or_else(|| browser.stop(&Problem::TooOld))?;
        let mut response = self.answered(browser, transaction, &parameters).await?;
        let used = BrowserCookie::SignIn.set(state, "", 0);
        response.headers_mut().extend(used.map(|cookie| (header::SET_COOKIE, cookie)));
        Ok(response)
    }

    async fn answered(
        &self,
        browser: &Browser<'_>,
        transaction: Transaction,
        parameters: &Parameters,
    ) -> Result<Response, Stop> {
        let Transaction { goal, verifier, nonce, claims, is_second, .. } = transaction;
        if let Some(error) = parameters.get("error") {
            let description = parameters.get("error_description").unwrap_or_default();
            let refusal = self.entra.refusal(error, description).await;
            return Err(self.refused(browser, error, &refusal, &goal));
        }
        let Some(code) = parameters.get("code") else {
            return Err(browser.stop(&Problem::Malformed { parameter: "code" }));
        };
        let secret = |text: Zeroizing<String>| SecretString::from(text.as_str());
        let proof = Proof { verifier: secret(verifier), nonce: secret(nonce) };
        let claims = claims.as_deref().and_then(ClaimsChallenge::parse);
        let redeemed = self.entra.redeem(&SecretString::from(code), &proof, claims.as_ref()).await;
        let (tokens, account) = match redeemed {
            Ok(redeemed) => redeemed,
            Err(SignInError::Entra(error)) => return Err(self.refused(browser, "", &error, &goal)),
            Err(SignInError::IdToken(error)) => {
                tracing::warn!(%error, "refusing a sign-in");
                let problem = Problem::EntraRefuses { code: None, advice: &error.to_string() };
                return Err(self.ended(browser, &goal, &problem));
            }
        };
        let validated = self.entra_tokens.validate(tokens.access_token.expose_secret()).await;
        let principal = validated.map_err(|error| {
            tracing::warn!(reason = error.reason(), "refusing Entra's token of a sign-in: {error}");
            let advice = error.to_string();
            let problem = match error.remedy() {
                TokenRemedy::Patience => Problem::EntraUnavailable,
                _ => Problem::EntraRefuses { code: None, advice: &advice },
            };
            self.ended(browser, &goal, &problem)
        })?;
        let signed_in = user(&principal)
            .filter(|user| (&*user.tenant_id, &*user.object_id) == (&*account.tenant_id, &*account.object_id));
        let user = signed_in.ok_or_else(|| self.ended(browser, &goal, &Problem::AnotherAccount))?;
        browser.trail.authenticated(std::sync::Arc::clone(&principal));
        let answer = Answer { user, username: account.username, tokens };
        match goal {
            Goal::Client(approved) => self.to_client(browser, approved, answer, is_second).await,
            Goal::Sessions => self.to_sessions(browser, answer.user, &answer.username),
        }
    }

    /// Sends the browser to the client with a code, or to Entra again if there are stored claims for this person.
    async fn to_client(
        &self,
        browser: &Browser<'_>,
        approved: Box<Approved>,
        answer: Answer<'_>,
        is_second: bool,
    ) -> Result<Response, Stop> {
        let reference = &approved.client.reference;
        browser.trail.client(reference);
        let Answer { user, username, tokens } = answer;
        let kept = self.sessions.take_claims(&user.tenant_id, &user.object_id, reference).await;
        if let Some(claims) = kept.map_err(|error| unavailable(browser, &error))?.filter(|_| !is_second) {
            return self.send_to_entra(browser, Goal::Client(approved), Some(&claims)).await;
        }
        let Approved { request, client } = *approved;
        let redirect_uri = RedirectUri::read(&request.redirect_uri).map_err(|_| browser.stop(&Problem::TooOld))?;
        let state = request.state.clone();
        let now = super::now();
        let person = Person::of(user, username);
        let session = Session::begin(client, person, request.scopes.clone(), &tokens, now);
        let grant = Grant { request, session };
        let (session, id) = (SessionKeeper::new_id(), SessionKeeper::new_id());
        let life = Duration::from_secs(CODE_LIFETIME.unsigned_abs());
        let stored = self.records.put_new(Purpose::Code, &id, &grant, life).await;
        stored.map_err(|error| unavailable(browser, &error))?;
        let code = Code { session, grant: id, issued: now };
        let sealed = self.sealer.seal_value(Purpose::Code, &code);
        let sealed = sealed.map_err(|_| browser.stop(&Problem::Internal))?;
        browser.trail.decided(Outcome::Done("signed_in"));
        Ok(self.back(&redirect_uri, state.as_deref(), &[("code", &sealed)]))
    }

    /// Returns the page with the next step after a refusal of Entra.
    fn refused(&self, browser: &Browser<'_>, error: &str, refusal: &StsError, goal: &Goal) -> Stop {
        tracing::info!(%refusal, correlation_id = refusal.correlation_id(), "Entra refused a sign-in");
        let code =
            refusal.refusal().and_then(|refusal| refusal.codes.first()).and_then(|code| u32::try_from(*code).ok());
        let advice = refusal.refusal().map_or_else(|| refusal.to_string(), |refusal| refusal.next_step.clone());
        let (permissions, scopes) = match goal {
            Goal::Client(approved) => {
                let scopes = &approved.request.scopes;
                (scopes.graph.iter().cloned().collect(), scopes.at_entra(&self.configuration))
            }
            Goal::Sessions => (Vec::new(), Vec::new()),
        };
        let link = self.entra.admin_consent_url(&scopes);
        let problem = match refusal.remedy() {
            Remedy::Consent => Problem::AdministratorNeeded { permissions: &permissions, link: Some(&link) },
            Remedy::AskAgain => Problem::EntraUnavailable,
            _ if error == "access_denied" => Problem::CancelledAtMicrosoft,
            _ => Problem::EntraRefuses { code, advice: &advice },
        };
        self.ended(browser, goal, &problem)
    }

    /// Returns the page of a problem that ends a sign-in, with a link back to the waiting client.
    fn ended(&self, browser: &Browser<'_>, goal: &Goal, problem: &Problem<'_>) -> Stop {
        let back = match goal {
            Goal::Client(approved) => self.way_back_after(&approved.request, problem),
            Goal::Sessions => None,
        };
        let visit = Visit { back: back.as_ref(), ..browser.visit };
        Browser { visit, ..*browser }.stop(problem)
    }

    /// Returns the approved redirect URI with the error of RFC 6749 section 4.1.2.1, or none if the client gets no
    /// answer for this problem.
    fn way_back_after(&self, request: &AuthorizationRequest, problem: &Problem<'_>) -> Option<Url> {
        let (error, description) = match problem {
            Problem::CancelledAtMicrosoft => ("access_denied", "the sign-in was cancelled at Microsoft"),
            Problem::AdministratorNeeded { .. } => ("access_denied", "an administrator must approve permissions"),
            Problem::EntraRefuses { .. } => ("access_denied", "Microsoft Entra refused the sign-in"),
            Problem::AnotherAccount => ("access_denied", "another account signed in"),
            Problem::EntraUnavailable => ("server_error", "Microsoft Entra does not answer; try again in a minute"),
            _ => return None,
        };
        let redirect_uri = RedirectUri::read(&request.redirect_uri).ok()?;
        let answer = [("error", error), ("error_description", description)];
        Some(self.way_back(&redirect_uri, request.state.as_deref(), &answer))
    }
}

/// Returns the page for an unavailable store.
pub(super) fn unavailable(browser: &Browser<'_>, error: &RecordError) -> Stop {
    tracing::warn!(%error, "cannot use the session store");
    browser.stop(&Problem::StoreUnavailable)
}
