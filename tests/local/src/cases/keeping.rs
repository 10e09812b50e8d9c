//! Stored sign-ins: in gnome-keyring, in a file, or nowhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use e2e::report::Evidence;

use crate::keyring::Keyring;
use crate::session::{Client, Session};
use crate::world::World;

/// A session of a client from its start to its end, with or without a sign-in of alice.
async fn visit(world: &World<'_>, arguments: &[&str], signs_in: bool) -> anyhow::Result<()> {
    let mut session = Session::start(Client::Python, world, &world.server(arguments)).await?;
    let call = session.call("get_user_details").await?;
    if signs_in {
        let url = world.openings.next().await?;
        world.sign_in(&url).await?;
    }
    session.answer(call).await?.is_alices()?;
    session.close().await
}

/// Files that the server stores.
fn kept(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        match path.file_name().and_then(|name| name.to_str()) {
            // Files of the bus and of the keyring itself.
            Some("dbus-1" | "keyrings") => {}
            _ if kind.is_dir() => files.extend(kept(&path)?),
            _ => files.push(path),
        }
    }
    Ok(files)
}

/// Fails unless there are stored files that only the user may read, and that contain no readable token.
fn are_encrypted(files: &[PathBuf]) -> anyhow::Result<()> {
    ensure!(!files.is_empty(), "no sign-in is stored");
    for file in files {
        let text = String::from_utf8_lossy(&fs::read(file)?).into_owned();
        ensure!(!text.contains("refresh") && !text.contains("eyJ"), "{} is not encrypted", file.display());
    }
    are_private(files)
}

fn are_private(files: &[PathBuf]) -> anyhow::Result<()> {
    for file in files {
        let mode = fs::metadata(file)?.permissions().mode() & 0o777;
        ensure!(mode & 0o077 == 0, "{} has mode {mode:o}", file.display());
    }
    Ok(())
}

pub(super) async fn keyring(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    world.set_keyring(Keyring::Unlocked).await?;
    visit(world, &[], true).await?;
    let files = kept(&world.file("data"))?;
    are_encrypted(&files)?;
    visit(world, &[], false).await?;
    world.expect(1, 1)?;
    // As after a restart of the machine.
    world.set_keyring(Keyring::Unlocked).await?;
    visit(world, &[], false).await?;
    world.expect(1, 1)?;
    Ok(files
        .iter()
        .filter_map(|file| file.strip_prefix(world.file("data")).ok())
        .map(|file| file.display().to_string())
        .collect())
}

pub(super) async fn nowhere(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    visit(world, &[], true).await?;
    let log = world.stderr()?;
    let said = said_about_memory(&log)?;
    visit(world, &[], true).await?;
    world.expect(2, 2)?;
    Ok(vec![said])
}

pub(super) async fn locked(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    world.set_keyring(Keyring::Unlocked).await?;
    visit(world, &[], true).await?;
    world.set_keyring(Keyring::Locked).await?;
    visit(world, &[], true).await?;
    let said = said_about_memory(&world.stderr()?)?;
    visit(world, &[], true).await?;
    world.expect(3, 3)?;
    world.set_keyring(Keyring::Unlocked).await?;
    visit(world, &[], false).await?;
    world.expect(3, 3)?;
    Ok(vec![said])
}

/// Returns the line of the log with the place of the tokens.
fn said_about_memory(log: &str) -> anyhow::Result<String> {
    let said = log.lines().find(|line| line.contains("memory"));
    said.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("no log line says that tokens are only in memory"))
}

pub(super) async fn file(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    visit(world, &["--token-store=file"], true).await?;
    let files = kept(&world.file("data"))?;
    ensure!(!files.is_empty(), "no sign-in is stored");
    are_private(&files)?;
    visit(world, &["--token-store=file"], false).await?;
    world.expect(1, 1)?;
    Ok(vec![])
}

pub(super) async fn two_at_once(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let server = world.server(&["--token-store=file"]);
    let mut first = Session::start(Client::Python, world, &server).await?;
    let mut second = Session::start(Client::TypeScript, world, &server).await?;
    let (of_first, of_second) = (first.call("get_user_details").await?, second.call("get_user_details").await?);
    // Both wait for a user.
    first.progress(of_first).await?;
    second.progress(of_second).await?;
    let url = world.openings.next().await?;
    world.sign_in(&url).await?;
    first.answer(of_first).await?.is_alices()?;
    second.answer(of_second).await?.is_alices()?;
    world.expect(1, 1)?;
    first.close().await?;
    second.close().await?;
    Ok(vec![])
}
