//! Fuzzing of key documents with any content.

use super::*;

const MEMBERS: &[&str] = &["kty", "use", "alg", "kid", "n", "e", "issuer", "cloud_instance_name", "x5c", "x5t"];

fn original() -> Value {
    SIGNER.document["keys"][0].clone()
}

/// True if all relevant members of the key are unchanged.
fn is_the_original(key: &Value) -> bool {
    let same = ["kty", "kid", "n", "e"].iter().all(|member| key[member] == original()[member]);
    let optional = |member: &str, value: &str| key.get(member).is_none_or(|found| found.is_null() || found == value);
    let issuers = [original()["issuer"].clone(), user_claims()["iss"].clone()];
    let issuer = key.get("issuer").is_none_or(|issuer| issuers.contains(issuer));
    same && optional("use", "sig") && optional("alg", "RS256") && issuer && key.get("cloud_instance_name").is_none()
}

proptest! {
    #![proptest_config(bounded())]

    #[test]
    fn a_document_of_any_bytes_has_no_keys(bytes in vec(any::<u8>(), 0..300), json in any_json()) {
        prop_assert!(judged_by(&bytes, &GOOD_TOKEN).is_err());
        prop_assert!(judged_by(json.to_string().as_bytes(), &GOOD_TOKEN).is_err());
        let listed = json!({ "keys": json }).to_string();
        prop_assert!(judged_by(listed.as_bytes(), &GOOD_TOKEN).is_err());
    }

    #[test]
    fn a_published_key_of_any_members_verifies_a_token_only_if_it_is_the_one_that_signed_it(changes in changes(MEMBERS)) {
        let key = changed(original(), changes);
        let document = json!({ "keys": [key] }).to_string();
        prop_assert_eq!(judged_by(document.as_bytes(), &GOOD_TOKEN).is_ok(), is_the_original(&key), "{}", key);
    }

    #[test]
    fn a_document_with_any_bytes_changed_verifies_a_token_only_by_the_key_that_signed_it(mutations in mutations()) {
        let bytes = mutated(&DOCUMENT, mutations);
        if judged_by(&bytes, &GOOD_TOKEN).is_ok() {
            let document: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert!(document["keys"].as_array().unwrap().iter().any(is_the_original));
        }
    }
}
