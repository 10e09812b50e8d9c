//! Manifests as people write them, read from files: YAML documents, of which a command takes the kinds that it knows.

use std::{io::Read, path::PathBuf};

use kube::{Resource, ResourceExt};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// Why manifests cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file cannot be read.
    #[error("{}: {source}", file.display())]
    File {
        /// Which; `-` is standard input.
        file: PathBuf,
        /// Why.
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
                documents.push(document);
            }
        }
        Ok(Self(documents))
    }

    /// The objects of a kind, those without a namespace in the one given.
    pub(crate) fn of<K>(&self, namespace: &str) -> Result<Vec<K>, ManifestError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let is_of = |document: &&Value| {
            document.get("kind").and_then(Value::as_str) == Some(&K::kind(&()))
                && document.get("apiVersion").and_then(Value::as_str) == Some(&K::api_version(&()))
        };
        let read = |document: &Value| {
            let mut object: K = serde_json::from_value(document.clone()).map_err(|source| ManifestError::Kind {
                kind: K::kind(&()).into_owned(),
                name: document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned(),
                source,
            })?;
            if object.namespace().is_none() {
                object.meta_mut().namespace = Some(namespace.to_owned());
            }
            Ok(object)
        };
        self.0.iter().filter(is_of).map(read).collect()
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
