//! Results of the reads of a pass, as plain data.

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

/// The objects that the spec refers to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    /// The server uid of the live Deployment's pods; none without a Deployment or uid.
    pub(crate) pods_uid: Option<String>,
    pub(crate) trust_bundle: ResolvedTrustBundle,
    /// The CA certificates of the session store.
    pub(crate) store_ca: ResolvedTrustBundle,
    /// The key epochs of the authorization server, if the spec has one.
    pub(crate) keys: Decision,
    /// The ServiceAccount that `spec.entra.federation` names.
    pub(crate) account: ResolvedAccount,
    /// The Gateways that `spec.exposure` names; none if Gateways are not visible.
    pub(crate) gateways: Option<Vec<NamedGateway>>,
}

/// A ConfigMap with CA certificates that the spec refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ResolvedTrustBundle {
    /// The spec names none.
    #[default]
    Unset,
    /// The ConfigMap does not exist.
    NoConfigMap,
    /// The ConfigMap does not have the key.
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
    /// The ServiceAccount does not exist.
    Absent,
    /// The ServiceAccount is this server's own child.
    Child,
    /// The annotations of a foreign ServiceAccount.
    Existing(BTreeMap<String, String>),
}

impl ResolvedAccount {
    /// Returns the state of a found ServiceAccount with the name from the spec.
    pub(crate) fn of(account: Option<&ObjectMeta>, owner: &Owner) -> Self {
        match account {
            None => Self::Absent,
            Some(account) if owner.owns(Controller::of(account).as_ref()) => Self::Child,
            Some(account) => Self::Existing(account.annotations.clone().unwrap_or_default()),
        }
    }
}

/// A Gateway that an exposure names.
#[derive(Clone, Debug)]
pub(crate) struct NamedGateway {
    /// The reference in the spec.
    pub(crate) parent: GatewayReference,
    pub(crate) namespace: String,
    /// Its listeners; none if the Gateway does not exist.
    pub(crate) listeners: Option<Vec<ListenerView>>,
    /// True if its controller supports request timeouts of routes.
    pub(crate) takes_timeouts: bool,
}

impl NamedGateway {
    /// Returns the listener that the spec names, if it exists.
    pub(crate) fn listener(&self) -> Option<&ListenerView> {
        let section_name = self.parent.section_name.as_ref()?;
        self.listeners.iter().flatten().find(|listener| listener.name == *section_name)
    }

    /// Returns the missing Gateway or listener for a message, if one is missing.
    pub(crate) fn absent(&self) -> Option<String> {
        let gateway = format!("Gateway {}/{}", self.namespace, self.parent.name);
        match &self.parent.section_name {
            _ if self.listeners.is_none() => Some(gateway),
            Some(section_name) if self.listener().is_none() => Some(format!("listener {section_name} of {gateway}")),
            _ => None,
        }
    }
}

/// The objects with the children's names.
pub(crate) type SeenChildren = BTreeMap<ChildKind, Seen>;
