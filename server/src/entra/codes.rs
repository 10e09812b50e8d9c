//! The table of known AADSTS codes: the remedy of each code for programs, and the next step for people.
//!
//! OAuth's `error` does not distinguish these conditions. For example, 50105 and 50173 are both `invalid_grant`, but
//! a sign-in cures only one of them.

use super::claims::SignIn;
use super::remedy::Remedy;

/// Next steps that several codes share or that apply to unknown codes. The values in braces depend on the
/// application.
pub(super) const BUSY: &str = "no action needed: Entra is busy{again}.";
pub(super) const SIGN_IN: &str = "sign in again{there}.";
pub(super) const CONSENT: &str = "ask an administrator of tenant {tenant} to consent to the permissions: in the Microsoft Entra admin center open App registrations, app registration {client}, API permissions, and choose Grant admin consent.";
pub(super) const UNKNOWN_BLOCK: &str = "ask an administrator of tenant {tenant} to find the reason in the user's sign-in log, for app registration {client}.";
pub(super) const UNKNOWN: &str =
    "look the code up at https://login.microsoftonline.com/error, for app registration {client} in tenant {tenant}.";
const SECOND_FACTOR: &str = "sign in again{there}, with the second factor that the tenant's policy requires.";
const CREDENTIAL: &str = "give app registration {client} in tenant {tenant} a federated credential with {credential}; a new one takes effect within minutes.";
const ISSUER: &str = "make the cluster's issuer{issuer} reachable from the internet over https (openid-configuration and JWKS); the server tries again.";
const POLICY: &str = "Conditional Access blocks this user for app registration {client}: ask an administrator to find the policy in the user's sign-in log.";
const DEVICE: &str = "Conditional Access does not accept the user's device or client app: sign in from a managed, compliant device, or ask an administrator to change the policy that the user's sign-in log names.";
const CROSS_TENANT: &str = "the cross-tenant access settings of the user's own tenant or of tenant {tenant} block this user: ask an administrator to allow app registration {client} there.";
const PERMISSIONS: &str = "add the delegated permissions of spec.graph.scopes, or the one of spec.backend.identity.onBehalfOf.scope, to app registration {client}, under API permissions, and grant admin consent.";
const SCOPES: &str = "correct graph.scopes, where every entry must be a delegated permission of Microsoft Graph, or backend.identity.onBehalfOf.scope, which must be a scope that its resource has.";
const NO_SECRET: &str =
    "this server sends no client secret: check that nothing between it and Entra changes its requests.";
const ASSERTION: &str = "Entra cannot read the user's token, which this server passes on unchanged: check that app registration {client} in tenant {tenant} is this server's own, and its optional claims.";

/// Returns the remedy and the next step of this code, for a public client or a client with a credential.
///
/// In the next step, `{client}`, `{tenant}`, `{issuer}` and `{credential}` are properties of the application.
/// `{there}` is the place of a sign-in, and `{again}` says who retries.
pub(super) fn known(code: u64, is_public: bool) -> Option<(Remedy, &'static str)> {
    let of_the_kind = if is_public { known_to_public_client } else { known_with_credential };
    of_the_kind(code).or_else(|| known_to_all(code))
}

/// Codes with another meaning for public clients, or only for them.
fn known_to_public_client(code: u64) -> Option<(Remedy, &'static str)> {
    use Remedy::{AskAgain, Configuration, Unblock};
    Some(match code {
        50011 => (
            Configuration,
            "add the redirect URI http://localhost to app registration {client}: in the Microsoft Entra admin center open Authentication, Add a platform, Mobile and desktop applications.",
        ),
        7_000_218 => (
            Configuration,
            "app registration {client} is not a public client: register http://localhost under Mobile and desktop applications, not under Web; for --device-code also turn on Allow public client flows.",
        ),
        9_002_327 => (
            Configuration,
            "register http://localhost under Mobile and desktop applications of app registration {client}, not under Single-page application.",
        ),
        700_025 | 7_000_215 => (
            Configuration,
            "this program sends no credential: check that nothing between it and Entra changes its requests.",
        ),
        700_016 => (Configuration, "check --client-id {client}: tenant {tenant} has no such app registration."),
        90002 => (Configuration, "check --tenant {tenant} and --cloud."),
        // The issuer here is the user's own organisation.
        90061 | 50166 | 501_661 => (AskAgain, BUSY),
        70011 | 500_011 | 650_053 => {
            (Configuration, "correct --scopes: every entry must be a delegated permission of Microsoft Graph.")
        }
        650_056 | 650_057 => (
            Configuration,
            "add the delegated permissions of --scopes to app registration {client}, under API permissions, and grant admin consent.",
        ),
        50097 => (Unblock, DEVICE),
        530_084 => (
            Unblock,
            "Conditional Access accepts only tokens that are bound to a device (token protection), which this program cannot get: ask an administrator to exclude app registration {client} from that policy.",
        ),
        70018 | 70019 => {
            (Remedy::SignIn(SignIn::Anew), "the device code is wrong or has expired: call again for a new one.")
        }
        _ => return None,
    })
}

