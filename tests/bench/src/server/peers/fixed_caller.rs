//! rmcp with the Graph client and the tools of the server under test, and no authentication. All requests are those of
//! one user, whose token is verified at the start. The Graph token is cached as in the server under test.

use std::sync::Arc;

use anyhow::Context;
use mcp_entra_policy::GraphAccess;
use mcp_entra_server::entra::{ApplicationCredential, FederatedToken, Sts};
use mcp_entra_server::graph::GraphClient;
use mcp_entra_server::inputs;
use mcp_entra_server::offer::graph::GraphOffer;
use mcp_entra_server::offer::{About, Call, Client, Input, Offer, Operation, Reply};
use mcp_entra_server::token::{Keys, Principal, TokenValidator};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ListToolsResult, PaginatedRequestParams,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::Value;

use super::{PeerArguments, PeerSetting, listen};

#[derive(Clone)]
struct FixedCaller {
    tools: Arc<Vec<Tool>>,
    offer: Arc<GraphOffer>,
    caller: Arc<Principal>,
}

/// Serves until the process ends.
///
/// # Errors
/// If a file cannot be read, the user's token is not valid, or the port is taken.
pub async fn run(arguments: &PeerArguments) -> anyhow::Result<()> {
    let file = |name: &str| arguments.folder.join(name);
    let setting = PeerSetting::read(&arguments.folder)?;
    let configuration = inputs::configuration(&file("config.yaml"))?;
    let (entra, graph) = (&configuration.entra, &configuration.graph);
    let http = inputs::http_client(Some(&file("ca.pem")))?;
    let keys = Arc::new(Keys::new(http.clone(), entra));
    keys.refresh().await?;
    let caller = TokenValidator::new(&configuration, keys).validate(&setting.user_token).await?;
    let token = FederatedToken::at(file("token"));
    let sts = Arc::new(Sts::new(http.clone(), entra, token.clone())?);
    let application = ApplicationCredential::new(http.clone(), entra, &graph.base_url, token);
    let client = GraphClient::new(http, graph, sts, application).context("the address of Graph")?;
    let offer = Arc::new(GraphOffer::new(About::default(), graph, client));
    listen::serve(arguments.port, FixedCaller { tools: Arc::new(setting.tools()?), offer, caller }).await
}

impl ServerHandler for FixedCaller {
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
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let call = Call {
            operation: Operation::Tool { name: request.name.into_owned(), arguments: arguments.into() },
            principal: Arc::clone(&self.caller),
            offered: Arc::default(),
            access: GraphAccess::OnBehalfOf,
            input: Input::default(),
            client: Client::default(),
        };
        let Reply::Complete(result) = self.offer.call(call).await else {
            return Err(ErrorData::internal_error("the call was not completed", None));
        };
        let result: Result<CallToolResult, _> = serde_json::from_value(Value::Object(result));
        result.map(Into::into).map_err(|error| ErrorData::internal_error(error.to_string(), None))
    }
}
