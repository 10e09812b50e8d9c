//! Keys that are not the tenant's, keys for another issuer, keys that the token contains, and the tenant that it names.

use serde_json::{Value, json};

use super::case::{Base, Case, Category, Change};
use super::configuration::KEYS_OF_OTHER_ISSUERS;
use super::forge::{Forge, KEY_ID};

pub(super) fn cases(forge: &Forge) -> Vec<Case> {
    let mut cases = key_ids();
    cases.extend(embedded(forge));
    cases.extend(critical());
    cases.extend(of_other_issuers(forge));
    cases.extend(tenants(forge));
    cases
}

fn key_ids() -> Vec<Case> {
    let kid = |value: Option<Value>, reason| Case::header(Category::Key, "kid", value, reason);
    let unknown = [
        "unknown".to_owned(),
        String::new(),
        KEY_ID.to_uppercase(),
        format!("{KEY_ID} "),
        format!("{KEY_ID}\0"),
        format!("../{KEY_ID}"),
        "%66orge".to_owned(),
        "' OR 1=1 --".to_owned(),
        "k".repeat(4096),
    ];
    let no_text = [json!(null), json!(1), json!([KEY_ID]), json!({ "kid": KEY_ID }), json!(true)];
    let mut cases = vec![kid(None, "malformed_token")];
    cases.extend(no_text.map(|value| kid(Some(value), "malformed_token")));
    cases.extend(unknown.map(|value| kid(Some(json!(value)), "unknown_key")));
    cases
}

/// A key in the header, or its address, proves nothing, whatever its id.
fn embedded(forge: &Forge) -> Vec<Case> {
    let mut cases = Vec::new();
    for (kid, reason) in [("stranger", "unknown_key"), (KEY_ID, "bad_signature")] {
        for (member, value) in forge.embedded_keys() {
            let what = format!("a stranger's key by {member}, as {kid}");
            let change = Change::StrangersKey { kid, header: vec![(member, value)] };
            cases.push(Case::new(Category::Key, what, change, reason));
        }
        let all = Change::StrangersKey { kid, header: forge.embedded_keys() };
        cases.push(Case::new(Category::Key, format!("a stranger's key by everything, as {kid}"), all, reason));
    }
    cases
}

fn critical() -> Vec<Case> {
    let values = [
        json!(["exp"]),
        json!(["b64"]),
        json!(["unknown"]),
        json!([]),
        json!("exp"),
        json!(null),
        json!({}),
        json!([1]),
    ];
    values.map(|value| Case::header(Category::Key, "crit", Some(value), "critical_header")).into()
}

fn of_other_issuers(forge: &Forge) -> Vec<Case> {
    let mut cases = Vec::new();
    for base in [Base::User, Base::UserOfVersion1] {
        for (kid, _) in KEYS_OF_OTHER_ISSUERS {
            cases.push(Case::header(Category::Key, "kid", Some(json!(kid)), "key_of_another_issuer").of(base));
        }
    }
    let token = forge.signed_with_the_consumers_key.clone();
    let change = Change::Token(Box::new(move |_| token.clone()));
    cases.push(Case::new(
        Category::Key,
        "the key of the tenant for personal accounts",
        change,
        "key_of_another_issuer",
    ));
    cases
}

fn tenants(forge: &Forge) -> Vec<Case> {
    let ours = forge.tenant;
    let tid = |value: Option<Value>, reason| Case::claim(Category::Key, "tid", value, reason);
    let others = [
        String::new(),
        "aaaa0000-0000-4000-8000-000000000003".to_owned(),
        "9188040d-6c67-4c5b-b112-36a304b66dad".to_owned(),
        "00000000-0000-0000-0000-000000000000".to_owned(),
        "common".to_owned(),
        "{tenantid}".to_owned(),
        "contoso.com".to_owned(),
        ours.to_string().to_uppercase(),
        ours.simple().to_string(),
        format!("{{{ours}}}"),
        format!("{ours} "),
        format!("{ours}/"),
    ];
    let no_text = [json!(null), json!([ours]), json!([ours, ours]), json!(1), json!({})];
    let mut cases = vec![tid(None, "bad_claim"), tid(None, "bad_claim").of(Base::UserOfVersion1)];
    cases.extend(no_text.map(|value| tid(Some(value), "bad_claim")));
    cases.extend(others.map(|value| tid(Some(json!(value)), "another_tenant")));
    cases
}
