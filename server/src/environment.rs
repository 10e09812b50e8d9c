//! The environment variables that must not be there: every form of a client secret, and what would change whom or what
//! the server trusts.

use std::ffi::OsStr;

/// Why a server does not start in this environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// A variable that Azure's libraries read a secret from.
    #[error(
        "{0} is set in the environment: this server takes no client secret, certificate or password, because its only \
         credential to Entra is the projected service account token that AZURE_FEDERATED_TOKEN_FILE names; remove {0} \
         from the pod's env, and delete the secret from the app registration"
    )]
    Secret(String),
    /// A variable that replaces the roots of trust, or the code of libraries.
    #[error(
        "{0} is set in the environment: trust comes from the image and --trust-bundle alone, and this variable would \
         change it unseen; remove {0} from the pod's env, and give further CA certificates with --trust-bundle"
    )]
    Trust(String),
}

/// Refuses an environment in which any variable that Azure's libraries read a secret from is set, empty or not.
///
/// ```
/// # use mcp_entra_server::environment::refuse_secrets;
/// assert!(refuse_secrets(["AZURE_FEDERATED_TOKEN_FILE", "PATH"]).is_ok());
/// assert!(refuse_secrets(["AZURE_CLIENT_SECRET"]).is_err());
/// ```
pub fn refuse_secrets(names: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<(), EnvironmentError> {
    let secret = |name: &str| {
        matches!(name, "AZURE_CLIENT_SECRET" | "AZURE_PASSWORD") || name.starts_with("AZURE_CLIENT_CERTIFICATE")
    };
    first(names, secret).map_or(Ok(()), |name| Err(EnvironmentError::Secret(name)))
}

/// Refuses an environment in which any variable is set, empty or not, from which rustls-native-certs reads its roots
/// or the dynamic loader its libraries. `HTTPS_PROXY` may be: a proxy sees no more than the network does.
///
/// ```
/// # use mcp_entra_server::environment::refuse_changed_trust;
/// assert!(refuse_changed_trust(["HTTPS_PROXY", "PATH"]).is_ok());
/// assert!(refuse_changed_trust(["SSL_CERT_FILE"]).is_err());
/// ```
pub fn refuse_changed_trust(names: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<(), EnvironmentError> {
    let changes_trust =
        |name: &str| matches!(name, "SSL_CERT_FILE" | "SSL_CERT_DIR" | "LD_PRELOAD" | "LD_LIBRARY_PATH" | "LD_AUDIT");
    first(names, changes_trust).map_or(Ok(()), |name| Err(EnvironmentError::Trust(name)))
}

fn first(names: impl IntoIterator<Item = impl AsRef<OsStr>>, refused: impl Fn(&str) -> bool) -> Option<String> {
    names.into_iter().find_map(|name| name.as_ref().to_str().filter(|name| refused(name)).map(str::to_owned))
}
