//! Errors of the authority: each condition with its AADSTS code, HTTP status and text, in Entra's format.
//!
//! Without a known real answer, the status and `error` are those of the most similar condition with one.

use axum::{
    Json,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// A condition, with the values in its text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Aadsts {
    #[error(
        "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password."
    )]
    GrantRevoked { claims: String },
    #[error(
        "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access '{resource}'."
    )]
    StepUpRequired { resource: String, claims: String, basic_action: bool },
    #[error("Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.")]
    AccessBlocked,
    #[error("The user account is disabled.")]
    AccountDisabled,
    #[error("Session information is not sufficient for single-sign-on.")]
    LoginRequired,
    #[error(
        "The user account {0} does not exist in the directory. To sign into this application, the account must be added to the directory."
    )]
    UserUnknown(String),
    #[error(
        "The redirect URI '{0}' specified in the request does not match the redirect URIs configured for the application '{1}'."
    )]
    RedirectUriUnknown(String, Uuid),
    #[error("No tenant-identifying information found in either the request or implied by any provided credentials.")]
    NoTenant,
    #[error(
        "Application '{0}' is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such apps. Use a tenant-specific endpoint."
    )]
    NotMultiTenant(String),
    #[error("Assertion failed signature validation. [Reason - {0}]")]
    AssertionSignature(&'static str),
    #[error(
        "Assertion audience does not match the Client app presenting the assertion. The audience in the assertion was '{found}' and the expected audience is '{client}' or one of the Application Uris of this application with App ID '{client}'."
    )]
    AssertionAudience { found: String, client: Uuid },
    #[error(
        "Assertion is not within its valid time range. Ensure that the access token is not expired before using it for user assertion, or request a new token."
    )]
    AssertionExpired,
    #[error("The reply address '{0}' does not match the reply address provided when requesting Authorization code.")]
    RedirectUriDiffers(String),
    #[error("Invalid JWT token. {0}")]
    MalformedToken(&'static str),
    #[error(
        "The resource principal named {0} was not found in the tenant. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant."
    )]
    ResourceUnknown(String),
    #[error("The Code_Verifier does not match the code_challenge supplied in the authorization request.")]
    CodeVerifier,
    #[error(
        "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token."
    )]
    CodeRedeemed,
    #[error(
        "The user or administrator has not consented to use the application with ID '{client}' named '{name}'. Send an interactive authorization request for this user and resource."
    )]
    ConsentRequired { client: Uuid, name: String },
    #[error("User declined to consent to access the app.")]
    ConsentDeclined,
    #[error(
        "An administrator of {tenant} has set a policy that prevents you from granting {name} the permissions it is requesting. Contact an administrator of {tenant}, who can grant permissions to this app on your behalf."
    )]
    AdminConsentRequired { tenant: Uuid, name: String },
    #[error(
        "Your administrator has configured the application {name} ('{app}') to block users unless they are specifically granted ('assigned') access to the application. The signed in user '{user}' is blocked because they are not a direct member of a group with access, nor had access directly assigned by an administrator."
    )]
    NotAssigned { app: Uuid, name: String, user: String },
    #[error("No reply address is registered for the application.")]
    NoRedirectUri,
    #[error(
        "The application asked for scope '{scope}' that doesn't exist on the resource '{resource}'. Contact the app vendor."
    )]
    ScopeUnknown { scope: String, resource: String },
    #[error("The provided value for the '{0}' parameter is not valid.")]
    GrantInvalid(&'static str),
    #[error("The app requested an unsupported grant type '{0}'.")]
    GrantTypeUnsupported(String),
    #[error(
        "Application '{client}'({name}) is requesting a token for itself. This scenario is supported only if resource is specified using the GUID based App Identifier."
    )]
    TokenForItself { client: Uuid, name: String },
    #[error(
        "The provided authorization code or refresh token has expired due to inactivity. Send a new interactive authorization request for this user and resource."
    )]
    GrantExpired,
    #[error("The provided request must include a valid '{0}' value: {1}")]
    ScopeInvalid(&'static str, String),
    #[error("OAuth 2.0 device flow error. Authorization is pending. Continue polling.")]
    DevicePending,
    #[error("Invalid verification code due to User typing in wrong user code for device code flow.")]
    DeviceCodeUnknown,
    #[error("Verification code expired. Have the user retry the sign-in.")]
    DeviceCodeExpired,
    #[error("User declined to consent to access the app.")]
    DeviceDeclined,
    #[error("The refresh token has expired due to inactivity.")]
    RefreshTokenExpired,
    #[error(
        "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."
    )]
    AppUnknown { client: String, tenant: String },
    #[error("response_type '{0}' is not supported for the application.")]
    ResponseTypeUnsupported(String),
    #[error(
        "Tenant '{0}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."
    )]
    TenantUnknown(String),
    #[error("The request body must contain the following parameter: '{0}'.")]
    ParameterMissing(&'static str),
    #[error("The request is not properly formatted. The parameter '{0}' is duplicated.")]
    ParameterDuplicated(String),
    #[error("Invalid request. Request is malformed or invalid.")]
    Malformed,
    #[error(
        "The requested resource '{resource}' does not match the scope's resource: it must be one of its identifier URIs, character for character."
    )]
    ResourceMismatch { resource: String },
    #[error(
        "Provided value for the input parameter scope is not valid because it contains more than one resource. Scope {0} is not valid."
    )]
    SeveralResources(String),
    #[error(
        "The provided value for scope {0} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."
    )]
    DefaultScopeRequired(String),
    #[error(
        "Application assertion audience '{0}' cannot be used: application '{1}' cannot use the on-behalf-of flow with a token issued to an application."
    )]
    AppOnlyAssertion(String, Uuid),
    #[error("Client is public so neither 'client_assertion' nor 'client_secret' should be presented.")]
    PublicClientWithCredential,
    #[error(
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{0}'."
    )]
    ClientSecretInvalid(String),
    #[error("The request body must contain the following parameter: 'client_assertion' or 'client_secret'.")]
    CredentialMissing,
    #[error("The client '{client}'({name}) has no configured federated identity credentials.")]
    FederatedNone { client: Uuid, name: String },
    #[error(
        "No matching federated identity record found for presented assertion issuer '{0}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion."
    )]
    FederatedIssuer(String),
    #[error(
        "No matching federated identity record found for presented assertion subject '{0}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion."
    )]
    FederatedSubject(String),
    #[error(
        "No matching federated identity record found for presented assertion subject '{0}'. The subject matches with case-insensitive comparison, but not with case-sensitive comparison. Check your federated identity credential Subject, Audience and Issuer against the presented assertion."
    )]
    FederatedSubjectCase(String),
    #[error(
        "No matching federated identity record found for presented assertion audience '{0}'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion."
    )]
    FederatedAudience(String),
    #[error(
        "Client assertion is not within its valid time range. Current time: {now}, assertion valid from {from}, expiry time of assertion {until}."
    )]
    ClientAssertionTime { now: String, from: String, until: String },
    #[error("The lifetime of the external token is too long: at most 25 hours are allowed.")]
    ClientAssertionLifetime,
    #[error(
        "Client assertion failed signature validation. [Reason - The key was found, but the signature is not its.]"
    )]
    ClientAssertionSignature,
    #[error("The signing key '{kid}' of the client assertion was not found among the keys of the issuer '{issuer}'.")]
    ClientAssertionKey { kid: String, issuer: String },
    #[error("Client assertion contains an unsupported signing algorithm '{0}'. Supported: RS256.")]
    ClientAssertionAlgorithm(String),
    #[error("Client assertion must have exactly one audience, and has {0}.")]
    ClientAssertionAudiences(usize),
    #[error("Request to External OIDC endpoint failed: {0}")]
    IssuerUnreachable(String),
    #[error("Request to External OIDC endpoint gave an unusable answer: {0}")]
    IssuerUnusable(String),
    #[error("{message}")]
    Injected {
        code: u32,
        status: u16,
        error: String,
        message: String,
        suberror: Option<String>,
        claims: Option<String>,
    },
}

