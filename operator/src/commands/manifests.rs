//! Manifests as people write them, read from files: YAML documents, of which a command takes the kinds that it knows.

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
        /// Which; `-` is standard input.
        file: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A document is not YAML.
    #[error("{}: {source}", file.display())]
    Yaml {
        /// In which file.
        file: PathBuf,
        /// Where, and why.
        source: serde_yaml::Error,
    },
    /// A document is not what its kind says.
    #[error("{kind} {name}: {source}; kubectl apply --dry-run=server says more")]
    Kind {
        /// The kind.
        kind: String,
        /// The object's name.
        name: String,
        /// Which field, and why.
        source: serde_json::Error,
    },
    /// Nothing to work on.
    #[error("there is no {0} in these files; add one with -f")]
    Missing(String),
}

/// The documents of some files.
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
                // As `kubectl get -o yaml` writes several.
                match document.get("items").and_then(Value::as_array) {
                    Some(items) => documents.extend(items.iter().cloned()),
                    None => documents.push(document),
                }
            }
        }
        Ok(Self(documents))
    }

    /// The objects of a namespaced kind, those without a namespace in the one given.
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

    /// The objects of a kind, as they stand there.
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

    /// The labels of a namespace, if it is among the objects.
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
