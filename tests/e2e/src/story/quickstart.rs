//! The commands of `docs/quickstart.md`, from an empty cluster to a signed-in tool call.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testbed::chart::REGISTRY;
use testbed::command_line::CommandLine;
use testbed::stack::repository;

use super::server;
use super::world::{SERVER, World, merge};
use crate::report::Evidence;

/// The page that is followed.
const PAGE: &str = "docs/quickstart.md";
/// The part of the page that is followed.
const SECTION: &str = "## On a real cluster";
/// What is not done again: the images are made and at hand.
const DONE_BEFORE: &str = "cargo xtask image";
/// All commands together.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// The Azure CLI, as far as the page uses it: at the emulated Entra, the two commands do what they do at the real one.
/// It does not sign anybody in: a token of alice's lies ready.
const AZ: &str = r#"#!/bin/bash
set -euo pipefail
case "$*" in
"ad app federated-credential create --id $CLIENT_ID --parameters credential.json")
  sed 's/"audiences": *\["\([^"]*\)"\]/"audience":"\1"/' credential.json |
    curl -q --silent --show-error --fail-with-body --cacert entra.pem --header 'Content-Type: application/json' \
      --data @- "$CREDENTIALS" ;;
"account get-access-token --scope api://$CLIENT_ID/mcp.access --query accessToken --output tsv")
  cat token ;;
*)
  echo "az: not one of the page's commands: $*" >&2
  exit 64 ;;
esac
"#;

pub(super) async fn followed(world: &World) -> anyhow::Result<Evidence> {
    let stack = &world.stack;
    stack.furnish().await?;
    let page = std::fs::read_to_string(repository(PAGE)).with_context(|| format!("read {PAGE}"))?;
    let section = section(&page)?;
    let folder = stack.folder().join("quickstart");
    prepare(world, section, &folder).await?;

    let commands: Vec<String> =
        commands(section).into_iter().filter(|command| !command.starts_with(DONE_BEFORE)).collect();
    let said = bash(world, &folder, &commands.join("\n")).await?;
    stack.is_installed().await;
    let answer = said.lines().last().unwrap_or_default();
    ensure!(answer.contains(&world.alice.display_name), "alice's profile is not what the last command prints:\n{said}");
    // The story begins without a server, and without what Entra was told of it.
    server::is_deleted(world).await?;
    world.kubectl(&["delete", "mcprolemappings", "--all"]).await?;
    stack.entra.control().remove_federated_credential(world.tenant, world.server_app, SERVER)?;
    let mut evidence = vec![format!("{} commands, from an empty cluster to alice's profile:", commands.len())];
    evidence.extend(commands.iter().map(|command| format!("$ {}", command.lines().next().unwrap_or_default())));
    Ok(evidence)
}

/// What a person has who follows the page: the repository, their own two files, a role, and a name that leads to the
/// Gateway.
async fn prepare(world: &World, section: &str, folder: &Path) -> anyhow::Result<()> {
    let stack = &world.stack;
    let programs = folder.join("bin");
    std::fs::create_dir_all(&programs)?;
    for (link, target) in [
        (folder.join("charts"), repository("charts").into()),
        (folder.join("crds"), repository("crds").into()),
        (programs.join("kubectl"), stack.control_plane.kubectl()),
        (programs.join("helm"), stack.helm().await?.program().to_owned()),
    ] {
        symlink(&target, &link).with_context(|| format!("link {} to {}", link.display(), target.display()))?;
    }
    std::fs::write(programs.join("az"), AZ)?;
    std::fs::set_permissions(programs.join("az"), PermissionsExt::from_mode(0o755))?;

    let mut values: Value =
        serde_yaml::from_str(&block(section, "yaml").with_context(|| format!("{PAGE} has no values.yaml"))?)?;
    merge(&mut values, &stack.values());
    // Images are of here; and who acts by hand in the story is an administrator, which the guardrails would stop, too.
    let here = json!({"guardrails": {
        "allowedRegistries": {"registries": [REGISTRY]}, "onlyOperatorWrites": {"exemptGroups": ["system:masters"]},
    }});
    merge(&mut values, &here);
    let curl = format!("connect-to = \"{}:443:{}\"\ncacert = \"edge.pem\"\n", world.host, stack.edge.address());
    for (name, content) in [
        ("values.yaml", values.to_string()),
        ("server.yaml", world.server_manifests()?),
        ("token", world.sign_in(&world.alice).await?.access_token),
        ("entra.pem", stack.entra.ca_pem().to_owned()),
        ("edge.pem", stack.certificates.pem()),
        (".curlrc", curl),
    ] {
        std::fs::write(folder.join(name), content).with_context(|| format!("write {name}"))?;
    }
    Ok(())
}

async fn bash(world: &World, folder: &Path, commands: &str) -> anyhow::Result<String> {
    let credentials = format!(
        "{}/_control/tenants/{}/apps/{}/federated-credentials",
        world.stack.entra.authority(),
        world.tenant,
        world.server_app
    );
    let mut command = tokio::process::Command::new("bash");
    command
        .current_dir(folder)
        .env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", folder.join("bin").display()))
        .env("HOME", folder)
        .env("KUBECONFIG", world.stack.control_plane.kubeconfig())
        .env("CLIENT_ID", world.server_app.to_string())
        .env("CREDENTIALS", credentials);
    // Each command is told before it runs, so that an error ends with the one that failed.
    CommandLine::new("bash", command, &["-euxo", "pipefail", "-c", commands], LIMIT).succeed(None).await
}

/// From its heading to the next of its level or a smaller one.
fn section(page: &str) -> anyhow::Result<&str> {
    let (_, behind) = page.split_once(&format!("\n{SECTION}\n")).with_context(|| format!("no {SECTION}"))?;
    Ok(["\n## ", "\n### "].iter().fold(behind, |text, next| text.split(next).next().unwrap_or(text)))
}

/// The first block of that language, without its indentation.
fn block(section: &str, language: &str) -> Option<String> {
    let (before, behind) = section.split_once(&format!("```{language}\n"))?;
    let indentation = before.rsplit('\n').next().unwrap_or_default();
    let lines = behind.lines().take_while(|line| line.trim() != "```");
    Some(lines.map(|line| format!("{}\n", line.strip_prefix(indentation).unwrap_or(line))).collect())
}

/// What is typed in the section: lines behind a prompt, and those that continue them, behind a backslash or within
/// quotation marks.
fn commands(section: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut continued = false;
    for line in section.lines().map(str::trim) {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push(command.to_owned());
        } else if continued && let Some(last) = commands.last_mut() {
            *last += "\n";
            *last += line;
        }
        let open = commands.last().is_some_and(|command| command.matches('\'').count() % 2 == 1);
        continued = line.ends_with('\\') || open;
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a\n\n## On a real cluster\n\n1. Do:\n\n   ```console\n   $ one \\\n       --more\n   said\n   $ two 'a\n       b'\n   said\n   ```\n\n   \
        ```yaml\n   a:\n     b: 1\n   ```\n\n### Sub\n\n$ three\n\n## Next\n\n$ four\n";

    #[test]
    fn commands_are_what_is_behind_a_prompt_in_the_section_with_their_continuations() {
        assert_eq!(commands(section(TEXT).unwrap()), ["one \\\n--more", "two 'a\nb'"]);
        assert!(section("# a\n").is_err());
    }

    #[test]
    fn a_block_loses_the_indentation_of_its_list() {
        assert_eq!(block(section(TEXT).unwrap(), "yaml").unwrap(), "a:\n  b: 1\n");
        assert_eq!(block("nothing", "yaml"), None);
    }
}
