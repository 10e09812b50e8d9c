//! The token endpoint: each grant from its parameters to its answer.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    authorize::{check_assignment, client_request_id},
    claims::{ClaimsRequest, Issuance, Session, issue_of, issued_after, policy_of, v1_issuer},
    client::{Client, Form, authenticate},
    configuration::{ConditionalAccess, Tenant, User},
    consent::Consented,
    device,
    errors::{Aadsts, Trace},
    keys::{Object, Unverified, hashed, object, random_token},
    log::Learnt,
    resource::{Requested, Resource},
    state::{Challenge, Code, RefreshToken, Shared, TenantState},
};

/// Lifetime of an unused refresh token, in seconds.
const REFRESH_TOKEN_LIFETIME: i64 = 90 * 24 * 3600;
/// Minimum lifetime, in seconds, from which an answer has `refresh_in`.
const LONG_LIFETIME: i64 = 7200;
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Parameter that MSAL for Node sends instead. Entra accepts it, too.
const MSAL_DEVICE_CODE: &str = "device_code";
const ON_BEHALF_OF: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// `POST /{tenant}/oauth2/v2.0/token`
pub(crate) async fn token(
    State(shared): State<Arc<Shared>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let trace = Trace::new(client_request_id(&headers), shared.now());
    let mut learnt = Learnt::default();
    let mut response = match grant(&shared, &tenant, &headers, &body, &mut learnt).await {
        Ok(answer) => (trace.headers(), Json(Value::Object(answer))).into_response(),
        Err(error) => error.into_response(&shared.authority, &trace),
    };
    response.extensions_mut().insert(learnt);
    response
}

/// One request to the token endpoint.
struct Exchange<'a> {
    shared: &'a Shared,
    tenant: &'a TenantState,
    form: &'a Form,
    client: Client<'a>,
    claims: ClaimsRequest,
}

async fn grant(
    shared: &Shared,
    tenant: &str,
    headers: &HeaderMap,
    body: &[u8],
    learnt: &mut Learnt,
) -> Result<Object, Aadsts> {
    let form = &Form::parse(body)?;
    let grant_type = form.require("grant_type")?;
    if matches!(tenant, "common" | "organizations") {
        return Err(match grant_type {
            "client_credentials" => Aadsts::NoTenant,
            _ => Aadsts::NotMultiTenant(form.require("client_id")?.to_owned()),
        });
    }
    let tenant = &*shared.concrete_tenant(tenant)?;
    let client = authenticate(shared, tenant, headers, form, learnt).await?;
    let claims = ClaimsRequest::parse(form.get("claims")).ok_or(Aadsts::Malformed)?;
    let exchange = Exchange { shared, tenant, form, client, claims };
    match grant_type {
        "client_credentials" => exchange.client_credentials(),
        "authorization_code" => exchange.authorization_code(learnt),
        "refresh_token" => exchange.refresh_token(learnt),
        ON_BEHALF_OF => exchange.on_behalf_of(learnt),
        DEVICE_CODE | MSAL_DEVICE_CODE => exchange.device_code(learnt),
        other => Err(Aadsts::GrantTypeUnsupported(other.to_owned())),
    }
}

impl<'a> Exchange<'a> {
    fn client_credentials(&self) -> Result<Object, Aadsts> {
        if !self.client.authenticated {
            return Err(Aadsts::CredentialMissing);
        }
        let scope = self.form.require("scope")?;
        if scope.contains(' ') || !scope.ends_with("/.default") {
            return Err(Aadsts::DefaultScopeRequired(scope.to_owned()));
        }
        let requested = self.requested(scope)?;
        let issuance = self.issuance();
        let token = issuance.application_token(&requested);
        let mut answer = lifetime(&issuance);
        answer.insert("access_token".to_owned(), self.sign(&requested, token)?.into());
        Ok(answer)
    }

    fn authorization_code(&self, learnt: &mut Learnt) -> Result<Object, Aadsts> {
        let code = self.redeem(self.form.require("code")?)?;
        learnt.user = Some(code.user);
        let user = self.active_user(code.user, code.issue)?;
        let requested = match self.form.get("scope") {
            Some(scope) => self.requested(scope)?,
            None => self.first_requested(&code.scope)?,
        };
        requested.check_that_itself_is_a_guid(self.client.app)?;
        let scopes = self.consented_by(user, &requested)?;
        let signed_in = ClaimsRequest::parse(code.claims.as_deref()).ok_or(Aadsts::Malformed)?;
        let mut claims = self.claims_within(&signed_in.session, &requested)?;
        claims.extend(&signed_in);
        let answer = self.for_user(user, &requested, scopes, &claims)?;
        self.with_id_token(answer, user, &requested, code.nonce.as_deref())
    }

