//! `get_user_details`: the signed-in user, from `GET /me`; or the user whom an application names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ToolError;
use crate::graph::{Graph, GraphError};

const FIELDS: &str = "id,displayName,givenName,surname,userPrincipalName,mail,jobTitle,officeLocation,mobilePhone,\
                      businessPhones,preferredLanguage";

/// The arguments of `get_user_details`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GetUser {
    /// The user to read, by object id or user principal name. Only an application that calls by itself names one.
    #[serde(default)]
    pub(super) user: Option<String>,
}

/// The user. What the directory does not know is null.
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
    #[serde(default)]
    business_phones: Vec<String>,
    /// Preferred language, as `en-GB`.
    preferred_language: Option<String>,
}

pub(super) async fn details(graph: &Graph) -> Result<UserDetails, ToolError> {
    let answer = graph.get("", &[("$select", FIELDS)]).await?;
    Ok(serde_json::from_value(answer).map_err(|_| GraphError::Unexpected { path: "the user" })?)
}
