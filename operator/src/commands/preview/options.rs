//! Options of `preview`: the caller, and the server that is called.

use std::path::PathBuf;

use clap::Args;
use uuid::Uuid;

/// The caller, and the server that is called.
#[derive(Args, Clone, Debug)]
pub struct PreviewOptions {
    /// The McpServer.
    #[arg(long)]
    pub server: String,
    /// Its namespace. Without it, that of the kubeconfig's context; offline, `default`.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// An app role that the caller has; repeatable.
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Object id of a group that the caller is in; repeatable.
    #[arg(long = "group", value_name = "OBJECT_ID")]
    pub groups: Vec<Uuid>,
    /// A scope of the caller's token besides the server's required scopes; repeatable.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// An authentication context of Conditional Access that the sign-in satisfied, as c1; repeatable.
    #[arg(long = "authentication-context", value_name = "CONTEXT")]
    pub authentication_contexts: Vec<String>,
    /// The caller is this application by itself, not a person.
    #[arg(long, value_name = "CLIENT_ID", conflicts_with_all = ["groups", "scopes", "authentication_contexts"])]
    pub application: Option<Uuid>,
    /// Read these manifests (YAML; `-` for standard input) and no cluster; repeatable. They must hold the McpServer,
    /// the mappings of both kinds, and the Namespace if cluster mappings choose by its labels.
    #[arg(long = "file", short, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}
