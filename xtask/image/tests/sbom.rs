//! Tests that a bill of materials lists exactly the crates in an image's programs. Crates that build or test them, or
//! are in the other image, are not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

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
    assert!(!operator.contains("mcp-entra-shim"));
}

#[test]
fn a_bill_names_the_other_programs_of_the_image_and_their_crates() {
    let crates = crates(&WORKSPACE, Program::Server).unwrap();
    let bill = document(Program::Server, &crates, Timestamp::UNIX_EPOCH).unwrap();
    let bill: serde_json::Value = serde_json::from_slice(&bill).unwrap();
    assert_eq!(bill["metadata"]["component"]["name"], "mcp-entra-server");
    let components = bill["components"].as_array().unwrap();
    let programs = components.iter().filter(|component| component["type"] == "application");
    assert_eq!(programs.map(|program| &program["name"]).collect::<Vec<_>>(), ["mcp-entra-shim"]);
    assert!(components.iter().any(|component| component["name"] == "lexopt"), "the shim's crates are missing");
}

#[test]
fn another_program_of_an_image_enables_no_features_that_the_main_one_lacks() {
    // They share their crates, since they are built together.
    for program in Program::ALL.into_iter().filter(|program| !program.beside().is_empty()) {
        let alone = features(&[program.name()]);
        let together = features(&[&[program.name()], program.beside()].concat());
        let strange: Vec<_> = alone.iter().filter(|(own, features)| together.get(*own) != Some(*features)).collect();
        assert!(strange.is_empty(), "{program}: {strange:?}");
    }
}

/// The features of each crate of these packages, built together.
fn features(packages: &[&str]) -> BTreeMap<String, String> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--edges=normal", "--prefix=none", "--no-dedupe", "--format={p}|{f}"]);
    tree.args(packages.iter().flat_map(|name| ["--package", name])).current_dir(&WORKSPACE.root);
    let lines = String::from_utf8(tree.output().unwrap().stdout).unwrap();
    assert!(!lines.is_empty());
    lines.lines().filter_map(|line| line.split_once('|')).map(|(own, features)| (own.into(), features.into())).collect()
}

#[test]
fn a_bill_names_no_crate_that_only_builds_or_tests() {
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
fn a_bill_names_the_origin_license_and_dependencies_of_a_crate() {
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
    // The workspace's own crates are in no registry.
    assert!(component("mcp-entra-policy").get("purl").is_none());

    let dependencies = bill["dependencies"].as_array().unwrap();
    let needs = dependencies.iter().find(|entry| entry["ref"] == axum["bom-ref"]).unwrap()["dependsOn"].clone();
    assert!(needs.as_array().unwrap().contains(&component("axum-core")["bom-ref"]), "{needs}");
    assert!(!needs.as_array().unwrap().contains(&component("rmcp")["bom-ref"]), "{needs}");
}
