//! Builds the ConfigMap with the compiled policy, which pods reload at run time. It does not depend on the spec: it is
//! also written for a server that is not accepted, so that nothing blocks a revocation.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use mcp_entra_policy::POLICY_KEY;

use crate::{
    objects::{
        child::{Child, ChildKind},
        config_map_edition::Edition,
        owner::Owner,
    },
    policy::compile::Compiled,
};

/// Builds the ConfigMap with the compiled policy.
pub(crate) fn policy(owner: &Owner, edition: Edition, compiled: &Compiled) -> Child {
    Child::Policy(ConfigMap {
        metadata: ObjectMeta {
            name: Some(edition.name(ChildKind::Policy, &owner.name)),
            ..owner.child_metadata(ChildKind::Policy)
        },
        data: Some(BTreeMap::from([(POLICY_KEY.to_owned(), compiled.document.clone())])),
        ..ConfigMap::default()
    })
}
