//! Builds requests and limits of a container from the operator's defaults and the spec.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};
use mcp_entra_crds::{Amount, Amounts, Resources};

/// The operator's defaults for a container, by resource.
pub(super) struct Defaults {
    pub(super) requests: [(&'static str, &'static str); 2],
    pub(super) limits: [(&'static str, &'static str); 1],
}

/// The defaults for the server's container.
pub(super) const SERVER: Defaults =
    Defaults { requests: [("cpu", "50m"), ("memory", "64Mi")], limits: [("memory", "256Mi")] };

type Quantities = BTreeMap<String, Quantity>;

/// Returns requests and limits. A resource that the spec sets gets no default, which could contradict it, such as a
/// request above the limit.
pub(super) fn requirements(given: Option<&Resources>, ours: &Defaults) -> ResourceRequirements {
    let given = given.cloned().unwrap_or_default();
    let (requests, limits) = (quantities(given.requests), quantities(given.limits));
    let unnamed = |(name, _): &&(&str, &str)| !requests.contains_key(*name) && !limits.contains_key(*name);
    let with_defaults = |given: &Quantities, defaults: &[(&str, &str)]| {
        let defaults = defaults.iter().filter(unnamed);
        let defaults = defaults.map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())));
        Some(defaults.chain(given.clone()).collect())
    };
    ResourceRequirements {
        requests: with_defaults(&requests, &ours.requests),
        limits: with_defaults(&limits, &ours.limits),
        claims: None,
    }
}

fn quantities(amounts: Option<Amounts>) -> Quantities {
    let Amounts { cpu, memory, ephemeral_storage } = amounts.unwrap_or_default();
    [("cpu", cpu), ("memory", memory), ("ephemeral-storage", ephemeral_storage)]
        .into_iter()
        .filter_map(|(name, amount)| Some((name.to_owned(), Quantity(canonical(&amount?)))))
        .collect()
}

/// Returns an amount in the form that the API server stores, such as `1500m` for `1.5`. The stored and the built
/// objects are compared.
fn canonical(amount: &Amount) -> String {
    let text = match amount {
        Amount::Number(number) => number.to_string(),
        Amount::Text(text) => text.clone(),
    };
    canonical_text(&text).unwrap_or(text)
}

fn canonical_text(text: &str) -> Option<String> {
    const DECIMAL: [&str; 7] = ["m", "", "k", "M", "G", "T", "P"];
    const BINARY: [&str; 6] = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let end = text.find(|character: char| character.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut thousandths = whole.parse::<u128>().ok()?.checked_mul(1000)?;
    if !fraction.is_empty() {
        thousandths += format!("{fraction:0<3}").parse::<u128>().ok()?;
    }
    if thousandths == 0 {
        return Some("0".to_owned());
    }
    let (mut value, mut index, units, step) = match BINARY.iter().position(|binary| *binary == unit) {
        Some(index) if index > 0 => (thousandths / 1000, index, BINARY.as_slice(), 1024),
        _ => match DECIMAL.iter().position(|decimal| *decimal == unit)? {
            0 => (thousandths / 1000, 0, DECIMAL.as_slice(), 1000),
            index => (thousandths, index - 1, DECIMAL.as_slice(), 1000),
        },
    };
    while value % step == 0 && index + 1 < units.len() {
        (value, index) = (value / step, index + 1);
    }
    Some(format!("{value}{}", units.get(index)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_the_api_server_stores_them() {
        for (given, stored) in [
            ("1", "1"),
            ("0.5", "500m"),
            ("1.25", "1250m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("2000", "2k"),
            ("1024Mi", "1Gi"),
            ("1000Mi", "1000Mi"),
            ("2048Ki", "2Mi"),
            ("1000k", "1M"),
            ("1024", "1024"),
            ("0", "0"),
            ("0Mi", "0"),
            ("0.000", "0"),
            ("007", "7"),
        ] {
            assert_eq!(canonical(&Amount::Text(given.into())), stored, "{given}");
        }
        assert_eq!(canonical(&Amount::Number(2)), "2");
    }

    #[test]
    fn a_resource_that_the_spec_names_is_left_to_it_and_another_keeps_its_defaults() {
        let given = |value: serde_json::Value| {
            let given: Resources = serde_json::from_value(value).unwrap();
            serde_json::to_value(requirements(Some(&given), &SERVER)).unwrap()
        };
        let defaults = serde_json::json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}});
        assert_eq!(given(serde_json::json!({})), defaults);
        // A request of 64Mi would exceed that limit.
        assert_eq!(
            given(serde_json::json!({"limits": {"memory": "32Mi"}})),
            serde_json::json!({"requests": {"cpu": "50m"}, "limits": {"memory": "32Mi"}})
        );
        assert_eq!(
            given(serde_json::json!({"requests": {"cpu": 1}})),
            serde_json::json!({"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"memory": "256Mi"}})
        );
        // A number above 32 bits.
        assert_eq!(
            given(serde_json::json!({"limits": {"memory": 3_000_000_000_u64}})),
            serde_json::json!({"requests": {"cpu": "50m"}, "limits": {"memory": "3G"}})
        );
    }
}
