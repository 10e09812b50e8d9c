//! `get_user_details`: the signed-in user (`GET /me`), or the user that an application names.

use mcp_entra_policy::{BuiltInTool, GET_USER_DETAILS};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::tool::{Tool, ToolError};
use crate::graph::{Graph, GraphError};

const FIELDS: &str = "id,displayName,givenName,surname,userPrincipalName,mail,jobTitle,officeLocation,mobilePhone,\
                      businessPhones,preferredLanguage";

/// The tool.
pub(super) struct GetUserDetails;

/// Arguments: none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoArguments {}

/// The user. Members that the directory does not know are null.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserDetails {
    /// Object id in Microsoft Entra ID.
    id: String,
    /// Full name, as shown in the address book.
    display_name: Option<String>,
    /// First name.
    given_name: Option<String>,
    /// Last name.
    surname: Option<String>,
    /// The name that the user signs in with.
    user_principal_name: Option<String>,
    /// Primary mail address.
    mail: Option<String>,
    /// Job title.
    job_title: Option<String>,
    /// Office.
    office_location: Option<String>,
    /// Mobile phone number.
    mobile_phone: Option<String>,
    /// Business phone numbers.
    #[serde(default, deserialize_with = "empty_if_null")]
    business_phones: Vec<String>,
    /// Preferred language, as `en-GB`.
    preferred_language: Option<String>,
}

/// Graph returns null to a caller who may not read the list.
fn empty_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Tool for GetUserDetails {
    const BUILT_IN: &'static BuiltInTool = &GET_USER_DETAILS;
    const TITLE: &'static str = "Signed-in user";
    const DESCRIPTION: &'static str = "\
Who is the signed-in user: name, user principal name, mail address, job title, office and phones, from the
directory of their organisation.";
    const USER: &'static str =
        "The user to read, by object id or user principal name. Only an application that calls by itself names one.";
    type Arguments = NoArguments;
    type Output = UserDetails;

    async fn ask(graph: &Graph, NoArguments {}: NoArguments) -> Result<UserDetails, ToolError> {
        let answer = graph.get("", &[("$select", FIELDS)]).await?;
        Ok(serde_json::from_value(answer).map_err(|_| GraphError::Unexpected { path: "the user" })?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn phones_that_graph_omits_are_an_empty_list() {
        for (answer, phones) in [
            (json!({ "id": "1", "businessPhones": ["+1"] }), vec!["+1"]),
            (json!({ "id": "1", "businessPhones": [] }), vec![]),
            (json!({ "id": "1", "businessPhones": null }), vec![]),
            (json!({ "id": "1" }), vec![]),
        ] {
            let user: UserDetails = serde_json::from_value(answer.clone()).unwrap();
            assert_eq!(user.business_phones, phones, "{answer}");
        }
    }
}
