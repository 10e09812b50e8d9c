//! Kubernetes kinds of the API group `mcp-entra.dev`.
//!
//! Validation is part of the schemas and their CEL rules, so that `kubectl apply` reports a bad manifest. The YAML in
//! `crds/yaml` and the JSON schemas in `crds/schemas` are generated from these types. `tests/generated.rs` compares
//! them.
//!

#![allow(clippy::duplicated_attributes, reason = "columns of one type each name it")]
#![allow(unreachable_pub, reason = "KubeSchema derives a hidden twin of each struct, and copies its `pub`")]

mod authorization_server;
mod backend;
mod conditions;
mod definitions;
mod entra;
mod exposure;
mod mapping;
mod requests;
mod selector;
mod server;
mod workload;

pub use authorization_server::{
    AuthorizationServer, CaBundle, Client, MemoryStore, PasswordSecretReference, SessionStore, ValkeyStore,
};
pub use backend::{
    Assertion, Backend, BackendEgress, BackendIdentity, BackendSecretKey, BackendSummary, BackendVariable,
    BackendVariableSource, METADATA_SERVICES, MOST_PINS, NoIdentity, OnBehalfOf, Transport,
};
pub use conditions::ConditionType;
pub use definitions::{custom_resource_definitions, definition_yaml};
pub use entra::{Endpoints, Entra, Federation, Injection, TrustBundle};
pub use exposure::{
    AnnotationValue, DEFAULT_PATH, Exposure, GatewayExposure, GatewayReference, IngressExposure, IssuerReference, Tls,
};
pub use mapping::{
    Allow, Application, ClusterMcpRoleMapping, ClusterMcpRoleMappingSpec, Deny, Grant, Group, McpRoleMapping,
    McpRoleMappingSpec, McpRoleMappingStatus, Requirements, ServerSelection, Subject,
};
pub use requests::{Audit, Rate, RateLimit};
pub use server::{FederatedCredential, Graph, McpServer, McpServerSpec, McpServerStatus, Ownership, PolicySummary};
pub use workload::{
    Amount, Amounts, Autoscaling, EnvironmentVariable, NetworkPolicy, PodTemplate, PullSecret, Resources,
    TopologySpread, WhenUnsatisfiable,
};

/// Returns whether a value is the default of its type. Such a value is not serialized, and its schema has no default.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// API group of every kind in this crate, and prefix of the project's labels and annotations.
pub const GROUP: &str = "mcp-entra.dev";
