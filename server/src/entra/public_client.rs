//! Grants of a public client: the authorization code with PKCE, the device code, and the refresh token of one person.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use url::Url;
use uuid::Uuid;

use super::claims::{self, ClaimsChallenge};
use super::credential::ClientCredential;
use super::error::{EntraRefusal, StsError};
use super::id_token::{self, Expected, IdTokenError};
use super::token_endpoint::{GraphToken, Issued, Registration, TokenEndpoint};
use crate::http_client::{self, ExchangeError};
use crate::token::Account;

/// Longest OpenID configuration that is read, in bytes.
const MAXIMUM_METADATA: usize = 64 * 1024;
/// Longest sign-in page that is read, in bytes.
const MAXIMUM_PAGE: usize = 1024 * 1024;
/// Scopes besides those of Graph: the account's id and name, and a refresh token.
const OWN_SCOPES: &str = "openid profile offline_access";
/// Shortest pause between polls for a device code's tokens, if Entra names none (RFC 8628 section 3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// Longest accepted lifetime of a device code.
const LONGEST_DEVICE_CODE: Duration = Duration::from_secs(900);

/// An application without a credential, through which one person signs in.
pub struct PublicClient {
    http: reqwest::Client,
    endpoint: TokenEndpoint,
    authorize: Url,
    device_code: Url,
    metadata: Url,
    /// The scopes in the form that Entra expects.
    scope: String,
    issuer: OnceCell<String>,
}

/// A successful sign-in or refresh.
#[derive(Debug)]
pub struct SignedIn {
    /// The account. Absent if a refresh names none.
    pub account: Option<Account>,
    /// The token for Graph.
    pub token: GraphToken,
    /// Lifetime of the token from now.
    pub life: Duration,
    /// The next refresh token. Absent if the old one stays valid.
    pub refresh_token: Option<SecretString>,
}

/// The reason why a sign-in fails.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublicClientError {
    /// Entra issued no tokens.
    #[error(transparent)]
    Entra(#[from] StsError),
    /// The ID token is not as expected.
    #[error(transparent)]
    IdToken(#[from] IdTokenError),
    /// The OpenID configuration of the tenant cannot be read.
    #[error(
        "{url} does not name the issuer of the tenant's tokens ({problem}); check --tenant, --authority and the network"
    )]
    Metadata {
        /// Address of the document.
        url: String,
        /// The problem.
        problem: String,
    },
}

/// An authorization request (RFC 6749 section 4.1, RFC 7636): its secrets and the address for the browser.
pub struct AuthorizationRequest {
    /// Address of Entra's sign-in page.
    pub url: Url,
    state: SecretString,
    nonce: SecretString,
    verifier: SecretString,
    redirect_uri: String,
}

/// A device code (RFC 8628) and its instructions for the person.
#[derive(Debug)]
pub struct DeviceCode {
    device_code: SecretString,
    /// The `claims` parameter of the request.
    claims: String,
    /// The code that the person types.
    pub user_code: String,
    /// The address that the person opens.
    pub verification_uri: String,
    /// Time when the code expires.
    pub expires: Instant,
    /// Pause between polls.
    pub interval: Duration,
}

#[derive(Deserialize)]
struct DeviceDocument {
    device_code: SecretString,
    user_code: String,
    verification_uri: String,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
}

