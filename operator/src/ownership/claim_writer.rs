//! The writes of claims: created where there is none, changed at the version that was read, and never forced.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
};
use mcp_entra_crds::McpServer;
use tokio::sync::Mutex;

use super::{
    Lost, Named, Standing,
    claim::{Answer, Claim, ClaimKind, Demand, answer, demands},
    claim_cache::{CLAIM_KEY, ClaimView, Claims},
    held,
};
use crate::{
    MANAGER,
    objects::names::{CLAIM, MANAGED_BY},
    runtime::errors::{Error, code},
};

/// Attempts to write a claim that changes at each of them.
const ATTEMPTS: u32 = 8;
/// Locks for the writes of one claim by this process; two claims of one lock wait for each other, and nothing more.
const LOCKS: usize = 64;

/// The claims in the API server.
pub(crate) struct Ledger {
    api: Api<ConfigMap>,
    locks: [Mutex<()>; LOCKS],
    /// Time for which a value is kept for a server that is gone.
    pub(crate) grace: Duration,
}

impl Ledger {
    pub(crate) fn new(client: &Client, namespace: &str, grace: Duration) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { api, locks: std::array::from_fn(|_| Mutex::default()), grace }
    }

    /// Claims one value, if nobody else holds it. Returns the claim as it then is. What the watch shows to be held already
    /// is not read, and neither is what it does not show: should that have appeared, its creation is answered 409.
    async fn claim(&self, claims: &Claims, demand: &Demand) -> Result<Result<Claim, Lost>, Error> {
        let shown = claims.get(&demand.claimed);
        let mut is_read = shown.is_some();
        if let Some(known) = shown.and_then(|found| found.claim.clone())
            && answer(Some(&known), demand, self.grace) == Answer::Held
        {
            return Ok(Ok(known));
        }
        let name = demand.claimed.object_name();
        let lock = name.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % LOCKS;
        let _turn = match self.locks.get(lock) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        };
        for _ in 0..ATTEMPTS {
            let found = match is_read {
                true => {
                    self.api.get_opt(&name).await.map_err(Error::kubernetes(format!("reading ConfigMap {name}")))?
                }
                false => None,
            };
            is_read = true;
            let found = found.map(ClaimView::from);
            let there = match &found {
                Some(ClaimView { claim: None, .. }) => return Err(Error::UnreadableClaim(name)),
                Some(view) => view.claim.as_ref(),
                None => None,
            };
            let claim = match (answer(there, demand, self.grace), there) {
                (Answer::Held, Some(there)) => return Ok(Ok(there.clone())),
                (Answer::Lost(lost), _) => return Ok(Err(lost)),
                (Answer::Write(claim), _) => claim,
                (Answer::Held, None) => continue,
            };
            if self.write(&claim, found.as_ref()).await? {
                let (kind, value) = (demand.claimed.kind.label(), &demand.claimed.value);
                tracing::info!(namespace = claim.namespace, kind, value, "a server claims a value");
                return Ok(Ok(claim));
            }
        }
        Err(Error::Contended { object: format!("ConfigMap {name}"), attempts: ATTEMPTS })
    }

    /// Writes a claim where it is still as it was read. Says whether it was.
    pub(super) async fn write(&self, claim: &Claim, read: Option<&ClaimView>) -> Result<bool, Error> {
        let mut object = object(claim);
        let name = object.name_any();
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let written = match read {
            None => self.api.create(&parameters, &object).await,
            Some(read) => {
                object.metadata.uid = read.uid.clone();
                object.metadata.resource_version = read.version.clone();
                self.api.replace(&name, &parameters, &object).await
            }
        };
        is_written(written).map_err(Error::kubernetes(format!("writing ConfigMap {name}")))
    }

    /// Deletes a claim where it is still as it was read.
    pub(super) async fn delete(&self, read: &ClaimView) -> Result<bool, Error> {
        let preconditions = Preconditions { uid: read.uid.clone(), resource_version: read.version.clone() };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let deleted = self.api.delete(read.name(), &parameters).await;
        is_written(deleted).map_err(Error::kubernetes(format!("deleting ConfigMap {}", read.name())))
    }
}

/// Says whether a write was made; it was not where the object has changed, or appeared or gone, since it was read.
fn is_written<T>(result: kube::Result<T>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The ConfigMap of a claim.
pub(super) fn object(claim: &Claim) -> ConfigMap {
    let labels = BTreeMap::from([
        (MANAGED_BY.to_owned(), MANAGER.to_owned()),
        (CLAIM.to_owned(), claim.claimed.kind.label().to_owned()),
    ]);
    let text = serde_json::to_string_pretty(claim).unwrap_or_default();
    ConfigMap {
        metadata: ObjectMeta { name: Some(claim.claimed.object_name()), labels: Some(labels), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([(CLAIM_KEY.to_owned(), text)])),
        ..ConfigMap::default()
    }
}

/// Claims what a server names and is entitled to. `must_wait` says that another server is to claim a value first, where
/// nobody holds it.
pub(crate) async fn acquire(
    ledger: &Ledger,
    claims: &Claims,
    named: Named<'_>,
    (server, entitled): (&McpServer, &(dyn Fn(&Demand) -> bool + Sync)),
    must_wait: impl Fn(&Demand) -> bool,
) -> Result<Standing, Error> {
    let mut demands = demands(server);
    let all = demands.len();
    demands.retain(entitled);
    let is_free = |demand: &&Demand| claims.get(&demand.claimed).is_none();
    if demands.iter().filter(is_free).any(must_wait) {
        return Ok(Standing::Open);
    }
    let mut host = None;
    for demand in &demands {
        let claim = match ledger.claim(claims, demand).await {
            Ok(Ok(claim)) => claim,
            Ok(Err(lost)) => return Ok(Standing::Lost(lost)),
            Err(error @ Error::UnreadableClaim(_)) => {
                tracing::warn!(%error, "a server waits for a claim");
                return Ok(Standing::Open);
            }
            Err(error) => return Err(error),
        };
        if demand.claimed.kind == ClaimKind::Host {
            host = Some(claim);
        }
    }
    Ok(match demands.len() == all {
        true => Standing::Held(held(claims, named, server, host.as_ref(), ledger.grace)),
        false => Standing::Open,
    })
}
