//! Input files of the server: configuration and trust bundle. They are read once, at start.

use std::path::{Path, PathBuf};

use mcp_entra_policy::{ConfigurationError, ServerConfiguration};

use crate::http_client::{self, HttpClientError};

/// The reason why an input file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It cannot be read.
    #[error("{path} cannot be read ({problem}); make it readable or name another file", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error. It is not a `source`: the text already contains it.
        problem: std::io::Error,
    },
    /// The configuration file is not YAML of the right form.
    #[error("{path} is not a configuration file of this version: {source}", path = path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// The error, with its place in the file.
        source: serde_yaml::Error,
    },
    /// The configuration contradicts itself.
    #[error("{path}: {source}", path = path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// The field and the reason.
        source: ConfigurationError,
    },
    /// The path of the MCP endpoint cannot be served.
    #[error("{file}: path: {path:?} must start with a slash, hold only letters, digits and -._~/, and not lie below /.well-known", file = file.display())]
    EndpointPath {
        /// The file.
        file: PathBuf,
        /// The configured path.
        path: String,
    },
    /// There is no HTTPS client.
    #[error(transparent)]
    HttpClient(#[from] HttpClientError),
}

/// Returns the bytes of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, InputError> {
    std::fs::read(path).map_err(|problem| InputError::Unreadable { path: path.to_owned(), problem })
}

/// Reads and checks the configuration file.
pub fn configuration(path: &Path) -> Result<ServerConfiguration, InputError> {
    let configuration: ServerConfiguration =
        serde_yaml::from_slice(&read(path)?).map_err(|source| InputError::Form { path: path.to_owned(), source })?;
    configuration.validate().map_err(|source| InputError::Configuration { path: path.to_owned(), source })?;
    if !servable(&configuration.path) {
        return Err(InputError::EndpointPath { file: path.to_owned(), path: configuration.path });
    }
    Ok(configuration)
}

/// Returns an HTTPS client that trusts the system's roots and this bundle, if there is one.
pub fn http_client(trust_bundle: Option<&Path>) -> Result<reqwest::Client, InputError> {
    let pem = trust_bundle.map(read).transpose()?;
    Ok(http_client::build(pem.as_deref())?)
}

fn servable(path: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.starts_with('/') && !path.starts_with("/.well-known") && path.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::servable;

    #[test]
    fn the_endpoints_path_is_plain_and_not_among_the_well_known_ones() {
        for path in ["/mcp", "/", "/teams/graph/mcp", "/a.b_c~d-e"] {
            assert!(servable(path), "{path}");
        }
        for path in ["", "mcp", "/{x}", "/:x", "/*", "/a b", "/a?b", "/.well-known/x", "/é"] {
            assert!(!servable(path), "{path}");
        }
    }
}
