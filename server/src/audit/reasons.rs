//! The reasons that lines of the audit log give: stable words for programs. What stands here stands in `docs/audit.md`
//! and in the schema, too.

/// The reason that no line gives, but the metric of requests: there is no room for the line.
pub(super) const FULL: &str = "audit_log_full";

/// Every reason, with what it says.
pub(super) const REASONS: &[(&str, &str)] = &[
    ("authenticated", "allowed: anybody with a good token may do this, and sees what is granted"),
    ("client_registered", "allowed: a client has registered itself with the authorization server"),
    ("consent_given", "allowed: a person approved a client, and was sent to Entra"),
    ("granted", "allowed by a grant, which `rule` names"),
    ("keys_rotated", "allowed: another key signs access tokens from now on"),
    ("session_begun", "allowed: a client redeemed its code, and a session has begun"),
    ("session_refreshed", "allowed: a session has new tokens, after Entra was asked"),
    ("session_refreshed_again", "allowed: a refresh token that was just used got the same successor again"),
    ("session_revoked", "allowed: a client or its person has ended a session"),
    ("signed_in", "allowed: Entra signed a person in for a client"),
    ("address_rate_limited", "too many tokens from this address were not accepted"),
    ("algorithm_not_accepted", "the token is not signed with RS256"),
    ("another_account", "another account signed in than the one that was asked for"),
    ("another_audience", "the token is for another server"),
    ("another_issuer", "the token is of another issuer"),
    ("another_tenant", "the token is of another tenant"),
    ("application_without_role", "an app-only token without any app role of this server"),
    (FULL, "no room for a line within 30 s: it is in the metric of requests alone"),
    ("bad_claim", "a claim is missing, or not as Entra issues it"),
    ("bad_signature", "the signature does not verify"),
    ("batch", "a batch of messages"),
    ("body_incomplete", "the body ended early"),
    ("body_too_large", "the body is larger than 128 KiB"),
    ("bound_token", "the token is bound to a key (`cnf`), which a bearer does not prove to have"),
    (
        "client_not_allowed",
        "the client is not among `spec.entra.allowedClients`, or not known to the authorization server",
    ),
    ("code_not_valid", "an authorization code that is not this server's, or has expired"),
    ("code_of_another_client", "an authorization code of another client or redirect URI"),
    ("code_replayed", "an authorization code that was used before: its session has ended"),
    ("code_verifier_wrong", "the PKCE verifier does not fit the challenge"),
    ("consent_declined", "a person declined to approve a client"),
    ("content_type_not_accepted", "the body is not declared to be JSON"),
    ("critical_header", "the token's header has critical extensions (`crit`)"),
    ("defect", "this server did not do what its own stages rely on: report it to its developers"),
    ("denied", "a deny forbids it, which `rule` names"),
    ("draining", "the pod stops, and takes no further stream"),
    ("entra_refused", "Entra signs the person in only after somebody has changed something"),
    ("entra_unavailable", "Entra does not answer"),
    ("expired", "the token has expired"),
    ("graph_token", "a token for Microsoft Graph"),
    ("header_mismatch", "a header of the protocol is not what the body says, or is missing"),
    ("host_not_accepted", "the request's Host is not that of the public URL"),
    ("id_token", "an ID token in place of an access token"),
    ("insufficient_claims", "the sign-in does not satisfy what a grant, Graph or Entra asks for: a step-up"),
    ("insufficient_scope", "a grant asks for scopes that the token lacks"),
    ("invalid_json", "the body is not JSON, or has duplicate members"),
    ("invalid_message", "the body is not a JSON-RPC message"),
    ("key_of_another_issuer", "the key that signed the token is not one for its issuer"),
    ("keys_compromised", "the authorization server's keys are of before a compromise, and are being replaced"),
    ("keys_unavailable", "Entra's signing keys are not available: nobody can be let in"),
    ("malformed_authorization", "the Authorization header cannot be understood"),
    ("malformed_token", "the token is not a signed JWT, or an ambiguous one"),
    ("method_not_allowed", "an HTTP method that the endpoint does not take"),
    ("neither_user_nor_application", "a token that is neither a user's access token nor an application's"),
    ("not_acceptable", "the Accept header excludes JSON, which every answer is"),
    ("not_granted", "no grant means the caller"),
    ("not_yet_valid", "the token begins in the future"),
    ("oauth_request_malformed", "a request to the authorization server that cannot be understood or met"),
    ("offer_unavailable", "it is not known now what this server offers"),
    ("origin_not_accepted", "the request comes from a page of another origin"),
    ("other_browser", "a sign-in goes on in another browser than the one that it began in"),
    ("rate_limited", "the caller asks more often than `spec.rateLimit` lets it"),
    ("redirect_uri_not_registered", "a redirect URI that is none of the client's"),
    ("refresh_token_reused", "a refresh token that was used before: its session has ended"),
    ("registration_refused", "a client registers itself in a way that is not accepted"),
    ("scope_missing", "a user token without any of `spec.entra.requiredScopes`"),
    ("session_ended", "the session of the token has ended"),
    ("backend_unavailable", "the backend does not answer"),
    ("session_store_unavailable", "the session store does not answer"),
    ("sign_in_cancelled", "a person cancelled at Entra"),
    ("sign_in_needed", "Entra takes another sign-in of the user before Graph is reached for them"),
    ("sign_in_too_old", "a sign-in that is expired, or was finished before"),
    ("token_missing", "no token"),
    ("token_of_another_client", "a refresh token of another client"),
    ("token_too_long", "the token is longer than 16 KiB"),
    ("too_many_streams", "the caller, or all callers together, listen on too many streams"),
    ("unknown_key", "the token is signed with a key that Entra does not publish"),
    ("unknown_method", "a method that this server does not know"),
    ("unknown_notification", "a notification that this server does not know: answered with 202, and dropped"),
    ("unknown_prompt", "a prompt that this server does not offer"),
    ("unknown_resource", "a resource that this server does not offer"),
    ("unknown_tool", "a tool that this server does not offer"),
    ("unsupported_version", "a revision of the protocol that this server does not speak"),
    ("version_1_token", "a version 1 token, where `spec.entra.tokenVersions` has V2 alone"),
    ("version_2_token", "a version 2 token, where `spec.entra.tokenVersions` has V1 alone"),
];

/// The reasons alone.
pub(super) fn schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names: Vec<&str> = REASONS.iter().map(|(name, _)| *name).collect();
    schemars::json_schema!({ "type": "string", "enum": names })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_once_in_the_document_with_what_it_says() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit.md");
        let document = std::fs::read_to_string(file).unwrap();
        let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| `") && line.contains("` |")).collect();
        for (name, says) in REASONS {
            let row = format!("| `{name}` | {says} |");
            assert_eq!(rows.iter().filter(|found| **found == row).count(), 1, "docs/audit.md has no line {row}");
        }
    }
}
