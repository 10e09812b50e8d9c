//! Built-in tools for Microsoft Graph, which mappings can name.

use crate::{GraphAccess, GraphConfiguration, permissions::covers};

/// Tool that the server implements with Microsoft Graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltInTool {
    /// Name that MCP clients call and mappings grant.
    pub name: &'static str,
    /// True if the tool changes anything in Graph. A trailing `*` in a grant never matches such a tool.
    pub writes: bool,
    /// Permissions of Microsoft Graph that the tool needs.
    pub permissions: GraphPermissions,
}

/// Permissions of Microsoft Graph. A call needs all of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphPermissions {
    /// Delegated permissions, for calls on a user's behalf.
    pub delegated: &'static [&'static str],
    /// Application permissions, for calls as the application itself.
    pub application: &'static [&'static str],
}

/// Creates an event in the signed-in user's calendar.
pub const CREATE_EVENT: BuiltInTool = BuiltInTool {
    name: "create_event",
    writes: true,
    permissions: GraphPermissions { delegated: &["Calendars.ReadWrite"], application: &["Calendars.ReadWrite"] },
};

/// Returns the profile of the signed-in user.
pub const GET_USER_DETAILS: BuiltInTool = BuiltInTool {
    name: "get_user_details",
    writes: false,
    permissions: GraphPermissions { delegated: &["User.Read"], application: &["User.Read.All"] },
};

/// Lists the newest messages of the signed-in user.
pub const LIST_MY_MESSAGES: BuiltInTool = BuiltInTool {
    name: "list_my_messages",
    writes: false,
    permissions: GraphPermissions { delegated: &["Mail.Read"], application: &["Mail.Read"] },
};

/// Sends a mail as the signed-in user.
pub const SEND_MAIL: BuiltInTool = BuiltInTool {
    name: "send_mail",
    writes: true,
    permissions: GraphPermissions { delegated: &["Mail.Send"], application: &["Mail.Send"] },
};

/// All built-in tools, sorted by name.
pub const BUILT_IN_TOOLS: &[BuiltInTool] = &[CREATE_EVENT, GET_USER_DETAILS, LIST_MY_MESSAGES, SEND_MAIL];

/// Returns the built-in tool with this name, if it exists.
pub fn built_in_tool(name: &str) -> Option<&'static BuiltInTool> {
    BUILT_IN_TOOLS.iter().find(|tool| tool.name == name)
}

impl BuiltInTool {
    /// Returns the delegated permissions of this tool that none of the server's scopes covers.
    ///
    /// The list is empty if the server may use Graph as the application, since nothing lists those permissions. It is
    /// also empty without any scopes, which the validation refuses.
    pub fn missing_scopes(&self, scopes: &[String], access: GraphAccess) -> Vec<&'static str> {
        if access == GraphAccess::Application || scopes.is_empty() {
            return Vec::new();
        }
        let is_missing = |needed: &&str| !scopes.iter().any(|scope| covers(scope, needed));
        self.permissions.delegated.iter().copied().filter(is_missing).collect()
    }
}

impl GraphConfiguration {
    /// Returns the built-in tools that the server offers: those that are named here and whose scopes are.
    pub fn offered(&self) -> impl Iterator<Item = &'static BuiltInTool> {
        let named = self.tools.iter().filter_map(|name| built_in_tool(name));
        named.filter(|tool| tool.missing_scopes(&self.scopes, self.access).is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_offered_where_a_scope_covers_each_permission_that_it_needs() {
        use GraphAccess::{Application, OnBehalfOf};
        let all = BUILT_IN_TOOLS.iter().map(|tool| tool.name).collect::<Vec<_>>();
        let reads = ["get_user_details", "list_my_messages"];
        for (scopes, access, offered) in [
            (&["Calendars.ReadWrite", "User.Read", "Mail.Read", "Mail.Send"][..], OnBehalfOf, &all[..]),
            (&["User.Read", "Mail.Read"], OnBehalfOf, &reads),
            (&["User.Read"], OnBehalfOf, &["get_user_details"]),
            (&["Mail.Read"], OnBehalfOf, &["list_my_messages"]),
            (&["User.ReadWrite", "Mail.ReadWrite"], OnBehalfOf, &reads),
            (&["Mail.Send"], OnBehalfOf, &["send_mail"]),
            (&["Mail.Send.Shared", "Mail.ReadWrite", "Calendars.ReadWrite.Shared"], OnBehalfOf, &["list_my_messages"]),
            (&["Calendars.ReadWrite"], OnBehalfOf, &["create_event"]),
            (&["Calendars.Read"], OnBehalfOf, &[]),
            (&["Calendars.Read"], Application, &all),
            (&[], OnBehalfOf, &all),
        ] {
            let configuration = GraphConfiguration {
                base_url: String::new(),
                scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
                tools: all.iter().map(|name| (*name).to_owned()).collect(),
                access,
            };
            let names: Vec<&str> = configuration.offered().map(|tool| tool.name).collect();
            assert_eq!(names, offered, "{scopes:?} {access:?}");
        }
    }

    #[test]
    fn a_tool_that_is_not_named_is_not_offered() {
        let configuration = GraphConfiguration {
            base_url: String::new(),
            scopes: vec!["User.Read".to_owned(), "Mail.Read".to_owned()],
            tools: vec!["list_my_messages".to_owned()],
            access: GraphAccess::OnBehalfOf,
        };
        assert_eq!(Vec::from_iter(configuration.offered()), [&LIST_MY_MESSAGES]);
    }

    #[test]
    fn the_permissions_that_are_missing_are_named() {
        let scopes = ["User.Read".to_owned()];
        assert_eq!(LIST_MY_MESSAGES.missing_scopes(&scopes, GraphAccess::OnBehalfOf), ["Mail.Read"]);
        assert!(GET_USER_DETAILS.missing_scopes(&scopes, GraphAccess::OnBehalfOf).is_empty());
    }
}
