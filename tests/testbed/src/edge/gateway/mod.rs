//! Gateway API part of the edge: decides the HTTPRoutes and certificates to serve, and their status. The decisions are
//! pure functions; the edge watches and writes.

pub(super) mod kinds;
mod listeners;
mod routes;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use rustls::sign::CertifiedKey;

use super::table::Rule;
use super::{CLASS, CONTROLLER};
use crate::controller::Statuses;
use kinds::{Gateway, GatewayClass, HTTPRoute, ListenerSet};
use listeners::{Owner, Parent, parents};
use routes::{Attachment, attachments};

/// Objects of the cluster. Without the definitions of Gateway API, there are no objects of its kinds.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) classes: Vec<Arc<GatewayClass>>,
    pub(super) gateways: Vec<Arc<Gateway>>,
    pub(super) sets: Vec<Arc<ListenerSet>>,
    pub(super) routes: Vec<Arc<HTTPRoute>>,
    pub(super) namespaces: Vec<Arc<Namespace>>,
    pub(super) services: Vec<Arc<Service>>,
    pub(super) slices: Vec<Arc<EndpointSlice>>,
    pub(super) secrets: Vec<Arc<Secret>>,
}

impl Objects {
    /// Returns whether an object of Gateway API has this uid.
    pub(super) fn have(&self, uid: &str) -> bool {
        fn has<K: ResourceExt>(objects: &[Arc<K>], uid: &str) -> bool {
            objects.iter().any(|object| object.uid().as_deref() == Some(uid))
        }
        has(&self.classes, uid) || has(&self.gateways, uid) || has(&self.sets, uid) || has(&self.routes, uid)
    }
}

/// Decisions from these objects.
pub(super) struct Decision<'a> {
    objects: &'a Objects,
    parents: Vec<Parent>,
    attachments: Vec<Attachment>,
}

impl<'a> Decision<'a> {
    pub(super) fn new(objects: &'a Objects) -> Self {
        let parents = parents(objects);
        let attachments = attachments(&parents, objects);
        Self { objects, parents, attachments }
    }

    pub(super) fn rules(&self) -> Vec<Rule> {
        routes::rules(&self.attachments, &self.parents, self.objects)
    }

    /// Returns the certificates by hostname of their listener, `*` if it has none.
    pub(super) fn certificates(&self) -> impl Iterator<Item = (String, Result<Arc<CertifiedKey>, String>)> {
        let listeners = self.parents.iter().flat_map(|parent| &parent.listeners);
        let ours = listeners.filter(|listener| listener.accepted.is_ok() && listener.conflict.is_none());
        ours.map(|listener| {
            let host = listener.spec.hostname.as_deref().unwrap_or("*").to_ascii_lowercase();
            (host, listener.certificate.clone().map_err(|(_, why)| why))
        })
    }

    /// Writes the statuses that differ.
    pub(super) async fn write(&self, statuses: &mut Statuses) {
        for class in self.objects.classes.iter().filter(|class| class.spec.controller_name == CONTROLLER) {
            statuses.put(&**class, class.status.as_ref(), status::of_class(class)).await;
        }
        for (at, parent) in self.parents.iter().enumerate() {
            let Some(wanted) = status::of_parent(at, &self.parents, &self.attachments) else { continue };
            match &parent.owner {
                Owner::Gateway(gateway) => statuses.put(&**gateway, gateway.status.as_ref(), wanted).await,
                Owner::ListenerSet(set) => statuses.put(&**set, set.status.as_ref(), wanted).await,
            }
        }
        for route in &self.objects.routes {
            let ours = |attachment: &&Attachment| attachment.route.uid() == route.uid();
            let attachments: Vec<_> = self.attachments.iter().filter(ours).collect();
            if let Some(wanted) = status::of_route(route, &attachments) {
                statuses.put(&**route, route.status.as_ref(), wanted).await;
            }
        }
    }
}

/// Creates the class of the edge.
pub(super) async fn create_class(client: &Client) -> kube::Result<()> {
    let classes: Api<GatewayClass> = Api::all(client.clone());
    classes.patch(CLASS, &PatchParams::apply(CONTROLLER), &Patch::Apply(status::class())).await.map(drop)
}
