//! Discovery of the third-party kinds that the cluster serves. It repeats, so that a later installation of Gateway API
//! or cert-manager needs no restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube::Client;
use tokio::sync::watch;

use crate::objects::child::ChildKind;

/// Pause between two requests.
const AGAIN: Duration = Duration::from_secs(10);
/// Pause before the next request while nothing is known.
const SOON: Duration = Duration::from_secs(1);
/// Timeout of one answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The third-party kinds that are served now; none before the first answer.
pub(crate) type Served = Option<BTreeSet<ChildKind>>;

/// Asks periodically, and sends each change.
pub(crate) async fn discover(client: Client, served: watch::Sender<Served>) {
    let mut interval = tokio::time::interval(AGAIN);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let known = served.borrow().clone();
        let Some(now) = look(&client, known.as_ref()).await else {
            interval.reset_after(SOON);
            continue;
        };
        served.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&now);
            if changed {
                tracing::info!(kinds = ?now, "optional kinds that this cluster serves");
                *known = Some(now);
            }
            changed
        });
    }
}

/// Returns the kinds that are served now. If a group gives no answer, its kinds are those known before. Returns none if
/// those are not known either.
async fn look(client: &Client, known: Option<&BTreeSet<ChildKind>>) -> Served {
    let mut groups = BTreeMap::<String, Vec<ChildKind>>::new();
    for kind in ChildKind::ALL.iter().filter(|kind| kind.brought_by().is_some()) {
        groups.entry(kind.api_version()).or_default().push(*kind);
    }
    let mut served = BTreeSet::new();
    for (group, kinds) in groups {
        let answer = tokio::time::timeout(TIMEOUT, client.list_api_group_resources(&group)).await;
        match answer {
            Ok(Ok(list)) => {
                let is_listed = |kind: &ChildKind| list.resources.iter().any(|found| found.name == kind.plural());
                served.extend(kinds.into_iter().filter(is_listed));
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
            failed => {
                let error = failed.map(|failed| failed.err().map(|error| error.to_string()));
                tracing::warn!(group, ?error, "cannot discover the kinds that this cluster serves, retrying");
                served.extend(kinds.into_iter().filter(|kind| known.is_some_and(|known| known.contains(kind))));
                known?;
            }
        }
    }
    Some(served)
}
