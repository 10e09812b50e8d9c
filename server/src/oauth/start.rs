//! Start of the authorization server: reads its files and connects its parts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcp_entra_policy::{AuthorizationServerConfiguration, ServerConfiguration, SessionStore};
use tokio_util::sync::CancellationToken;

use super::addresses::{Addresses, Endpoint};
use super::clients::{Clients, Fetcher, proxy_of};
use super::keys::{KeyRing, KeyRingError};
use super::seal::Sealer;
use super::store::{MemoryStore, Store, ValkeyError, ValkeyStore};
use super::{AuthorizationServer, Parts, StoreProbe};
use crate::audit::AuditLog;
use crate::entra::{ConfidentialClient, FederatedToken};
use crate::inputs::{self, InputError};
use crate::policy::PolicyStore;
use crate::token::{Keys, OwnIssuer, TokenValidator};

/// Files of the authorization server.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The folder of key epochs, one numbered file for each.
    pub keys: Option<PathBuf>,
    /// The password of the session store.
    pub store_password: Option<PathBuf>,
    /// CA certificates (PEM) of the session store.
    pub store_ca: Option<PathBuf>,
}

/// Parts of the program that the authorization server shares.
pub struct Shared<'a> {
    /// The HTTP client for Entra.
    pub http: reqwest::Client,
    /// The projected service account token.
    pub federated_token: FederatedToken,
    /// Entra's signing keys.
    pub keys: Arc<Keys>,
    /// The policy in force.
    pub policy: Arc<PolicyStore>,
    /// The audit log.
    pub audit: Arc<AuditLog>,
    /// CA certificates for outgoing TLS, besides the system's.
    pub trust_bundle: Option<&'a Path>,
}

/// The reason why the authorization server does not start.
#[derive(Debug, thiserror::Error)]
pub enum OAuthStartError {
    /// The folder of keys is missing.
    #[error("authorizationServer needs the folder with its keys; name it with --oauth-keys")]
    NoKeys,
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyRingError),
    /// The server has no public URL.
    #[error("authorizationServer needs publicUrl: clients must know its address")]
    NoPublicUrl,
    /// The configuration of the session store is not usable.
    #[error(transparent)]
    Store(#[from] ValkeyError),
    /// A file cannot be used.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A configured address is not a URL.
    #[error("entra.authority is not a URL ({0}); correct it")]
    Address(#[from] url::ParseError),
}

/// Starts the authorization server of this configuration.
///
/// # Errors
/// If a file is missing or invalid.
pub fn start(
    configuration: &ServerConfiguration,
    server: &AuthorizationServerConfiguration,
    files: &Files,
    shared: Shared<'_>,
) -> Result<AuthorizationServer, OAuthStartError> {
    let Shared { http, federated_token, keys, policy, audit, trust_bundle } = shared;
    let public_url = configuration.public_url.as_deref().ok_or(OAuthStartError::NoPublicUrl)?;
    let addresses = Addresses::new(public_url, &configuration.path, server.serves_root);
    let addresses = addresses.ok_or(OAuthStartError::NoPublicUrl)?;
    let folder = files.keys.as_deref().ok_or(OAuthStartError::NoKeys)?;
    let ring = Arc::new(KeyRing::read(folder, &server.keys, &addresses.issuer())?);
    let store: Arc<dyn Store> = match &server.session_store {
        SessionStore::Memory {} => Arc::new(MemoryStore::new()),
        SessionStore::Valkey(valkey) => {
            let ca = files.store_ca.as_deref().map(inputs::read).transpose()?;
            Arc::new(ValkeyStore::new(valkey, files.store_password.clone(), ca.as_deref())?)
        }
    };
    let redirect_uri = addresses.url(Endpoint::Callback);
    let entra = ConfidentialClient::new(http, &configuration.entra, federated_token, redirect_uri)?;
    let sealer = Sealer::new(Arc::clone(&ring));
    let bundle = trust_bundle.map(inputs::read).transpose()?;
    let proxy = proxy_of(|name| std::env::var(name).ok());
    let fetcher = Fetcher::new(bundle.as_deref(), proxy.as_deref()).map_err(InputError::from)?;
    let clients = Clients::new(server, sealer, fetcher);
    // Entra issues the tokens of a sign-in to this server's own application, whatever the allowed clients are.
    let mut own = configuration.clone();
    own.entra.allowed_clients = vec![own.entra.client_id.clone()];
    let entra_tokens = TokenValidator::new(&own, keys);
    let configuration = configuration.clone();
    let parts = Parts { configuration, policy, entra_tokens, entra, audit, ring, store, clients };
    Ok(AuthorizationServer::new(parts, addresses))
}

impl AuthorizationServer {
    /// Returns this server as an issuer of access tokens.
    pub fn as_issuer(&self) -> OwnIssuer {
        let (issuer, audience) = (self.addresses.issuer(), self.addresses.resource().to_owned());
        OwnIssuer::new(issuer, audience, &self.configuration, self.sessions())
    }

    /// Starts a probe of the session store, which runs until cancelled.
    pub fn probe_store(&self, cancellation: CancellationToken) -> StoreProbe {
        StoreProbe::spawn(Arc::clone(&self.store), cancellation)
    }

    /// Returns the issuer for clients.
    pub fn issuer(&self) -> String {
        self.addresses.issuer()
    }
}
