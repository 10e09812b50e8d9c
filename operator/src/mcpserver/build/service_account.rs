//! Builds the ServiceAccount, whose name the federated credential in Entra trusts.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use mcp_entra_crds::Injection;

use crate::{
    mcpserver::validate::Validated,
    objects::{child::ChildKind, names::CLIENT_ID},
};

/// Annotations with further settings for azure-workload-identity.
const TENANT_ID: &str = "azure.workload.identity/tenant-id";
const TOKEN_EXPIRATION: &str = "azure.workload.identity/service-account-token-expiration";

pub(super) fn service_account(server: &Validated) -> ServiceAccount {
    let mut metadata = server.owner.child_metadata(ChildKind::ServiceAccount);
    if server.workload.injection == Injection::Webhook {
        metadata.annotations = Some(BTreeMap::from([
            (CLIENT_ID.to_owned(), server.client_id.clone()),
            (TENANT_ID.to_owned(), server.tenant_id.clone()),
            (TOKEN_EXPIRATION.to_owned(), server.workload.token_expiration_seconds.to_string()),
        ]));
    }
    ServiceAccount {
        metadata,
        // The server does not use the Kubernetes API. The Deployment projects the token for Entra.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