/// Codes about the credential, the user's token in an exchange, and the configuration of a server in a cluster.
fn known_with_credential(code: u64) -> Option<(Remedy, &'static str)> {
    use Remedy::{AskAgain, Configuration, Credential};
    Some(match code {
        90061 | 50166 | 501_661 => (AskAgain, ISSUER),

        // The 70021x family and 7002137, 7002138 (the subject differs only in case) mean that no credential matches;
        // 70025, that there is none.
        70021 | 70025 | 700_210..=700_219 | 7_002_137 | 7_002_138 => (Credential, CREDENTIAL),
        700_024 => (
            Credential,
            "check the clock of the node, and that the kubelet renews the projected service account token.",
        ),
        7_000_272 => (
            Credential,
            "the cluster signs service account tokens with a key that its issuer does not publish: publish it in the issuer's JWKS; after a rotation of the keys, wait some minutes.",
        ),
        70023 => (Credential, "set the projected token's lifetime (tokenExpirationSeconds) to at most one day."),
        5_002_741 => (Credential, "give the projected token exactly one audience."),
        5_002_730 => (Credential, "let the cluster sign service account tokens with RS256."),

        7_000_215 | 7_000_218 => (Configuration, NO_SECRET),
        700_016 => (Configuration, "check clientId {client} and that this app registration exists in tenant {tenant}."),
        90002 => (Configuration, "check tenantId {tenant} and the cloud."),
        500_011 => (
            Configuration,
            "add a service principal of the requested resource to tenant {tenant}, or correct graph.scopes or backend.identity.onBehalfOf.scope, which name that resource.",
        ),
        70011 | 650_053 => (Configuration, SCOPES),
        650_056 | 650_057 => (Configuration, PERMISSIONS),
        50027 => (Configuration, ASSERTION),
        500_131 => (
            Configuration,
            "the user's token was issued for another app registration: correct clientId {client}, or make the client request a scope of this server.",
        ),
        7_000_114 => (Configuration, "send a user's token: an app-only token has no user to act on behalf of."),
        _ => return None,
    })
}

/// Codes with the same meaning for all applications.
fn known_to_all(code: u64) -> Option<(Remedy, &'static str)> {
    use Remedy::{AskAgain, Configuration, Consent, Unblock};
    let sign_in = Remedy::SignIn(SignIn::Anew);
    Some(match code {
        50033 | 50087 | 90006 | 90012 | 90024 | 90033 | 90055 | 90090 => (AskAgain, BUSY),

        50072..=50079 => (sign_in, SECOND_FACTOR),
        50158 => (
            sign_in,
            "sign in again{there}, and complete the external authentication that the tenant's policy requires.",
        ),
        50055 => (sign_in, "the user's password has expired: sign in again{there}, and choose a new one."),
        50013 | 50132 | 50133 | 50173 | 70008 | 70043 | 500_133 | 700_082 => (sign_in, SIGN_IN),

        65001 | 90094 | 90095 => (Consent, CONSENT),

        50005 | 53000 | 53001 | 53002 | 530_003 => (Unblock, DEVICE),
        53003 | 530_032 => (Unblock, POLICY),
        500_212 | 500_213 => (Unblock, CROSS_TENANT),
        50020 => (
            Unblock,
            "the user's account belongs to another organisation and is unknown in tenant {tenant}: sign in with an account of that tenant, or ask an administrator to invite the user as a guest.",
        ),
        50034 => (
            Unblock,
            "the user's account does not exist in tenant {tenant}: sign in with an account of that tenant, or ask an administrator to create it.",
        ),
        50053 => (
            Unblock,
            "the user's account or address is locked: wait some minutes, or ask an administrator to unlock it.",
        ),
        50057 => (Unblock, "the user's account is disabled: ask an administrator to enable it."),
        50105 => (
            Unblock,
            "the user is not assigned to the application: ask an administrator to assign the user, or one of the user's groups, under Enterprise applications, application {client}, Users and groups.",
        ),

        7_000_112 => (
            Configuration,
            "application {client} is disabled in tenant {tenant}: ask an administrator to enable it under Enterprise applications, Properties.",
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One more than the greatest number that a code has.
    const END: u64 = 10_000_000;

    fn who(remedy: &Remedy) -> &'static str {
        match remedy {
            Remedy::AskAgain => "nobody",
            Remedy::SignIn(_) => "the person",
            Remedy::Consent | Remedy::Unblock => "an administrator of the tenant",
            Remedy::Credential | Remedy::Configuration => "the operator of the server",
        }
    }

    /// The table for a client with a credential, or for a public one; codes that say the same stand together.
    fn table(is_public: bool) -> String {
        let mut rows: Vec<(Vec<u64>, &'static str, &'static str)> = Vec::new();
        for code in 0..END {
            let Some((remedy, words)) = known(code, is_public) else { continue };
            match rows.iter_mut().find(|(_, _, known)| *known == words) {
                Some((codes, ..)) => codes.push(code),
                None => rows.push((vec![code], who(&remedy), words)),
            }
        }
        let mut table = "| AADSTS | Acts | Next step |\n|---|---|---|\n".to_owned();
        for (codes, who, words) in rows {
            let codes: Vec<String> = codes.iter().map(u64::to_string).collect();
            let mut step = words.to_owned();
            for (name, shown) in [
                ("{there}", ""),
                ("{again}", ""),
                ("{issuer}", ""),
                ("{client}", "`<client id>`"),
                ("{tenant}", "`<tenant>`"),
                ("{credential}", "the issuer, subject and audience of `status.federation`"),
            ] {
                step = step.replace(name, shown);
            }
            table += &format!("| {} | {who} | {} |\n", codes.join(", "), step.replace('|', "\\|"));
        }
        table
    }

    #[test]
    fn the_generated_tables_list_every_code() {
        let page = "docs/troubleshooting.md";
        documentation::hold_section(page, "### Codes of a server in a cluster", &table(false));
        documentation::hold_section(page, "### Codes of local mode", &table(true));
    }
}
