//! Fuzzing of [`strict_json`]: it agrees with serde_json or refuses the document.

use super::*;
use crate::strict_json;

proptest! {
    #![proptest_config(bounded())]

    #[test]
    fn any_written_document_is_read_with_the_same_content(json in any_json()) {
        let text = json.to_string();
        prop_assert_eq!(&strict_json::from_slice(text.as_bytes()).unwrap(), &serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn any_bytes_are_read_as_serde_json_reads_them_or_refused(json in any_json(), mutations in mutations()) {
        let bytes = mutated(&json.to_string(), mutations);
        if let Ok(value) = strict_json::from_slice(&bytes) {
            prop_assert_eq!(value, serde_json::from_slice::<Value>(&bytes).unwrap());
        }
    }
}
