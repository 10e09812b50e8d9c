//! The pinned clients of this package's own lists, installed once.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

const CACHE: &str = env!("CARGO_TARGET_TMPDIR");

/// The interpreter of a virtual environment with MSAL and azure-identity.
pub(super) static PYTHON: LazyLock<PathBuf> =
    LazyLock::new(|| stock_clients::python(Path::new(CACHE), "stock-python-clients", &source("python")).unwrap());

/// The `node_modules` with MSAL.
pub(super) static NODE_MODULES: LazyLock<PathBuf> =
    LazyLock::new(|| stock_clients::node_modules(Path::new(CACHE), "stock-node-clients", &source("node")).unwrap());

/// A file of the clients' own folder.
pub(super) fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(path)
}
