//! Grants of a confidential client that signs people in with a browser: the authorization code with PKCE, and the
//! refresh token of a session. The credential is the projected service account token.
//!
//! The authorization request may name scopes of several resources, so that one page covers all consent. A token
//! request names one resource: this server's own application, by its id (AADSTS90009).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use mcp_entra_policy::EntraConfiguration;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use url::Url;

use super::claims::{self, ClaimsChallenge};
use super::credential::ClientCredential;
use super::error::{EntraRefusal, StsError};
use super::federated_token::FederatedToken;
use super::id_token::{self, Expected, IdTokenError};
use super::public_client::random;
use super::token_endpoint::{Issued, Registration, TokenEndpoint};
use crate::token::{self, Account};

/// Scopes without a resource: the account's id and name, and a refresh token.
const OWN_SCOPES: &str = "openid profile offline_access";

/// The server's application, as a client that signs people in.
pub struct ConfidentialClient {
    endpoint: TokenEndpoint,
    authorize: Url,
    admin_consent: Url,
    issuer: String,
    /// Required scopes of the application itself, fully qualified.
    required: String,
    redirect_uri: String,
}

/// The varying parts of an authorization request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Fully qualified scopes besides those of every sign-in.
    pub scopes: &'a [String],
    /// Claims that the sign-in must satisfy.
    pub claims: Option<&'a ClaimsChallenge>,
    /// `prompt`, such as `login`.
    pub prompt: Option<&'a str>,
    /// The name of the account, if it is known.
    pub login_hint: Option<&'a str>,
}

/// Secrets of an authorization request that prove its answer (RFC 7636, OpenID Connect Core section 3.1.2.1).
#[derive(Clone, Debug)]
pub struct Proof {
    /// `code_verifier`.
    pub verifier: SecretString,
    /// `nonce` of the ID token.
    pub nonce: SecretString,
}

/// Entra's tokens of a session. They never leave this server.
#[derive(Debug)]
pub struct EntraTokens {
    /// The account. Absent if a refresh names none.
    pub account: Option<Account>,
    /// The access token for this server.
    pub access_token: SecretString,
    /// The next refresh token. Absent if the old one stays valid.
    pub refresh_token: Option<SecretString>,
}

/// The reason why Entra's answer starts no session.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SignInError {
    /// Entra issued no tokens.
    #[error(transparent)]
    Entra(#[from] StsError),
    /// The ID token is not as expected.
    #[error(transparent)]
    IdToken(#[from] IdTokenError),
}

impl Proof {
    /// Returns new random values.
    pub fn random() -> Self {
        Self { verifier: random(), nonce: random() }
    }
}

impl ConfidentialClient {
    /// Returns the application of this configuration, whose sign-ins return to this address. Fails if the authority
    /// is not a URL.
    pub fn new(
        http: reqwest::Client,
        entra: &EntraConfiguration,
        federated_token: FederatedToken,
        redirect_uri: String,
    ) -> Result<Self, url::ParseError> {
        let registration = Registration::from(entra);
        let required: Vec<String> = entra.required_scopes.iter().map(|scope| entra.qualified_scope(scope)).collect();
        Ok(Self {
            authorize: registration.endpoint("authorize").parse()?,
            admin_consent: format!("{}/{}/v2.0/adminconsent", registration.authority, registration.tenant).parse()?,
            endpoint: TokenEndpoint::new(http, registration, ClientCredential::Federated(federated_token))?,
            issuer: token::issuer(entra),
            required: required.join(" "),
            redirect_uri,
        })
    }

    /// Returns the address for the browser, which must return with this `state` and `proof`.
    pub fn authorization_url(&self, state: &str, proof: &Proof, asked: Asked<'_>) -> Url {
        let code_challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(proof.verifier.expose_secret()));
        let scope = asked.scopes.iter().fold(format!("{} {OWN_SCOPES}", self.required), |all, scope| all + " " + scope);
        let mut url = self.authorize.clone();
        url.query_pairs_mut()
            .append_pair("client_id", &self.endpoint.registration().client_id)
            .append_pair("response_type", "code")
            // A cookie with SameSite=Lax is not sent with a form that another site posts.
            .append_pair("response_mode", "query")
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("scope", &scope)
            .append_pair("state", state)
            .append_pair("nonce", proof.nonce.expose_secret())
            .append_pair("code_challenge", &code_challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("claims", &claims::request(asked.claims));
        for (name, value) in [("prompt", asked.prompt), ("login_hint", asked.login_hint)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url
    }

    /// Returns the address where an administrator consents to these fully qualified scopes for all users.
    pub fn admin_consent_url(&self, scopes: &[String]) -> Url {
        let scope = scopes.iter().fold(self.required.clone(), |all, scope| all + " " + scope);
        let mut url = self.admin_consent.clone();
        url.query_pairs_mut()
            .append_pair("client_id", &self.endpoint.registration().client_id)
            .append_pair("scope", &scope)
            .append_pair("redirect_uri", &self.redirect_uri);
        url
    }

    /// Returns the refusal that the browser brings back.
    pub async fn refusal(&self, error: &str, description: &str) -> StsError {
        let identity = self.endpoint.identity().await;
        let refusal = EntraRefusal::of_authorization(error, description, self.endpoint.asker(identity.as_ref()));
        StsError::Refused(Box::new(refusal))
    }

    /// Redeems the authorization code of a sign-in that had to satisfy these claims.
    ///
    /// # Errors
    /// If Entra refuses it, or its answer is not the requested one.
    pub async fn redeem(
        &self,
        code: &SecretString,
        proof: &Proof,
        claims: Option<&ClaimsChallenge>,
    ) -> Result<(EntraTokens, Account), SignInError> {
        let scope = self.scope();
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", code.expose_secret()),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", proof.verifier.expose_secret()),
            ("scope", &scope),
            ("claims", &claims::request(claims)),
        ];
        // A code is valid for one attempt: a lost answer may have used it up.
        let issued = self.endpoint.attempt(&parameters).await?;
        let tokens = self.tokens(issued, Some(proof.nonce.expose_secret()))?;
        let account = tokens.account.clone().ok_or(IdTokenError::ABSENT)?;
        Ok((tokens, account))
    }

    /// Refreshes the tokens so that they still satisfy these claims. The old refresh token stays valid, so a retry is
    /// safe.
    ///
    /// # Errors
    /// If Entra refuses, or its answer is not the requested one.
    pub async fn refresh(
        &self,
        refresh_token: &SecretString,
        claims: Option<&ClaimsChallenge>,
    ) -> Result<EntraTokens, SignInError> {
        let scope = self.scope();
        let parameters = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose_secret()),
            ("scope", &scope),
            ("claims", &claims::request(claims)),
        ];
        let issued = self.endpoint.exchange(&parameters).await?;
        self.tokens(issued, None)
    }

    /// Returns the scopes of one resource and those without a resource.
    fn scope(&self) -> String {
        format!("{} {OWN_SCOPES}", self.required)
    }

    fn tokens(&self, issued: Issued, nonce: Option<&str>) -> Result<EntraTokens, SignInError> {
        let client_id = &self.endpoint.registration().client_id;
        let account = match &issued.id_token {
            Some(token) => {
                let expected = Expected { client_id, issuer: &self.issuer, nonce };
                Some(id_token::account(token.expose_secret(), expected, Timestamp::now())?)
            }
            None => None,
        };
        Ok(EntraTokens { account, access_token: issued.token.access_token, refresh_token: issued.refresh_token })
    }
}
