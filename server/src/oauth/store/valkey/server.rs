//! Connections to the Valkey server: address, TLS, and sign-in of the ACL user.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mcp_entra_policy as policy;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::{Host, Url};
use zeroize::Zeroizing;

/// Longest time for connecting, including TLS and sign-in.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Most concurrent commands; more wait.
const COMMANDS_IN_FLIGHT: usize = 256;
/// Idle time before a TCP keep-alive. It is below the four minutes after which load balancers drop a connection.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const DEFAULT_PORT: u16 = 6379;

/// The reason why the configured Valkey server is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ValkeyError {
    /// The URL has the wrong form.
    #[error(
        "sessionStore.valkey.url is not usable: {0}; it must be rediss://host[:port][/database], without user and password"
    )]
    Url(&'static str),
    /// The CA bundle is not one or more CA certificates.
    #[error("the CA bundle of the session store is not usable ({0}); it must be one or more CA certificates in PEM")]
    CaBundle(String),
    /// TLS cannot be set up.
    #[error("no TLS for the session store: {0}; without a CA bundle the system needs CA certificates")]
    Tls(rustls::Error),
}

/// A server with its sign-in.
pub(super) struct Server {
    host: String,
    port: u16,
    name: ServerName<'static>,
    database: i64,
    username: Option<String>,
    password_file: Option<PathBuf>,
    tls: TlsConnector,
}

/// A connection. Cheap to clone; it closes with the last clone.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) commands: MultiplexedConnection,
    driver: Arc<AbortOnDropHandle<()>>,
}

impl Connection {
    /// True until the server or the network closes it.
    pub(super) fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.driver, &other.driver)
    }
}

