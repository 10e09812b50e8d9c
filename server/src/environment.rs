//! The environment variables that must not be there: every form of a client secret.

use std::ffi::OsStr;

/// A variable of the environment that holds a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is set in the environment: this program takes no client secret, certificate or password; `serve` has the \
     projected service account token that AZURE_FEDERATED_TOKEN_FILE names, `local` the sign-in of a person; remove {0} \
     from the environment, and delete the secret from the app registration"
)]
pub struct SecretInEnvironment(String);

/// Refuses an environment in which any variable that Azure's libraries read a secret from is set, empty or not.
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
