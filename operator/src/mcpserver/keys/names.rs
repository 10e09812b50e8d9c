//! Names of key epochs: `<server>-<start of its uid>-oauth-<number>`, for ConfigMap and Secret. The uid excludes epochs
//! of a deleted server with the same name.

use crate::objects::owner::Owner;

/// The highest valid number. It bounds numbers in names that others choose.
const HIGHEST: u32 = 1_000_000;

/// Returns the name of an epoch's ConfigMap and Secret.
pub(crate) fn name(owner: &Owner, number: u32) -> String {
    format!("{}{number}", prefix(owner))
}

/// Returns the number in the name of an epoch.
pub(crate) fn number(owner: &Owner, name: &str) -> Option<u32> {
    let digits = name.strip_prefix(&prefix(owner))?;
    let number = digits.parse().ok().filter(|number| (1..=HIGHEST).contains(number))?;
    (digits == number.to_string()).then_some(number)
}

/// Returns true if a name has the form of an epoch's name, of any server.
pub(crate) fn is_name_of_any(name: &str) -> bool {
    let parts = name.rsplit_once("-oauth-").and_then(|(head, digits)| Some((head.rsplit_once('-')?, digits)));
    let Some(((server, uid), digits)) = parts else { return false };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let is_uid = uid.len() == 8 && uid.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Names of servers have no dots.
    is_number && (1..=7).contains(&digits.len()) && is_uid && !server.is_empty() && !server.contains('.')
}

fn prefix(owner: &Owner) -> String {
    format!("{}-{}-oauth-", owner.name, owner.short_uid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::fixtures::mk_owner;

    #[test]
    fn a_number_is_read_from_a_name_of_this_server_only() {
        let owner = Owner { uid: "0123456789ab".into(), ..mk_owner() };
        assert_eq!(name(&owner, 12), "graph-01234567-oauth-12");
        assert_eq!(number(&owner, "graph-01234567-oauth-12"), Some(12));
        for other in [
            "graph-01234567-oauth-",
            "graph-01234567-oauth-0",
            "graph-01234567-oauth-01",
            "graph-01234567-oauth-+1",
            "graph-01234567-oauth-1000001",
            "graph-76543210-oauth-1",
            "graphs-01234567-oauth-1",
        ] {
            assert_eq!(number(&owner, other), None, "{other}");
        }
    }

    #[test]
    fn names_of_epochs_of_all_servers_are_recognized_and_similar_names_are_not() {
        for key in [name(&Owner { uid: "0123abcd-0".into(), ..mk_owner() }, 12), "a-0123abcd-oauth-1000000".into()] {
            assert!(is_name_of_any(&key), "{key}");
        }
        for other in [
            "graph-0123abcd-oauth-",
            "graph-0123abcd-oauth-01",
            "graph-0123abcd-oauth-1x",
            "graph-0123abcd-oauth-10000000",
            "graph-0123abc-oauth-1",
            "graph-0123abcg-oauth-1",
            "graph-backend.a-0123abcd-oauth-1",
            "-0123abcd-oauth-1",
            "0123abcd-oauth-1",
        ] {
            assert!(!is_name_of_any(other), "{other}");
        }
    }
}
