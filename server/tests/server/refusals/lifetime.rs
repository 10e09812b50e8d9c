//! Before, after, and without times. The unit tests, whose clock does not move, cover the seconds around the skew.

use serde_json::{Value, json};

use super::case::{Base, Case, Category};
use super::forge::Forge;

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;

pub(super) fn cases(forge: &Forge) -> Vec<Case> {
    let now = forge.now;
    let claim = |name, value: Value, reason| Case::claim(Category::Lifetime, name, Some(value), reason);
    let mut cases = Vec::new();
    for (name, good) in [("exp", now + HOUR), ("nbf", now), ("iat", now)] {
        cases.push(Case::claim(Category::Lifetime, name, None, "bad_claim"));
        let no_times = [
            json!(null),
            json!(good.to_string()),
            json!(format!("{good}.0")),
            json!(good as f64),
            json!(good as f64 + 0.5),
            json!(-good),
            json!(true),
            json!([good]),
            json!({ "value": good }),
            json!(1e300),
        ];
        cases.extend(no_times.map(|value| claim(name, value, "bad_claim")));
    }
    for ended in [now - 61, now - 120, now - HOUR, now - YEAR, 1, 0] {
        cases.push(claim("exp", json!(ended), "expired"));
    }
    for name in ["nbf", "iat"] {
        // Milliseconds are a common mistake.
        for starts in [now + 2 * HOUR, now + 24 * HOUR, now + YEAR, now * 1000] {
            cases.push(claim(name, json!(starts), "not_yet_valid"));
        }
        cases.push(claim(name, json!(u64::MAX), "not_yet_valid"));
    }
    for base in [Base::Application, Base::UserOfVersion1, Base::ApplicationOfVersion1] {
        cases.push(claim("exp", json!(now - HOUR), "expired").of(base));
        cases.push(claim("nbf", json!(now + HOUR), "not_yet_valid").of(base));
    }
    cases
}
