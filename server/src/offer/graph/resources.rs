//! The built-in resources. Each is the answer of a built-in tool without arguments, about the signed-in user.
//!
//! To add a resource, add a line in [`RESOURCES`], and its URI and tool in the policy crate.

use mcp_entra_policy::{BuiltInResource, MY_PROFILE};
use serde_json::{Value, json};

use crate::offer::{JsonObject, OfferedResource};

const MIME_TYPE: &str = "application/json";

/// A resource.
pub(super) struct Resource {
    /// URI and tool.
    pub(super) built_in: &'static BuiltInResource,
    /// Name, for programs.
    name: &'static str,
    /// Title, for people.
    title: &'static str,
    /// Description, for models.
    description: &'static str,
}

/// The built-in resources, by URI.
pub(super) const RESOURCES: &[Resource] = &[Resource {
    built_in: &MY_PROFILE,
    name: "my_profile",
    title: "My profile",
    description: "\
Who is the signed-in user, as JSON: name, user principal name, mail address, job title, office and phones, from the
directory of their organisation. It is read again for each request.",
}];

impl Resource {
    /// Returns the resource in the form of the offer.
    pub(super) fn offered(&self) -> OfferedResource {
        OfferedResource {
            uri: self.built_in.uri.to_owned(),
            name: self.name.to_owned(),
            title: self.title.to_owned(),
            description: self.description.to_owned(),
            mime_type: Some(MIME_TYPE.to_owned()),
            written: None,
        }
    }

    /// Returns the resource with this content: the result of `resources/read` in MCP.
    pub(super) fn contents(&self, content: &Value) -> JsonObject {
        let content = json!({ "uri": self.built_in.uri, "mimeType": MIME_TYPE, "text": content.to_string() });
        JsonObject::from_iter([("contents".to_owned(), json!([content]))])
    }
}
