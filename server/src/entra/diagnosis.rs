//! Diagnosis of a refusal: its remedy for programs and its next step for people. All functions are pure.
//!
//! A known code decides. Otherwise OAuth's `error` and Entra's `suberror` decide.

use http::StatusCode;
use mcp_entra_policy::FederatedIdentity;

use super::claims::{ClaimsChallenge, SignIn};
use super::codes::{BUSY, CONSENT, SIGN_IN, UNKNOWN, UNKNOWN_BLOCK, known};
use super::remedy::Remedy;

/// The parts of a refusal that determine its remedy and its next step.
pub(super) struct Said<'a> {
    pub(super) status: StatusCode,
    pub(super) error: &'a str,
    pub(super) suberror: Option<&'a str>,
    pub(super) codes: &'a [u64],
    pub(super) claims: Option<ClaimsChallenge>,
}

/// Properties of the application that appear in the next step.
#[derive(Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) tenant_id: &'a str,
    pub(super) client_id: &'a str,
    /// Issuer, subject and audience of the credential, if it could be read.
    pub(super) identity: Option<&'a FederatedIdentity>,
    /// True for a public client, which has no credential.
    pub(super) is_public: bool,
}

impl Said<'_> {
    /// Returns the remedy and the next step: those of the code, or else of the remedy.
    pub(super) fn diagnose(self, asker: Asker<'_>) -> (Remedy, String) {
        let by_code = self.codes.iter().find_map(|code| known(*code, asker.is_public));
        let remedy = self.remedy(by_code.as_ref().map(|(remedy, _)| remedy.clone()));
        let words = match (by_code, &remedy) {
            (Some((Remedy::Unblock, words)), Remedy::SignIn(_)) => {
                let step = format!("sign in again{{there}}; if that does not help: {words}");
                return (remedy, filled(&step, asker));
            }
            (Some((_, words)), _) => words,
            (None, Remedy::AskAgain) => BUSY,
            (None, Remedy::SignIn(_)) => SIGN_IN,
            (None, Remedy::Consent) => CONSENT,
            (None, Remedy::Unblock) => UNKNOWN_BLOCK,
            (None, Remedy::Credential | Remedy::Configuration) => UNKNOWN,
        };
        (remedy, filled(words, asker))
    }

    fn remedy(self, by_code: Option<Remedy>) -> Remedy {
        if is_transient(self.status) {
            return Remedy::AskAgain;
        }
        match (by_code.unwrap_or_else(|| self.by_error()), self.claims) {
            // Claims mean that a sign-in which satisfies them succeeds, whatever blocked the last one.
            (Remedy::SignIn(_) | Remedy::Unblock, Some(claims)) => Remedy::SignIn(SignIn::Satisfying(claims)),
            (remedy, _) => remedy,
        }
    }

    fn by_error(&self) -> Remedy {
        match (self.error, self.suberror) {
            ("temporarily_unavailable" | "server_error", _) => Remedy::AskAgain,
            (_, Some("consent_required")) => Remedy::Consent,
            ("invalid_client", _) => Remedy::Credential,
            // A sign-in alone would not help.
            ("invalid_grant", Some("additional_action" | "message_only" | "protection_policy_required")) => {
                Remedy::Unblock
            }
            ("invalid_grant" | "interaction_required" | "login_required", _) => Remedy::SignIn(SignIn::Anew),
            _ => Remedy::Configuration,
        }
    }
}

