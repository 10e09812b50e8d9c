//! What a refusal of Entra asks of whom: the one classification of its errors, pure.
//!
//! A code of the table decides. Where none is known, OAuth's `error` and Entra's `suberror` do.

use http::StatusCode;

use super::codes::known;
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
    /// An administrator lifts what blocks the user: a policy of Conditional Access, a disabled account, an assignment that
    /// is missing.
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

impl Said<'_> {
    /// The remedy.
    pub(super) fn remedy(self) -> Remedy {
        if is_transient(self.status) {
            return Remedy::AskAgain;
        }
        let by_code = self.codes.iter().find_map(|code| known(*code));
        match (by_code.map_or_else(|| self.by_error(), |(remedy, _)| remedy), self.claims) {
            // Claims say that a sign-in which satisfies them is let through, whatever keeps the last one out.
            (Remedy::SignIn(_) | Remedy::Unblock, Some(claims)) => Remedy::SignIn(SignIn::Satisfying(claims)),
            (remedy, _) => remedy,
        }
    }

    fn by_error(&self) -> Remedy {
        match (self.error, self.suberror) {
            ("temporarily_unavailable" | "server_error", _) => Remedy::AskAgain,
            (_, Some("consent_required")) => Remedy::Consent,
            ("invalid_client", _) => Remedy::Credential,
            // No sign-in would help by itself.
            ("invalid_grant", Some("additional_action" | "message_only" | "protection_policy_required")) => {
                Remedy::Unblock
            }
            ("invalid_grant" | "interaction_required" | "login_required", _) => Remedy::SignIn(SignIn::Anew),
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

    fn satisfying() -> Remedy {
        Remedy::SignIn(SignIn::Satisfying(ClaimsChallenge::parse(CLAIMS).unwrap()))
    }

    /// Every code that the table must know, by its remedy without claims.
    fn table() -> [(Remedy, &'static [u64]); 6] {
        [
            (Remedy::AskAgain, &[50033, 50087, 50166, 90006, 90012, 90024, 90033, 90055, 90061, 90090, 501_661]),
            (
                Remedy::SignIn(SignIn::Anew),
                &[
                    50013, 50055, 50072, 50073, 50074, 50075, 50076, 50077, 50078, 50079, 50132, 50133, 50158, 50173,
                    70008, 70043, 700_082, 500_133,
                ],
            ),
            (Remedy::Consent, &[65001, 90094, 90095]),
            (
                Remedy::Unblock,
                &[
                    50005, 50020, 50034, 50053, 50057, 50105, 500_212, 500_213, 53000, 53001, 53002, 53003, 530_003,
                    530_032,
                ],
            ),
            (
                Remedy::Credential,
                &[
                    70021, 70023, 70025, 700_210, 700_211, 700_212, 700_213, 700_214, 700_215, 700_216, 700_217,
                    700_218, 700_219, 7_002_137, 7_002_138, 700_024, 7_000_272, 5_002_730, 5_002_741,
                ],
            ),
            (
                Remedy::Configuration,
                &[
                    50027, 70011, 90002, 500_011, 500_131, 650_053, 650_056, 650_057, 700_016, 7_000_112, 7_000_114,
                    7_000_215, 7_000_218,
                ],
            ),
        ]
    }

    /// The status and error that a refusal may have besides its code.
    const ERRORS: [(u16, &str); 8] = [
        (400, "invalid_grant"),
        (400, "interaction_required"),
        (400, "invalid_request"),
        (400, "invalid_scope"),
        (400, "unauthorized_client"),
        (401, "invalid_client"),
        (400, "temporarily_unavailable"),
        (400, ""),
    ];

    #[test]
    fn a_known_code_decides_whatever_error_and_suberror_say() {
        for (expected, codes) in table() {
            for code in codes {
                for (status, error) in ERRORS {
                    for suberror in ["", "basic_action", "message_only", "bad_token", "consent_required"] {
                        assert_eq!(remedy(status, error, suberror, *code, ""), expected, "{error} {suberror} {code}");
                    }
                }
            }
        }
    }

    #[test]
    fn claims_turn_what_keeps_a_user_out_into_a_sign_in_and_change_nothing_else() {
        for (without, codes) in table() {
            for code in codes {
                let expected = match without {
                    Remedy::SignIn(_) | Remedy::Unblock => satisfying(),
                    _ => without.clone(),
                };
                assert_eq!(remedy(400, "invalid_grant", "basic_action", *code, CLAIMS), expected, "{code}");
            }
        }
    }

    #[test]
    fn without_a_known_code_error_and_suberror_decide() {
        use Remedy::{AskAgain, Configuration, Consent, Credential, Unblock};
        let anew = || Remedy::SignIn(SignIn::Anew);
        for (status, error, suberror, claims, expected) in [
            (400, "temporarily_unavailable", "", "", AskAgain),
            (400, "server_error", "", "", AskAgain),
            (429, "invalid_request", "", "", AskAgain),
            (503, "invalid_grant", "", "", AskAgain),
            (400, "invalid_grant", "consent_required", "", Consent),
            (401, "invalid_client", "", "", Credential),
            (400, "invalid_grant", "message_only", "", Unblock),
            (400, "invalid_grant", "message_only", CLAIMS, satisfying()),
            (400, "invalid_grant", "bad_token", "", anew()),
            (400, "invalid_grant", "", "", anew()),
            (400, "interaction_required", "", "", anew()),
            (400, "interaction_required", "", CLAIMS, satisfying()),
            (400, "login_required", "", CLAIMS, satisfying()),
            (400, "unsupported_grant_type", "", "", Configuration),
            (400, "invalid_target", "", "", Configuration),
        ] {
            assert_eq!(remedy(status, error, suberror, 1, claims), expected, "{status} {error} {suberror}");
        }
    }

    #[test]
    fn a_busy_entra_is_asked_again_whatever_it_says() {
        for (_, codes) in table() {
            assert!(codes.iter().all(|code| remedy(503, "invalid_grant", "", *code, "") == Remedy::AskAgain));
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
