//! Audit log of the API server: all writes with their users, and the operator's reads. Other reads are not logged.

use std::{collections::BTreeSet, io::SeekFrom, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    time::{Instant, sleep},
};

/// Time in which a received request has to end.
const LONGEST_REQUEST: Duration = Duration::from_secs(60);

/// Audit policy: the metadata of each write, and of each request of an account in the operator's namespace. Reviews
/// change nothing and are not logged. The API server logs that it received a request before it handles the request.
/// It logs the end some time after the answer.
pub(super) const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, Panic]
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

    /// Returns the writes of a user after `since`. A name that ends in `*` means every user with this prefix. Refused
    /// writes are included, with their code. Waits for the end of each request that the API server has received, so
    /// that a write whose effect was observed is never missing.
    ///
    /// # Errors
    /// If the log cannot be read, or a request does not end within a minute.
    pub async fn writes(&self, since: Marker, by_user: &str) -> anyhow::Result<Vec<AuditEvent>> {
        let mut events = self.requests(since, by_user).await?;
        events.retain(AuditEvent::is_write);
        Ok(events)
    }

    /// Same as [`AuditLog::writes`], with the operator's reads. A watch appears when it ends.
    ///
    /// # Errors
    /// See [`AuditLog::writes`].
    pub async fn requests(&self, since: Marker, by_user: &str) -> anyhow::Result<Vec<AuditEvent>> {
        let deadline = Instant::now() + LONGEST_REQUEST;
        let received: BTreeSet<String> = open_requests(&self.lines(since, by_user).await?);
        loop {
            let lines = self.lines(since, by_user).await?;
            let mut open = open_requests(&lines);
            open.retain(|request| received.contains(request));
            if open.is_empty() {
                return Ok(lines.into_iter().filter_map(Line::finished).collect());
            }
            ensure!(Instant::now() < deadline, "requests without an end in the audit log: {open:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn lines(&self, since: Marker, by_user: &str) -> anyhow::Result<Vec<Line>> {
        let mut file = tokio::fs::File::open(&self.file).await.context("the audit log")?;
        file.seek(SeekFrom::Start(since.0)).await?;
        let mut lines = String::new();
        file.read_to_string(&mut lines).await?;
        // An incomplete line stays for the next read.
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        Ok(lines.filter(|line| matches(by_user, &line.user.username)).collect())
    }
}

/// Returns the identifiers of the requests that were received and have not ended. Watches stay open, and are left out.
fn open_requests(lines: &[Line]) -> BTreeSet<String> {
    let received = lines.iter().filter(|line| line.stage == RECEIVED && line.verb != "watch");
    let mut open: BTreeSet<String> = received.map(|line| line.audit_id.clone()).collect();
    for ended in lines.iter().filter(|line| line.stage != RECEIVED) {
        open.remove(&ended.audit_id);
    }
    open
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

/// Stage of a line about a request that is not handled yet.
const RECEIVED: &str = "RequestReceived";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: String,
    verb: String,
    user: User,
    object_ref: Option<ObjectReference>,
    response_status: Option<ResponseStatus>,
}

impl Line {
    /// Returns the request if this line is about its end.
    fn finished(self) -> Option<AuditEvent> {
        let object = self.object_ref.filter(|_| self.stage != RECEIVED)?;
        Some(AuditEvent {
            verb: self.verb,
            group: object.api_group,
            resource: object.resource,
            subresource: object.subresource,
            namespace: object.namespace,
            name: object.name,
            code: self.response_status.map_or(0, |status| status.code),
            user: self.user.username,
        })
    }
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
