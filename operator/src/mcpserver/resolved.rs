//! The plain results of the reads of a pass.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcp_entra_crds::GatewayReference;

use crate::{
    mcpserver::keys::epochs::Decision,
    objects::{
        child::ChildKind,
        observed_child::Seen,
        owner::{Controller, Owner},
    },
    watch::gateways::ListenerView,
};

/// The objects that the spec refers to, as they were found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    /// The server uid that the live Deployment's pods carry; absent if there is no Deployment, or it notes none.
    pub(crate) pods_uid: Option<String>,
    pub(crate) trust_bundle: ResolvedTrustBundle,
    /// The CA certificates of the session store.
    pub(crate) store_ca: ResolvedTrustBundle,
    /// The key epochs of the authorization server, if the spec asks for one.
    pub(crate) keys: Decision,
    /// The ServiceAccount that `spec.entra.federation` names.
    pub(crate) account: ResolvedAccount,
    /// The Gateways that `spec.exposure` names; absent where nobody can see Gateways.
    pub(crate) gateways: Option<Vec<NamedGateway>>,
}

/// A ConfigMap with CA certificates that the spec refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ResolvedTrustBundle {
    /// The spec names none.
    #[default]
    Unset,
    /// There is no such ConfigMap.
    NoConfigMap,
    /// The ConfigMap has no such key.
    NoKey,
    /// The content of the key.
    Content(String),
}

/// The object that `spec.entra.federation.serviceAccountName` refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ResolvedAccount {
    /// The spec names none.
    #[default]
    Unset,
    /// There is no such ServiceAccount.
    Absent,
    /// It is this server's own child.
    Child,
    /// The annotations of one that is somebody else's.
    Existing(BTreeMap<String, String>),
}

impl ResolvedAccount {
    /// Returns what a ServiceAccount of the name that the spec gives is to the server, if there is one.
    pub(crate) fn of(account: Option<&ObjectMeta>, owner: &Owner) -> Self {
        match account {
            None => Self::Absent,
            Some(account) if owner.owns(Controller::of(account).as_ref()) => Self::Child,
            Some(account) => Self::Existing(account.annotations.clone().unwrap_or_default()),
        }
    }
}

/// A Gateway that an exposure names, as it is seen.
#[derive(Clone, Debug)]
pub(crate) struct NamedGateway {
    /// As the spec names it.
    pub(crate) parent: GatewayReference,
    pub(crate) namespace: String,
    /// Its listeners; absent where there is no such Gateway.
    pub(crate) listeners: Option<Vec<ListenerView>>,
    /// Its controller sets a time for each request where a route asks for one.
    pub(crate) takes_timeouts: bool,
}

impl NamedGateway {
    /// The listener that the spec names, if there is one.
    pub(crate) fn listener(&self) -> Option<&ListenerView> {
        let section_name = self.parent.section_name.as_ref()?;
        self.listeners.iter().flatten().find(|listener| listener.name == *section_name)
    }

    /// Returns the part of it that does not exist, if one does not.
    pub(crate) fn absent(&self) -> Option<String> {
        let gateway = format!("Gateway {}/{}", self.namespace, self.parent.name);
        match &self.parent.section_name {
            _ if self.listeners.is_none() => Some(gateway),
            Some(section_name) if self.listener().is_none() => Some(format!("listener {section_name} of {gateway}")),
            _ => None,
        }
    }
}

/// The objects that have the children's names.
pub(crate) type SeenChildren = BTreeMap<ChildKind, Seen>;
