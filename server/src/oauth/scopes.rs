//! Scopes that clients may request, and their counterparts at Entra.
//!
//! | Scope | Meaning |
//! |---|---|
//! | `mcp.access` | a scope of the server's app registration, by its bare name or fully qualified |
//! | `graph:Mail.Read` | a permission of Microsoft Graph that the person consents to |
//! | `acrs:c1` | an authentication context of Conditional Access that the sign-in satisfies |
//!
//! Other scopes are ignored: many clients always request `openid` and similar ones.

use std::collections::BTreeSet;

use mcp_entra_policy::{CompiledPolicy, ServerConfiguration};
use serde::{Deserialize, Serialize};

use crate::entra::ClaimsChallenge;
use crate::token::{CONTEXT_SCOPE, GRAPH_SCOPE, context_scope, graph_scope};

/// Most scopes of a request that are read.
const MAXIMUM_NUMBER: usize = 64;

/// The known scopes of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AskedScopes {
    /// Scopes of the server's app registration, by their bare names.
    pub(super) server: BTreeSet<String>,
    /// Permissions of Microsoft Graph.
    pub(super) graph: BTreeSet<String>,
    /// An authentication context.
    pub(super) context: Option<String>,
}

impl AskedScopes {
    /// Parses the scopes that this server supports under this policy. Adds the required scopes and the permissions of
    /// every sign-in.
    pub(super) fn read(text: Option<&str>, configuration: &ServerConfiguration, policy: &CompiledPolicy) -> Self {
        let entra = &configuration.entra;
        let server = configuration.authorization_server.as_ref();
        let mut asked = Self {
            server: entra.required_scopes.iter().cloned().collect(),
            graph: server.map(|server| server.user_consent_scopes.iter().cloned().collect()).unwrap_or_default(),
            context: None,
        };
        let required = || policy.grants.iter().map(|grant| &grant.require);
        for scope in text.unwrap_or_default().split_ascii_whitespace().take(MAXIMUM_NUMBER) {
            if let Some(permission) = scope.strip_prefix(GRAPH_SCOPE) {
                if configuration.graph.scopes.iter().any(|known| known == permission) {
                    asked.graph.insert(permission.to_owned());
                }
            } else if let Some(context) = scope.strip_prefix(CONTEXT_SCOPE) {
                if required().any(|required| required.authentication_context.as_deref() == Some(context)) {
                    asked.context = Some(context.to_owned());
                }
            } else {
                let qualifier = format!("{}/", entra.client_id);
                let bare = scope.strip_prefix(&qualifier).unwrap_or(scope);
                if required().any(|required| required.scopes.contains(bare)) {
                    asked.server.insert(bare.to_owned());
                }
            }
        }
        asked
    }

    /// Returns the scopes for Entra, besides the required ones.
    pub(super) fn at_entra(&self, configuration: &ServerConfiguration) -> Vec<String> {
        let entra = &configuration.entra;
        let server = self.server.iter().filter(|scope| !entra.required_scopes.contains(scope));
        let server = server.map(|scope| entra.qualified_scope(scope));
        let graph = self.graph.iter().map(|permission| format!("{}/{permission}", configuration.graph.base_url));
        server.chain(graph).collect()
    }

    /// Returns the scopes of the server's app registration besides the required ones, by their bare names.
    pub(super) fn extra(&self, configuration: &ServerConfiguration) -> Vec<String> {
        let required = &configuration.entra.required_scopes;
        self.server.iter().filter(|scope| !required.contains(scope)).cloned().collect()
    }

    /// Returns the claims that the sign-in must satisfy.
    pub(super) fn claims(&self) -> Option<ClaimsChallenge> {
        self.context.as_deref().map(ClaimsChallenge::authentication_context)
    }

    /// Returns the `scope` of the answer to the client. Of the server's scopes, it contains those that Entra granted.
    pub(super) fn granted(&self, granted: &BTreeSet<String>) -> String {
        let server = self.server.intersection(granted).cloned();
        let graph = self.graph.iter().map(|permission| graph_scope(permission));
        let context = self.context.iter().map(|context| context_scope(context));
        Vec::from_iter(server.chain(graph).chain(context)).join(" ")
    }
}