    /// Checks everything about a code. It counts as used only after all checks passed.
    fn redeem(&self, presented: &str) -> Result<Code, Aadsts> {
        let redirect_uri = self.form.require("redirect_uri")?;
        let mut state = self.shared.lock();
        let code = state
            .codes
            .get_mut(presented)
            .filter(|code| code.tenant == self.tenant.directory.id && code.client == self.client.app.client_id)
            .ok_or(Aadsts::GrantInvalid("code"))?;
        if code.redeemed {
            return Err(Aadsts::CodeRedeemed);
        }
        if code.expires <= self.shared.now() {
            return Err(Aadsts::GrantExpired);
        }
        if code.redirect_uri != redirect_uri {
            return Err(Aadsts::RedirectUriDiffers(redirect_uri.to_owned()));
        }
        let verifier = self.form.get("code_verifier").unwrap_or_default();
        let proven = match &code.challenge {
            None => true,
            Some(Challenge::Sha256(challenge)) => &hashed(verifier) == challenge,
            Some(Challenge::Plain(challenge)) => verifier == challenge,
        };
        if !proven {
            return Err(Aadsts::CodeVerifier);
        }
        code.redeemed = true;
        Ok(code.clone())
    }

    /// Every answer has a new refresh token. As in Entra, the old one still works.
    fn refresh_token(&self, learnt: &mut Learnt) -> Result<Object, Aadsts> {
        let presented = self.form.require("refresh_token")?;
        let known = self.shared.lock().refresh_tokens.get(presented).cloned();
        let known = known.ok_or(Aadsts::Malformed)?;
        if known.client != self.client.app.client_id || known.tenant != self.tenant.directory.id {
            return Err(Aadsts::GrantInvalid("refresh_token"));
        }
        learnt.user = Some(known.user);
        if known.expires <= self.shared.now() {
            return Err(Aadsts::RefreshTokenExpired);
        }
        let user = self.active_user(known.user, known.issue)?;
        let mut requested = self.requested(self.form.get("scope").unwrap_or(&known.scope))?;
        requested.check_that_itself_is_a_guid(self.client.app)?;
        let scopes = self.consented_by(user, &requested)?;
        if !requested.wants("offline_access") {
            requested.openid.push("offline_access".to_owned());
        }
        let claims = self.claims_within(&known.session, &requested)?;
        let answer = self.for_user(user, &requested, scopes, &claims)?;
        self.with_id_token(answer, user, &requested, None)
    }

    fn device_code(&self, learnt: &mut Learnt) -> Result<Object, Aadsts> {
        let code = self.form.require("device_code")?;
        let (tenant, client) = (self.tenant.directory.id, self.client.app.client_id);
        let (scope, user, issue) = device::redeem(self.shared, tenant, client, code)?;
        learnt.user = Some(user);
        let user = self.active_user(user, issue)?;
        let requested = self.requested(&scope)?;
        let scopes = self.consented_by(user, &requested)?;
        // The user has just signed in for this request, so the requirements of its claims are met.
        let answer = self.for_user(user, &requested, scopes, &self.claims)?;
        self.with_id_token(answer, user, &requested, None)
    }

    fn on_behalf_of(&self, learnt: &mut Learnt) -> Result<Object, Aadsts> {
        if !self.client.authenticated {
            return Err(Aadsts::CredentialMissing);
        }
        if self.form.require("requested_token_use")? != "on_behalf_of" {
            return Err(Aadsts::Malformed);
        }
        let assertion = self.form.require("assertion")?;
        let scope = self.form.require("scope")?;
        let (user, session) = self.asserted_user(assertion)?;
        learnt.user = Some(user.oid);
        let requested = self.requested(scope)?;
        let consented = self.consented(user, &requested)?;
        self.check_conditional_access(&session, &requested)?;
        let claims = self.claims_within(&session, &requested)?;
        let answer = self.for_user(user, &requested, consented, &claims)?;
        self.with_id_token(answer, user, &requested, None)
    }

    /// Without the user, a client only gets the requirements that the sign-in met.
    fn claims_within(&self, session: &Session, requested: &Requested<'_>) -> Result<ClaimsRequest, Aadsts> {
        if !session.meets(&self.claims.session) {
            return Err(Aadsts::StepUpRequired {
                resource: requested.resource.id(),
                claims: self.form.get("claims").unwrap_or_default().to_owned(),
                basic_action: true,
            });
        }
        let mut claims = self.claims.clone();
        claims.session.extend(session);
        Ok(claims)
    }

