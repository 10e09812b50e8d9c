//! Existing key epochs. The watch shows their names; the content is read once, because it cannot change.

use std::{collections::BTreeMap, time::Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use super::{
    epochs::Epoch,
    names::{name, number},
    objects::EPOCH_KEY,
};
use crate::{
    objects::{child::ChildKind, owner::Owner},
    runtime::errors::Error,
    watch::stores::World,
};

/// A key epoch whose ConfigMap is known.
#[derive(Clone, Debug)]
pub(crate) struct KnownEpoch {
    /// The uid of its ConfigMap.
    pub(super) uid: Box<str>,
    pub(super) epoch: Epoch,
    /// The time when its Secret was last created or found to exist.
    pub(super) secret_made: Option<Instant>,
}

/// The known epochs of a server, by number.
pub(crate) type KnownEpochs = BTreeMap<u32, KnownEpoch>;

/// Returns the existing epochs, and the highest number whose name any object has.
pub(crate) async fn epochs(
    client: &Client,
    world: &World,
    owner: &Owner,
    known: &mut KnownEpochs,
) -> Result<(Vec<Epoch>, u32), Error> {
    let named = world.children.filter(ChildKind::Policy, |found| {
        found.full_name.namespace() == owner.namespace && number(owner, found.name()).is_some()
    });
    let mut taken = 0;
    let mut kept = KnownEpochs::new();
    for found in named {
        let Some(number) = number(owner, found.name()) else { continue };
        taken = taken.max(number);
        if found.leaving || !owner.owns(found.controller.as_ref()) {
            continue;
        }
        let epoch = match known.remove(&number).filter(|known| known.uid == found.uid) {
            Some(known) => Some(known),
            None => read(client, owner, number).await?,
        };
        kept.extend(epoch.filter(|epoch| epoch.uid == found.uid).map(|epoch| (number, epoch)));
    }
    *known = kept;
    Ok((known.values().map(|known| known.epoch.clone()).collect(), taken))
}

async fn read(client: &Client, owner: &Owner, number: u32) -> Result<Option<KnownEpoch>, Error> {
    let name = name(owner, number);
    let api = Api::<ConfigMap>::namespaced(client.clone(), &owner.namespace);
    let found = api.get_opt(&name).await.map_err(Error::kubernetes(format!("reading ConfigMap {name}")))?;
    let Some(ConfigMap { metadata, data: Some(data), .. }) = found else { return Ok(None) };
    let epoch = data.get(EPOCH_KEY).and_then(|text| serde_json::from_str::<Epoch>(text).ok());
    let Some(epoch) = epoch.filter(|epoch| epoch.number == number) else {
        tracing::warn!(server = %owner.name, namespace = %owner.namespace, config_map = name,
            "a ConfigMap has the name of a key epoch but does not describe one; it is ignored");
        return Ok(None);
    };
    Ok(metadata.uid.map(|uid| KnownEpoch { uid: uid.into(), epoch, secret_made: None }))
}
