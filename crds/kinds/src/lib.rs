//! The Kubernetes kinds of `mcp-entra.dev`, as people write them and as the API server validates them.
//!
//! Validation lives in the schemas and their CEL rules, so that a bad manifest is refused by `kubectl apply`. The YAML
//! in `crds/yaml` and the JSON schemas in `crds/schemas` are generated from here; `tests/generated.rs` holds them to it.

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

/// Says if a value is its type's default: then it is not written, and its schema fills in nothing.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The API group of every kind here, and the prefix of this project's labels and annotations.
pub const GROUP: &str = "mcp-entra.dev";