    fn check_conditional_access(&self, session: &Session, requested: &Requested<'_>) -> Result<(), Aadsts> {
        let Resource::Graph = requested.resource else { return Ok(()) };
        let policy = policy_of(self.client.app).to_string();
        let step_up = |basic_action| Aadsts::StepUpRequired {
            resource: requested.resource.id(),
            claims: json!({"access_token": {"capolids": {"essential": true, "values": [policy]}}}).to_string(),
            basic_action,
        };
        match self.client.app.conditional_access {
            ConditionalAccess::Blocked => Err(Aadsts::AccessBlocked),
            ConditionalAccess::MultiFactor if !session.meets_policy(&policy) => Err(step_up(false)),
            ConditionalAccess::MultiFactorBasicAction if !session.meets_policy(&policy) => Err(step_up(true)),
            _ => Ok(()),
        }
    }

    /// User of the token in the on-behalf-of grant, and the requirements that the user met for it. The token must be
    /// for this app, of this tenant, and valid.
    fn asserted_user(&self, assertion: &str) -> Result<(&'a User, Session), Aadsts> {
        let token =
            Unverified::parse(assertion).ok_or(Aadsts::MalformedToken("The assertion is not a JSON Web Token."))?;
        let key = token.kid().and_then(|kid| self.tenant.key(kid));
        let key = key.ok_or(Aadsts::AssertionSignature("The key was not found."))?;
        if !token.is_signed_by_ours(key) && !token.is_signed_for_graph(key) {
            return Err(Aadsts::AssertionSignature(
                "The provided signature value did not match the expected signature value.",
            ));
        }
        let tid = self.tenant.directory.id;
        let issuers = [format!("{}/{tid}/v2.0", self.shared.authority), v1_issuer(tid)];
        if !token.claim("iss").is_some_and(|iss| issuers.iter().any(|known| known == iss)) {
            return Err(Aadsts::AssertionSignature("The issuer is not this tenant."));
        }
        let app = self.client.app;
        let audience = token.claim("aud").unwrap_or_default();
        let is_ours = audience == app.client_id.to_string() || app.identifier_uris.iter().any(|uri| uri == audience);
        if !is_ours {
            return Err(Aadsts::AssertionAudience { found: audience.to_owned(), client: app.client_id });
        }
        let now = self.shared.now();
        let valid =
            token.number("nbf").is_none_or(|from| from <= now) && token.number("exp").is_some_and(|until| until > now);
        if !valid {
            return Err(Aadsts::AssertionExpired);
        }
        let is_app_only = token.claim("idtyp") == Some("app") || token.claim("oid") == token.claim("sub");
        if is_app_only {
            return Err(Aadsts::AppOnlyAssertion(audience.to_owned(), app.client_id));
        }
        if token.claim("scp").is_none() {
            return Err(Aadsts::MalformedToken("The assertion is not an access token."));
        }
        let oid = token.claim("oid").and_then(|oid| Uuid::parse_str(oid).ok());
        let oid = oid.ok_or(Aadsts::MalformedToken("The assertion names no user."))?;
        Ok((self.active_user(oid, issue_of(&token))?, Session::of(&token)))
    }

