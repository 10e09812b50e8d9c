//! Blocks of configuration that MCP clients take, to be pasted.

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};

/// Name of the server in the client.
const NAME: &str = "microsoft-graph";
/// Seconds that Codex waits for an answer; its own default is 60.
const CODEX_PATIENCE: u32 = 300;

/// MCP clients whose configuration is known.
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
    /// The place that the block is for, as a sentence.
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

/// The block that lets this client start the program with these arguments, without an end of line.
pub fn block(client: Client, program: &Path, arguments: &[String]) -> String {
    let path = program.to_string_lossy();
    match client {
        Client::VsCode => {
            json_block(&json!({"servers": {NAME: {"type": "stdio", "command": path, "args": arguments}}}))
        }
        Client::ClaudeDesktop | Client::Cursor => {
            json_block(&json!({"mcpServers": {NAME: {"command": path, "args": arguments}}}))
        }
        Client::ClaudeCode => format!("claude mcp add {NAME} -- {}", shell_command(program, arguments)),
        Client::Codex => {
            let (path, arguments) = (toml_text(&json!(path)), toml_text(&json!(arguments)));
            format!("[mcp_servers.{NAME}]\ncommand = {path}\nargs = {arguments}\ntool_timeout_sec = {CODEX_PATIENCE}")
        }
    }
}

/// The command that starts the program with these arguments, for a POSIX shell.
pub fn shell_command(program: &Path, arguments: &[String]) -> String {
    let program = program.to_string_lossy();
    let words = std::iter::once(&*program).chain(arguments.iter().map(String::as_str));
    // Neither the path of a program nor an argument of this one holds the NUL that alone is refused.
    shlex::Quoter::new().allow_nul(true).join(words).unwrap_or_default()
}

fn json_block(value: &Value) -> String {
    format!("{value:#}")
}

/// A text or an array of texts in TOML. JSON has the same strings, except that it lets DEL stand as it is.
fn toml_text(value: &Value) -> String {
    value.to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts that need quoting in one of the forms.
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

    fn block_of(client: Client) -> String {
        let arguments: Vec<String> = ARGUMENTS.iter().map(|argument| (*argument).to_owned()).collect();
        block(client, Path::new(PROGRAM), &arguments)
    }

    #[test]
    fn the_json_blocks_start_the_program_with_its_arguments() {
        for (client, expected) in [
            (
                Client::VsCode,
                json!({"servers": {"microsoft-graph": {"type": "stdio", "command": PROGRAM, "args": ARGUMENTS}}}),
            ),
            (
                Client::ClaudeDesktop,
                json!({"mcpServers": {"microsoft-graph": {"command": PROGRAM, "args": ARGUMENTS}}}),
            ),
            (Client::Cursor, json!({"mcpServers": {"microsoft-graph": {"command": PROGRAM, "args": ARGUMENTS}}})),
        ] {
            let block: Value = serde_json::from_str(&block_of(client)).unwrap();
            assert_eq!(block, expected, "{client:?}");
        }
    }

    #[test]
    fn the_block_of_codex_starts_the_program_with_its_arguments() {
        let block: toml_edit::DocumentMut = block_of(Client::Codex).parse().unwrap();
        let server = &block["mcp_servers"]["microsoft-graph"];
        let arguments = server["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap());
        assert_eq!(Vec::from_iter(arguments), ARGUMENTS);
        assert_eq!(server["command"].as_str(), Some(PROGRAM));
        assert_eq!(server["tool_timeout_sec"].as_integer(), Some(300));
        assert_eq!(server.as_table().unwrap().len(), 3);
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_splits_the_command_of_claude_code_into_the_program_and_its_arguments() {
        let script = format!("claude() {{ printf '%s\\0' \"$@\"; }}\n{}", block_of(Client::ClaudeCode));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let output = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = output.split_terminator('\0').collect();
        let expected = ["mcp", "add", "microsoft-graph", "--", PROGRAM];
        assert_eq!(words, Vec::from_iter(expected.iter().chain(ARGUMENTS).copied()));
    }
}
