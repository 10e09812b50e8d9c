//! Ownership among servers from manifests only, as if they were applied in the order of their age.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{ResourceExt, core::DeserializeGuard, runtime::watcher::Event};
use mcp_entra_crds::McpServer;

use super::{
    Standing,
    claim::{Answer, answer, demands},
    claim_cache::{ClaimView, Claims},
    claim_writer::object,
    standing,
};
use crate::watch::stores::WatchedServer;

/// Returns the standing of each server, in the given order.
pub(crate) fn standings(servers: &[McpServer]) -> Vec<Standing> {
    let grace = Duration::ZERO;
    let (claims, mut feeder) = Claims::empty("offline");
    let mut by_age: Vec<&McpServer> = servers.iter().collect();
    by_age.sort_by_key(|server| server.creation_timestamp());
    for server in by_age {
        if standing(&claims, &|_, _| None, server, grace).lost().is_some() {
            continue;
        }
        for demand in demands(server) {
            let found = claims.get(&demand.claimed);
            if let Answer::Write(claim) = answer(found.as_ref().and_then(|found| found.claim.as_ref()), &demand, grace)
            {
                let mut written: ConfigMap = object(&claim);
                written.metadata.namespace = Some("offline".to_owned());
                feeder.feed(Event::Apply(ClaimView::from(written)));
            }
        }
    }
    let named = |namespace: &str, name: &str| {
        let is_named =
            |server: &&McpServer| server.namespace().as_deref() == Some(namespace) && server.name_any() == name;
        let found: WatchedServer = DeserializeGuard(Ok(servers.iter().find(is_named)?.clone()));
        Some(Arc::new(found))
    };
    servers.iter().map(|server| standing(&claims, &named, server, grace)).collect()
}
