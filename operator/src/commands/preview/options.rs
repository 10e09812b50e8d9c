//! Options of `preview`: the caller, and the server that is called.

use std::path::PathBuf;

use clap::Args;
use uuid::Uuid;

/// The caller and the called server.
#[derive(Args, Clone, Debug)]
pub struct PreviewOptions {
    /// The name of the McpServer.
    #[arg(long)]
    pub server: String,
    /// Its namespace. The default is that of the kubeconfig's context, or `default` with --file.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// An app role of the caller. Repeatable.
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Object id of a group of the caller. Repeatable.
    #[arg(long = "group", value_name = "OBJECT_ID")]
    pub groups: Vec<Uuid>,
    /// A scope of the caller's token in addition to the server's required scopes. Repeatable.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// An authentication context of Conditional Access that the sign-in satisfied, such as c1. Repeatable.
    #[arg(long = "authentication-context", value_name = "CONTEXT")]
    pub authentication_contexts: Vec<String>,
    /// Client id of the calling application, for a call without a user.
    #[arg(long, value_name = "CLIENT_ID", conflicts_with_all = ["groups", "scopes", "authentication_contexts"])]
    pub application: Option<Uuid>,
    /// Read these manifests instead of a cluster (YAML; `-` for standard input). Repeatable. They must contain the
    /// McpServer, the mappings of both kinds, and the Namespace if cluster mappings select by its labels.
    #[arg(long = "file", short, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}
