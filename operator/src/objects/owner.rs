//! Owners of children: the McpServer's identity, and the labels and owner references of its children.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use mcp_entra_crds::{GROUP, McpServer};

use crate::{
    MANAGER,
    objects::{
        child::ChildKind,
        names::{INSTANCE, MANAGED_BY, NAME, NO_BACKUP, SERVER},
        untrusted_text::word,
    },
};

/// Returns true if an object has the labels of a child of any McpServer.
pub(crate) fn has_labels_of_child(metadata: &ObjectMeta) -> bool {
    let has = |name: &str, value: &str| {
        metadata.labels.as_ref().and_then(|labels| labels.get(name)).is_some_and(|found| found == value)
    };
    has(MANAGED_BY, MANAGER) && has(NAME, SERVER)
}

/// The object has no namespace, name or uid. The API server sends no such object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the object has no namespace, name or uid")]
pub(crate) struct NoIdentity;

/// The McpServer that owns the children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Owner {
    /// Returns the identity of an McpServer from the API server.
    pub(crate) fn of(server: &McpServer) -> Result<Self, NoIdentity> {
        Self::of_metadata(&server.metadata)
    }

    /// Returns the identity from metadata, for an object that cannot be read as a whole.
    pub(crate) fn of_metadata(metadata: &ObjectMeta) -> Result<Self, NoIdentity> {
        match (&metadata.namespace, &metadata.name, &metadata.uid) {
            (Some(namespace), Some(name), Some(uid)) => {
                Ok(Self { namespace: namespace.clone(), name: name.clone(), uid: uid.clone() })
            }
            _ => Err(NoIdentity),
        }
    }

    /// Returns the first characters of the uid, which distinguish a server from namesakes in short names.
    pub(crate) fn short_uid(&self) -> String {
        self.uid.chars().take(8).collect()
    }

    /// Returns the metadata to apply a child with.
    pub(crate) fn child_metadata(&self, child: ChildKind) -> ObjectMeta {
        ObjectMeta {
            name: Some(child.name(&self.name)),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            owner_references: Some(vec![OwnerReference {
                api_version: McpServer::api_version(&()).into_owned(),
                kind: McpServer::kind(&()).into_owned(),
                name: self.name.clone(),
                uid: self.uid.clone(),
                controller: Some(true),
                // OwnerReferencesPermissionEnforcement rejects `true` for up to 30 seconds after the kind is installed,
                // because the API server refreshes its kinds only then. The operator never waits for the deletion of
                // children.
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        }
    }

    /// Returns the labels of children and pods.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        labels.insert(NO_BACKUP.to_owned(), "true".to_owned());
        labels
    }

    /// Returns the labels that select the pods. A Deployment's selector is immutable: never add a label.
    pub(crate) fn selector(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(NAME.to_owned(), SERVER.to_owned()), (INSTANCE.to_owned(), self.name.clone())])
    }

    /// Returns true if the controller is this McpServer.
    pub(crate) fn owns(&self, controller: Option<&Controller>) -> bool {
        self.whose(controller, None) == Whose::Ours
    }

    /// Returns the owner of an object, from its controller and the value of the annotation `mcp-entra.dev/adopt`.
    pub(crate) fn whose(&self, controller: Option<&Controller>, offered_to: Option<&str>) -> Whose {
        match controller {
            Some(controller) if *controller.uid == *self.uid => Whose::Ours,
            Some(controller) if controller.server() == Some(&self.name) => Whose::Predecessors,
            None if offered_to == Some(&self.name) => Whose::Offered,
            _ => Whose::Foreign,
        }
    }
}

/// The owner of an object that has a child's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// This McpServer.
    Ours,
    /// Nobody; the annotation `mcp-entra.dev/adopt` gives the object to this McpServer.
    Offered,
    /// A deleted McpServer of the same name. The garbage collector will delete the object.
    Predecessors,
    /// Another owner.
    Foreign,
}

/// The controller of an object, from its owner references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Controller {
    pub(crate) uid: Box<str>,
    /// Its kind and name, for messages.
    pub(crate) title: Box<str>,
    is_server: bool,
}

impl Controller {
    pub(crate) fn of(metadata: &ObjectMeta) -> Option<Self> {
        let mut owners = metadata.owner_references.iter().flatten();
        let OwnerReference { api_version, kind, name, uid, .. } =
            owners.find(|reference| reference.controller == Some(true))?;
        let is_ours = api_version.strip_prefix(GROUP).is_some_and(|version| version.starts_with('/'));
        let is_server = is_ours && *kind == McpServer::kind(&());
        Some(Self { uid: uid.as_str().into(), title: format!("{} {}", word(kind), word(name)).into(), is_server })
    }

    /// Returns its name, if it is an McpServer.
    pub(crate) fn server(&self) -> Option<&str> {
        self.title.split_once(' ').filter(|_| self.is_server).map(|(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::fixtures::mk_owner;

    #[test]
    fn an_unowned_object_is_adopted_only_by_the_server_that_its_annotation_names() {
        let owner = mk_owner();
        let whose = |given_to: &str, controlled: bool| {
            let mut metadata = owner.child_metadata(ChildKind::Service);
            match controlled {
                true => metadata.owner_references.iter_mut().flatten().for_each(|owner| owner.name = "other".into()),
                false => metadata.owner_references = None,
            }
            metadata.owner_references.iter_mut().flatten().for_each(|owner| owner.uid = "other".into());
            owner.whose(Controller::of(&metadata).as_ref(), Some(given_to))
        };
        assert_eq!(whose("graph", false), Whose::Offered);
        assert_eq!(whose("grap", false), Whose::Foreign);
        assert_eq!(whose("graph", true), Whose::Foreign);
    }

    #[test]
    fn no_child_is_backed_up_and_the_label_that_says_so_selects_no_pods() {
        let owner = mk_owner();
        for kind in ChildKind::ALL {
            let labels = owner.child_metadata(*kind).labels.unwrap();
            assert_eq!(labels.get(NO_BACKUP).map(String::as_str), Some("true"), "{kind:?}");
        }
        assert_eq!(owner.selector().len(), 2);
    }

    #[test]
    fn only_a_server_of_the_same_name_and_kind_is_a_predecessor() {
        let owner = mk_owner();
        let whose = |change: fn(&mut OwnerReference)| {
            let mut metadata = owner.child_metadata(ChildKind::Service);
            metadata.owner_references.iter_mut().flatten().for_each(change);
            owner.whose(Controller::of(&metadata).as_ref(), None)
        };
        assert_eq!(whose(|_| {}), Whose::Ours);
        assert_eq!(whose(|reference| reference.uid = "uid-0".into()), Whose::Predecessors);
        assert_eq!(
            whose(|reference| {
                reference.uid = "uid-0".into();
                reference.name = "other".into();
            }),
            Whose::Foreign
        );
        assert_eq!(
            whose(|reference| {
                reference.uid = "uid-0".into();
                reference.api_version = "mcp-entra.devious/v1".into();
            }),
            Whose::Foreign
        );
        assert_eq!(whose(|reference| reference.controller = None), Whose::Foreign);
        assert_eq!(owner.whose(None, None), Whose::Foreign);
    }
}
