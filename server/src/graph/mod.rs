//! Microsoft Graph as the calling user. How to reach Graph and read its errors lives here; what to ask it is up to the
//! tools.

mod error;

use std::sync::Arc;

use http::StatusCode;
use secrecy::ExposeSecret;
use serde_json::Value;

pub use error::{GraphError, GraphRefusal};

use crate::entra::{GraphToken, Sts};
use crate::http_client::{self, Answer};
use crate::token::{Principal, User};

/// Longest answer of Graph that is read, in bytes.
const MAXIMUM_ANSWER: usize = 4 * 1024 * 1024;

/// Microsoft Graph, as anyone.
#[derive(Clone)]
pub struct GraphClient(Arc<Client>);

struct Client {
    http: reqwest::Client,
    base_url: String,
    sts: Arc<Sts>,
    /// Fully qualified: in a sovereign cloud a bare scope would mean another Graph.
    scopes: Vec<String>,
    permissions: String,
}

/// Microsoft Graph as one caller.
pub struct Graph {
    client: GraphClient,
    principal: Arc<Principal>,
}

impl GraphClient {
    /// Graph at this base address, asked with these delegated permissions (as `User.Read`).
    pub fn new(http: reqwest::Client, base_url: &str, sts: Arc<Sts>, scopes: &[String]) -> Self {
        Self(Arc::new(Client {
            http,
            base_url: base_url.to_owned(),
            sts,
            scopes: scopes.iter().map(|scope| format!("{base_url}/{scope}")).collect(),
            permissions: scopes.join(", "),
        }))
    }

    /// Graph as this caller.
    pub fn on_behalf_of(&self, principal: Arc<Principal>) -> Graph {
        Graph { client: self.clone(), principal }
    }
}

impl Graph {
    /// The document at `path` (as `/v1.0/me`), with these query parameters.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, GraphError> {
        let client = &self.client.0;
        let user = self.user()?;
        let no_token = |source| GraphError::NoToken { permissions: client.permissions.clone(), source };
        let token = client.sts.on_behalf_of(user, &client.scopes).await.map_err(no_token)?;
        let mut answer = self.ask(path, query, &token).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            // Revoked, or expired by Graph's clock.
            let token = client.sts.instead_of(&token, None, user, &client.scopes).await.map_err(no_token)?;
            answer = self.ask(path, query, &token).await?;
        }
        if answer.status.is_success() {
            return serde_json::from_slice(&answer.body).map_err(|_| GraphError::NotJson { status: answer.status });
        }
        Err(GraphError::Refused(GraphRefusal::read(&answer)))
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)], token: &GraphToken) -> Result<Answer, GraphError> {
        let client = &self.client.0;
        let request = client
            .http
            .get(format!("{}{path}", client.base_url))
            .query(query)
            .bearer_auth(token.access_token.expose_secret());
        http_client::exchange(request, MAXIMUM_ANSWER).await.map_err(GraphError::Unreachable)
    }

    fn user(&self) -> Result<&User, GraphError> {
        match &*self.principal {
            Principal::User(user) => Ok(user),
            Principal::Application(_) => Err(GraphError::NoUser),
        }
    }
}
