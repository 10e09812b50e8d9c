//! OpenAPI documents of the built-in kinds of Kubernetes, from the Go modules that it is built from. There are two
//! versions: the oldest supported one, and the control plane's.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, anyhow};
use serde_json::Value;

use crate::go_modules;

const MODULE: &str = "k8s.io/kubernetes";

/// Version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kubernetes {
    /// Oldest supported version.
    Oldest,
    /// Version of the control plane.
    Newest,
}

impl Kubernetes {
    /// Returns the document of a group and version such as `apps/v1`; `None` if this Kubernetes does not have it.
    ///
    /// # Errors
    /// If Go is missing or cannot fetch the module. Blocks until it is fetched.
    pub fn document(self, api_version: &str) -> anyhow::Result<Option<Value>> {
        let name = match api_version.split_once('/') {
            Some((group, version)) => format!("apis__{group}__{version}_openapi.json"),
            None => format!("api__{api_version}_openapi.json"),
        };
        let file = self.folder()?.join("api/openapi-spec/v3").join(name);
        match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| file.display().to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| file.display().to_string()),
        }
    }

    fn folder(self) -> anyhow::Result<&'static PathBuf> {
        static OLDEST: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        static NEWEST: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let (cell, pinned_in) = match self {
            Self::Oldest => (&OLDEST, "oldest"),
            Self::Newest => (&NEWEST, "."),
        };
        let folder = cell.get_or_init(|| fetch(pinned_in).map_err(|error| format!("{error:#}")));
        folder.as_ref().map_err(|error| anyhow!("{error}"))
    }
}

fn fetch(pinned_in: &str) -> anyhow::Result<PathBuf> {
    go_modules::fetch(pinned_in, &[MODULE])?.remove(MODULE).with_context(|| format!("Go did not fetch {MODULE}"))
}
