//! Validation of the authorization server: its part of the configuration, and the volumes of the pods for it. Pure.

use mcp_entra_crds::{
    Client, McpServerSpec, PasswordSecretReference, SessionStore as Asked, ValkeyStore as AskedValkey,
};
use mcp_entra_policy::{AuthorizationServerConfiguration, ListedClient, SessionStore, ValkeyStore};

use crate::{
    conditions::condition::Reason,
    mcpserver::{
        resolved::Resolved,
        validate::{
            refusal::{Refusal, refuse},
            trust::certificates,
        },
    },
    objects::{owner::Owner, trust_bundle::Trust},
};

/// The parts of the pods that sign users in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SignIn {
    /// Numbers of the key epochs whose Secrets the pods mount.
    pub(crate) epochs: Vec<u32>,
    pub(crate) store: Store,
}

/// The session store of the pods.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Store {
    /// The memory of the only pod.
    Memory,
    /// A Valkey server, with its password in a Secret.
    Valkey { password: PasswordSecretReference, ca: Option<Trust> },
}

impl SignIn {
    /// Returns true if sessions are in a pod's memory, so that there must never be a second pod.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.store == Store::Memory
    }

    /// Returns the CA certificates for the connection to the store.
    pub(crate) fn store_ca(&self) -> Option<&Trust> {
        match &self.store {
            Store::Memory => None,
            Store::Valkey { ca, .. } => ca.as_ref(),
        }
    }
}

/// Validates the authorization server. Its place at the host's root is decided later.
pub(super) fn validate(
    owner: &Owner,
    spec: &McpServerSpec,
    resolved: &Resolved,
) -> Result<Option<(AuthorizationServerConfiguration, SignIn)>, Refusal> {
    let Some(asked) = &spec.authorization_server else { return Ok(None) };
    if spec.exposure.is_none() {
        return refuse(
            Reason::InvalidConfiguration,
            "spec.authorizationServer needs spec.exposure: browsers and clients reach it at the server's URL; expose the server, or remove spec.authorizationServer",
        );
    }
    let (session_store, store) = match &asked.session_store {
        Asked { memory: Some(_), valkey: None } => (SessionStore::Memory {}, memory(spec)?),
        Asked { memory: None, valkey: Some(valkey) } => valkey_store(owner, valkey, resolved)?,
        _ => {
            return refuse(
                Reason::InvalidConfiguration,
                "spec.authorizationServer.sessionStore: set exactly one of memory and valkey",
            );
        }
    };
    let keys = resolved.keys.configured();
    let epochs = keys.epochs.iter().map(|epoch| epoch.number).collect();
    let configuration = AuthorizationServerConfiguration {
        session_store,
        keys,
        client_registration: asked.client_registration,
        clients: asked.clients.iter().map(listed).collect(),
        allowed_redirects: asked.allowed_redirects.clone(),
        client_metadata_hosts: asked.client_metadata_hosts.clone(),
        user_consent_scopes: asked.user_consent_scopes.clone(),
        serves_root: false,
    };
    Ok(Some((configuration, SignIn { epochs, store })))
}

fn memory(spec: &McpServerSpec) -> Result<Store, Refusal> {
    let most = spec.replicas.unwrap_or(1).max(spec.autoscaling.as_ref().map_or(1, |scale| scale.max_replicas));
    if most <= 1 {
        return Ok(Store::Memory);
    }
    refuse(
        Reason::InvalidConfiguration,
        format!(
            "spec.authorizationServer.sessionStore.memory works with one pod only, but {most} are requested; set spec.replicas or spec.autoscaling.maxReplicas to 1, or set sessionStore.valkey, which pods share"
        ),
    )
}

fn valkey_store(owner: &Owner, asked: &AskedValkey, resolved: &Resolved) -> Result<(SessionStore, Store), Refusal> {
    let field = "spec.authorizationServer.sessionStore.valkey.caBundle";
    let ca = asked.ca_bundle.as_ref();
    let ca = ca.map(|bundle| certificates(field, &bundle.name, bundle.key(), &resolved.store_ca)).transpose()?;
    let store = SessionStore::Valkey(ValkeyStore {
        url: asked.url.clone(),
        username: asked.username.clone(),
        key_prefix: key_prefix(owner),
    });
    Ok((store, Store::Valkey { password: asked.password_secret_ref.clone(), ca }))
}

