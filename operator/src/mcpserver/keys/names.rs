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

fn prefix(owner: &Owner) -> String {
    format!("{}-{}-oauth-", owner.name, owner.short_uid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::fixtures::mk_owner;

    #[test]
    fn a_name_tells_its_number_and_names_of_others_tell_none() {
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
}
