//! The API server's audit log: who wrote what, and what the operator read. What others read is not in it.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;

/// What the API server logs: the metadata of each write, and of all that is asked in the operator's namespace's name, once
/// it is answered. Reviews change nothing and are left out.
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

/// The audit log of one control plane.
#[derive(Debug, Clone)]
pub struct AuditLog {
    file: PathBuf,
}

/// A moment in the audit log.
#[derive(Debug, Clone, Copy)]
pub struct Marker(u64);

/// One request, answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// `create`, `update`, `patch`, `delete` or `deletecollection`; of the operator also `get`, `list` or `watch`.
    pub verb: String,
    /// The API group, such as `apps`; empty for the core group.
    pub group: String,
    /// The plural, such as `deployments`.
    pub resource: String,
    /// Such as `status`.
    pub subresource: Option<String>,
    /// `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    /// `None` where the API server chose it, or for a whole collection.
    pub name: Option<String>,
    /// The HTTP status it was answered with.
    pub code: u16,
    /// Such as `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
}

impl AuditLog {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Now.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn mark(&self) -> anyhow::Result<Marker> {
        Ok(Marker(std::fs::metadata(&self.file).context("the audit log")?.len()))
    }

    /// The writes answered since then by a user: that very name, or, where it ends in `*`, every name that begins so.
    /// Writes that were refused are among them, with their code; a write just answered may take a moment to appear.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn writes(&self, since: Marker, by_user: &str) -> anyhow::Result<Vec<AuditEvent>> {
        let mut events = self.requests(since, by_user)?;
        events.retain(AuditEvent::is_write);
        Ok(events)
    }

    /// As [`AuditLog::writes`], but with what the operator read. A watch is answered when it ends.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn requests(&self, since: Marker, by_user: &str) -> anyhow::Result<Vec<AuditEvent>> {
        let mut file = std::fs::File::open(&self.file).context("the audit log")?;
        file.seek(SeekFrom::Start(since.0))?;
        let mut lines = String::new();
        file.read_to_string(&mut lines)?;
        Ok(parse(&lines).filter(|event| matches(by_user, &event.user)).collect())
    }
}

impl AuditEvent {
    /// Whether it asked for a change.
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

/// A line still being written is left for the next look.
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
