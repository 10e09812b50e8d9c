//! Delegated permissions of Microsoft Graph that include others, as far as built-in tools need those others.

/// Permissions with those that cover them: Graph answers the built-in tools with any of these, too.
///
/// With `Mail.ReadBasic` it leaves the first words of messages out.
const COVERED_BY: &[(&str, &[&str])] = &[
    (
        "User.Read",
        &[
            "User.ReadWrite",
            "User.ReadBasic.All",
            "User.Read.All",
            "User.ReadWrite.All",
            "Directory.Read.All",
            "Directory.ReadWrite.All",
            "Directory.AccessAsUser.All",
        ],
    ),
    ("Mail.Read", &["Mail.ReadWrite", "Mail.Read.Shared", "Mail.ReadWrite.Shared", "Mail.ReadBasic"]),
];

/// Returns whether a token with this scope is good for a question that needs that permission.
pub(crate) fn covers(scope: &str, permission: &str) -> bool {
    let covered_by = COVERED_BY.iter().filter(|(covered, _)| *covered == permission).flat_map(|(_, by)| *by);
    covered_by.chain([&permission]).any(|name| scope.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_permission_is_covered_by_itself_and_by_wider_ones() {
        for (scope, permission, covered) in [
            ("User.Read", "User.Read", true),
            ("user.read", "User.Read", true),
            ("Directory.Read.All", "User.Read", true),
            ("Mail.ReadWrite", "Mail.Read", true),
            ("Mail.ReadBasic", "Mail.Read", true),
            ("Mail.Send", "Mail.Read", false),
            ("Mail.ReadWrite", "User.Read", false),
            ("User.Read", "Mail.Read", false),
            // A permission that is in no row.
            ("Files.Read", "Files.Read", true),
            ("Files.ReadWrite", "Files.Read", false),
        ] {
            assert_eq!(covers(scope, permission), covered, "{scope} for {permission}");
        }
    }

    #[test]
    fn each_row_is_of_a_permission_that_a_built_in_tool_needs() {
        for (permission, _) in super::COVERED_BY {
            let needed = crate::BUILT_IN_TOOLS.iter().any(|tool| tool.permissions.delegated.contains(permission));
            assert!(needed, "{permission}");
        }
    }
}
