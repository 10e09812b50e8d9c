//! Namespace and name of an object, the key of caches.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Namespace and name of an object, in one string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FullName(Box<str>);

impl FullName {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }

    pub(crate) fn of(metadata: &ObjectMeta) -> Self {
        Self::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
    }

    pub(crate) fn namespace(&self) -> &str {
        self.0.split_once('/').unwrap_or_default().0
    }

    pub(crate) fn name(&self) -> &str {
        self.0.split_once('/').unwrap_or_default().1
    }
}

/// An object in a cache.
pub(crate) trait Kept: Clone + Send + Sync + 'static {
    fn full_name(&self) -> &FullName;
}