impl Aadsts {
    /// The number, HTTP status and `error`.
    fn facts(&self) -> (u32, u16, &str) {
        match self {
            Self::GrantRevoked { .. } => (50173, 400, "invalid_grant"),
            Self::StepUpRequired { basic_action: true, .. } => (50076, 400, "invalid_grant"),
            Self::StepUpRequired { .. } => (50076, 400, "interaction_required"),
            Self::AccessBlocked => (53003, 400, "invalid_grant"),
            Self::AccountDisabled => (50057, 400, "invalid_grant"),
            Self::LoginRequired => (50058, 400, "login_required"),
            Self::UserUnknown(_) => (50034, 400, "invalid_grant"),
            Self::RedirectUriUnknown(..) => (50011, 400, "invalid_request"),
            Self::NoTenant => (50059, 400, "invalid_request"),
            Self::NotMultiTenant(_) => (50194, 400, "invalid_request"),
            Self::AssertionSignature(_) => (50013, 400, "invalid_grant"),
            Self::AssertionAudience { .. } => (500_131, 400, "invalid_grant"),
            Self::AssertionExpired => (500_133, 400, "invalid_grant"),
            Self::RedirectUriDiffers(_) => (500_112, 400, "invalid_client"),
            Self::MalformedToken(_) => (50027, 400, "invalid_request"),
            Self::ResourceUnknown(_) => (500_011, 400, "invalid_resource"),
            Self::CodeVerifier => (501_481, 400, "invalid_grant"),
            Self::CodeRedeemed => (54005, 400, "invalid_grant"),
            Self::ConsentRequired { .. } => (65001, 400, "invalid_grant"),
            Self::ConsentDeclined => (65004, 400, "access_denied"),
            Self::AdminConsentRequired { .. } => (90094, 400, "invalid_grant"),
            Self::NotAssigned { .. } => (50105, 400, "invalid_grant"),
            Self::NoRedirectUri => (500_113, 400, "invalid_request"),
            Self::ScopeUnknown { .. } => (650_053, 400, "invalid_client"),
            Self::GrantInvalid(_) => (70000, 400, "invalid_grant"),
            Self::GrantTypeUnsupported(_) => (70003, 400, "unsupported_grant_type"),
            Self::GrantExpired => (70008, 400, "invalid_grant"),
            Self::ScopeInvalid(..) => (70011, 400, "invalid_scope"),
            Self::DevicePending => (70016, 400, "authorization_pending"),
            Self::DeviceCodeUnknown => (70018, 400, "bad_verification_code"),
            Self::DeviceCodeExpired => (70019, 400, "expired_token"),
            Self::DeviceDeclined => (65004, 400, "authorization_declined"),
            Self::RefreshTokenExpired => (700_082, 400, "invalid_grant"),
            Self::AppUnknown { .. } => (700_016, 400, "unauthorized_client"),
            Self::ResponseTypeUnsupported(_) => (700_054, 400, "unsupported_response_type"),
            Self::TokenForItself { .. } => (90009, 400, "invalid_request"),
            Self::TenantUnknown(_) => (90002, 400, "invalid_request"),
            Self::ParameterMissing(_) => (900_144, 400, "invalid_request"),
            Self::ParameterDuplicated(_) => (9_000_411, 400, "invalid_request"),
            Self::Malformed => (9_002_313, 400, "invalid_request"),
            Self::ResourceMismatch { .. } => (9_010_010, 400, "invalid_target"),
            Self::SeveralResources(_) => (28000, 400, "invalid_request"),
            Self::DefaultScopeRequired(_) => (1_002_012, 400, "invalid_scope"),
            Self::AppOnlyAssertion(..) => (7_000_114, 400, "unauthorized_client"),
            Self::PublicClientWithCredential => (700_025, 401, "invalid_client"),
            Self::ClientSecretInvalid(_) => (7_000_215, 401, "invalid_client"),
            Self::CredentialMissing => (7_000_218, 401, "invalid_client"),
            Self::FederatedNone { .. } => (70025, 401, "invalid_client"),
            Self::FederatedIssuer(_) => (700_211, 401, "invalid_client"),
            Self::FederatedSubject(_) => (700_213, 401, "invalid_client"),
            Self::FederatedSubjectCase(_) => (7_002_138, 401, "invalid_client"),
            Self::FederatedAudience(_) => (700_212, 401, "invalid_client"),
            Self::ClientAssertionTime { .. } => (700_024, 401, "invalid_client"),
            Self::ClientAssertionLifetime => (70023, 401, "invalid_client"),
            Self::ClientAssertionSignature => (700_027, 401, "invalid_client"),
            Self::ClientAssertionKey { .. } => (7_000_272, 401, "invalid_client"),
            Self::ClientAssertionAlgorithm(_) => (5_002_730, 401, "invalid_client"),
            Self::ClientAssertionAudiences(_) => (5_002_741, 401, "invalid_client"),
            Self::IssuerUnreachable(_) => (90061, 400, "invalid_request"),
            Self::IssuerUnusable(_) => (50166, 400, "invalid_request"),
            Self::Injected { code, status, error, .. } => (*code, *status, error),
        }
    }

