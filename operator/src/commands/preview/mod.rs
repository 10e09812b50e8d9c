//! `preview`: the tools, prompts and resources that a caller gets of a server, and what grants or denies each. From the
//! cluster or, offline, from manifests; decided by the function that the server decides by.

mod error;
mod known;
mod options;
mod table;
#[cfg(test)]
mod tests;

use error::PATIENCE;
use known::{from_cluster, from_files};
use table::table;

pub use error::PreviewError;
pub use options::PreviewOptions;

/// Returns the table to print.
///
/// # Errors
/// The server, or an object that decisions depend on, cannot be read.
pub async fn preview(options: &PreviewOptions) -> Result<String, PreviewError> {
    let (namespace, known) = if options.files.is_empty() {
        tokio::time::timeout(PATIENCE, from_cluster(options)).await.map_err(|_| PreviewError::Deadline)??
    } else {
        let namespace = options.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let known = from_files(&options.files, &namespace)?;
        (namespace, known)
    };
    table(&namespace, options, &known)
}
