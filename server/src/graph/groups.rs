//! The groups that a user is in, of some.
//!
//! Graph leaves out groups with hidden membership unless the token carries `Member.Read.Hidden`, and says of no group that
//! it has left it out. A token of less could not ask either which groups these are. So what such a token does not show is
//! unknown. A token has the permission if Entra's answer names it: that it was asked for proves nothing.

use std::collections::BTreeSet;

use mcp_entra_policy::Groups;
use serde::Deserialize;
use serde_json::json;

use super::Graph;
use super::error::GraphError;

/// Most groups that Graph answers about at once.
const AT_ONCE: usize = 20;
/// The delegated permission with which no group is left out, in lower case.
const HIDDEN: &str = "member.read.hidden";
pub(super) const PATH: &str = "/checkMemberGroups";

#[derive(Deserialize)]
struct Answer {
    value: Vec<String>,
}

impl Graph {
    /// The groups that the user is in, of these (object ids in lower case).
    pub async fn groups_among(&self, ids: &BTreeSet<String>) -> Result<Groups, GraphError> {
        let (mut member_of, mut all_shown) = (BTreeSet::new(), true);
        let ids: Vec<&String> = ids.iter().collect();
        for some in ids.chunks(AT_ONCE) {
            let (answer, token) = self.ask(PATH, &json!({ "groupIds": some })).await?;
            let Answer { value } = serde_json::from_value(answer).map_err(|_| GraphError::Unexpected { path: PATH })?;
            member_of.extend(value.into_iter().map(|id| id.to_ascii_lowercase()));
            all_shown &= token.granted.contains(HIDDEN);
        }
        Ok(if all_shown { Groups::Known(member_of) } else { Groups::AtLeast(member_of) })
    }
}
