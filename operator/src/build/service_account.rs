//! The ServiceAccount: the name that the federated credential in Entra trusts.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::{child::ChildKind, validate::Validated};

pub(super) fn service_account(server: &Validated) -> ServiceAccount {
    ServiceAccount {
        metadata: server.owner.child_metadata(ChildKind::ServiceAccount),
        // The server has no business with the Kubernetes API; the token for Entra is projected by the Deployment.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
