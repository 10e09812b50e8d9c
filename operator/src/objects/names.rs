//! Names of the labels, annotations and volumes that the operator writes and reads.

/// The label that selects all children and pods in watches, with the value [`crate::MANAGER`].
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label with the McpServer's name.
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";
/// The label that selects the pods of all servers, with the value [`SERVER`].
pub(crate) const NAME: &str = "app.kubernetes.io/name";
/// The value of the label [`NAME`].
pub(crate) const SERVER: &str = "mcp-entra-server";
/// The label that keeps Velero from backing up an object: a restored child has no owner, and its McpServer makes a new one.
pub(crate) const NO_BACKUP: &str = "velero.io/exclude-from-backup";
/// The label of a claim's ConfigMap, with the kind of value as its value.
pub(crate) const CLAIM: &str = "mcp-entra.dev/claim";

/// The annotation with the hash of a child as built; a different one means that the child is of an older spec.
pub(crate) const APPLIED_HASH: &str = "mcp-entra.dev/applied-hash";
/// The annotation by which whoever owns an object that is nobody's child gives it to the McpServer of that name.
pub(crate) const ADOPT: &str = "mcp-entra.dev/adopt";
/// The annotation of what leads clients to a server with the host, and path, that it leads from.
pub(crate) const EXPOSES: &str = "mcp-entra.dev/exposes";

/// The annotation of a Deployment with the hash of its pod template as built.
pub(crate) const TEMPLATE_HASH: &str = "mcp-entra.dev/template-hash";
/// The annotation of a Deployment with the hash of what its McpServer's author asked of the pods.
pub(crate) const REQUESTED_HASH: &str = "mcp-entra.dev/requested-hash";
/// The annotation of a Deployment that says who wanted its newest roll-out.
pub(crate) const ROLL_OUT: &str = "mcp-entra.dev/roll-out";
/// The strategy of a Deployment that ends its old pods before it starts new ones.
pub(crate) const RECREATE: &str = "Recreate";
/// The annotation of the pod template whose change restarts the pods.
pub(crate) const CONFIGURATION_HASH: &str = "mcp-entra.dev/configuration-hash";
/// The annotation of pods with the uid of the McpServer that they belong to: labels name its predecessors, too. The
/// Deployment repeats it, since an adopted one keeps the uid of its first owner.
pub(crate) const SERVER_UID: &str = "mcp-entra.dev/server-uid";
/// The annotation whose change makes a kubelet look at the pod's volumes at once, instead of within a minute or two.
pub(crate) const POLICY_REVISION: &str = "mcp-entra.dev/policy-revision";

/// The annotation by which the owner of a ServiceAccount lets an McpServer, named in its value, run under it.
pub(crate) const ALLOW_SERVER: &str = "mcp-entra.dev/allow-server";
/// The annotation of a ServiceAccount from which azure-workload-identity takes the client id.
pub(crate) const CLIENT_ID: &str = "azure.workload.identity/client-id";

/// The annotation of an McpServer whose every new value asks for a new key epoch of its authorization server. The one
/// before stays accepted.
pub(crate) const ROTATE_KEYS: &str = "mcp-entra.dev/rotate-keys";
/// The annotation of an McpServer whose every new value says that its keys are known to others: a new epoch is used at
/// once, and nothing that was made with one before is accepted.
pub(crate) const COMPROMISED_KEYS: &str = "mcp-entra.dev/compromised-keys";
/// The annotation of an McpServer with a time, RFC 3339: sessions of its authorization server that began before have ended.
pub(crate) const REVOKE_SESSIONS_BEFORE: &str = "mcp-entra.dev/revoke-sessions-before";
/// The annotations of McpServers that are read.
pub(crate) const REQUESTS: [&str; 3] = [ROTATE_KEYS, COMPROMISED_KEYS, REVOKE_SESSIONS_BEFORE];

/// The name of the volume with the configuration.
pub(crate) const CONFIGURATION_VOLUME: &str = "config";
/// The name of the volume with the policy.
pub(crate) const POLICY_VOLUME: &str = "policy";

/// Name of a backend's container.
pub(crate) const BACKEND: &str = "backend";
/// Name of the container that puts the shim of a backend in place.
pub(crate) const INSTALL_SHIM: &str = "install-shim";
