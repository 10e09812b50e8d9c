//! Writes of claims: each is created, or replaced at the version that was read, and never forced.

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

/// Attempts to write a claim that changes each time.
const ATTEMPTS: u32 = 8;
/// Locks for concurrent writes of one claim in this process. Two claims with the same lock only wait for each other.
const LOCKS: usize = 64;

/// The claims at the API server.
pub(crate) struct Ledger {
    api: Api<ConfigMap>,
    locks: [Mutex<()>; LOCKS],
    /// The time for which a value stays reserved for an absent server.
    pub(crate) grace: Duration,
}

impl Ledger {
    pub(crate) fn new(client: &Client, namespace: &str, grace: Duration) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { api, locks: std::array::from_fn(|_| Mutex::default()), grace }
    }

    /// Claims one value if no other server holds it, and returns the claim. A claim that the cache shows as held is not
    /// read again. A claim that is missing in the cache is created without a read; a 409 shows that it exists.
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
                tracing::info!(namespace = claim.namespace, kind, value, "a value was claimed");
                return Ok(Ok(claim));
            }
        }
        Err(Error::Contended { object: format!("ConfigMap {name}"), attempts: ATTEMPTS })
    }

    /// Writes a claim if it did not change since it was read. Returns true if it was written.
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

    /// Deletes a claim if it did not change since it was read.
    pub(super) async fn delete(&self, read: &ClaimView) -> Result<bool, Error> {
        let preconditions = Preconditions { uid: read.uid.clone(), resource_version: read.version.clone() };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let deleted = self.api.delete(read.name(), &parameters).await;
        is_written(deleted).map_err(Error::kubernetes(format!("deleting ConfigMap {}", read.name())))
    }
}

/// Returns true if a write succeeded; false if the object changed, appeared or disappeared since it was read.
fn is_written<T>(result: kube::Result<T>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the ConfigMap of a claim.
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

/// Claims the values that a server names and may claim. `must_wait` returns true if another server should claim an
/// unclaimed value first.
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
                tracing::warn!(%error, "a server cannot claim its values");
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