    /// Returns the user, unless disabled, unknown, or revoked since `issue`.
    fn active_user(&self, oid: Uuid, issue: u64) -> Result<&'a User, Aadsts> {
        let user = self.tenant.directory.user(oid);
        let user = user.ok_or_else(|| Aadsts::UserUnknown(oid.to_string()))?;
        if !user.account_enabled {
            return Err(Aadsts::AccountDisabled);
        }
        match self.tenant.revoked_at(oid, issue) {
            None => Ok(user),
            Some(at) => Err(Aadsts::GrantRevoked { claims: issued_after(at) }),
        }
    }

    fn requested(&self, scope: &str) -> Result<Requested<'a>, Aadsts> {
        let directory: &'a Tenant = &self.tenant.directory;
        let requested = Requested::parse(scope, directory, &self.shared.graph)?;
        requested.check_resource_parameter(self.form.get("resource"))?;
        Ok(requested)
    }

    /// Same as [`Self::requested`]; the first one of several resources.
    fn first_requested(&self, scope: &str) -> Result<Requested<'a>, Aadsts> {
        let directory: &'a Tenant = &self.tenant.directory;
        let all = Requested::parse_all(scope, directory, &self.shared.graph)?;
        let requested = all.into_iter().next().ok_or_else(|| Aadsts::ScopeInvalid("scope", scope.to_owned()))?;
        requested.check_resource_parameter(self.form.get("resource"))?;
        Ok(requested)
    }

    /// Scopes of a token for a user who signed in to the client.
    fn consented_by(&self, user: &User, requested: &Requested<'_>) -> Result<Vec<String>, Aadsts> {
        let Self { shared, tenant, .. } = *self;
        Consented { shared, tenant, client: self.client.app, user }.for_token(requested)
    }

    /// Scopes on behalf of a user: all scopes with earlier consent, as Entra includes them for any request.
    fn consented(&self, user: &User, requested: &Requested<'_>) -> Result<Vec<String>, Aadsts> {
        let Self { shared, tenant, .. } = *self;
        let client = self.client.app;
        let consented = Consented { shared, tenant, client, user };
        let all = match requested.resource {
            Resource::App(app) if app.client_id == client.client_id => app.scopes.clone(),
            resource => consented.scopes(resource),
        };
        if all.is_empty() || !requested.scopes.iter().all(|scope| all.contains(scope)) {
            return Err(consented.required());
        }
        Ok(all)
    }

    fn issuance(&self) -> Issuance<'_> {
        Issuance {
            authority: &self.shared.authority,
            tenant: &self.tenant.directory,
            client: self.client.app,
            authenticated: self.client.authenticated,
            now: self.shared.now(),
            issue: self.shared.next_issue(),
        }
    }

    fn for_user(
        &self,
        user: &User,
        requested: &Requested<'_>,
        scopes: Vec<String>,
        claims: &ClaimsRequest,
    ) -> Result<Object, Aadsts> {
        check_assignment(self.tenant, self.client.app, user, std::slice::from_ref(requested))?;
        let issuance = self.issuance();
        let token = issuance.user_token(requested, &scopes, user, claims);
        let mut answer = lifetime(&issuance);
        answer.insert("scope".to_owned(), requested.granted_text(&scopes).into());
        answer.insert("access_token".to_owned(), self.sign(requested, token)?.into());
        if requested.wants("offline_access") {
            let refresh_token = random_token();
            self.shared.lock().refresh_tokens.insert(
                refresh_token.clone(),
                RefreshToken {
                    tenant: self.tenant.directory.id,
                    client: self.client.app.client_id,
                    user: user.oid,
                    scope: requested.granted_text(&scopes),
                    session: claims.session.clone(),
                    issue: issuance.issue,
                    expires: issuance.now + REFRESH_TOKEN_LIFETIME,
                },
            );
            answer.insert("refresh_token".to_owned(), refresh_token.into());
        }
        if self.form.get("client_info") == Some("1") {
            let info = json!({"uid": user.oid, "utid": self.tenant.directory.id}).to_string();
            answer.insert("client_info".to_owned(), URL_SAFE_NO_PAD.encode(info).into());
        }
        Ok(answer)
    }

    fn with_id_token(
        &self,
        mut answer: Object,
        user: &User,
        requested: &Requested<'_>,
        nonce: Option<&str>,
    ) -> Result<Object, Aadsts> {
        if requested.wants("openid") {
            let key = self.tenant.signing_key().map_err(internal)?;
            let claims = Value::Object(self.issuance().id_token(user, nonce));
            let token = key.sign(&key.header(), &claims).map_err(internal)?;
            answer.insert("id_token".to_owned(), token.into());
        }
        Ok(answer)
    }

    fn sign(&self, requested: &Requested<'_>, claims: Object) -> Result<String, Aadsts> {
        self.tenant.sign(requested.resource, &Value::Object(claims)).map_err(internal)
    }
}

/// Lifetime of an access token in an answer. For a long lifetime, also the time at which to fetch a new one.
fn lifetime(issuance: &Issuance<'_>) -> Object {
    let seconds = issuance.lifetime();
    let mut answer = object(json!({"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds}));
    if seconds >= LONG_LIFETIME {
        answer.insert("refresh_in".to_owned(), (seconds / 2).into());
    }
    answer
}

/// Entra's "internal service error", for conditions that cannot occur.
fn internal(error: anyhow::Error) -> Aadsts {
    Aadsts::Injected {
        code: 50000,
        status: 500,
        error: "server_error".to_owned(),
        message: format!("There was an error issuing a token. {error:#}"),
        suberror: None,
        claims: None,
    }
}
