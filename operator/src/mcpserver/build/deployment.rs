//! Builds the Deployment: the number of pods, their template, and the strategy to replace them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::pod_template::{pod_template, template_hash};
use crate::{
    fleet::RollOut,
    mcpserver::validate::{Validated, authorization_server::SignIn, workload::Scale},
    objects::{
        child::ChildKind,
        config_map_edition::Mounted,
        names::{RECREATE, REQUESTED_HASH, ROLL_OUT, SERVER_UID, TEMPLATE_HASH},
    },
};

/// The value of `maxUnavailable` while pods mount a policy without updates: all of them are deleted at once.
pub(crate) const MOVING: &str = "100%";

pub(super) fn deployment(server: &Validated, mounted: Mounted) -> Deployment {
    let mut metadata = server.owner.child_metadata(ChildKind::Deployment);
    metadata.annotations = Some(BTreeMap::from([
        (TEMPLATE_HASH.to_owned(), template_hash(server, mounted)),
        (REQUESTED_HASH.to_owned(), server.requested_hash.as_str().to_owned()),
        (ROLL_OUT.to_owned(), RollOut::Requested.as_str().to_owned()),
        (SERVER_UID.to_owned(), server.pods_uid.clone()),
    ]));
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: match &server.workload.scale {
                Scale::Fixed(replicas) => Some(*replicas),
                // A number would conflict with the autoscaler, or with other clients that scale the Deployment.
                Scale::Auto(_) | Scale::External => None,
            },
            selector: LabelSelector { match_labels: Some(server.owner.selector()), match_expressions: None },
            strategy: Some(strategy(server, mounted)),
            progress_deadline_seconds: Some(server.roll_out_deadline_seconds),
            template: pod_template(server, mounted),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// Returns the strategy to replace pods. With sessions in memory there is never a second pod, because it would not know
/// the sessions.
fn strategy(server: &Validated, mounted: Mounted) -> DeploymentStrategy {
    if server.sign_in.as_ref().is_some_and(SignIn::is_in_memory) {
        return DeploymentStrategy { type_: Some(RECREATE.to_owned()), rolling_update: None };
    }
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(match mounted.is_moving {
                true => IntOrString::String(MOVING.to_owned()),
                false => IntOrString::Int(0),
            }),
        }),
    }
}
