//! Environment variables that the server refuses: every form of a client secret.

use std::ffi::OsStr;

/// An environment variable that holds a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is set in the environment: this program accepts no client secret, certificate or password; `serve` uses the \
     projected service account token that AZURE_FEDERATED_TOKEN_FILE names, and `local` a person's sign-in; remove {0} \
     from the environment, and delete the secret from the app registration"
)]
pub struct SecretInEnvironment(String);

/// Refuses an environment with any variable from which Azure's libraries read a secret, even an empty one.
///
/// ```
/// # use mcp_entra_server::environment::refuse_secrets;
/// assert!(refuse_secrets(["AZURE_FEDERATED_TOKEN_FILE", "PATH"]).is_ok());
/// assert!(refuse_secrets(["AZURE_CLIENT_SECRET"]).is_err());
/// ```
pub fn refuse_secrets<I>(names: I) -> Result<(), SecretInEnvironment>
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let secret = names.into_iter().find_map(|name| {
        let name = name.as_ref().to_str()?;
        let refused =
            matches!(name, "AZURE_CLIENT_SECRET" | "AZURE_PASSWORD") || name.starts_with("AZURE_CLIENT_CERTIFICATE");
        refused.then(|| name.to_owned())
    });
    secret.map_or(Ok(()), |name| Err(SecretInEnvironment(name)))
}
