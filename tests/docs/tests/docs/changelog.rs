//! Tests of the changelog's form, which is that of Keep a Changelog 1.1.0.

use documentation::repository;

/// Kinds of changes.
const KINDS: [&str; 6] = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];

fn changelog() -> String {
    std::fs::read_to_string(repository("CHANGELOG.md")).unwrap()
}

/// True for a date as `2026-11-30`.
fn is_date(text: &str) -> bool {
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    lengths == [4, 2, 2] && text.chars().all(|c| c == '-' || c.is_ascii_digit())
}

#[test]
fn changes_to_come_are_first_and_the_version_of_the_checkout_is_the_newest_with_its_date() {
    let changelog = changelog();
    let headings: Vec<_> = changelog.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let (first, versions) = headings.split_first().unwrap();
    assert_eq!(*first, "[Unreleased]");
    let newest = format!("[{}] - ", env!("CARGO_PKG_VERSION"));
    assert!(versions.first().is_some_and(|heading| heading.starts_with(&newest)), "{versions:?}");
    for version in versions {
        assert!(version.split_once("] - ").is_some_and(|(_, date)| is_date(date)), "{version} has no date");
    }
}

#[test]
fn changes_are_grouped_by_the_kinds_of_keep_a_changelog() {
    let changelog = changelog();
    let mut seen = 0;
    for kind in changelog.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(KINDS.contains(&kind), "{kind}");
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn the_readme_names_the_version_of_the_checkout() {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    assert!(readme.contains(concat!("Version ", env!("CARGO_PKG_VERSION"), ".")));
}