/// True if a later answer may differ from one with this status.
pub(super) fn is_transient(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// Fills in the placeholders of a next step.
fn filled(words: &str, asker: Asker<'_>) -> String {
    let (issuer, credential) = match asker.identity {
        Some(identity) => (
            format!(" {}", identity.issuer),
            format!(
                "issuer {}, subject {}, audience {} (each exactly, upper and lower case and a trailing slash included)",
                identity.issuer, identity.subject, identity.audience
            ),
        ),
        None => (
            String::new(),
            "the issuer, subject and audience of the projected service account token, exactly".to_owned(),
        ),
    };
    let (there, again) = match asker.is_public {
        true => ("", "; call again"),
        false => (" in the client", ", and the server tries again"),
    };
    words
        .replace("{there}", there)
        .replace("{again}", again)
        .replace("{client}", asker.client_id)
        .replace("{tenant}", asker.tenant_id)
        .replace("{issuer}", &issuer)
        .replace("{credential}", &credential)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: Asker<'_> =
        Asker { tenant_id: "the-tenant", client_id: "the-client", identity: None, is_public: false };
    const CLAIMS: &str = r#"{"access_token":{"capolids":{"essential":true,"values":["p"]}}}"#;

    fn remedy(status: u16, error: &str, suberror: &str, code: u64, claims: &str) -> Remedy {
        let said = Said {
            status: StatusCode::from_u16(status).unwrap(),
            error,
            suberror: Some(suberror).filter(|text| !text.is_empty()),
            codes: &[code],
            claims: ClaimsChallenge::parse(claims),
        };
        said.diagnose(ASKER).0
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

    /// Statuses and errors that a refusal may have besides its code.
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
    fn a_known_code_takes_precedence_over_error_and_suberror() {
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
    fn claims_turn_a_refusal_of_a_user_into_a_sign_in_and_change_nothing_else() {
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
    fn a_request_to_a_busy_entra_is_always_retried() {
        for (_, codes) in table() {
            assert!(codes.iter().all(|code| remedy(503, "invalid_grant", "", *code, "") == Remedy::AskAgain));
        }
    }

    #[test]
    fn claims_of_an_error_that_a_sign_in_cannot_fix_are_not_a_challenge() {
        for error in ["invalid_request", "unauthorized_client", "invalid_scope"] {
            assert_eq!(remedy(400, error, "", 1, CLAIMS), Remedy::Configuration, "{error}");
        }
    }

    fn step(error: &str, code: u64) -> String {
        let identity = FederatedIdentity {
            issuer: "https://issuer.example/".into(),
            subject: "system:serviceaccount:a:b".into(),
            audience: "api://AzureADTokenExchange".into(),
        };
        let said = Said { status: StatusCode::BAD_REQUEST, error, suberror: None, codes: &[code], claims: None };
        said.diagnose(Asker { identity: Some(&identity), ..ASKER }).1
    }

    #[test]
    fn the_error_for_a_missing_credential_names_its_exact_values() {
        for code in [70021, 70025, 700_211, 700_212, 700_213, 7_002_137, 7_002_138] {
            let step = step("invalid_client", code);
            for part in [
                "the-client",
                "the-tenant",
                "https://issuer.example/,",
                "system:serviceaccount:a:b,",
                "api://AzureADTokenExchange ",
            ] {
                assert!(step.contains(part), "{code}: {part} is not in {step}");
            }
        }
    }

    #[test]
    fn the_error_for_missing_consent_names_the_pages_and_no_link_with_a_redirect_uri() {
        for code in [65001, 90094, 90095] {
            let step = step("invalid_grant", code);
            for part in ["the-tenant", "App registrations, app registration the-client, API permissions", "Grant admin"]
            {
                assert!(step.contains(part), "{code}: {part} is not in {step}");
            }
            assert!(!step.contains("adminconsent"), "{step}");
        }
    }

    fn possible_codes() -> impl Iterator<Item = u64> {
        (0..100_000).chain(500_000..531_000).chain(650_000..701_000).chain(5_002_000..9_003_000)
    }

    #[test]
    fn a_known_code_has_words_of_its_own_and_no_place_in_them_stays_empty() {
        for code in possible_codes() {
            let Some((remedy, _)) = known(code, false) else { continue };
            let step = step("invalid_grant", code);
            assert!(!step.contains(['{', '}']) && !step.contains("/error") && step.ends_with('.'), "{code}: {step}");
            if remedy == Remedy::Unblock {
                assert!(!step.starts_with("sign in again") && step.contains("administrator"), "{code}: {step}");
            }
        }
    }

    #[test]
    fn the_error_for_an_unassigned_user_names_the_page_for_the_assignment() {
        let step = step("invalid_grant", 50105);
        assert!(step.contains("ask an administrator to assign the user") && step.contains("the-client"), "{step}");
    }

    #[test]
    fn the_error_for_an_unknown_code_has_its_remedy_or_the_page_that_explains_it() {
        let busy = "no action needed: Entra is busy, and the server tries again.";
        assert_eq!(step("temporarily_unavailable", 1_234_567), busy);
        assert_eq!(step("invalid_grant", 1_234_567), "sign in again in the client.");
        assert!(step("invalid_client", 1_234_567).contains("https://login.microsoftonline.com/error"));
    }

    /// Returns the next step for a person at a laptop.
    fn own_step(error: &str, code: u64, claims: &str) -> String {
        let claims = ClaimsChallenge::parse(claims);
        let said = Said { status: StatusCode::BAD_REQUEST, error, suberror: None, codes: &[code], claims };
        said.diagnose(Asker { is_public: true, ..ASKER }).1
    }

    #[test]
    fn errors_of_a_public_client_never_mention_the_cluster() {
        const WORDS: [&str; 10] = [
            "cluster",
            "spec.",
            "clientId",
            "tenantId",
            "graph.scopes",
            "federated",
            "service account",
            "server tries",
            "in the client",
            "{",
        ];
        let known_to_any = |code: &u64| known(*code, true).or(known(*code, false)).is_some();
        let codes = Vec::from_iter(possible_codes().filter(known_to_any).chain([1_234_567]));
        assert!(codes.contains(&700_213) && codes.contains(&9_002_327), "both tables");
        for code in codes {
            for (_, error) in ERRORS {
                for claims in ["", CLAIMS] {
                    let step = own_step(error, code, claims);
                    let word = WORDS.iter().find(|word| step.contains(**word));
                    assert!(word.is_none() && step.ends_with('.'), "{code} {error}: {word:?} is in {step}");
                }
            }
        }
    }

    #[test]
    fn errors_of_a_public_client_name_the_flag_to_correct() {
        for (code, expected) in [
            (700_016, "check --client-id the-client: tenant the-tenant has no such app registration."),
            (90002, "check --tenant the-tenant and --cloud."),
            (90033, "no action needed: Entra is busy; call again."),
            (90061, "no action needed: Entra is busy; call again."),
            (50173, "sign in again."),
        ] {
            assert_eq!(own_step("invalid_request", code, ""), expected, "{code}");
        }
        assert_eq!(own_step("temporarily_unavailable", 1_234_567, ""), "no action needed: Entra is busy; call again.");
    }
}
