//! The reasons in audit lines: stable words for programs. The table in `docs/audit.md` and the schema are generated from this list.

/// A reason that only the metric of requests has: there is no room for an audit line.
pub(super) const FULL: &str = "audit_log_full";

/// Every reason with its explanation.
pub(super) const REASONS: &[(&str, &str)] = &[
    ("authenticated", "allowed: any caller with a valid token may do this; the answer has only what is granted"),
    ("client_registered", "allowed: a client registered itself with the authorization server"),
    ("consent_given", "allowed: a person approved a client, and was sent to Entra"),
    ("granted", "allowed by a grant, which `rule` names"),
    ("keys_rotated", "allowed: a new key signs access tokens from now on"),
    ("session_begun", "allowed: a client redeemed its code, and a session began"),
    ("session_refreshed", "allowed: a session got new tokens, after Entra confirmed it"),
    (
        "session_refreshed_again",
        "allowed: a client sent a refresh token again soon after its use and got the same answer",
    ),
    ("session_revoked", "allowed: a client or its user ended a session"),
    ("signed_in", "allowed: Entra signed a person in for a client"),
    (
        "address_rate_limited",
        "too many invalid tokens, or too many requests to the authorization server, came from this address",
    ),
    (
        "algorithm_not_accepted",
        "the token is not signed with RS256, or with ES256 if the authorization server issued it",
    ),
    ("another_account", "a different account signed in than the requested one"),
    ("another_audience", "the token is for another audience than this server"),
    ("another_issuer", "the token has another issuer"),
    ("another_tenant", "the token comes from another tenant"),
    ("application_without_role", "an app-only token without any app role of this server"),
    (FULL, "no room for an audit line within 30 s; only the metric of requests has it"),
    ("bad_claim", "a claim is missing, or does not have the form that Entra uses"),
    ("bad_signature", "the signature does not verify"),
    ("batch", "a batch of messages"),
    ("body_incomplete", "the body ended early"),
    ("body_too_large", "the body is larger than 128 KiB, or than 64 KiB at the authorization server"),
    ("bound_token", "the token is bound to a key (`cnf`), but a bearer token proves no key"),
    (
        "client_not_allowed",
        "the client is not among `spec.entra.allowedClients`, or not known to the authorization server",
    ),
    ("code_not_valid", "an authorization code that this server did not issue, or that expired"),
    ("code_of_another_client", "an authorization code of another client or redirect URI"),
    ("code_replayed", "an authorization code that was used before; its session was ended"),
    ("code_verifier_wrong", "the PKCE verifier does not fit the challenge"),
    ("consent_declined", "a person declined to approve a client"),
    ("content_type_not_accepted", "the Content-Type of the body is not JSON"),
    ("critical_header", "the token's header has critical extensions (`crit`)"),
    ("defect", "a defect of this server: report it to its developers"),
    ("denied", "refused by a deny, which `rule` names"),
    ("draining", "the pod is stopping and accepts no new streams"),
    ("entra_refused", "Entra refuses the sign-in until somebody changes a setting"),
    ("entra_unavailable", "Entra does not answer"),
    ("expired", "the token has expired"),
    ("graph_token", "a token for Microsoft Graph"),
    ("header_mismatch", "a header of the protocol is missing, or differs from the body"),
    ("host_not_accepted", "the request's Host differs from the public URL"),
    ("id_token", "an ID token in place of an access token"),
    ("insufficient_claims", "a grant, Graph or Entra requires a stronger sign-in (step-up)"),
    ("insufficient_scope", "a grant requires scopes that the token lacks"),
    ("invalid_json", "the body is not JSON, or has duplicate members"),
    ("invalid_message", "the body is not a JSON-RPC message"),
    ("key_of_another_issuer", "the key that signed the token belongs to another issuer"),
    ("keys_compromised", "the authorization server's keys are older than a compromise and are being replaced"),
    ("keys_unavailable", "Entra's signing keys are not available, so no token can be verified"),
    ("malformed_authorization", "the Authorization header cannot be understood"),
    ("malformed_token", "the token is not a signed JWT, or is ambiguous"),
    ("method_not_allowed", "an HTTP method that the endpoint does not accept"),
    ("neither_user_nor_application", "a token that is neither a user's access token nor an application's"),
    ("not_acceptable", "the Accept header excludes JSON, the format of every answer"),
    ("not_granted", "no grant matches the caller"),
    ("not_yet_valid", "the token is not valid yet"),
    ("oauth_request_malformed", "a request to the authorization server that is malformed or cannot be fulfilled"),
    ("offer_unavailable", "the offer of this server is not known at present"),
    ("origin_not_accepted", "the request comes from a page of another origin"),
    ("other_browser", "a sign-in continued in another browser than the one where it began"),
    ("rate_limited", "the caller exceeds `spec.rateLimit`"),
    ("redirect_uri_not_registered", "a redirect URI that the client has not registered"),
    ("refresh_token_reused", "a refresh token that was used before; its session was ended"),
    ("registration_refused", "a client's registration was not accepted"),
    ("scope_missing", "a user token without any of `spec.entra.requiredScopes`"),
    ("session_ended", "the session of the token has ended"),
    ("backend_unavailable", "the backend does not answer"),
    ("session_store_unavailable", "the session store does not answer"),
    ("sign_in_cancelled", "a person cancelled at Entra"),
    ("sign_in_needed", "Entra requires another sign-in of the user before it gives tokens for Graph"),
    ("sign_in_too_old", "a sign-in that expired, or was finished before"),
    ("token_missing", "no token"),
    ("token_of_another_client", "a refresh token of another client"),
    ("token_too_long", "the token is longer than 16 KiB"),
    ("too_many_streams", "the caller, or all callers together, opened too many streams"),
    ("unknown_key", "the token is signed with a key that Entra does not publish"),
    ("unknown_method", "a method that this server does not know"),
    ("unknown_notification", "a notification that this server does not know: answered with 202 and dropped"),
    ("unknown_prompt", "a prompt that this server does not offer"),
    ("unknown_resource", "a resource that this server does not offer"),
    ("unknown_tool", "a tool that this server does not offer"),
    ("unsupported_version", "a revision of the protocol that this server does not support"),
    ("version_1_token", "a version 1 token, but `spec.entra.tokenVersions` allows only V2"),
    ("version_2_token", "a version 2 token, but `spec.entra.tokenVersions` allows only V1"),
];

/// Returns the schema of a reason.
pub(super) fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names: Vec<&str> = REASONS.iter().map(|(name, _)| *name).collect();
    schemars::json_schema!({ "type": "string", "enum": names })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_table_lists_every_reason() {
        let mut rows: Vec<String> = REASONS.iter().map(|(name, says)| format!("| `{name}` | {says} |\n")).collect();
        rows.sort();
        let table = format!("| Reason | Meaning |\n|---|---|\n{}", rows.concat());
        documentation::hold_section("docs/audit.md", "## Reasons", &table);
    }
}
