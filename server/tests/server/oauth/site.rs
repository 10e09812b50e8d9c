//! Server with its own authorization server, behind an edge with TLS.

use std::net::SocketAddr;

use entra_emulator::edge::Edge;
use entra_emulator::sign_in::Browser;
use mcp_entra_policy::{
    AuthorizationServerConfiguration, ClientRegistration, KeyEpoch, KeyEpochs, ListedClient, SessionStore,
};
use reqwest::Client;
use serde_json::Value;

use crate::harness::{PATIENCE, Setup, Site, eventually};
use crate::tenant::{authority, control};

/// Redirect URI of the test's MCP client: loopback, on any port.
pub(crate) const REDIRECT_URI: &str = "http://127.0.0.1:33418/callback";

/// A client that a configuration lists.
pub(crate) fn listed() -> ListedClient {
    ListedClient {
        client_id: "listed".to_owned(),
        name: "Listed".to_owned(),
        redirect_uris: [REDIRECT_URI.to_owned()].into(),
    }
}

/// A server behind its edge.
pub(crate) struct OAuthSite {
    pub(crate) site: Site,
    pub(crate) edge: Edge,
    /// HTTP client that trusts the edge, and follows no redirects.
    pub(crate) http: Client,
}

/// Input of a server with an authorization server. Change it as the test needs, then call [`OAuthSetup::start`].
pub(crate) struct OAuthSetup {
    pub(crate) setup: Setup,
    pub(crate) edge: Edge,
}

impl OAuthSetup {
    /// A server with a memory store and one key epoch. Its app registration has the callback.
    pub(crate) async fn new() -> Self {
        let (mut setup, edge) = (Setup::new(), Edge::start().await.unwrap());
        setup.configuration.public_url = Some(format!("{}/mcp", edge.origin));
        setup.configuration.authorization_server = Some(AuthorizationServerConfiguration {
            session_store: SessionStore::Memory {},
            keys: KeyEpochs {
                registration: 1,
                epochs: vec![KeyEpoch { number: 1, used_from: 0 }],
                after_compromise: None,
            },
            client_registration: ClientRegistration::Dynamic,
            clients: vec![],
            allowed_redirects: vec![],
            client_metadata_hosts: vec![],
            user_consent_scopes: vec![],
            serves_root: false,
        });
        let (server, callback) = (setup.tenant.server, format!("{}/mcp/callback", edge.origin));
        control()
            .change_tenant(setup.tenant.id, |tenant| {
                let app = tenant.apps.iter_mut().find(|app| app.client_id == server).unwrap();
                app.redirect_uris.push(callback);
                Ok(())
            })
            .unwrap();
        let keys = setup.tenant.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        for number in 1..=3 {
            std::fs::write(keys.join(number.to_string()), [u8::try_from(number).unwrap(); 64]).unwrap();
        }
        setup.oauth.keys = Some(keys);
        Self { setup, edge }
    }

    /// The part of the configuration about the authorization server.
    pub(crate) fn server(&mut self) -> &mut AuthorizationServerConfiguration {
        self.setup.configuration.authorization_server.as_mut().unwrap()
    }

    /// Starts the server and waits until it is ready.
    pub(crate) async fn start(self) -> OAuthSite {
        let site = self.start_aside().await;
        site.edge.lead_to(site.site.running.address());
        site
    }

    /// Starts the server behind a load balancer at this address, which distributes the requests.
    pub(crate) async fn start_behind(self, balancer: SocketAddr) -> OAuthSite {
        let site = self.start_aside().await;
        site.edge.lead_to(balancer);
        site
    }

    /// Starts the server with an intermediary from `gateway` between the edge and the server's address. `gateway`
    /// returns its own address.
    pub(crate) async fn start_behind_gateway(self, gateway: impl AsyncFnOnce(SocketAddr) -> SocketAddr) -> OAuthSite {
        let site = self.start_aside().await;
        site.edge.lead_to(gateway(site.site.running.address()).await);
        site
    }

    /// Starts the server with an edge that has no target yet.
    async fn start_aside(self) -> OAuthSite {
        let Self { setup, edge } = self;
        let mut site = setup.start().await;
        let http = Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(edge.ca_pem.as_bytes()).unwrap()])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .unwrap();
        (site.origin, site.http) = (edge.origin.clone(), http.clone());
        OAuthSite { site, edge, http }
    }
}

impl OAuthSite {
    /// A running server with a memory store.
    pub(crate) async fn new() -> Self {
        OAuthSetup::new().await.start().await
    }

    /// The URL of a path below the public URL.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/mcp{path}", self.edge.origin)
    }

    /// A user's browser, which comes back to [`REDIRECT_URI`].
    pub(crate) fn browser(&self) -> Browser {
        let authority = authority();
        let browser = Browser::trusting(&[&authority.ca_pem, &self.edge.ca_pem]).unwrap();
        browser.leaving_at(REDIRECT_URI).unwrap()
    }

    /// The document at a path of the host.
    pub(crate) async fn document(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.edge.origin)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    /// Waits for an audit line with this reason.
    pub(crate) async fn audited(&self, reason: &str) -> Value {
        let line = async || self.site.audit().into_iter().find(|line| line["reason"] == reason);
        eventually(&format!("an audit line has {reason}"), line).await
    }
}
