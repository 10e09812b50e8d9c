//! Discovery: which of the kinds that others bring are served now. It is looked at again and again, so that installing
//! Gateway API or cert-manager later needs no restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube::Client;
use tokio::sync::watch;

use crate::child::ChildKind;

/// Time between two looks.
const AGAIN: Duration = Duration::from_secs(10);
/// Time for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The kinds that others bring and that are served now; nothing before the first look.
pub(crate) type Served = Option<BTreeSet<ChildKind>>;

/// Looks again and again, and tells of what changed.
pub(crate) async fn discover(client: Client, served: watch::Sender<Served>) {
    let mut interval = tokio::time::interval(AGAIN);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let known = served.borrow().clone().unwrap_or_default();
        let now = look(&client, known).await;
        served.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&now);
            if changed {
                tracing::info!(kinds = ?now, "kinds of others that this cluster serves");
                *known = Some(now);
            }
            changed
        });
    }
}

/// What is served now; of a group that cannot be asked, what was known before.
async fn look(client: &Client, known: BTreeSet<ChildKind>) -> BTreeSet<ChildKind> {
    let mut groups = BTreeMap::<String, Vec<ChildKind>>::new();
    for kind in ChildKind::ALL.iter().filter(|kind| kind.brought_by().is_some()) {
        groups.entry(kind.api_version()).or_default().push(*kind);
    }
    let mut served = BTreeSet::new();
    for (group, kinds) in groups {
        match tokio::time::timeout(TIMEOUT, client.list_api_group_resources(&group)).await {
            Ok(Ok(list)) => served.extend(
                kinds.into_iter().filter(|kind| list.resources.iter().any(|found| found.name == kind.plural())),
            ),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            Ok(Err(error)) => {
                tracing::warn!(group, %error, "it cannot be seen what this cluster serves; it is asked again");
                served.extend(kinds.into_iter().filter(|kind| known.contains(kind)));
            }
            Err(_) => served.extend(kinds.into_iter().filter(|kind| known.contains(kind))),
        }
    }
    served
}
