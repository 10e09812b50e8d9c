//! Events and log lines about orphans.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;

use super::revoke::Revocation;
use crate::{
    conditions::events,
    objects::{child::ChildKind, names::ADOPT},
    runtime::errors::Error,
    watch::orphaned::Suspect,
};

/// The reason of an event about an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventReason {
    Orphaned,
    OrphanDeleted,
    OrphanKeepsRights,
    OrphanNotDeleted,
}

/// A message about an orphan, with the next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) reason: EventReason,
    pub(super) note: String,
}

/// Returns the notice about an attempt, if there is one.
pub(super) fn notice(suspect: &Suspect, result: &Result<Revocation, Error>) -> Option<Notice> {
    let (title, server) = (suspect.title(), suspect.server());
    let orphaned = format!("the McpServer of {title} no longer exists");
    let delete = format!("delete Deployment {server}, which stops its pods, and then {title}");
    let keeps = |why: &str| Notice {
        reason: EventReason::OrphanKeepsRights,
        note: format!("{orphaned}, but {why}: running pods still allow what it grants; {delete}"),
    };
    match result {
        Ok(Revocation::Denied(_)) => Some(Notice {
            reason: EventReason::Orphaned,
            note: format!(
                "{orphaned}, so it now denies everything; to restore the server, apply McpServer {server} again and annotate \
                the objects that it reports with {ADOPT}={server}; to remove it, {delete}"
            ),
        }),
        Ok(Revocation::Deleted) => Some(Notice {
            reason: EventReason::OrphanDeleted,
            note: format!(
                "{orphaned}, so it was deleted: it routed clients to pods without an owner; apply McpServer {server} again \
                to create it again"
            ),
        }),
        Ok(Revocation::Immutable(_)) => Some(keeps("it is immutable")),
        Err(error) if suspect.kind == ChildKind::Policy => {
            Some(keeps(&format!("its policy could not be replaced ({error})")))
        }
        Err(error) => Some(Notice {
            reason: EventReason::OrphanNotDeleted,
            note: format!(
                "{orphaned}, but it could not be deleted ({error}); it routes clients to its pods; delete it"
            ),
        }),
        Ok(Revocation::Changed | Revocation::ControllerLives) => None,
    }
}

/// Publishes an event about an orphan, and logs it.
pub(super) async fn tell(client: &Client, suspect: &Suspect, notice: &Notice) {
    let (reason, note) = (format!("{:?}", notice.reason), &notice.note);
    let namespace = suspect.object.full_name.namespace();
    tracing::warn!(namespace, server = suspect.server(), reason, "{note}");
    let about = ObjectReference {
        api_version: Some(suspect.kind.api_version()),
        kind: Some(suspect.kind.kind().to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(suspect.object.name().to_owned()),
        uid: Some(suspect.object.uid.to_string()),
        ..ObjectReference::default()
    };
    events::warn(client, &about, &reason, "RightsRevoked", note).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::orphaned::{Evidence, tests::mk_suspect};

    #[test]
    fn every_note_ends_with_the_next_step() {
        let suspect = mk_suspect(Evidence::NoController);
        let told = |result| notice(&suspect, &result).unwrap();
        let orphaned = told(Ok(Revocation::Denied("7".into())));
        assert!(
            orphaned.note.contains("mcp-entra.dev/adopt=graph") && orphaned.note.contains("delete Deployment graph")
        );
        let immutable = told(Ok(Revocation::Immutable("7".into())));
        assert_eq!(immutable.reason, EventReason::OrphanKeepsRights);
        assert!(immutable.note.contains("it is immutable") && immutable.note.contains("delete Deployment graph"));
        let refused = told(Err(crate::objects::owner::NoIdentity.into()));
        assert!(refused.note.contains("has no namespace") && refused.note.contains("delete Deployment graph"));
        for nothing in [Revocation::Changed, Revocation::ControllerLives] {
            assert_eq!(notice(&suspect, &Ok(nothing)), None);
        }
    }
}
