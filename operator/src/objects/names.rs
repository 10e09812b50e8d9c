//! Names of the labels, annotations and volumes that the operator writes and reads.

/// The label that selects all children and pods in watches, with the value [`crate::MANAGER`].
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label with the McpServer's name.
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";
/// The label that selects the pods of all servers, with the value [`SERVER`].
pub(crate) const NAME: &str = "app.kubernetes.io/name";
/// The value of the label [`NAME`].
pub(crate) const SERVER: &str = "mcp-entra-server";
/// The label that excludes an object from Velero's backups. A restored child would have no owner, and its McpServer
/// creates a new one.
pub(crate) const NO_BACKUP: &str = "velero.io/exclude-from-backup";
/// The label of a claim's ConfigMap. Its value is the kind of the claimed value.
pub(crate) const CLAIM: &str = "mcp-entra.dev/claim";

/// The annotation with the hash of a child as built. A different hash means that the child is from an older spec.
pub(crate) const APPLIED_HASH: &str = "mcp-entra.dev/applied-hash";
/// The annotation with which the owner of an unowned object gives it to the McpServer of that name.
pub(crate) const ADOPT: &str = "mcp-entra.dev/adopt";
/// The annotation of an exposing child with the exposed host, and the path if there is one.
pub(crate) const EXPOSES: &str = "mcp-entra.dev/exposes";

/// The annotation of a Deployment with the hash of its pod template as built.
pub(crate) const TEMPLATE_HASH: &str = "mcp-entra.dev/template-hash";
/// The annotation of a Deployment with the hash of what the McpServer's author asked of the pods.
pub(crate) const REQUESTED_HASH: &str = "mcp-entra.dev/requested-hash";
/// The annotation of a Deployment with the origin of its newest rollout.
pub(crate) const ROLL_OUT: &str = "mcp-entra.dev/roll-out";
/// The strategy of a Deployment that stops old pods before it starts new ones.
pub(crate) const RECREATE: &str = "Recreate";
/// The annotation of the pod template whose change restarts the pods.
pub(crate) const CONFIGURATION_HASH: &str = "mcp-entra.dev/configuration-hash";
/// The annotation of pods with their McpServer's uid: labels also match an earlier server of the same name. The
/// Deployment repeats it, because an adopted Deployment keeps the uid of its first owner.
pub(crate) const SERVER_UID: &str = "mcp-entra.dev/server-uid";
/// The annotation whose change makes the kubelet update the pod's volumes at once, instead of within a minute or two.
pub(crate) const POLICY_REVISION: &str = "mcp-entra.dev/policy-revision";

/// The annotation of a ServiceAccount that lets the McpServer in its value run as this account.
pub(crate) const ALLOW_SERVER: &str = "mcp-entra.dev/allow-server";
/// The annotation of a ServiceAccount with the client id for azure-workload-identity.
pub(crate) const CLIENT_ID: &str = "azure.workload.identity/client-id";

/// The annotation of an McpServer that requests a new key epoch with each new value. The previous epoch stays accepted.
pub(crate) const ROTATE_KEYS: &str = "mcp-entra.dev/rotate-keys";
/// The annotation of an McpServer that marks its keys as compromised with each new value. A new epoch is used at once,
/// and everything made with earlier keys is rejected.
pub(crate) const COMPROMISED_KEYS: &str = "mcp-entra.dev/compromised-keys";
/// The annotation of an McpServer with a time (RFC 3339). Sessions of its authorization server that began earlier end.
pub(crate) const REVOKE_SESSIONS_BEFORE: &str = "mcp-entra.dev/revoke-sessions-before";
/// The annotations of McpServers that are read.
pub(crate) const REQUESTS: [&str; 3] = [ROTATE_KEYS, COMPROMISED_KEYS, REVOKE_SESSIONS_BEFORE];

/// The name of the volume with the configuration.
pub(crate) const CONFIGURATION_VOLUME: &str = "config";
/// The name of the volume with the policy.
pub(crate) const POLICY_VOLUME: &str = "policy";

/// Name of a backend's container.
pub(crate) const BACKEND: &str = "backend";
/// Name of the init container that installs the shim of a backend.
pub(crate) const INSTALL_SHIM: &str = "install-shim";
/// Name of the sidecar that holds the server's ports beside a backend.
pub(crate) const HOLD_PORTS: &str = "hold-ports";
