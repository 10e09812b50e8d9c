//! The next step after a refusal of Entra, in words: those of its code, else those of its remedy.

use super::codes::{BUSY, CONSENT, SIGN_IN, known};
use super::error::Asker;
use super::{EntraRefusal, Remedy};

/// What a person should do next.
pub(super) fn next_step(refusal: &EntraRefusal, asker: Asker<'_>) -> String {
    let words = match (refusal.codes.iter().find_map(|code| known(*code)), &refusal.remedy) {
        (Some((Remedy::Unblock, words)), Remedy::SignIn(_)) => {
            return format!("sign in again in the client; if that does not help: {}", filled(words, asker));
        }
        (Some((_, words)), _) => words,
        (None, Remedy::AskAgain) => BUSY,
        (None, Remedy::SignIn(_)) => SIGN_IN,
        (None, Remedy::Consent) => CONSENT,
        (None, Remedy::Unblock) => {
            "an administrator of tenant {tenant} finds out from the user's sign-in log what blocks them, for app registration {client}."
        }
        (None, Remedy::Credential | Remedy::Configuration) => {
            "look the code up at https://login.microsoftonline.com/error, for app registration {client} in tenant {tenant}."
        }
    };
    filled(words, asker)
}

/// The words of a step with what they say of the asker.
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
    words
        .replace("{client}", asker.client_id)
        .replace("{tenant}", asker.tenant_id)
        .replace("{issuer}", &issuer)
        .replace("{credential}", &credential)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use mcp_entra_policy::FederatedIdentity;
    use serde_json::json;

    use super::*;
    use crate::http_client::Answer;

    fn step(error: &str, code: u64) -> String {
        let identity = FederatedIdentity {
            issuer: "https://issuer.example/".into(),
            subject: "system:serviceaccount:a:b".into(),
            audience: "api://AzureADTokenExchange".into(),
        };
        let asker = Asker { tenant_id: "the-tenant", client_id: "the-client", identity: Some(&identity) };
        let body = json!({ "error": error, "error_codes": [code] }).to_string().into_bytes();
        let answer = Answer { status: StatusCode::BAD_REQUEST, headers: HeaderMap::new(), body };
        EntraRefusal::read(&answer, asker).unwrap().next_step
    }

    #[test]
    fn a_missing_credential_is_answered_with_exactly_what_it_must_say() {
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
    fn missing_consent_is_answered_with_the_pages_where_it_is_given_and_no_link_that_takes_a_redirect_uri() {
        for code in [65001, 90094, 90095] {
            let step = step("invalid_grant", code);
            for part in ["the-tenant", "App registrations, app registration the-client, API permissions", "Grant admin"]
            {
                assert!(step.contains(part), "{code}: {part} is not in {step}");
            }
            assert!(!step.contains("adminconsent"), "{step}");
        }
    }

    #[test]
    fn a_known_code_has_words_of_its_own_and_no_place_in_them_stays_empty() {
        for code in (0..100_000).chain(500_000..531_000).chain(650_000..701_000).chain(5_002_000..7_003_000) {
            let Some((remedy, _)) = known(code) else { continue };
            let step = step("invalid_grant", code);
            assert!(!step.contains(['{', '}']) && !step.contains("/error") && step.ends_with('.'), "{code}: {step}");
            if remedy == Remedy::Unblock {
                assert!(!step.starts_with("sign in again") && step.contains("administrator"), "{code}: {step}");
            }
        }
    }

    #[test]
    fn a_user_who_is_not_assigned_is_told_where_an_administrator_assigns_them() {
        let step = step("invalid_grant", 50105);
        assert!(step.contains("an administrator assigns the user") && step.contains("the-client"), "{step}");
    }

    #[test]
    fn an_unknown_code_is_answered_by_its_remedy_and_else_with_where_to_look_it_up() {
        assert_eq!(step("temporarily_unavailable", 1_234_567), BUSY);
        assert_eq!(step("invalid_grant", 1_234_567), SIGN_IN);
        assert!(step("invalid_client", 1_234_567).contains("https://login.microsoftonline.com/error"));
    }
}
