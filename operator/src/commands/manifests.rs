//! Manifests from files: YAML documents, of which each command uses the kinds that it needs.

use std::{io::Read, path::PathBuf};

use k8s_openapi::{NamespaceResourceScope, api::core::v1::Namespace};
use kube::{Resource, ResourceExt};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::policy::binding::Labels;

/// The reason why manifests cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file cannot be read.
    #[error("{}: {source}", file.display())]
    File {
        /// The file; `-` is standard input.
        file: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A document is not YAML.
    #[error("{}: {source}", file.display())]
    Yaml {
        /// The file.
        file: PathBuf,
        /// The position and the cause.
        source: serde_yaml::Error,
    },
    /// A document does not fit its kind.
    #[error("{kind} {name}: {source}; see kubectl apply --dry-run=server for details")]
    Kind {
        /// The kind.
        kind: String,
        /// The object's name.
        name: String,
        /// The field and the cause.
        source: serde_json::Error,
    },
    /// No document of the needed kind exists.
    #[error("these files contain no {0}; add one with -f")]
    Missing(String),
}

/// The documents of the given files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifests(Vec<Value>);

impl Manifests {
    /// Reads files; `-` is standard input.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Self, ManifestError> {
        let mut documents = Vec::new();
        for file in files {
            let text = read(file).map_err(|source| ManifestError::File { file: file.clone(), source })?;
            for document in serde_yaml::Deserializer::from_str(&text) {
                let document = Value::deserialize(document)
                    .map_err(|source| ManifestError::Yaml { file: file.clone(), source })?;
                // `kubectl get -o yaml` writes several objects as a list.
                match document.get("items").and_then(Value::as_array) {
                    Some(items) => documents.extend(items.iter().cloned()),
                    None => documents.push(document),
                }
            }
        }
        Ok(Self(documents))
    }

    /// Returns the objects of a namespaced kind. Those without a namespace get the given one.
    pub(crate) fn of<K>(&self, namespace: &str) -> Result<Vec<K>, ManifestError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
    {
        let mut objects: Vec<K> = self.all()?;
        for object in &mut objects {
            object.meta_mut().namespace.get_or_insert_with(|| namespace.to_owned());
        }
        Ok(objects)
    }

    /// Returns the objects of a kind, unchanged.
    pub(crate) fn all<K>(&self) -> Result<Vec<K>, ManifestError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let is_of = |document: &&Value| {
            document.get("kind").and_then(Value::as_str) == Some(&K::kind(&()))
                && document.get("apiVersion").and_then(Value::as_str) == Some(&K::api_version(&()))
        };
        let read = |document: &Value| {
            serde_json::from_value(document.clone()).map_err(|source| ManifestError::Kind {
                kind: K::kind(&()).into_owned(),
                name: document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned(),
                source,
            })
        };
        self.0.iter().filter(is_of).map(read).collect()
    }

    /// Returns the labels of a namespace, if it is among the documents.
    pub(crate) fn labels_of(&self, namespace: &str) -> Result<Option<Labels>, ManifestError> {
        let namespaces: Vec<Namespace> = self.all()?;
        Ok(namespaces.into_iter().find(|found| found.name_any() == namespace).map(|found| {
            let mut labels = found.metadata.labels.unwrap_or_default();
            // The API server sets this one.
            labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
            labels
        }))
    }
}

fn read(file: &PathBuf) -> std::io::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}
