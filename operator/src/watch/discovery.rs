//! Discovery: which of the kinds that others bring are served now. It is looked at again and again, so that installing
//! Gateway API or cert-manager later needs no restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kube::Client;
use tokio::sync::watch;

use crate::objects::child::ChildKind;

/// Time between two looks.
const AGAIN: Duration = Duration::from_secs(10);
/// Time until another look as long as nothing is known.
const SOON: Duration = Duration::from_secs(1);
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
        let known = served.borrow().clone();
        let Some(now) = look(&client, known.as_ref()).await else {
            interval.reset_after(SOON);
            continue;
        };
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

/// The kinds that are served now; of a group that cannot be asked, those known before. None if those are not known
/// either.
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
                tracing::warn!(group, ?error, "it cannot be seen what this cluster serves; it is asked again");
                served.extend(kinds.into_iter().filter(|kind| known.is_some_and(|known| known.contains(kind))));
                known?;
            }
        }
    }
    Some(served)
}
