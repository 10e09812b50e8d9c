//! A bill of materials names what is in a program, and not what builds it, tests it, or is in the other.

use std::collections::BTreeSet;

use cyclonedx_bom::models::bom::{Bom, SpecVersion};
use cyclonedx_bom::validation::Validate;
use image::Program;
use image::sbom::{crates, document};
use jiff::Timestamp;

use crate::WORKSPACE;

fn names(program: Program) -> BTreeSet<String> {
    crates(&WORKSPACE, program).unwrap().into_keys().map(|own| own.name).collect()
}

#[test]
fn a_bill_names_the_crates_of_its_own_program_only() {
    let (operator, server) = (names(Program::Operator), names(Program::Server));
    for both in ["rustls", "aws-lc-sys", "mcp-entra-policy", "tokio"] {
        assert!(operator.contains(both) && server.contains(both), "{both}");
    }
    assert!(operator.contains("kube-client") && !server.contains("kube-client"));
    assert!(server.contains("rmcp") && !operator.contains("rmcp"));
}

#[test]
fn a_bill_names_nothing_that_only_builds_or_tests() {
    for program in Program::ALL {
        let names = names(program);
        let strange: Vec<_> = ["proptest", "insta", "testbed", "cc", "serde_derive", "clap_derive"]
            .iter()
            .filter(|name| names.contains(**name))
            .collect();
        assert!(strange.is_empty(), "{program}: {strange:?}");
    }
}

#[test]
fn a_bill_is_valid_and_the_same_each_time() {
    for program in Program::ALL {
        let crates = crates(&WORKSPACE, program).unwrap();
        let bill = document(program, &crates, Timestamp::UNIX_EPOCH).unwrap();
        assert!(bill == document(program, &crates, Timestamp::UNIX_EPOCH).unwrap());

        let bill = Bom::parse_from_json_v1_5(bill.as_slice()).unwrap();
        let verdict = bill.validate_version(SpecVersion::V1_5);
        assert!(verdict.passed(), "{verdict:?}");
        let own = bill.metadata.unwrap().component.unwrap();
        assert_eq!(own.name.to_string(), program.name());
        assert_eq!(bill.components.unwrap().0.len() + 1, bill.dependencies.unwrap().0.len());
    }
}

#[test]
fn a_bill_says_where_a_crate_comes_from_its_license_and_what_it_needs() {
    let crates = crates(&WORKSPACE, Program::Server).unwrap();
    let bill = document(Program::Server, &crates, Timestamp::UNIX_EPOCH).unwrap();
    let bill: serde_json::Value = serde_json::from_slice(&bill).unwrap();
    let component = |name: &str| {
        let components = bill["components"].as_array().unwrap();
        components.iter().find(|component| component["name"] == name).unwrap()
    };
    let axum = component("axum");
    let version = axum["version"].as_str().unwrap();
    assert_eq!(axum["purl"], format!("pkg:cargo/axum@{version}"));
    assert_eq!(axum["licenses"][0]["expression"], "MIT");
    // Nobody finds the workspace's own in a registry.
    assert!(component("mcp-entra-policy").get("purl").is_none());

    let dependencies = bill["dependencies"].as_array().unwrap();
    let needs = dependencies.iter().find(|entry| entry["ref"] == axum["bom-ref"]).unwrap()["dependsOn"].clone();
    assert!(needs.as_array().unwrap().contains(&component("axum-core")["bom-ref"]), "{needs}");
    assert!(!needs.as_array().unwrap().contains(&component("rmcp")["bom-ref"]), "{needs}");
}
