//! Tests that an image names its commit, and changes beyond it.

use std::path::Path;
use std::process::Command;

use image::Revision;
use jiff::Timestamp;

fn git(folder: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com", "-c", "commit.gpgsign=false"]);
    git.env("GIT_COMMITTER_DATE", "1750000000 +0200").current_dir(folder).args(arguments);
    assert!(git.status().unwrap().success(), "{arguments:?}");
}

fn checkout() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "as committed").unwrap();
    git(folder.path(), &["init", "--quiet"]);
    git(folder.path(), &["add", "file"]);
    git(folder.path(), &["commit", "--quiet", "--message", "Begin"]);
    folder
}

#[test]
fn a_revision_is_the_commit_and_its_time() {
    let folder = checkout();
    let revision = Revision::read(folder.path(), None).unwrap();
    assert_eq!(revision.name.len(), 40);
    assert_eq!(revision.created, Timestamp::from_second(1_750_000_000).unwrap());
}

#[test]
fn a_revision_is_dirty_if_a_file_differs_or_is_new() {
    let clean = |folder: &tempfile::TempDir| Revision::read(folder.path(), None).unwrap().name;
    let (changed, added) = (checkout(), checkout());
    let commit = clean(&changed);
    std::fs::write(changed.path().join("file"), "changed").unwrap();
    assert_eq!(clean(&changed), format!("{commit}-dirty"));
    std::fs::write(added.path().join("another"), "new").unwrap();
    assert!(clean(&added).ends_with("-dirty"));
}

#[test]
fn source_date_epoch_wins_over_the_commits_time() {
    let folder = checkout();
    let created = |epoch: &str| Revision::read(folder.path(), Some(epoch.to_owned())).map(|revision| revision.created);
    assert_eq!(created("1").unwrap(), Timestamp::from_second(1).unwrap());
    let refusal = created("yesterday").unwrap_err().to_string();
    assert!(refusal.contains("SOURCE_DATE_EPOCH"), "{refusal}");
}

#[test]
fn a_folder_without_a_checkout_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = Revision::read(folder.path(), None).unwrap_err().to_string();
    assert!(refusal.contains("build it in a checkout"), "{refusal}");
}
