//! `preview`: prints the tools, prompts and resources of a server for a caller, with the grant or deny that decides
//! each. Its data comes from the cluster or from manifests. The server's own function decides.

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
