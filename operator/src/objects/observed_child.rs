//! An object with a child's name, and its owner.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::objects::{
    names::ADOPT,
    owner::{Owner, Whose},
    views::ChildView,
};

/// An object with a child's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) uid: String,
    /// A version that changes with everything that the operator can set. It is the generation with a hash of the
    /// metadata that generations do not count, or the resource version for kinds without generations. Changes of the
    /// status do not change a generation.
    pub(crate) version: String,
    pub(crate) whose: Whose,
    /// The kind and name of its controller, for messages.
    pub(crate) controller: Option<String>,
    /// True if it is being deleted.
    pub(crate) leaving: bool,
}

impl Seen {
    pub(crate) fn of(metadata: &ObjectMeta, owner: &Owner) -> Self {
        Self::watched(&ChildView::from(metadata), owner)
    }

    pub(crate) fn watched(child: &ChildView, owner: &Owner) -> Self {
        let controller = child.controller.as_ref();
        Self {
            uid: child.uid.to_string(),
            version: child.version.to_string(),
            whose: owner.whose(controller, child.annotation(ADOPT)),
            controller: controller.map(|controller| controller.title.to_string()),
            leaving: child.leaving,
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.whose == Whose::Ours
    }

    /// Returns true if the object is ours, or offered to us.
    pub(crate) fn is_for_us(&self) -> bool {
        matches!(self.whose, Whose::Ours | Whose::Offered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{child::ChildKind, fixtures::mk_owner};

    #[test]
    fn a_change_of_own_metadata_is_a_new_version_of_the_same_generation() {
        let owner = mk_owner();
        let version = |change: fn(&mut ObjectMeta)| {
            let mut metadata = owner.child_metadata(ChildKind::Deployment);
            metadata.generation = Some(3);
            metadata.resource_version = Some("7".into());
            change(&mut metadata);
            Seen::of(&metadata, &owner).version
        };
        let before = version(|_| {});
        assert_eq!(before, version(|metadata| metadata.resource_version = Some("8".into())));
        assert_eq!(
            before,
            version(|metadata| {
                metadata.annotations = Some([("deployment.kubernetes.io/revision".into(), "2".into())].into());
            })
        );
        assert_ne!(before, version(|metadata| metadata.generation = Some(4)));
        assert_ne!(before, version(|metadata| metadata.labels.get_or_insert_default().clear()));
        assert_ne!(before, version(|metadata| metadata.owner_references = None));
        assert_ne!(before, version(|metadata| metadata.annotations = Some([("a".into(), "b".into())].into())));
    }
}
