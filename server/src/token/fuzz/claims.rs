//! Fuzzing of claims: any names and values, verified or as bytes.

use super::*;

const CLAIMS: &[&str] = &[
    "aud",
    "iss",
    "tid",
    "ver",
    "exp",
    "nbf",
    "iat",
    "oid",
    "sub",
    "azp",
    "appid",
    "scp",
    "roles",
    "groups",
    "idtyp",
    "cnf",
    "acrs",
    "xms_cc",
    "idp",
    "acct",
    "hasgroups",
    "_claim_names",
];

/// A second implementation of the conditions for access, for comparison with the validator.
fn could_be_accepted(claims: &Value) -> bool {
    let good = user_claims();
    let same = ["iss", "tid", "ver"].iter().all(|name| claims[name] == good[name]);
    let audience = claims["aud"] == good["aud"] || claims["aud"] == format!("api://{}", good["aud"].as_str().unwrap());
    let time = |name: &str| claims[name].as_u64();
    let now = time("exp").is_some_and(|exp| exp.saturating_add(60) > NOW)
        && time("nbf").is_some_and(|nbf| nbf <= NOW + 60)
        && time("iat").is_some_and(|iat| iat <= NOW + 60);
    let user = claims["scp"].as_str().is_some_and(|scopes| scopes.split(' ').any(|scope| scope == "mcp.access"))
        && claims["idtyp"] != "app";
    let application = claims.get("scp").is_none()
        && claims["roles"].as_array().is_some_and(|roles| !roles.is_empty())
        && (claims["idtyp"] == "app" || claims["oid"] == claims["sub"]);
    let identified = claims["oid"].is_string() && claims["azp"].is_string();
    same && audience && now && (user || application) && identified && claims.get("cnf").is_none()
}

proptest! {
    #![proptest_config(bounded())]

    #[test]
    fn signed_claims_of_any_values_are_accepted_only_with_the_values_of_a_good_token(changes in changes(CLAIMS)) {
        let claims = changed(user_claims(), changes);
        let token = signed(header().to_string().as_bytes(), claims.to_string().as_bytes());
        match judged(&token) {
            Ok(Principal::User(user)) => {
                prop_assert!(could_be_accepted(&claims), "{}", claims);
                prop_assert!(user.caller.scopes.contains("mcp.access") && claims["oid"] == user.object_id);
            }
            Ok(Principal::LocalUser(_)) => panic!("no token is of the person who runs a program"),
            Ok(Principal::Application(application)) => {
                prop_assert!(could_be_accepted(&claims), "{}", claims);
                prop_assert!(!application.caller.roles.is_empty() && claims.get("scp").is_none());
            }
            Err(error) => {
                // Characters that RFC 6750 section 3 allows in error_description.
                let legal = |byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E);
                prop_assert!(error.to_string().bytes().all(legal), "{}", error);
            }
        }
    }

    #[test]
    fn signed_claims_of_any_bytes_are_accepted_only_with_the_values_of_a_good_token(mutations in mutations()) {
        let bytes = mutated(&user_claims().to_string(), mutations);
        if judged(&signed(header().to_string().as_bytes(), &bytes)).is_ok() {
            let claims: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert!(could_be_accepted(&claims), "{}", claims);
        }
    }

    #[test]
    fn mistakes_are_recognised_in_claims_of_any_values(changes in changes(CLAIMS)) {
        let claims = changed(user_claims(), changes);
        _ = EXPECTED.recognise_mistake(claims.as_object().unwrap());
    }
}
