//! The projected service account token: the server's only credential for Entra, read again for every exchange.
//!
//! The kubelet replaces the file long before the token expires. A cached token would eventually be too old
//! (AADSTS700024).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_entra_policy::FederatedIdentity;
use secrecy::SecretString;
use serde::Deserialize;
use zeroize::Zeroizing;

/// The environment variable with the path of the file.
const VARIABLE: &str = "AZURE_FEDERATED_TOKEN_FILE";
/// Longest token, in bytes. A service account token has about 1 KiB.
const MAXIMUM_LENGTH: u64 = 16 * 1024;
/// Memory for a usual token, in bytes. A shorter buffer would leave copies when it grows.
const USUAL_LENGTH: usize = 4 * 1024;

/// The path of the projected token.
#[derive(Clone, Debug)]
pub struct FederatedToken {
    path: PathBuf,
}

/// Unverified claims of a projected token. Entra verifies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectedToken {
    /// Values that the federated credential in Entra must have.
    pub identity: FederatedIdentity,
    /// `exp`: end of the token, in seconds since 1970.
    pub expires_at: i64,
}

/// The reason why there is no projected token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FederatedTokenError {
    /// The variable is not set.
    #[error(
        "AZURE_FEDERATED_TOKEN_FILE is not set: it must name the file with the projected service account token (a serviceAccountToken volume)"
    )]
    NotConfigured,
    /// The file cannot be read.
    #[error("the projected service account token {path} cannot be read ({problem}): mount a serviceAccountToken volume there", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Message of the operating system.
        problem: String,
    },
    /// The file holds something else.
    #[error("{path} holds no service account token ({problem}): AZURE_FEDERATED_TOKEN_FILE must name the file of a serviceAccountToken volume", path = path.display())]
    NotAToken {
        /// The file.
        path: PathBuf,
        /// The deviation from a token.
        problem: String,
    },
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl FederatedToken {
    /// Returns the token in the file that `AZURE_FEDERATED_TOKEN_FILE` names.
    pub fn from_environment() -> Result<Self, FederatedTokenError> {
        let path = std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
        path.map(Self::at).ok_or(FederatedTokenError::NotConfigured)
    }

    /// Returns the token in this file.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Returns the path of the token.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the present token from the file.
    pub async fn read(&self) -> Result<SecretString, FederatedTokenError> {
        let path = self.path.clone();
        // One blocking call. tokio's file would make several, and keep a copy in its buffer.
        let read = tokio::task::spawn_blocking(move || {
            let mut text = Zeroizing::new(String::with_capacity(USUAL_LENGTH));
            File::open(path)?.take(MAXIMUM_LENGTH + 1).read_to_string(&mut text)?;
            Ok(text)
        });
        let text = read
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| FederatedTokenError::Unreadable { path: self.path.clone(), problem: error.to_string() })?;
        if text.len() as u64 > MAXIMUM_LENGTH {
            return Err(self.not_a_token("it is longer than 16 KiB"));
        }
        match text.trim() {
            "" => Err(self.not_a_token("it is empty")),
            token => Ok(SecretString::from(token)),
        }
    }

    /// Reads the claims of the present token: issuer, subject and audience, which the federated credential in Entra
    /// must match.
    pub async fn describe(&self) -> Result<ProjectedToken, FederatedTokenError> {
        use secrecy::ExposeSecret;
        let token = self.read().await?;
        let mut parts = token.expose_secret().split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(self.not_a_token("it is not a JWT of three parts"));
        };
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| self.not_a_token("its claims are not base64url"))?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| {
            self.not_a_token("its claims iss, sub, aud and exp do not have the form that Kubernetes uses")
        })?;
        let audience = match claims.aud {
            Audience::One(audience) => audience,
            Audience::Many(mut audiences) => match (audiences.pop(), audiences.is_empty()) {
                (Some(audience), true) => audience,
                // Entra refuses other tokens (AADSTS5002741).
                _ => return Err(self.not_a_token("it must have exactly one audience")),
            },
        };
        let identity = FederatedIdentity { issuer: claims.iss, subject: claims.sub, audience };
        Ok(ProjectedToken { identity, expires_at: claims.exp })
    }

    fn not_a_token(&self, problem: &str) -> FederatedTokenError {
        FederatedTokenError::NotAToken { path: self.path.clone(), problem: problem.to_owned() }
    }
}
