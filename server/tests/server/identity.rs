//! Tests of the caller's identity, and of the server's own identity at Entra.

pub(crate) mod backend_identity;
mod check;
mod exchange;
mod failures;
mod graph;
mod once;
mod probe;
mod signing_keys;
mod tokens;

use std::sync::Arc;

use entra_emulator::Host;
use mcp_entra_server::entra::{ApplicationCredential, FederatedToken, Sts};
use mcp_entra_server::graph::Graph;
use mcp_entra_server::token::{Keys, Principal, TokenValidator};

use crate::harness::eventually;
use crate::tenant::{TestTenant, http};

/// A validator of this tenant's tokens, with its keys fetched.
async fn validator(tenant: &TestTenant) -> TokenValidator {
    let configuration = tenant.configuration();
    let keys = Keys::new(http(), &configuration.entra);
    keys.refresh().await.unwrap();
    TokenValidator::new(&configuration, Arc::new(keys))
}

/// Principal of a valid token of this user.
pub(crate) async fn signed_in(tenant: &TestTenant, user: &str) -> Arc<Principal> {
    validator(tenant).await.validate(&tenant.token(user)).await.unwrap()
}

/// Waits until a request has reached Graph, while a call runs.
pub(crate) async fn arrived(tenant: &TestTenant, graph: &Graph) {
    eventually("a question beside the request", async || {
        graph.get("", &[]).await.unwrap();
        let beside = |host, concurrent| host == Host::Graph && concurrent == 2;
        tenant.requests().iter().any(|request| beside(request.host, request.concurrent)).then_some(())
    })
    .await;
}

/// Client of this tenant's token endpoint, with the tenant's projected token.
fn sts(tenant: &TestTenant) -> Arc<Sts> {
    Arc::new(Sts::new(http(), &tenant.configuration().entra, FederatedToken::at(tenant.token_file())).unwrap())
}

/// This tenant's server, acting as the application itself.
fn application(tenant: &TestTenant) -> ApplicationCredential {
    let configuration = tenant.configuration();
    let token = FederatedToken::at(tenant.token_file());
    ApplicationCredential::new(http(), &configuration.entra, &configuration.graph.base_url, token)
}
