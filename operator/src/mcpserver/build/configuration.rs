//! Builds the ConfigMap with the server's configuration file. A change restarts the pods.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use mcp_entra_policy::CONFIGURATION_KEY;

use crate::{
    mcpserver::validate::Validated,
    objects::{child::ChildKind, config_map_edition::Mounted},
};

pub(super) fn configuration(server: &Validated, mounted: Mounted) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(mounted.name(ChildKind::Configuration, &server.owner.name)),
            ..server.owner.child_metadata(ChildKind::Configuration)
        },
        data: Some(BTreeMap::from([(CONFIGURATION_KEY.to_owned(), server.configuration.clone())])),
        ..ConfigMap::default()
    }
}