/// Returns the prefix of a server's keys in a store that it may share. A deleted server's successor of the same name
/// finds none of the old keys.
fn key_prefix(owner: &Owner) -> String {
    format!("mcp-entra/{}/{}/{}/", owner.namespace, owner.name, owner.short_uid())
}

fn listed(client: &Client) -> ListedClient {
    ListedClient {
        client_id: client.client_id.clone(),
        name: client.name.clone(),
        redirect_uris: client.redirect_uris.iter().cloned().collect(),
    }
}

#[cfg(test)]
mod tests {
    use mcp_entra_crds::McpServer;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        mcpserver::{
            resolved::ResolvedTrustBundle,
            validate::{Validated, tests::mk_options, validate},
        },
        objects::fixtures::{mk_owner, mk_server},
    };

    fn check(store: Value, ca: ResolvedTrustBundle, change: impl FnOnce(&mut McpServer)) -> Result<Validated, Refusal> {
        let mut server = mk_server();
        server.spec.authorization_server = Some(serde_json::from_value(json!({"sessionStore": store})).unwrap());
        change(&mut server);
        validate(&server, &mk_owner(), &Resolved { store_ca: ca, ..Resolved::default() }, &mk_options())
    }

    #[test]
    fn values_that_the_definition_refuses_are_also_refused_here() {
        let refused = |store: Value, change: fn(&mut McpServer)| {
            let refusal = check(store, ResolvedTrustBundle::Unset, change).unwrap_err();
            assert_eq!(refusal.reason, Reason::InvalidConfiguration);
            refusal.message
        };
        let memory = || json!({"memory": {}});
        assert!(refused(memory(), |server| server.spec.exposure = None).contains("needs spec.exposure"));
        let two = refused(memory(), |server| server.spec.replicas = Some(2));
        assert!(two.contains("2 are requested; set spec.replicas"), "{two}");
        let scaled = refused(memory(), |server| {
            server.spec.autoscaling =
                Some(serde_json::from_value(json!({"minReplicas": 1, "maxReplicas": 3})).unwrap());
        });
        assert!(scaled.contains("3 are requested"), "{scaled}");
        assert!(refused(json!({}), |_| {}).contains("exactly one of memory and valkey"));
        check(memory(), ResolvedTrustBundle::Unset, |server| server.spec.replicas = Some(1)).unwrap();
    }

    #[test]
    fn the_ca_of_the_store_must_contain_a_certificate_and_needs_no_permission_of_the_operator() {
        let valkey = || {
            let password = json!({"name": "graph-session-store"});
            json!({"valkey": {"url": "rediss://a.example", "caBundle": {"name": "ca"}, "passwordSecretRef": password}})
        };
        let pem = ResolvedTrustBundle::Content("-----BEGIN CERTIFICATE-----".into());
        check(valkey(), pem.clone(), |_| {}).unwrap();
        for (found, reason) in [
            (ResolvedTrustBundle::NoConfigMap, Reason::TrustBundleNotFound),
            (ResolvedTrustBundle::NoKey, Reason::TrustBundleNotFound),
            (ResolvedTrustBundle::Content("hello".into()), Reason::TrustBundleInvalid),
        ] {
            let refusal = check(valkey(), found, |_| {}).unwrap_err();
            assert_eq!(refusal.reason, reason);
            assert!(refusal.message.starts_with("spec.authorizationServer.sessionStore.valkey.caBundle: "));
        }
        let mut server = mk_server();
        server.spec.authorization_server = Some(serde_json::from_value(json!({"sessionStore": valkey()})).unwrap());
        let forbidding = crate::runtime::options::Options { allow_trust_bundles: false, ..mk_options() };
        let resolved = Resolved { store_ca: pem, ..Resolved::default() };
        validate(&server, &mk_owner(), &resolved, &forbidding).unwrap();
    }
}
