//! What a refusal of Entra asks of whom: the one classification of its errors, pure.
//!
//! Decided by OAuth's `error` and Entra's `suberror` and `claims`, as Microsoft asks programs to; by the AADSTS number
//! only where those do not tell conditions apart.

use http::StatusCode;

use super::{ClaimsChallenge, SignIn};

/// What helps against a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing: Entra is busy, and asking again may do.
    AskAgain,
    /// The user signs in again.
    SignIn(SignIn),
    /// An administrator consents to the permissions.
    Consent,
    /// An administrator lifts what blocks the user: a policy of Conditional Access, a disabled account.
    Unblock,
    /// The federated credential, or the projected token, is put right. It may be new, or a key may have been rolled: then
    /// it takes some minutes.
    Credential,
    /// The app registration or this server's configuration is put right.
    Configuration,
}

/// What a refusal says, as far as anything is decided by it.
pub(super) struct Said<'a> {
    pub(super) status: StatusCode,
    pub(super) error: &'a str,
    pub(super) suberror: Option<&'a str>,
    pub(super) codes: &'a [u64],
    pub(super) claims: Option<ClaimsChallenge>,
}

/// Transient whatever `error` says. 90061, 50166 and 501661: the cluster's issuer cannot be reached.
const TRANSIENT: [u64; 11] = [50033, 50087, 90006, 90012, 90024, 90033, 90055, 90090, 90061, 50166, 501_661];
/// No federated credential matches: seconds to minutes after one was created that need not be so.
const CREDENTIAL: [u64; 6] = [70021, 700_211, 700_212, 700_213, 7_002_137, 7_002_138];
const BLOCKED: [u64; 4] = [53000, 53003, 530_003, 50057];
/// The caller's token was issued for another application than this server's.
const ASSERTION_AUDIENCE: u64 = 500_131;
const CONSENT: u64 = 65001;

impl Said<'_> {
    /// What helps.
    pub(super) fn remedy(self) -> Remedy {
        let any = |codes: &[u64]| self.codes.iter().any(|code| codes.contains(code));
        let busy = matches!(self.error, "temporarily_unavailable" | "server_error");
        if busy || is_transient(self.status) || any(&TRANSIENT) {
            return Remedy::AskAgain;
        }
        if self.suberror == Some("consent_required") || any(&[CONSENT]) {
            return Remedy::Consent;
        }
        if any(&CREDENTIAL) || self.error == "invalid_client" {
            return Remedy::Credential;
        }
        match (self.error, self.claims) {
            ("interaction_required" | "invalid_grant", Some(claims)) => Remedy::SignIn(SignIn::Satisfying(claims)),
            ("interaction_required" | "login_required", None) => Remedy::SignIn(SignIn::Anew),
            ("invalid_grant", None) if any(&BLOCKED) => Remedy::Unblock,
            ("invalid_grant", None) if any(&[ASSERTION_AUDIENCE]) => Remedy::Configuration,
            ("invalid_grant", None) => match self.suberror {
                // No sign-in would help by itself.
                Some("additional_action" | "message_only" | "protection_policy_required") => Remedy::Unblock,
                _ => Remedy::SignIn(SignIn::Anew),
            },
            _ => Remedy::Configuration,
        }
    }
}

