//! Tests of the documentation's commands that need no execution.

use std::path::{Path, PathBuf};
use std::process::Command;

use documentation::{Block, pages, repository};

/// Commands of Cargo itself in the documentation.
const OF_CARGO: [&str; 9] = ["bench", "build", "check", "clippy", "doc", "fmt", "metadata", "run", "test"];

fn blocks() -> Vec<Block> {
    let blocks = pages().into_iter().flat_map(|page| page.blocks());
    blocks.filter(|block| matches!(block.language.as_str(), "console" | "sh")).collect()
}

/// The sources of the package whose program the alias of `.cargo/config.toml` runs.
fn sources(alias: &str) -> Option<String> {
    let config = std::fs::read_to_string(repository(".cargo/config.toml")).unwrap();
    let line = config.lines().find(|line| line.starts_with(&format!("{alias} = ")))?;
    let bin = line.split("--bin ").nth(1)?.split([' ', '"']).next()?;
    let packages = std::fs::read_dir(repository("tests")).unwrap().map(|package| package.unwrap().path());
    let packages = packages.chain([repository("xtask")]);
    let is_its_own = |package: &PathBuf| {
        let manifest = std::fs::read_to_string(package.join("Cargo.toml")).unwrap_or_default();
        package.join(format!("src/bin/{bin}.rs")).exists() || manifest.contains(&format!("name = \"{bin}\""))
    };
    let mut text = String::new();
    read(&packages.into_iter().find(is_its_own)?.join("src"), &mut text);
    Some(text)
}

fn read(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            read(&entry, into);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(entry).unwrap());
        }
    }
}

#[test]
fn bash_parses_every_command() {
    let mut seen = 0;
    for block in blocks() {
        for command in block.commands() {
            let output = Command::new("bash").args(["-n", "-c", &command]).output().unwrap();
            assert!(output.status.success(), "{}: {}", block.place, String::from_utf8_lossy(&output.stderr));
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} commands were seen");
}

#[test]
fn every_named_alias_of_cargo_exists_and_has_the_named_flags() {
    let mut seen = 0;
    for block in blocks() {
        for call in block.calls("cargo") {
            let alias = call.get(1).unwrap();
            if OF_CARGO.contains(&alias.as_str()) {
                continue;
            }
            let source = sources(alias).unwrap_or_else(|| panic!("{}: cargo {alias} does not exist", block.place));
            for flag in call.iter().filter_map(|word| word.strip_prefix("--")).filter(|flag| !flag.is_empty()) {
                let name = flag.split('=').next().unwrap();
                let field = format!("{}:", name.replace('-', "_"));
                let is_known = source.contains(&field) || source.contains(&format!("\"--{name}\""));
                assert!(is_known, "{}: cargo {alias} has no --{name}", block.place);
            }
            seen += 1;
        }
    }
    assert!(seen >= 6, "only {seen} aliases were seen");
}

#[test]
fn every_repository_file_in_a_command_exists() {
    let mut seen = 0;
    for block in blocks() {
        for word in block.commands().iter().flat_map(|command| command.split_whitespace()) {
            let word = word.trim_matches(['\'', '"', ')']);
            if ["charts/", "crds/", "docs/", "tests/", ".ci/"].iter().any(|folder| word.starts_with(folder)) {
                assert!(repository(word).exists(), "{}: {word} does not exist", block.place);
                seen += 1;
            }
        }
    }
    assert!(seen >= 4, "only {seen} files were seen");
}

#[test]
fn every_label_and_annotation_of_a_page_is_one_of_the_operators() {
    let known = std::fs::read_to_string(repository("operator/src/objects/names.rs")).unwrap();
    let mut seen = 0;
    for page in pages().into_iter().filter(|page| page.path.starts_with("docs/")) {
        for rest in page.text.split("mcp-entra.dev/").skip(1) {
            let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap();
            // A group has a version, and a prefix of names ends with `*`.
            if name.is_empty() || name == "v1alpha1" {
                continue;
            }
            assert!(known.contains(&format!("\"mcp-entra.dev/{name}\"")), "{}: mcp-entra.dev/{name}", page.path);
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen} names were seen");
}
