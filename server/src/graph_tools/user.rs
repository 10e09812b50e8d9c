//! `get_user_details`: the signed-in user, from `GET /me`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::graph::Graph;

const FIELDS: &str = "id,displayName,givenName,surname,userPrincipalName,mail,jobTitle,officeLocation,mobilePhone,\
                      businessPhones,preferredLanguage";

/// The signed-in user. What the directory does not know is null.
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

pub(super) async fn details(graph: &Graph) -> Result<UserDetails, String> {
    let answer = graph.get("/v1.0/me", &[("$select", FIELDS)]).await.map_err(|error| error.to_string())?;
    serde_json::from_value(answer)
        .map_err(|error| format!("Microsoft Graph answered /me in an unexpected form: {error}"))
}
