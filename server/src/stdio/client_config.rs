//! Configuration of MCP clients, ready to paste.

use std::collections::BTreeMap;
use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};

/// Name of the server in the client.
const NAME: &str = "microsoft-graph";
/// Seconds that Codex waits for an answer; its default is 60.
const CODEX_PATIENCE: u32 = 300;

/// Variables with which programs on Linux find the person's desktop and data folder. Many clients do not pass them to
/// their child processes.
const DESKTOP: [&str; 6] =
    ["DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"];

/// Environment variables that a client must set for the program, by name.
pub type Environment = BTreeMap<String, String>;

/// MCP clients with a known configuration format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Client {
    /// Visual Studio Code.
    #[value(name = "vscode")]
    VsCode,
    /// Claude Desktop.
    ClaudeDesktop,
    /// Claude Code.
    ClaudeCode,
    /// Cursor.
    Cursor,
    /// Codex.
    Codex,
}

impl Client {
    /// Returns a sentence that says where the configuration belongs.
    pub fn place(self) -> &'static str {
        match self {
            Self::VsCode => {
                "Put this into .vscode/mcp.json, or the mcp.json that the command MCP: Open User Configuration opens."
            }
            Self::ClaudeDesktop => {
                "Put this into claude_desktop_config.json, which Settings, Developer, Edit Config opens."
            }
            Self::ClaudeCode => "Run this in a POSIX shell.",
            Self::Cursor => "Put this into ~/.cursor/mcp.json.",
            Self::Codex => "Put this into ~/.codex/config.toml.",
        }
    }
}

/// Returns this process's variables for finding the desktop. Empty on systems that need none.
pub fn desktop() -> Environment {
    let names = DESKTOP.iter().filter(|_| cfg!(target_os = "linux"));
    let set = names.filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    set.filter(|(_, value)| !value.is_empty()).collect()
}

/// Returns the configuration with which this client starts the program with these arguments and variables, without a
/// final line break.
pub fn block(client: Client, program: &Path, arguments: &[String], environment: &Environment) -> String {
    let path = program.to_string_lossy();
    match client {
        Client::VsCode | Client::ClaudeDesktop | Client::Cursor => {
            let mut server = json!({"command": path, "args": arguments});
            if !environment.is_empty() {
                set(&mut server, "env", json!(environment));
            }
            if client != Client::VsCode {
                return json_block(&json!({"mcpServers": {NAME: server}}));
            }
            set(&mut server, "type", json!("stdio"));
            json_block(&json!({"servers": {NAME: server}}))
        }
        Client::ClaudeCode => {
            let words = |(name, value): (&String, &String)| ["--env".to_owned(), format!("{name}={value}")];
            let add = ["mcp", "add", NAME].map(str::to_owned).into_iter().chain(environment.iter().flat_map(words));
            let add = Vec::from_iter(add.chain(["--".to_owned()]));
            format!("{} {}", shell_command(Path::new("claude"), &add), shell_command(program, arguments))
        }
        Client::Codex => {
            let [path, arguments] = [json!(path), json!(arguments)].map(|value| toml_text(&value));
            let mut block = format!(
                "[mcp_servers.{NAME}]\ncommand = {path}\nargs = {arguments}\ntool_timeout_sec = {CODEX_PATIENCE}"
            );
            if !environment.is_empty() {
                let pairs = environment.iter().map(|(name, value)| format!("{name} = {}", toml_text(&json!(value))));
                block += &format!("\nenv = {{ {} }}", Vec::from_iter(pairs).join(", "));
            }
            block
        }
    }
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

/// Returns the command that starts the program with these arguments, for a POSIX shell.
pub fn shell_command(program: &Path, arguments: &[String]) -> String {
    let program = program.to_string_lossy();
    let words = std::iter::once(&*program).chain(arguments.iter().map(String::as_str));
    // Only NUL would be refused, and neither a program's path nor an argument contains it.
    shlex::Quoter::new().allow_nul(true).join(words).unwrap_or_default()
}

fn json_block(value: &Value) -> String {
    format!("{value:#}")
}

/// Formats a string or an array of strings as TOML. JSON strings have the same syntax, except that TOML escapes DEL.
fn toml_text(value: &Value) -> String {
    value.to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that need quoting in one of the formats.
    const ARGUMENTS: &[&str] = &[
        "local",
        "--tenant=contoso.com",
        "",
        "two words",
        "it's \"quoted\"",
        r"C:\Users\ann\new\table.pem",
        "$HOME `id` $(id) !x ~ * # ; & | < >",
        "line\nend\ttab\rreturn\u{7f}\u{1}\u{8}\u{c}",
        "ünï ☃ 😀 \u{2028}",
        "^%PATH%^",
    ];
    const PROGRAM: &str = "/opt/mcp entra/mcp-entra-server";

    fn environment() -> Environment {
        let pairs = [("DISPLAY", ":0"), ("XDG_DATA_HOME", "/home/ann's own/data\u{7f}")];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn block_of(client: Client) -> String {
        let arguments: Vec<String> = ARGUMENTS.iter().map(|argument| (*argument).to_owned()).collect();
        block(client, Path::new(PROGRAM), &arguments, &environment())
    }

    #[test]
    fn a_configuration_without_variables_has_no_env() {
        for client in Client::value_variants() {
            let block = block(*client, Path::new(PROGRAM), &[], &Environment::new());
            assert!(!block.contains("env"), "{block}");
        }
    }

    #[test]
    fn the_json_blocks_start_the_program_with_its_arguments_and_variables() {
        let server = json!({"command": PROGRAM, "args": ARGUMENTS, "env": environment()});
        let mut typed = server.clone();
        typed["type"] = json!("stdio");
        for (client, expected) in [
            (Client::VsCode, json!({"servers": {"microsoft-graph": typed}})),
            (Client::ClaudeDesktop, json!({"mcpServers": {"microsoft-graph": server}})),
            (Client::Cursor, json!({"mcpServers": {"microsoft-graph": server}})),
        ] {
            let block: Value = serde_json::from_str(&block_of(client)).unwrap();
            assert_eq!(block, expected, "{client:?}");
        }
    }

    #[test]
    fn the_block_of_codex_starts_the_program_with_its_arguments_and_variables() {
        let block: toml_edit::DocumentMut = block_of(Client::Codex).parse().unwrap();
        let server = &block["mcp_servers"]["microsoft-graph"];
        let arguments = server["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
        assert_eq!(Vec::from_iter(arguments), ARGUMENTS);
        assert_eq!(server["command"].as_str(), Some(PROGRAM));
        assert_eq!(server["tool_timeout_sec"].as_integer(), Some(300));
        let variables = server["env"].as_inline_table().unwrap().iter();
        let variables: Environment =
            variables.map(|(name, value)| (name.to_owned(), value.as_str().unwrap().to_owned())).collect();
        assert_eq!(variables, environment());
        assert_eq!(server.as_table().unwrap().len(), 4);
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_splits_the_command_of_claude_code_into_the_program_and_its_arguments() {
        let script = format!("claude() {{ printf '%s\\0' \"$@\"; }}\n{}", block_of(Client::ClaudeCode));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let output = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = output.split_terminator('\0').collect();
        let variables = environment().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        let [display, data] = variables.as_slice() else { panic!("{variables:?}") };
        let expected = ["mcp", "add", "microsoft-graph", "--env", display, "--env", data, "--", PROGRAM];
        assert_eq!(words, Vec::from_iter(expected.iter().chain(ARGUMENTS).copied()));
    }
}