/// Whether an answer of this status may be another one soon.
pub(super) fn is_transient(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

impl Remedy {
    /// Whether the same question would get the same answer for a while. What an administrator may be putting right at
    /// this moment (consent, the federated credential) is asked anew each time.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::SignIn(_) | Self::Unblock | Self::Configuration => true,
            Self::AskAgain | Self::Consent | Self::Credential => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: &str = r#"{"access_token":{"capolids":{"essential":true,"values":["p"]}}}"#;

    fn remedy(status: u16, error: &str, suberror: &str, code: u64, claims: &str) -> Remedy {
        let said = Said {
            status: StatusCode::from_u16(status).unwrap(),
            error,
            suberror: Some(suberror).filter(|text| !text.is_empty()),
            codes: &[code],
            claims: ClaimsChallenge::parse(claims),
        };
        said.remedy()
    }

    #[test]
    fn every_condition_of_the_token_endpoint_has_its_remedy() {
        use Remedy::{AskAgain, Configuration, Consent, Credential, Unblock};
        let satisfy = || Remedy::SignIn(SignIn::Satisfying(ClaimsChallenge::parse(CLAIMS).unwrap()));
        let anew = || Remedy::SignIn(SignIn::Anew);
        for (status, error, suberror, code, claims, expected) in [
            (401, "invalid_client", "", 7_000_215, "", Credential),
            (401, "invalid_client", "", 700_211, "", Credential),
            (401, "invalid_client", "", 700_212, "", Credential),
            (401, "invalid_client", "", 700_213, "", Credential),
            (401, "invalid_client", "", 7_002_137, "", Credential),
            (401, "invalid_client", "", 7_002_138, "", Credential),
            (400, "invalid_request", "", 70021, "", Credential),
            (401, "unauthorized_client", "", 70021, "", Credential),
            (401, "invalid_client", "", 700_024, "", Credential),
            (401, "invalid_client", "", 7_000_272, "", Credential),
            (400, "invalid_request", "", 90061, "", AskAgain),
            (400, "invalid_request", "", 50166, "", AskAgain),
            (400, "invalid_request", "", 501_661, "", AskAgain),
            (400, "invalid_request", "", 50027, "", Configuration),
            (400, "invalid_grant", "", 50013, "", anew()),
            (400, "invalid_grant", "", 500_131, "", Configuration),
            (400, "invalid_grant", "", 500_133, "", anew()),
            (400, "unauthorized_client", "", 7_000_114, "", Configuration),
            (400, "invalid_grant", "consent_required", 65001, "", Consent),
            (400, "invalid_grant", "", 65001, "", Consent),
            (400, "interaction_required", "", 50076, CLAIMS, satisfy()),
            (400, "invalid_grant", "basic_action", 50079, CLAIMS, satisfy()),
            (400, "invalid_grant", "basic_action", 50076, "", anew()),
            (400, "interaction_required", "", 50076, "", anew()),
            (400, "invalid_grant", "", 53003, "", Unblock),
            (400, "invalid_grant", "message_only", 53003, CLAIMS, satisfy()),
            (400, "invalid_grant", "", 53000, "", Unblock),
            (400, "invalid_grant", "", 530_003, "", Unblock),
            (400, "invalid_grant", "message_only", 1, "", Unblock),
            (400, "invalid_grant", "bad_token", 700_082, "", anew()),
            (400, "invalid_grant", "", 70043, "", anew()),
            (400, "invalid_grant", "", 70008, "", anew()),
            (400, "invalid_grant", "", 50173, "", anew()),
            (400, "invalid_grant", "", 50057, "", Unblock),
            (400, "unauthorized_client", "", 700_016, "", Configuration),
            (400, "invalid_request", "", 90002, "", Configuration),
            (400, "invalid_resource", "", 500_011, "", Configuration),
            (400, "invalid_scope", "", 70011, "", Configuration),
            (400, "unsupported_grant_type", "", 70003, "", Configuration),
            (400, "invalid_target", "", 9_010_010, "", Configuration),
            (400, "temporarily_unavailable", "", 1, "", AskAgain),
            (400, "server_error", "", 1, "", AskAgain),
            (503, "invalid_grant", "", 50173, "", AskAgain),
            (429, "invalid_request", "", 1, "", AskAgain),
        ] {
            assert_eq!(remedy(status, error, suberror, code, claims), expected, "{status} {error} {suberror} {code}");
        }
        for code in [50033, 50087, 90006, 90012, 90024, 90033, 90055, 90090] {
            assert_eq!(remedy(400, "invalid_request", "", code, ""), AskAgain, "{code}");
        }
    }

    #[test]
    fn claims_of_an_error_that_no_sign_in_helps_against_are_no_challenge() {
        for error in ["invalid_request", "unauthorized_client", "invalid_scope"] {
            assert_eq!(remedy(400, error, "", 1, CLAIMS), Remedy::Configuration, "{error}");
        }
    }

    #[test]
    fn what_somebody_may_be_putting_right_at_this_moment_is_not_lasting() {
        for (remedy, lasting) in [
            (Remedy::Consent, false),
            (Remedy::Credential, false),
            (Remedy::AskAgain, false),
            (Remedy::SignIn(SignIn::Anew), true),
            (Remedy::Unblock, true),
            (Remedy::Configuration, true),
            (Remedy::SignIn(SignIn::Satisfying(ClaimsChallenge::parse(CLAIMS).unwrap())), true),
        ] {
            assert_eq!(remedy.is_lasting(), lasting, "{remedy:?}");
        }
    }
}