impl PublicClient {
    /// Returns a client for this registration and these permissions of the resource at this address. Fails if the
    /// authority is not a URL.
    pub fn new<'a>(
        http: reqwest::Client,
        registration: Registration,
        resource: &str,
        permissions: impl IntoIterator<Item = &'a String>,
    ) -> Result<Self, url::ParseError> {
        let graph = permissions.into_iter().map(|name| format!(" {resource}/{name}"));
        let Registration { authority, tenant, .. } = &registration;
        Ok(Self {
            authorize: registration.endpoint("authorize").parse()?,
            device_code: registration.endpoint("devicecode").parse()?,
            metadata: format!("{authority}/{tenant}/v2.0/.well-known/openid-configuration").parse()?,
            scope: graph.fold(OWN_SCOPES.to_owned(), |scopes, scope| scopes + &scope),
            endpoint: TokenEndpoint::new(http.clone(), registration, ClientCredential::Public)?,
            http,
            issuer: OnceCell::new(),
        })
    }

    /// Returns a new authorization request that returns to this address, with a hint for the person's account if
    /// known.
    pub fn authorization_request(
        &self,
        redirect_uri: String,
        login_hint: Option<&str>,
        challenge: Option<&ClaimsChallenge>,
    ) -> AuthorizationRequest {
        let [state, nonce, verifier] = [(); 3].map(|()| random());
        let code_challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose_secret()));
        let mut url = self.authorize.clone();
        let client_id = &self.endpoint.registration().client_id;
        url.query_pairs_mut()
            .append_pair("client_id", client_id)
            .append_pair("response_type", "code")
            // Posted instead of in the address, so that the code does not get into the browser's history.
            .append_pair("response_mode", "form_post")
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("scope", &self.scope)
            .append_pair("state", state.expose_secret())
            .append_pair("nonce", nonce.expose_secret())
            .append_pair("code_challenge", &code_challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("claims", &claims::request(challenge));
        // Entra ignores the hint together with `select_account`.
        match login_hint {
            Some(name) => url.query_pairs_mut().append_pair("login_hint", name),
            None => url.query_pairs_mut().append_pair("prompt", "select_account"),
        };
        AuthorizationRequest { url, state, nonce, verifier, redirect_uri }
    }

    /// Redeems an authorization code.
    ///
    /// # Errors
    /// If Entra refuses it, or its answer is not the requested one.
    pub async fn redeem(
        &self,
        code: &SecretString,
        request: &AuthorizationRequest,
        challenge: Option<&ClaimsChallenge>,
    ) -> Result<(SignedIn, Account), PublicClientError> {
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", code.expose_secret()),
            ("redirect_uri", &request.redirect_uri),
            ("code_verifier", request.verifier.expose_secret()),
            ("scope", &self.scope),
            ("claims", &claims::request(challenge)),
        ];
        // A code is valid for one attempt: a lost answer may have used it up.
        let issued = self.endpoint.attempt(&parameters).await?;
        self.first(issued, Some(request.nonce.expose_secret())).await
    }

    /// Returns the refusal that the browser brings back.
    pub fn refusal(&self, error: &str, description: &str) -> StsError {
        let refusal = EntraRefusal::of_authorization(error, description, self.endpoint.asker(None));
        StsError::Refused(Box::new(refusal))
    }

    /// Refreshes the tokens so that they satisfy this challenge.
    ///
    /// # Errors
    /// If Entra refuses, or its answer is not the requested one.
    pub async fn refresh(
        &self,
        refresh_token: &SecretString,
        challenge: Option<&ClaimsChallenge>,
    ) -> Result<SignedIn, PublicClientError> {
        let parameters = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose_secret()),
            ("scope", &self.scope),
            ("claims", &claims::request(challenge)),
        ];
        // The old refresh token stays valid, so a retry is safe.
        let issued = self.endpoint.exchange(&parameters).await?;
        self.signed_in(issued, None).await
    }

    /// Requests a device code.
    ///
    /// # Errors
    /// If Entra refuses.
    pub async fn device_code(&self, challenge: Option<&ClaimsChallenge>) -> Result<DeviceCode, StsError> {
        let claims = claims::request(challenge);
        let client_id = self.endpoint.registration().client_id.as_str();
        let form = [("client_id", client_id), ("scope", &self.scope), ("claims", &claims)];
        let asked_at = Instant::now();
        let answer = self.endpoint.ask(&self.device_code, &form).await?;
        let document = serde_json::from_slice(&answer.body).ok().filter(|_| answer.status.is_success());
        let Some(DeviceDocument { device_code, user_code, verification_uri, expires_in, interval }) = document else {
            return Err(self.endpoint.refusal(&self.device_code, &answer).await);
        };
        let life = Duration::from_secs(expires_in).min(LONGEST_DEVICE_CODE);
        let interval = interval.map_or(INTERVAL, Duration::from_secs).clamp(Duration::from_secs(1), 6 * INTERVAL);
        Ok(DeviceCode { device_code, claims, user_code, verification_uri, expires: asked_at + life, interval })
    }

    /// Polls for the tokens of a device code. Returns none until the person enters it. Entra may increase the pause.
    ///
    /// # Errors
    /// If Entra refuses permanently.
    pub async fn redeem_device_code(
        &self,
        code: &mut DeviceCode,
    ) -> Result<Option<(SignedIn, Account)>, PublicClientError> {
        let parameters = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", code.device_code.expose_secret()),
            ("claims", &code.claims),
        ];
        match self.endpoint.attempt(&parameters).await {
            Ok(issued) => self.first(issued, None).await.map(Some),
            Err(error) if is_pending(&error) => {
                // RFC 8628 section 3.5.
                if error.refusal().is_some_and(|refusal| refusal.error == "slow_down") {
                    code.interval += INTERVAL;
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the issuer of the tenant's tokens, from the tenant's OpenID configuration.
    ///
    /// # Errors
    /// If the configuration cannot be read.
    pub async fn issuer(&self) -> Result<&str, PublicClientError> {
        let read = async {
            let failed = |problem: String| PublicClientError::Metadata { url: self.metadata.to_string(), problem };
            let answer = http_client::exchange(self.http.get(self.metadata.clone()), MAXIMUM_METADATA).await;
            let answer = answer.map_err(|error: ExchangeError| failed(error.to_string()))?;
            if answer.status != StatusCode::OK {
                return Err(failed(format!("HTTP {}", answer.status.as_u16())));
            }
            let document: Metadata =
                serde_json::from_slice(&answer.body).map_err(|_| failed("it is not JSON with an issuer".to_owned()))?;
            let tenant = &self.endpoint.registration().tenant;
            // A tenant given as a domain cannot be compared with the issuer. A tenant id must be the issuer's.
            if Uuid::try_parse(tenant).is_ok() && !document.issuer.contains(tenant.as_str()) {
                return Err(failed("its issuer belongs to another tenant".to_owned()));
            }
            Ok(document.issuer)
        };
        self.issuer.get_or_try_init(|| read).await.map(String::as_str)
    }

    /// Tests the registration with an authorization request that shows no page and an invalid refresh token.
    ///
    /// # Errors
    /// A text with the next step.
    pub async fn examine(&self) -> Result<String, String> {
        const REDIRECT_URI: &str = "http://localhost";
        let mut request = self.authorization_request(REDIRECT_URI.to_owned(), Some(""), None).url;
        request.query_pairs_mut().append_pair("prompt", "none");
        let answer = http_client::exchange(self.http.get(request), MAXIMUM_PAGE).await;
        let answer =
            answer.map_err(|error| format!("Entra's sign-in page does not answer ({error}); check the network"))?;
        let page = String::from_utf8_lossy(&answer.body);
        // Entra shows an error on its own page if it does not trust the redirect URI.
        if !page.contains(REDIRECT_URI) || page.contains("AADSTS50011") || page.contains("AADSTS700016") {
            let code = page.split_once("AADSTS").map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
            let code = code
                .flatten()
                .map_or_else(|| format!("HTTP {}", answer.status.as_u16()), |code| format!("AADSTS{code}"));
            return Err(self.refusal("invalid_request", &code).to_string());
        }
        match self.refresh(&SecretString::from("none"), None).await {
            Err(PublicClientError::Entra(StsError::Refused(refusal))) if is_of_the_client(&refusal) => {
                Err(refusal.to_string())
            }
            Err(PublicClientError::Entra(error @ (StsError::Unreachable { .. } | StsError::NotEntra { .. }))) => {
                Err(error.to_string())
            }
            _ => Ok(format!("{} is a public client, with the redirect URI {REDIRECT_URI}", self.client_id())),
        }
    }

    /// Returns the application's id, for messages.
    pub fn client_id(&self) -> &str {
        &self.endpoint.registration().client_id
    }

    /// Returns the tokens and the account of a sign-in.
    async fn first(&self, issued: Issued, nonce: Option<&str>) -> Result<(SignedIn, Account), PublicClientError> {
        let signed_in = self.signed_in(issued, nonce).await?;
        let account = signed_in.account.clone().ok_or(IdTokenError::ABSENT)?;
        Ok((signed_in, account))
    }

    async fn signed_in(&self, issued: Issued, nonce: Option<&str>) -> Result<SignedIn, PublicClientError> {
        let account = match &issued.id_token {
            Some(token) => {
                let expected = Expected { client_id: self.client_id(), issuer: self.issuer().await?, nonce };
                Some(id_token::account(token.expose_secret(), expected, Timestamp::now())?)
            }
            None => None,
        };
        let life = issued.life.saturating_sub(issued.asked_at.elapsed());
        Ok(SignedIn { account, token: issued.token, life, refresh_token: issued.refresh_token })
    }
}

impl AuthorizationRequest {
    /// True if this is the `state` of the request. The comparison takes constant time for texts of equal length.
    pub fn is_state(&self, state: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.state.expose_secret().as_bytes(), state.as_bytes())
            .is_ok()
    }
}

/// True if a refusal concerns the application rather than the refresh token.
fn is_of_the_client(refusal: &EntraRefusal) -> bool {
    matches!(&*refusal.error, "invalid_client" | "unauthorized_client")
}

fn is_pending(error: &StsError) -> bool {
    let pending = |refusal: &EntraRefusal| matches!(&*refusal.error, "authorization_pending" | "slow_down");
    error.refusal().is_some_and(pending) || error.remedy() == super::Remedy::AskAgain
}

/// Returns 32 random bytes as base64url.
pub(crate) fn random() -> SecretString {
    SecretString::from(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}
