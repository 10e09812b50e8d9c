//! Manifests of the documentation: whole objects, and fragments of McpServers.

use crate::page::Block;

/// First line of a block that is a fragment of an McpServer: a member `spec` without a kind.
pub const MCP_SERVER_FRAGMENT: &str = "spec:\n";

/// Returns the documents of a `yaml` block that are objects of our kinds, with the line of the block for messages.
pub fn manifests(block: &Block) -> Vec<&str> {
    if block.language != "yaml" {
        return Vec::new();
    }
    let documents = block.text.split("\n---\n");
    documents.filter(|document| document.contains("apiVersion: mcp-entra.dev/")).collect()
}
