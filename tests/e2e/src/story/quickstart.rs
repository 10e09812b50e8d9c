//! Commands of `docs/quickstart.md`, from an empty cluster to a signed-in tool call.

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

/// Page with the commands.
const PAGE: &str = "docs/quickstart.md";
/// Section with the commands.
const SECTION: &str = "## On a real cluster";
/// Commands that are skipped: the images are already built and imported.
const DONE_BEFORE: &str = "cargo xtask image";
/// Time limit of all commands together.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Double of the Azure CLI, for the commands of the page. Two commands act on the emulated Entra as on the real one. It
/// does not sign in users: a token for alice exists beforehand.
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
    ensure!(answer.contains(&world.alice.display_name), "the last command does not print alice's profile:\n{said}");
    // The story begins without a server, and without its settings in Entra.
    server::is_deleted(world).await?;
    world.kubectl(&["delete", "mcprolemappings", "--all"]).await?;
    stack.entra.control().remove_federated_credential(world.tenant, world.server_app, SERVER)?;
    let mut evidence = vec![format!("{} commands, from an empty cluster to alice's profile:", commands.len())];
    evidence.extend(commands.iter().map(|command| format!("$ {}", command.lines().next().unwrap_or_default())));
    Ok(evidence)
}

/// Creates the starting point of a reader of the page: the repository, two files of their own, a role, and a name that
/// resolves to the Gateway.
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
    // The images are local. The user of the commands is an administrator. The guardrails would stop them, too.
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
    // Each command is printed before it runs, so that an error ends with the failed one.
    CommandLine::new("bash", command, &["-euxo", "pipefail", "-c", commands], LIMIT).succeed(None).await
}

/// Returns the section from its heading to the next heading of the same or a higher level.
fn section(page: &str) -> anyhow::Result<&str> {
    let (_, behind) = page.split_once(&format!("\n{SECTION}\n")).with_context(|| format!("no {SECTION}"))?;
    Ok(["\n## ", "\n### "].iter().fold(behind, |text, next| text.split(next).next().unwrap_or(text)))
}

/// Returns the first block of this language, without its indentation.
fn block(section: &str, language: &str) -> Option<String> {
    let (before, behind) = section.split_once(&format!("```{language}\n"))?;
    let indentation = before.rsplit('\n').next().unwrap_or_default();
    let lines = behind.lines().take_while(|line| line.trim() != "```");
    Some(lines.map(|line| format!("{}\n", line.strip_prefix(indentation).unwrap_or(line))).collect())
}

/// Returns the typed commands of the section: lines after a prompt, and their continuations, after a backslash or
/// within quotation marks.
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
    fn commands_are_the_lines_after_a_prompt_with_their_continuations() {
        assert_eq!(commands(section(TEXT).unwrap()), ["one \\\n--more", "two 'a\nb'"]);
        assert!(section("# a\n").is_err());
    }

    #[test]
    fn a_block_loses_the_indentation_of_its_list() {
        assert_eq!(block(section(TEXT).unwrap(), "yaml").unwrap(), "a:\n  b: 1\n");
        assert_eq!(block("nothing", "yaml"), None);
    }
}
