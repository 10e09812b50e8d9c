//! Instructions for connecting each client to a server, with configuration to copy.

use serde_json::{Value, json};

use super::texts::ConnectTexts;

/// The steps for one client.
pub(super) struct Guide {
    /// Id of its section on the page.
    pub(super) id: &'static str,
    pub(super) client: &'static str,
    pub(super) steps: Vec<Step>,
}

/// A sentence, and optionally something to copy.
pub(super) struct Step {
    pub(super) text: &'static str,
    pub(super) copy: Option<String>,
}

/// Returns the guides for a server with this name and URL.
pub(super) fn guides(name: &str, url: &str, texts: &ConnectTexts) -> Vec<Guide> {
    vec![
        Guide {
            id: "vscode",
            client: "Visual Studio Code",
            steps: vec![
                Step::copy(texts.vscode, block(&json!({"servers": {name: {"type": "http", "url": url}}}))),
                Step::say(texts.vscode_then),
            ],
        },
        Guide {
            id: "claude-code",
            client: "Claude Code",
            steps: vec![
                Step::copy(texts.terminal, command(&["claude", "mcp", "add", "--transport", "http", name, url])),
                Step::say(texts.claude_code_then),
            ],
        },
        Guide {
            id: "claude",
            client: "Claude Desktop, claude.ai",
            steps: vec![Step::copy(texts.claude, url.to_owned()), Step::say(texts.claude_then)],
        },
        Guide {
            id: "cursor",
            client: "Cursor",
            steps: vec![
                Step::copy(texts.cursor, block(&json!({"mcpServers": {name: {"url": url}}}))),
                Step::say(texts.cursor_then),
            ],
        },
        Guide {
            id: "codex",
            client: "Codex",
            steps: vec![
                Step::copy(texts.terminal, command(&["codex", "mcp", "add", name, "--url", url])),
                Step::copy(texts.codex_then, command(&["codex", "mcp", "login", name])),
            ],
        },
        Guide {
            id: "chatgpt",
            client: "ChatGPT",
            steps: vec![Step::copy(texts.chatgpt, url.to_owned()), Step::say(texts.chatgpt_then)],
        },
        Guide {
            id: "copilot-studio",
            client: "Copilot Studio",
            steps: vec![Step::copy(texts.copilot_studio, url.to_owned()), Step::say(texts.copilot_studio_then)],
        },
        Guide { id: "inspector", client: "MCP Inspector", steps: vec![Step::copy(texts.terminal, inspector(url))] },
        Guide {
            id: "mcp-remote",
            client: "mcp-remote",
            steps: vec![Step::copy(texts.mcp_remote, mcp_remote(name, url))],
        },
    ]
}

impl Step {
    fn say(text: &'static str) -> Self {
        Self { text, copy: None }
    }

    fn copy(text: &'static str, copy: String) -> Self {
        Self { text, copy: Some(copy) }
    }
}

fn inspector(url: &str) -> String {
    command(&["npx", "@modelcontextprotocol/inspector", "--transport", "http", "--server-url", url])
}

fn mcp_remote(name: &str, url: &str) -> String {
    block(&json!({"mcpServers": {name: {"command": "npx", "args": ["-y", "mcp-remote", url]}}}))
}

fn block(value: &Value) -> String {
    format!("{value:#}")
}

/// Returns a command for a POSIX shell.
fn command(words: &[&str]) -> String {
    // Only NUL would be refused, and neither a name nor a URL contains it.
    shlex::Quoter::new().allow_nul(true).join(words.iter().copied()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::pages::Language;

    const NAME: &str = "it's \"my\" server; rm -rf $HOME";
    const URL: &str = "https://mcp.example.com/mail?a='b'&c=\"d\"";

    fn copied() -> Vec<String> {
        let guides = guides(NAME, URL, &Language::English.texts().connect);
        guides.into_iter().flat_map(|guide| guide.steps).filter_map(|step| step.copy).collect()
    }

    #[test]
    fn a_name_with_quotes_stays_one_word_of_a_command_and_one_member_of_an_object() {
        for copy in copied() {
            if copy == URL || copy.contains("inspector") {
                continue;
            }
            if copy.starts_with('{') {
                let value: Value = serde_json::from_str(&copy).unwrap();
                let servers = value.get("servers").or(value.get("mcpServers")).unwrap();
                assert!(servers.get(NAME).unwrap().to_string().contains("https://"), "{copy}");
            } else {
                let words = shlex::split(&copy).unwrap();
                assert!(words.iter().any(|word| word == NAME), "{copy}");
            }
        }
    }

    #[test]
    fn every_guide_has_the_exact_url() {
        let escaped = json!(URL).to_string();
        for guide in guides(NAME, URL, &Language::English.texts().connect) {
            let copies = guide.steps.iter().filter_map(|step| step.copy.as_ref());
            let told = |copy: &String| {
                copy == URL || copy.contains(&escaped) || shlex::split(copy).unwrap().iter().any(|word| word == URL)
            };
            assert!(copies.into_iter().any(told), "{}", guide.client);
        }
    }
}
