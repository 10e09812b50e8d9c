//! The ConfigMap with the server's configuration file. A change restarts the pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use mcp_entra_policy::CONFIGURATION_KEY;

use crate::{child::ChildKind, validate::Validated};

pub(super) fn configuration(server: &Validated) -> ConfigMap {
    ConfigMap {
        metadata: server.owner.child_metadata(ChildKind::Configuration),
        data: Some(BTreeMap::from([(CONFIGURATION_KEY.to_owned(), server.configuration.clone())])),
        ..ConfigMap::default()
    }
}