    pub(crate) fn code(&self) -> u32 {
        self.facts().0
    }

    /// The value of `error`.
    pub(crate) fn error(&self) -> &str {
        self.facts().2
    }

    /// `AADSTSn: …`, ending in the ids and the time that differ with every answer.
    pub(crate) fn description(&self, trace: &Trace) -> String {
        format!(
            "AADSTS{}: {self} Trace ID: {} Correlation ID: {} Timestamp: {}",
            self.code(),
            trace.id,
            trace.correlation_id,
            trace.timestamp
        )
    }

    /// The answer of the token endpoint.
    pub(crate) fn into_response(self, authority: &str, trace: &Trace) -> Response {
        let (code, _, error) = self.facts();
        self.answer(error, authority, code, trace)
    }

    /// The answer of the metadata endpoints, where an unknown tenant is called `invalid_tenant`.
    pub(crate) fn into_metadata_response(self, authority: &str, trace: &Trace) -> Response {
        let error = match self {
            Self::TenantUnknown(_) => "invalid_tenant",
            _ => self.error(),
        };
        self.answer(error, authority, self.code(), trace)
    }

    fn answer(&self, error: &str, authority: &str, code: u32, trace: &Trace) -> Response {
        let mut body = json!({
            "error": error,
            "error_description": self.description(trace),
            "error_codes": [code],
            "timestamp": trace.timestamp,
            "trace_id": trace.id,
            "correlation_id": trace.correlation_id,
            "error_uri": format!("{authority}/error?code={code}"),
        });
        let (suberror, claims) = match self {
            Self::ConsentRequired { .. } => (Some("consent_required".to_owned()), None),
            // This is the only format with claims that Entra was seen to return for on-behalf-of. MSAL for Node drops
            // the claims of any other.
            Self::GrantRevoked { claims } => (Some("basic_action".to_owned()), Some(claims.clone())),
            Self::StepUpRequired { claims, basic_action, .. } => {
                (basic_action.then(|| "basic_action".to_owned()), Some(claims.clone()))
            }
            Self::Injected { suberror, claims, .. } => (suberror.clone(), claims.clone()),
            _ => (None, None),
        };
        if let Value::Object(body) = &mut body {
            body.extend(suberror.map(|value| ("suberror".to_owned(), value.into())));
            // `claims` is a string with JSON.
            body.extend(claims.map(|value| ("claims".to_owned(), value.into())));
        }
        let status = StatusCode::from_u16(self.facts().1).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = (status, trace.headers(), Json(body)).into_response();
        response.extensions_mut().insert(Failed { code });
        response
    }
}

/// Sets the error on an answer for the request log.
#[derive(Clone, Copy)]
pub(crate) struct Failed {
    pub(crate) code: u32,
}

/// Identifiers of one answer of the authority.
pub(crate) struct Trace {
    id: Uuid,
    correlation_id: String,
    timestamp: String,
}

impl Trace {
    /// `client_request_id` is the client's own id, if it sent one.
    pub(crate) fn new(client_request_id: Option<&str>, now: i64) -> Self {
        Self {
            id: Uuid::new_v4(),
            correlation_id: client_request_id.map_or_else(|| Uuid::new_v4().to_string(), ToOwned::to_owned),
            timestamp: time_text(now),
        }
    }

    /// The headers of every answer of the token endpoint.
    pub(crate) fn headers(&self) -> [(HeaderName, String); 3] {
        [
            (header::CACHE_CONTROL, "no-store, no-cache".to_owned()),
            (header::PRAGMA, "no-cache".to_owned()),
            (HeaderName::from_static("x-ms-request-id"), self.id.to_string()),
        ]
    }
}

/// Seconds since 1970 as `YYYY-MM-DD HH:MM:SSZ`.
pub(crate) fn time_text(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map(|time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
        .unwrap_or_else(|_| seconds.to_string())
}
