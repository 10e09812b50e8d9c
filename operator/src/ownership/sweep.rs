//! Sweep that releases values after the grace period, when their servers are deleted or name other values.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::Timestamp;
use mcp_entra_crds::{ConditionType, McpServer};

use super::{
    Ledger, Named,
    claim::{Claim, ClaimKind, ClaimedValue, Holder, Presence, Released, demands, release},
    claim_cache::{ClaimView, Claims},
    claim_order::is_so,
};
use crate::{
    objects::{child::ChildKind, full_name::FullName, views::ChildView},
    runtime::errors::Error,
    watch::stores::Children,
};

/// Pause between sweeps, and thus the longest delay of a release.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);

/// The most values that a namespace keeps for absent servers. Without a limit, it could reserve any number by naming
/// them one after another.
const VACANT: usize = 64;
/// The most claims that are written at once.
const AT_ONCE: usize = 8;

/// Releases unused values. It writes nothing while all holders are present.
pub(crate) async fn sweep(ledger: &Ledger, claims: &Claims, named: Named<'_>, children: &Children) {
    let (in_use, all) = (InUse::of(children), claims.all());
    let surplus = surplus(all.iter().filter_map(|view| view.claim.as_ref()), VACANT);
    let released = all.iter().filter_map(|view| {
        let claim = view.claim.as_ref()?;
        let presence = |holder: &Holder| presence(&claim.claimed, &claim.namespace, holder, named, &in_use);
        let is_surplus = |holder: &Holder| surplus.contains(&(&claim.claimed, &*holder.server));
        Some((view, release(claim, presence, is_surplus, Timestamp::now(), ledger.grace)))
    });
    let free = async |(view, released): (&Arc<ClaimView>, Released)| {
        if let Err(error) = write(ledger, view, released).await {
            tracing::warn!(%error, "cannot release a claim yet, retrying");
        }
    };
    stream::iter(released).for_each_concurrent(AT_ONCE, free).await;
}

/// Returns the vacant values beyond the newest of each namespace, with the server that held them.
fn surplus<'a>(claims: impl Iterator<Item = &'a Claim>, most: usize) -> HashSet<(&'a ClaimedValue, &'a str)> {
    let mut vacant: HashMap<&str, Vec<_>> = HashMap::new();
    for claim in claims {
        let of_claim = claim
            .holders
            .iter()
            .filter_map(|holder| Some((Reverse(holder.vacant_since?), (&claim.claimed, &*holder.server))));
        vacant.entry(&claim.namespace).or_default().extend(of_claim);
    }
    let beyond = vacant.into_values().flat_map(|mut vacant| {
        vacant.sort();
        vacant.into_iter().skip(most)
    });
    beyond.map(|(_, held)| held).collect()
}

async fn write(ledger: &Ledger, view: &ClaimView, released: Released) -> Result<(), Error> {
    // A claim that changed since is handled by the next sweep.
    match released {
        Released::Unchanged => {}
        Released::Changed(claim) => {
            ledger.write(&claim, Some(view)).await?;
        }
        Released::Empty => {
            if ledger.delete(view).await? {
                tracing::info!(claim = view.name(), "released a value");
            }
        }
    }
    Ok(())
}

/// Children that still use values which their servers no longer name. Orphans are included. Each of these children has
/// the namespace and the name of its server.
#[derive(Default)]
struct InUse {
    /// Routes, with their hosts.
    routes: HashSet<(FullName, String)>,
    /// Deployments with pods of an earlier spec.
    old_pods: HashSet<FullName>,
}

impl InUse {
    fn of(children: &Children) -> Self {
        let routed = |child: Arc<ChildView>| Some((child.full_name.clone(), child.exposed_host()?.to_owned()));
        let routes = [ChildKind::Ingress, ChildKind::HttpRoute, ChildKind::ListenerSet];
        let routes = routes.iter().flat_map(|kind| children.all(*kind)).filter_map(routed).collect();
        let deployments = children.filter(ChildKind::Deployment, |deployment| !deployment.is_rolled_out(0));
        let old_pods = deployments.iter().map(|deployment| deployment.full_name.clone()).collect();
        Self { routes, old_pods }
    }
}

