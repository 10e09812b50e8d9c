//! Blocks of configuration that MCP clients take, to be pasted.
