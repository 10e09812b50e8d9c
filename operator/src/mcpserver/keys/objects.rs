//! Objects of a key epoch: the ConfigMap that describes it, and the Secret with its key. Both are immutable.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::{epochs::Epoch, names::name};
use crate::objects::{child::ChildKind, owner::Owner};

/// The key of the ConfigMap with the epoch's description.
pub(crate) const EPOCH_KEY: &str = "epoch.json";
/// The key of the Secret with the random bytes.
pub(crate) const SECRET_KEY: &str = "key";
/// The number of random bytes.
pub(crate) const KEY_BYTES: usize = 64;

/// Builds the ConfigMap of an epoch, which the McpServer owns.
pub(crate) fn config_map(owner: &Owner, epoch: &Epoch) -> Result<ConfigMap, serde_json::Error> {
    let metadata = owner.child_metadata(ChildKind::Policy);
    Ok(ConfigMap {
        metadata: ObjectMeta { name: Some(name(owner, epoch.number)), ..metadata },
        immutable: Some(true),
        data: Some(BTreeMap::from([(EPOCH_KEY.to_owned(), serde_json::to_string_pretty(epoch)?)])),
        ..ConfigMap::default()
    })
}

/// Builds the Secret of an epoch, which its ConfigMap owns.
pub(super) fn secret(owner: &Owner, number: u32, config_map_uid: &str, key: Vec<u8>) -> Secret {
    let name = name(owner, number);
    // `true` needs permission to update the finalizers of ConfigMaps (OwnerReferencesPermissionEnforcement).
    let controller = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: name.clone(),
        uid: config_map_uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    Secret {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(owner.namespace.clone()),
            labels: Some(owner.labels()),
            owner_references: Some(vec![controller]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        immutable: Some(true),
        data: Some(BTreeMap::from([(SECRET_KEY.to_owned(), ByteString(key))])),
        string_data: None,
    }
}
