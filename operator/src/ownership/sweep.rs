//! The sweep that frees values: of servers that are gone, or that name another value, after the grace period.

use std::{collections::HashSet, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;

use super::{
    Ledger, Named,
    claim::{ClaimKind, ClaimedValue, Holder, Presence, Released, demands, release},
    claims::{ClaimView, Claims},
};
use crate::{child::ChildKind, exposure::EXPOSES, views::ChildView, world::Children};

/// Time between sweeps: a value is free that much later at the most.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);

/// Frees what nobody holds any longer. Nothing is written while all holders are there.
pub(crate) async fn sweep(ledger: &Ledger, claims: &Claims, named: Named<'_>, children: &Children) {
    let exposed = Exposed::of(children);
    for view in claims.all() {
        let Some(claim) = &view.claim else { continue };
        let presence = |holder: &Holder| presence(&claim.claimed, &claim.namespace, holder, named, &exposed);
        let released = release(claim, presence, Timestamp::now(), ledger.grace);
        if let Err(error) = write(ledger, &view, released).await {
            tracing::warn!(%error, "a claim cannot be freed yet; it is tried again");
        }
    }
}

async fn write(ledger: &Ledger, view: &Arc<ClaimView>, released: Released) -> Result<(), crate::errors::Error> {
    // Where it has changed since, the next sweep looks at it again.
    match released {
        Released::Unchanged => {}
        Released::Changed(claim) => {
            ledger.write(&claim, Some(view)).await?;
        }
        Released::Empty => {
            if ledger.delete(view).await? {
                tracing::info!(claim = view.name(), "a value is free again");
            }
        }
    }
    Ok(())
}

/// Servers, by namespace and name, and the hosts from which something leads clients to them now, orphans included.
struct Exposed(HashSet<(String, String, String)>);

impl Exposed {
    fn of(children: &Children) -> Self {
        let from = |child: &ChildView| {
            let from = child.annotation(EXPOSES)?;
            let host = from.split('/').next().unwrap_or(from);
            // Each is called like its server.
            Some((child.full_name.namespace().to_owned(), child.name().to_owned(), host.to_owned()))
        };
        let leading = [ChildKind::Ingress, ChildKind::HttpRoute, ChildKind::ListenerSet];
        Self(leading.iter().flat_map(|kind| children.all(*kind)).filter_map(|child| from(&child)).collect())
    }
}

fn presence(claimed: &ClaimedValue, namespace: &str, holder: &Holder, named: Named<'_>, exposed: &Exposed) -> Presence {
    // A server that cannot be read may name anything.
    let names = named(namespace, &holder.server).is_some_and(|server| match &server.0 {
        Ok(server) => demands(server).iter().any(|demand| demand.claimed == *claimed),
        Err(_) => true,
    });
    let is_led_to = || {
        let exposes = (namespace.to_owned(), holder.server.clone(), claimed.value.clone());
        claimed.kind == ClaimKind::Host && exposed.0.contains(&exposes)
    };
    match names {
        true => Presence::Present,
        false if is_led_to() => Presence::Leaving,
        false => Presence::Gone,
    }
}
