//! The files that a server is started with: configuration, trust bundle. Read once, at start.

use std::path::{Path, PathBuf};

use mcp_entra_policy::{ConfigurationError, ServerConfiguration};

use crate::http_client::{self, HttpClientError};

/// The reason why a file that the server is started with cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// It cannot be read.
    #[error("{path} cannot be read ({problem}); make it readable or name another file", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error. No source: the text has it already, and a chain of causes would repeat it.
        problem: std::io::Error,
    },
    /// The configuration file is not YAML of the right form.
    #[error("{path} is not a configuration file of this version: {source}", path = path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_yaml::Error,
    },
    /// The configuration contradicts itself.
    #[error("{path}: {source}", path = path.display())]
    Configuration {
        /// The file.
        path: PathBuf,
        /// Which field, and why.
        source: ConfigurationError,
    },
    /// The path of the MCP endpoint cannot be served.
    #[error("{file}: path: {path:?} must start with a slash, hold only letters, digits and -._~/, and not lie below /.well-known", file = file.display())]
    EndpointPath {
        /// The file.
        file: PathBuf,
        /// The text that stands there.
        path: String,
    },
    /// There is no HTTPS client.
    #[error(transparent)]
    HttpClient(#[from] HttpClientError),
}

/// The bytes of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, InputError> {
    std::fs::read(path).map_err(|problem| InputError::Unreadable { path: path.to_owned(), problem })
}

/// The configuration in this file, checked.
pub fn configuration(path: &Path) -> Result<ServerConfiguration, InputError> {
    let configuration: ServerConfiguration =
        serde_yaml::from_slice(&read(path)?).map_err(|source| InputError::Form { path: path.to_owned(), source })?;
    configuration.validate().map_err(|source| InputError::Configuration { path: path.to_owned(), source })?;
    if !servable(&configuration.path) {
        return Err(InputError::EndpointPath { file: path.to_owned(), path: configuration.path });
    }
    Ok(configuration)
}

/// The HTTPS client that trusts the system's roots and, if there is one, this bundle.
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
