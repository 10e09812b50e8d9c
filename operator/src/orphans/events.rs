//! Texts that tell people of an orphan, in an event and in the log.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;

use super::revoke::Outcome;
use crate::{
    conditions::events,
    objects::{child::ChildKind, names::ADOPT},
    runtime::errors::Error,
    watch::orphaned::Suspect,
};

/// The reason of an event about an orphan, as it stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Orphaned,
    OrphanDeleted,
    OrphanKeepsRights,
    OrphanNotDeleted,
}

/// An account of an orphan for people, with the next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tale {
    pub(super) reason: Reason,
    pub(super) note: String,
}

/// Returns what there is to tell of an attempt, if anything is.
pub(super) fn tale(suspect: &Suspect, result: &Result<Outcome, Error>) -> Option<Tale> {
    let (title, server) = (suspect.title(), suspect.server());
    let orphaned = format!("{title} belongs to no McpServer any more");
    let delete = format!("delete Deployment {server}, which ends its pods, and then {title}");
    let keeps = |why: &str| Tale {
        reason: Reason::OrphanKeepsRights,
        note: format!("{orphaned}, but {why}: pods that run still allow what it grants; {delete}"),
    };
    match result {
        Ok(Outcome::Denied(_)) => Some(Tale {
            reason: Reason::Orphaned,
            note: format!(
                "{orphaned}, so that it denies everything now; to bring the server back, apply McpServer {server} again \
                 and annotate with {ADOPT}={server} what it names; to end it, {delete}"
            ),
        }),
        Ok(Outcome::Deleted) => Some(Tale {
            reason: Reason::OrphanDeleted,
            note: format!(
                "{orphaned}, so that it is deleted: it led clients to pods that nobody answers for; McpServer {server}, \
                 applied again, makes it anew"
            ),
        }),
        Ok(Outcome::Immutable(_)) => Some(keeps("it is immutable")),
        Err(error) if suspect.kind == ChildKind::Policy => {
            Some(keeps(&format!("its policy is not replaced ({error})")))
        }
        Err(error) => Some(Tale {
            reason: Reason::OrphanNotDeleted,
            note: format!("{orphaned}, but it is not deleted ({error}); it leads clients to its pods; delete it"),
        }),
        Ok(Outcome::Changed | Outcome::ControllerLives) => None,
    }
}

/// Publishes an event about an orphan, and logs it.
pub(super) async fn tell(client: &Client, suspect: &Suspect, tale: &Tale) {
    let (reason, note) = (format!("{:?}", tale.reason), &tale.note);
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
    fn what_is_told_ends_with_what_to_do_next() {
        let suspect = mk_suspect(Evidence::NoController);
        let told = |result| tale(&suspect, &result).unwrap();
        let orphaned = told(Ok(Outcome::Denied("7".into())));
        assert!(
            orphaned.note.contains("mcp-entra.dev/adopt=graph") && orphaned.note.contains("delete Deployment graph")
        );
        let immutable = told(Ok(Outcome::Immutable("7".into())));
        assert_eq!(immutable.reason, Reason::OrphanKeepsRights);
        assert!(immutable.note.contains("it is immutable") && immutable.note.contains("delete Deployment graph"));
        let refused = told(Err(crate::objects::owner::NoIdentity.into()));
        assert!(refused.note.contains("has no namespace") && refused.note.contains("delete Deployment graph"));
        for nothing in [Outcome::Changed, Outcome::ControllerLives] {
            assert_eq!(tale(&suspect, &Ok(nothing)), None);
        }
    }
}
