//! Editions of a server's ConfigMap: a new name replaces an immutable ConfigMap.

use crate::objects::child::ChildKind;

/// A number in the name of a server's ConfigMap. The first edition has no number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Edition(pub(crate) u8);

/// The maximum number of editions of one ConfigMap.
pub(crate) const MOST: u8 = 16;

impl Edition {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..MOST).map(Self)
    }

    /// Returns the name of a server's child of this edition.
    pub(crate) fn name(self, kind: ChildKind, server: &str) -> String {
        let first = kind.name(server);
        if self == Self::default() { first } else { format!("{first}-{}", self.0 + 1) }
    }

    /// Returns the edition that a name has among a server's children.
    pub(crate) fn of(kind: ChildKind, server: &str, name: &str) -> Option<Self> {
        let rest = name.strip_prefix(kind.name(server).as_str())?;
        let is_config_map = kind.watched_as() == ChildKind::Policy;
        Self::all().find(|edition| match edition.0 {
            0 => rest.is_empty(),
            number => is_config_map && rest.strip_prefix('-').is_some_and(|digits| digits == (number + 1).to_string()),
        })
    }
}

/// The ConfigMaps that a server's pods should mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) policy: Edition,
    pub(crate) configuration: Edition,
    /// True while a pod still mounts another policy, whose updates it no longer needs.
    pub(crate) is_moving: bool,
}

impl Mounted {
    /// Returns the name of a server's child.
    pub(crate) fn name(&self, kind: ChildKind, server: &str) -> String {
        match kind {
            ChildKind::Policy => self.policy.name(kind, server),
            ChildKind::Configuration => self.configuration.name(kind, server),
            _ => kind.name(server),
        }
    }

    /// Returns the same with the first edition of the policy.
    pub(crate) fn with_first_policy(self) -> Self {
        Self { policy: Edition::default(), ..self }
    }
}