impl Server {
    pub(super) fn new(
        configuration: &policy::ValkeyStore,
        password_file: Option<PathBuf>,
        ca_bundle: Option<&[u8]>,
    ) -> Result<Self, ValkeyError> {
        let url = Url::parse(&configuration.url).map_err(|_| ValkeyError::Url("it is not a URL"))?;
        if url.scheme() != "rediss" {
            return Err(ValkeyError::Url("its scheme is not rediss (TLS)"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ValkeyError::Url("it has a user or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(ValkeyError::Url("it has a query or fragment"));
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => host.to_string(),
            None => return Err(ValkeyError::Url("it has no host")),
        };
        let name = ServerName::try_from(host.clone()).map_err(|_| ValkeyError::Url("it has no usable host"))?;
        let database = match url.path().trim_start_matches('/') {
            "" => 0,
            number => number.parse::<u16>().map_err(|_| ValkeyError::Url("its path is not a database number"))?,
        };
        Ok(Self {
            host,
            port: url.port().unwrap_or(DEFAULT_PORT),
            name,
            database: database.into(),
            username: configuration.username.clone(),
            password_file,
            tls: TlsConnector::from(Arc::new(tls(ca_bundle)?)),
        })
    }

    /// Connects and signs in. An error has the problem and the next step.
    pub(super) async fn connect(&self) -> Result<Connection, String> {
        timeout(CONNECT_TIMEOUT, self.connect_in_time()).await.unwrap_or_else(|_| Err(self.too_slow(CONNECT_TIMEOUT)))
    }

    async fn connect_in_time(&self) -> Result<Connection, String> {
        let settings = self.settings().await?;
        let tcp = self.tcp().await.map_err(|error| {
            format!("{self} cannot be reached ({error}); check sessionStore.valkey.url, the network, and that it runs")
        })?;
        let stream = self.tls.connect(self.name.clone(), tcp).await.map_err(|error| {
            format!(
                "cannot set up TLS with {self} ({error}); it must use TLS on this port, with a certificate for this host \
                 from a CA in the CA bundle"
            )
        })?;
        // Each command has its own deadline.
        let limits = AsyncConnectionConfig::new().set_response_timeout(None).set_concurrency_limit(COMMANDS_IN_FLIGHT);
        let (commands, driver) = MultiplexedConnection::new_with_config(&settings, stream, limits)
            .await
            .map_err(|error| self.sign_in_problem(&error))?;
        Ok(Connection { commands, driver: Arc::new(AbortOnDropHandle::new(tokio::spawn(driver))) })
    }

    /// Reads the password again, because its Secret may have changed.
    async fn settings(&self) -> Result<RedisConnectionInfo, String> {
        let mut settings = RedisConnectionInfo::default().set_db(self.database).set_skip_set_lib_name();
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(path) = &self.password_file {
            let password = tokio::fs::read_to_string(path).await.map(Zeroizing::new).map_err(|problem| {
                format!(
                    "the password file {path} cannot be read ({problem}); mount the Secret with the password there",
                    path = path.display()
                )
            })?;
            settings = settings.set_password(password.trim_end_matches(['\r', '\n']));
        }
        Ok(settings)
    }

    async fn tcp(&self) -> std::io::Result<TcpStream> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        SockRef::from(&tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
        Ok(tcp)
    }

    /// Returns the error text for a refused sign-in.
    pub(super) fn sign_in_problem(&self, error: &RedisError) -> String {
        let username = self.username.as_deref().unwrap_or("default");
        match &self.password_file {
            Some(path) => format!(
                "{self} refuses the sign-in of the user {username:?} ({error}); check the ACL user and the password in {}",
                path.display()
            ),
            None => format!(
                "{self} refuses the sign-in of the user {username:?} ({error}); give this server a password file"
            ),
        }
    }

    /// Returns the error text for a server that does not answer within this time.
    pub(super) fn too_slow(&self, time: Duration) -> String {
        format!("{self} does not answer within {} s; check its load and the network", time.as_secs_f32())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} port {}", self.host, self.port)
    }
}

/// TLS with the same trust as the server's other connections: the system's roots and the bundle.
fn tls(ca_bundle: Option<&[u8]>) -> Result<ClientConfig, ValkeyError> {
    let roots = match ca_bundle {
        None => Vec::new(),
        Some(pem) => CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| ValkeyError::CaBundle(error.to_string()))?,
    };
    if ca_bundle.is_some() && roots.is_empty() {
        return Err(ValkeyError::CaBundle("it holds no certificate".to_owned()));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider)).map_err(ValkeyError::Tls)?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ValkeyError::Tls)?
        .dangerous() // The name of the way to any verifier but rustls's own.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Result<Server, ValkeyError> {
        let configuration =
            policy::ValkeyStore { url: url.to_owned(), username: None, key_prefix: "graph:".to_owned() };
        Server::new(&configuration, None, None)
    }

    #[test]
    fn a_url_is_tls_with_a_host_and_nothing_secret() {
        for (url, host, port, database) in [
            ("rediss://valkey.contoso.com", "valkey.contoso.com", 6379, 0),
            ("rediss://valkey.contoso.com:6380/", "valkey.contoso.com", 6380, 0),
            ("rediss://10.0.0.7:6380/3", "10.0.0.7", 6380, 3),
            ("rediss://[fd00::7]:6380", "fd00::7", 6380, 0),
        ] {
            let server = server(url).unwrap();
            assert_eq!((server.host.as_str(), server.port, server.database), (host, port, database), "{url}");
        }
        for (url, text) in [
            ("redis://valkey.contoso.com", "not rediss"),
            ("unix:///run/valkey", "not rediss"),
            ("https://valkey.contoso.com", "not rediss"),
            ("valkey.contoso.com", "not a URL"),
            ("rediss://user@valkey.contoso.com", "user or password"),
            ("rediss://:secret@valkey.contoso.com", "user or password"),
            ("rediss://valkey.contoso.com/0?protocol=resp3", "query or fragment"),
            ("rediss://valkey.contoso.com/#insecure", "query or fragment"),
            ("rediss://valkey.contoso.com/sessions", "not a database number"),
            ("rediss://valkey.contoso.com/-1", "not a database number"),
            ("rediss:///0", "no host"),
        ] {
            let error = server(url).err().unwrap().to_string();
            assert!(error.contains(text) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn a_ca_bundle_without_certificates_is_refused() {
        for bundle in [&b""[..], b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(tls(Some(bundle)).is_err(), "{}", String::from_utf8_lossy(bundle));
        }
    }
}
