//! Bare rmcp: the same tool definitions, no authentication, and one answer to all calls.

use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;

use super::{PeerArguments, PeerSetting, listen};
use crate::server::graph::profile;

#[derive(Clone)]
struct Bare {
    tools: Arc<Vec<Tool>>,
    profile: Arc<Value>,
}

/// Serves until the process ends.
///
/// # Errors
/// If the settings cannot be read, or the port is taken.
pub async fn run(arguments: &PeerArguments) -> anyhow::Result<()> {
    let tools = PeerSetting::read(&arguments.folder)?.tools()?;
    listen::serve(arguments.port, Bare { tools: Arc::new(tools), profile: Arc::new(profile()) }).await
}

impl ServerHandler for Bare {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.to_vec()))
    }

    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        Ok(CallToolResult::structured(Value::clone(&self.profile)).into())
    }
}
