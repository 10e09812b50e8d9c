//! Microsoft Graph v1.0: profiles and memberships.

use std::sync::Arc;

use axum::{Json, extract::State, http::Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    configuration::{Group, User},
    graph::{Caller, GraphError, Options, Permissions, Target, select},
    paging::{Limits, List, page},
    state::Shared,
};

/// Permission that shows a part of a profile.
const BASIC: &str = "User.ReadBasic.All";
/// Members that it shows as null.
const NOT_BASIC: [&str; 5] = ["businessPhones", "jobTitle", "mobilePhone", "officeLocation", "preferredLanguage"];
const PROFILE: Permissions = Permissions {
    own: &[
        "User.Read",
        "User.ReadWrite",
        "User.ReadBasic.All",
        "User.Read.All",
        "User.ReadWrite.All",
        "Directory.Read.All",
        "Directory.ReadWrite.All",
    ],
    others: &["User.ReadBasic.All", "User.Read.All", "Directory.Read.All"],
    application: &["User.Read.All", "User.ReadBasic.All", "Directory.Read.All"],
    denied: GraphError::denied,
};
const READ_MEMBER_OF: &[&str] = &["User.Read.All", "GroupMember.Read.All", "Group.Read.All", "Directory.Read.All"];
const MEMBER_OF: Permissions = Permissions {
    own: &[
        "User.Read",
        "User.ReadWrite",
        "User.Read.All",
        "GroupMember.Read.All",
        "Group.Read.All",
        "Directory.Read.All",
    ],
    others: READ_MEMBER_OF,
    application: READ_MEMBER_OF,
    denied: GraphError::denied,
};
const READ_GROUPS: &[&str] = &["GroupMember.Read.All", "Group.Read.All", "Directory.Read.All"];
/// Additional permissions for `checkMemberGroups` and similar: profiles of other users must be readable.
const MEMBERSHIPS: Permissions =
    Permissions { own: MEMBER_OF.own, others: READ_GROUPS, application: READ_GROUPS, denied: GraphError::denied };
/// Maximum number of groups in `checkMemberGroups`.
const CHECK_LIMIT: usize = 20;
const PAGES: Limits = Limits { default: 100, largest: 999 };

/// `GET /me`, `GET /users/{user}`
pub(crate) async fn profile(
    State(shared): State<Arc<Shared>>,
    target: Target,
    caller: Caller,
    options: Options,
) -> Result<Json<Value>, GraphError> {
    let user = caller.user(&target, &PROFILE)?;
    let mut profile = json!({
        "@odata.context": format!("{}/v1.0/$metadata#users/$entity", shared.graph),
        "businessPhones": user.business_phones,
        "displayName": user.display_name,
        "givenName": user.given_name,
        "jobTitle": user.job_title,
        "mail": user.mail,
        "mobilePhone": user.mobile_phone,
        "officeLocation": user.office_location,
        "preferredLanguage": user.preferred_language,
        "surname": user.surname,
        "userPrincipalName": user.user_principal_name,
        "id": user.oid,
    });
    if !PROFILE.own.iter().any(|one| *one != BASIC && caller.has(one)) {
        profile = without(profile, &NOT_BASIC);
    }
    Ok(Json(select(profile, &options)))
}

/// The profile with null in place of these members.
fn without(mut profile: Value, names: &[&str]) -> Value {
    if let Some(members) = profile.as_object_mut() {
        members.extend(names.iter().map(|name| ((*name).to_owned(), Value::Null)));
    }
    profile
}

/// `GET …/memberOf`
pub(crate) async fn groups(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    target: Target,
    caller: Caller,
    options: Options,
) -> Result<Json<Value>, GraphError> {
    let oid = caller.user(&target, &MEMBER_OF)?.oid;
    let groups = caller.directory().groups.iter().filter(|group| group.members.contains(&oid) && caller.sees(group));
    list(&shared, uri.path(), &options, groups)
}

/// `GET …/transitiveMemberOf`
pub(crate) async fn transitive_groups(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    target: Target,
    caller: Caller,
    options: Options,
) -> Result<Json<Value>, GraphError> {
    let oid = caller.user(&target, &MEMBER_OF)?.oid;
    let groups = caller.directory().transitive_groups(oid).into_iter().filter(|group| caller.sees(group));
    list(&shared, uri.path(), &options, groups)
}

fn list<'g>(
    shared: &Shared,
    path: &str,
    options: &Options,
    groups: impl Iterator<Item = &'g Group>,
) -> Result<Json<Value>, GraphError> {
    let entry = |group: &Group| {
        let entry = json!({
            "@odata.type": "#microsoft.graph.group",
            "id": group.id,
            "displayName": group.display_name,
            "securityEnabled": true,
        });
        select(entry, options)
    };
    let entries = groups.map(entry).collect();
    page(shared, path, options, List { context: "directoryObjects", limits: PAGES, entries })
}

/// The body of `checkMemberGroups`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CheckGroups {
    group_ids: Vec<String>,
}

/// `POST …/checkMemberGroups`
pub(crate) async fn check_groups(
    State(shared): State<Arc<Shared>>,
    target: Target,
    caller: Caller,
    Json(body): Json<CheckGroups>,
) -> Result<Json<Value>, GraphError> {
    let member = caller.member(&target)?;
    if body.group_ids.len() > CHECK_LIMIT {
        let message = format!("groupIds has more than the {CHECK_LIMIT} items allowed.");
        return Err(GraphError::new(400, "Request_BadRequest", message));
    }
    let mut groups = caller.group_ids(member);
    groups.retain(|id| body.group_ids.iter().any(|asked| asked.eq_ignore_ascii_case(id)));
    Ok(ids(&shared, groups))
}

/// `POST …/getMemberGroups` and `POST …/getMemberObjects`. They are equal here: a user is only a member of groups, all
/// of them security groups.
pub(crate) async fn member_groups(
    State(shared): State<Arc<Shared>>,
    target: Target,
    caller: Caller,
) -> Result<Json<Value>, GraphError> {
    let groups = caller.group_ids(caller.member(&target)?);
    Ok(ids(&shared, groups))
}

impl Caller {
    fn member(&self, target: &Target) -> Result<&User, GraphError> {
        let user = self.user(target, &MEMBERSHIPS)?;
        if !self.is(user) {
            self.user(target, &PROFILE)?;
        }
        Ok(user)
    }

    fn group_ids(&self, user: &User) -> Vec<String> {
        let groups = self.directory().transitive_groups(user.oid).into_iter().filter(|group| self.sees(group));
        groups.map(|group| group.id.to_string()).collect()
    }

    /// Returns whether the caller may see the members of the group.
    fn sees(&self, group: &Group) -> bool {
        !group.hidden_membership || self.has("Member.Read.Hidden")
    }
}

fn ids(shared: &Shared, ids: Vec<String>) -> Json<Value> {
    Json(json!({
        "@odata.context": format!("{}/v1.0/$metadata#Collection(Edm.String)", shared.graph),
        "value": ids,
    }))
}
