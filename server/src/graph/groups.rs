//! Lookup of a user's groups among a given set.
//!
//! Graph leaves out groups with hidden membership unless the token carries `Member.Read.Hidden`, and does not say
//! which ones. So without this permission, a group that is not in the answer is unknown. A token has the permission
//! only if Entra's answer names it; a request for it proves nothing.

use std::collections::BTreeSet;

use mcp_entra_policy::Groups;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::Graph;
use super::error::GraphError;

/// Most groups in one question.
const AT_ONCE: usize = 20;
/// The delegated permission that shows all groups, in lower case.
const HIDDEN: &str = "member.read.hidden";
pub(super) const PATH: &str = "/checkMemberGroups";

#[derive(Deserialize)]
struct Answer {
    value: Vec<Uuid>,
}

impl Graph {
    /// Returns the user's groups among these (object ids in lower case).
    pub async fn groups_among(&self, ids: &BTreeSet<String>) -> Result<Groups, GraphError> {
        let (mut member_of, mut all_shown) = (Vec::new(), true);
        let ids: Vec<&String> = ids.iter().collect();
        for some in ids.chunks(AT_ONCE) {
            let (answer, token) = self.ask(PATH, &json!({ "groupIds": some })).await?;
            let Answer { value } = serde_json::from_value(answer).map_err(|_| GraphError::Unexpected { path: PATH })?;
            member_of.extend(value);
            all_shown &= token.granted.contains(HIDDEN);
        }
        let member_of = member_of.into_iter().collect();
        Ok(if all_shown { Groups::Known(member_of) } else { Groups::AtLeast(member_of) })
    }
}