fn presence(claimed: &ClaimedValue, namespace: &str, holder: &Holder, named: Named<'_>, in_use: &InUse) -> Presence {
    // An unreadable server could name any value.
    let server = named(namespace, &holder.server);
    let names = server.as_ref().is_some_and(|server| match &server.0 {
        Ok(server) => demands(server).iter().any(|demand| demand.claimed == *claimed),
        Err(_) => true,
    });
    let child = FullName::new(namespace, &holder.server);
    let is_used = || match claimed.kind {
        // Pods accept tokens for the value until pods of the new spec replace them.
        ClaimKind::Audience => {
            let is_programmed = |server: &McpServer| is_so(server, ConditionType::Programmed);
            in_use.old_pods.contains(&child)
                || server.as_ref().is_some_and(|server| server.0.as_ref().is_ok_and(|server| !is_programmed(server)))
        }
        ClaimKind::Host => in_use.routes.contains(&(child, claimed.value.clone())),
    };
    match names {
        true => Presence::Present,
        false if is_used() => Presence::Leaving,
        false => Presence::Gone,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use kube::core::DeserializeGuard;
    use mcp_entra_crds::McpServerStatus;

    use super::*;
    use crate::objects::fixtures::mk_server;

    fn mk_vacant(host: &str, namespace: &str, since: Option<i64>) -> Claim {
        let vacant_since = since.map(|second| Timestamp::from_second(second).unwrap());
        let holder = Holder { server: "graph".into(), path: Some("/".into()), shared: false, vacant_since };
        Claim { claimed: ClaimedValue::host(host), namespace: namespace.into(), holders: vec![holder] }
    }

    #[test]
    fn a_namespace_keeps_all_values_of_existing_servers_and_the_newest_of_deleted_ones() {
        let mut claims: Vec<Claim> = (0..5).map(|at| mk_vacant(&format!("vacant-{at}"), "churns", Some(at))).collect();
        claims.extend((0..5).map(|at| mk_vacant(&format!("held-{at}"), "churns", None)));
        claims.push(mk_vacant("other", "other", Some(0)));
        let freed = |most| {
            let mut hosts: Vec<&str> = surplus(claims.iter(), most).iter().map(|(host, _)| &*host.value).collect();
            hosts.sort_unstable();
            hosts
        };
        assert_eq!(freed(3), ["vacant-0", "vacant-1"]);
        assert_eq!(freed(5), [""; 0]);
        let at_once: Vec<Claim> = (0..5).map(|at| mk_vacant(&format!("host-{at}"), "churns", Some(7))).collect();
        assert_eq!(surplus(at_once.iter(), 3).len(), 2, "those of one moment, too");
    }

    #[test]
    fn a_client_id_is_kept_until_the_pods_are_those_of_the_spec_that_names_another() {
        let team = || FullName::new("team", "graph");
        let presence_of = |value: ClaimedValue, programmed_for: Option<i64>, in_use: &InUse| {
            let mut server = mk_server();
            server.metadata.generation = Some(2);
            let programmed = programmed_for.map(|generation| Condition {
                type_: ConditionType::Programmed.to_string(),
                status: "True".into(),
                observed_generation: Some(generation),
                reason: "Applied".into(),
                message: String::new(),
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
            });
            let conditions = programmed.into_iter().collect();
            server.status = Some(McpServerStatus { conditions, ..McpServerStatus::default() });
            let named = move |_: &str, _: &str| Some(Arc::new(DeserializeGuard(Ok(server.clone()))));
            let holder = Holder { server: "graph".into(), path: None, shared: false, vacant_since: None };
            presence(&value, "team", &holder, &named, in_use)
        };
        let old = || demands(&with_client_id("old")).pop().unwrap().claimed;
        let host = || ClaimedValue::host("old.example");
        let nothing = InUse::default();
        assert_eq!(presence_of(old(), Some(1), &nothing), Presence::Leaving, "the Deployment has the old spec");
        assert_eq!(presence_of(old(), None, &nothing), Presence::Leaving);
        assert_eq!(presence_of(old(), Some(2), &nothing), Presence::Gone);
        assert_eq!(presence_of(host(), Some(1), &nothing), Presence::Gone, "only routes use hosts");

        let pods = InUse { old_pods: HashSet::from([team()]), ..InUse::default() };
        assert_eq!(presence_of(old(), Some(2), &pods), Presence::Leaving, "a paused or unfinished rollout");
        assert_eq!(presence_of(host(), Some(2), &pods), Presence::Gone);
        let others = InUse { old_pods: HashSet::from([FullName::new("other", "graph")]), ..InUse::default() };
        assert_eq!(presence_of(old(), Some(2), &others), Presence::Gone);
        let routes = InUse { routes: HashSet::from([(team(), "old.example".to_owned())]), ..InUse::default() };
        assert_eq!(presence_of(host(), Some(2), &routes), Presence::Leaving);
        assert_eq!(presence_of(old(), Some(2), &routes), Presence::Gone);
    }

    fn with_client_id(client_id: &str) -> McpServer {
        let mut server = mk_server();
        server.spec.entra.client_id = client_id.into();
        server.spec.entra.audiences = Vec::new();
        server
    }
}
