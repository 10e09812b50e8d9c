//! Fuzzing of tokens as bytes, and of headers with any members.

use super::*;

const MEMBERS: &[&str] = &["alg", "kid", "crit", "typ", "jwk", "jku", "x5u", "x5c", "x5t", "b64", "zip", "enc", "cty"];

proptest! {
    #![proptest_config(bounded())]

    #[test]
    fn a_text_of_any_characters_is_refused(text in ".{0,200}", parts in vec(vec(any::<u8>(), 0..100), 0..5)) {
        prop_assert!(judged(&text).is_err());
        let parts: Vec<String> = parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
        prop_assert!(judged(&parts.join(".")).is_err());
    }

    #[test]
    fn a_token_is_refused_unless_it_is_the_one_that_was_issued_byte_by_byte(mutations in mutations()) {
        let mutated = mutated(&GOOD_TOKEN, mutations);
        // The Authorization header is ASCII, so other bytes never get here.
        let Ok(text) = std::str::from_utf8(&mutated) else { return Ok(()) };
        prop_assert_eq!(judged(text).is_ok(), text == *GOOD_TOKEN);
    }

    #[test]
    fn a_signed_header_is_accepted_only_with_its_algorithm_and_key_and_without_crit(changes in changes(MEMBERS)) {
        let header = changed(header(), changes);
        let good = header["alg"] == "RS256" && header["kid"] == "one" && header.get("crit").is_none();
        let token = signed(header.to_string().as_bytes(), user_claims().to_string().as_bytes());
        prop_assert_eq!(judged(&token).is_ok(), good, "{}", header);
    }

    #[test]
    fn a_signed_header_of_any_bytes_is_refused_unless_it_says_the_same(mutations in mutations()) {
        let bytes = mutated(&header().to_string(), mutations);
        if judged(&signed(&bytes, user_claims().to_string().as_bytes())).is_ok() {
            let read: Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert!(read["alg"] == "RS256" && read["kid"] == "one" && read.get("crit").is_none());
        }
    }
}
