//! Delegated permissions of Microsoft Graph, with other permissions that Graph accepts for the same requests of
//! built-in tools.

/// Permissions with the alternatives that Graph accepts, from Microsoft's tables for `GET /me` and `GET /me/messages`.
/// The permissions that end in `.Shared` are not in the tables. Their descriptions say that they include the user's own
/// mail.
///
/// Some are narrower. With `Mail.ReadBasic` and `Mail.ReadBasic.Shared`, Graph omits the first words of messages. With
/// `User.ReadBasic.All`, it omits the job title, the office, the phones and the language.
///
/// A permission without a row has no alternatives, such as those of the tools that write. Microsoft's tables for `POST
/// /me/sendMail` and `POST /me/events` list no others.
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
        ],
    ),
    (
        "Mail.Read",
        &["Mail.ReadWrite", "Mail.Read.Shared", "Mail.ReadWrite.Shared", "Mail.ReadBasic", "Mail.ReadBasic.Shared"],
    ),
];

/// Returns the permissions that Graph accepts for a request that needs this one, including itself.
pub fn accepted_permissions(permission: &str) -> impl Iterator<Item = &str> {
    let others = COVERED_BY.iter().filter(move |(covered, _)| *covered == permission).flat_map(|(_, by)| *by);
    others.copied().chain([permission])
}

/// Returns whether a token with this scope satisfies a request that needs the permission.
pub(crate) fn covers(scope: &str, permission: &str) -> bool {
    accepted_permissions(permission).any(|name| scope.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_permission_is_covered_by_itself_and_by_others_that_graph_accepts() {
        for (scope, permission, covered) in [
            ("User.Read", "User.Read", true),
            ("user.read", "User.Read", true),
            ("Directory.Read.All", "User.Read", true),
            ("Mail.ReadWrite", "Mail.Read", true),
            ("Mail.ReadBasic", "Mail.Read", true),
            ("Mail.ReadBasic.Shared", "Mail.Read", true),
            ("Directory.AccessAsUser.All", "User.Read", false),
            ("Mail.Send", "Mail.Read", false),
            ("Mail.Send", "Mail.Send", true),
            ("Mail.Send.Shared", "Mail.Send", false),
            ("Mail.ReadWrite", "Mail.Send", false),
            ("Calendars.ReadWrite", "Calendars.ReadWrite", true),
            ("Calendars.Read", "Calendars.ReadWrite", false),
            ("Calendars.ReadWrite.Shared", "Calendars.ReadWrite", false),
            ("Mail.ReadWrite", "User.Read", false),
            ("User.Read", "Mail.Read", false),
            // A permission without a row.
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
