//! Audit log of the API server: all writes with their users, and the operator's reads. Other reads are not logged.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;

/// Audit policy: the metadata of each finished write, and of each finished request of an account in the operator's
/// namespace. Reviews change nothing and are not logged.
pub(super) const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted, Panic]
rules:
- level: None
  resources:
  - group: authentication.k8s.io
    resources: [tokenreviews]
  - group: authorization.k8s.io
    resources: [subjectaccessreviews, selfsubjectaccessreviews]
- level: Metadata
  userGroups: [system:serviceaccounts:mcp-entra-system]
- level: None
  verbs: [get, list, watch]
- level: Metadata
"#;

/// Audit log of one control plane.
#[derive(Debug, Clone)]
pub struct AuditLog {
    file: PathBuf,
}

/// Position in the audit log.
#[derive(Debug, Clone, Copy)]
pub struct Marker(u64);

/// One finished request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// `create`, `update`, `patch`, `delete` or `deletecollection`; for the operator also `get`, `list` or `watch`.
    pub verb: String,
    /// API group, such as `apps`; empty for the core group.
    pub group: String,
    /// Plural of the kind, such as `deployments`.
    pub resource: String,
    /// Subresource, such as `status`.
    pub subresource: Option<String>,
    /// Namespace; `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    /// Name; `None` if the API server chose it, or for a whole collection.
    pub name: Option<String>,
    /// HTTP status of the answer.
    pub code: u16,
    /// User, such as `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
}

impl AuditLog {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Returns the current end of the log.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn mark(&self) -> anyhow::Result<Marker> {
        Ok(Marker(std::fs::metadata(&self.file).context("the audit log")?.len()))
    }

    /// Returns the finished writes of a user after `since`. A name that ends in `*` means every user with this prefix.
    /// Refused writes are included, with their code. A write appears a moment after its answer.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn writes(&self, since: Marker, by_user: &str) -> anyhow::Result<Vec<AuditEvent>> {
        let mut events = self.requests(since, by_user)?;
        events.retain(AuditEvent::is_write);
        Ok(events)
    }

    /// Same as [`AuditLog::writes`], with the operator's reads. A watch appears when it ends.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn requests(&self, since: Marker, by_user: &str) -> anyhow::Result<Vec<AuditEvent>> {
        let mut file = std::fs::File::open(&self.file).context("the audit log")?;
        file.seek(SeekFrom::Start(since.0))?;
        let mut lines = String::new();
        file.read_to_string(&mut lines)?;
        Ok(parse(&lines).filter(|event| matches(by_user, &event.user)).collect())
    }
}

impl AuditEvent {
    /// Returns whether the request is a write.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

fn matches(wanted: &str, user: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(prefix) => user.starts_with(prefix),
        None => user == wanted,
    }
}

/// An incomplete line stays for the next read.
fn parse(lines: &str) -> impl Iterator<Item = AuditEvent> {
    lines.lines().filter_map(|line| {
        let event: Line = serde_json::from_str(line).ok()?;
        let object = event.object_ref?;
        Some(AuditEvent {
            verb: event.verb,
            group: object.api_group,
            resource: object.resource,
            subresource: object.subresource,
            namespace: object.namespace,
            name: object.name,
            code: event.response_status.map_or(0, |status| status.code),
            user: event.user.username,
        })
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    user: User,
    object_ref: Option<ObjectReference>,
    response_status: Option<ResponseStatus>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
struct ObjectReference {
    #[serde(default, rename = "apiGroup")]
    api_group: String,
    #[serde(default)]
    resource: String,
    subresource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}
