//! What to do about a refusal of Entra, in words: by AADSTS code, which is for people, else by the remedy that programs
//! go by.

use super::error::Asker;
use super::{EntraRefusal, Remedy};

const BUSY: &str = "nothing: Entra is busy, and the server tries again.";
const SIGN_IN: &str = "sign in again in the client.";

/// What a person should do next.
pub(super) fn next_step(refusal: &EntraRefusal, asker: Asker<'_>) -> String {
    let Asker { tenant_id, client_id, .. } = asker;
    let by_code = refusal.codes.iter().find_map(|code| for_code(*code, asker));
    by_code.unwrap_or_else(|| match refusal.remedy {
        Remedy::AskAgain => BUSY.to_owned(),
        Remedy::SignIn(_) => SIGN_IN.to_owned(),
        Remedy::Consent => consent(asker),
        Remedy::Unblock => format!(
            "an administrator of tenant {tenant_id} finds out from the user's sign-in log what blocks them, for app registration {client_id}."
        ),
        Remedy::Credential | Remedy::Configuration => format!(
            "look the code up at https://login.microsoftonline.com/error, for app registration {client_id} in tenant {tenant_id}."
        ),
    })
}

fn for_code(code: u64, asker: Asker<'_>) -> Option<String> {
    let Asker { tenant_id, client_id, .. } = asker;
    Some(match code {
        // 7002137 and 7002138: the subject differs only in case.
        70021 | 700_211 | 700_212 | 700_213 | 7_002_137 | 7_002_138 => credential(asker),
        700_024 => "check the clock of the node, and that the kubelet renews the projected service account token.".to_owned(),
        7_000_272 => "the cluster signs service account tokens with a key that its issuer does not publish: publish it in the issuer's JWKS; after a rotation of the keys, wait some minutes.".to_owned(),
        90061 | 50166 | 501_661 => format!(
            "make the cluster's issuer{} reachable from the internet over https (openid-configuration and JWKS); the server tries again.",
            asker.identity.map(|identity| format!(" {}", identity.issuer)).unwrap_or_default()
        ),
        70023 => "shorten the projected token's life (tokenExpirationSeconds) to a day at most.".to_owned(),
        5_002_741 => "give the projected token exactly one audience.".to_owned(),
        5_002_730 => "let the cluster sign service account tokens with RS256.".to_owned(),
        7_000_215 | 7_000_218 => "this server sends no client secret: check what stands between it and Entra.".to_owned(),
        700_016 => format!("check clientId {client_id} and that this app registration exists in tenant {tenant_id}."),
        90002 => format!("check tenantId {tenant_id} and the cloud."),
        500_011 => format!("add a service principal of the requested resource to tenant {tenant_id}, or correct graph.scopes."),
        70011 | 650_053 => "correct graph.scopes: every entry must be a delegated permission of Microsoft Graph.".to_owned(),
        65001 => consent(asker),
        50076 | 50079 => "sign in again in the client, with the second factor that the tenant's policy asks for.".to_owned(),
        53000 | 53003 | 530_003 => format!("Conditional Access blocks this user for app registration {client_id}: an administrator finds the policy in the user's sign-in log."),
        50013 | 500_131 | 500_133 | 50027 | 70043 | 70008 | 700_082 | 50173 => SIGN_IN.to_owned(),
        50057 => "the user's account is disabled: ask an administrator.".to_owned(),
        7_000_114 => "send a user's token: an app-only token has nobody to act on behalf of.".to_owned(),
        _ => return None,
    })
}

fn credential(asker: Asker<'_>) -> String {
    let Asker { tenant_id, client_id, identity, .. } = asker;
    let must_say = match identity {
        Some(identity) => format!(
            "issuer {}, subject {}, audience {} (each exactly, upper and lower case and a trailing slash included)",
            identity.issuer, identity.subject, identity.audience
        ),
        None => "the issuer, subject and audience of the projected service account token, exactly".to_owned(),
    };
    format!(
        "give app registration {client_id} in tenant {tenant_id} a federated credential with {must_say}; a new one takes effect within minutes."
    )
}

fn consent(asker: Asker<'_>) -> String {
    let Asker { authority, tenant_id, client_id, .. } = asker;
    format!(
        "let an administrator of tenant {tenant_id} grant consent for the Graph permissions of app registration {client_id}: {authority}/{tenant_id}/adminconsent?client_id={client_id}"
    )
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
        let asker = Asker {
            authority: "https://login.example",
            tenant_id: "the-tenant",
            client_id: "the-client",
            identity: Some(&identity),
        };
        let body = json!({ "error": error, "error_codes": [code] }).to_string().into_bytes();
        let answer = Answer { status: StatusCode::BAD_REQUEST, headers: HeaderMap::new(), body };
        EntraRefusal::read(&answer, asker).unwrap().next_step
    }

    #[test]
    fn a_missing_credential_is_answered_with_exactly_what_it_must_say() {
        for code in [70021, 700_211, 700_212, 700_213, 7_002_137, 7_002_138] {
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
    fn missing_consent_is_answered_with_the_link_that_gives_it() {
        let link = "https://login.example/the-tenant/adminconsent?client_id=the-client";
        assert!(step("invalid_grant", 65001).ends_with(link));
    }

    #[test]
    fn an_unknown_code_is_answered_by_its_remedy_and_else_with_where_to_look_it_up() {
        assert_eq!(step("temporarily_unavailable", 1_234_567), BUSY);
        assert_eq!(step("invalid_grant", 1_234_567), SIGN_IN);
        assert!(step("invalid_client", 1_234_567).contains("https://login.microsoftonline.com/error"));
    }
}
