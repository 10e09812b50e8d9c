//! Patch that writes a status.

use mcp_entra_crds::GROUP;
use serde::Serialize;
use serde_json::{Value, json};

use crate::runtime::errors::Error;

/// Builds the body of a status patch. The uid binds it to this object, not to a later one of the same name.
pub(crate) fn status_patch(kind: &str, name: &str, uid: &str, status: &impl Serialize) -> Result<Value, Error> {
    Ok(json!({
        "apiVersion": format!("{GROUP}/v1alpha1"),
        "kind": kind,
        "metadata": {"name": name, "uid": uid},
        "status": serde_json::to_value(status)?,
    }))
}
