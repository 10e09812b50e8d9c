//! The built-in tools: each a small question or request to Microsoft Graph about one user.
//!
//! A call that goes wrong (Graph refuses, an argument is out of range) is answered in words that a model or a person can
//! act on. A further tool is a file here, a line in [`TOOLS`], and its name and permissions in the policy crate.

mod arguments;
mod create_event;
mod get_user_details;
mod list_my_messages;
mod recipients;
mod schema;
mod send_mail;
mod tool;

use std::sync::Arc;

use async_trait::async_trait;
use mcp_entra_policy::GraphConfiguration;
use serde_json::Value;

use self::tool::{AnyTool, ToolError};
use super::{About, Call, Failure, JsonObject, Offer, Offered, OfferedTool, Operation, Reply, Unavailable};
use crate::graph::GraphClient;
use crate::token::Principal;

/// The built-in tools, by name.
const TOOLS: &[&dyn AnyTool] = &[
    &create_event::CreateEvent,
    &get_user_details::GetUserDetails,
    &list_my_messages::ListMyMessages,
    &send_mail::SendMail,
];

/// The built-in tools of one server.
pub struct GraphOffer {
    graph: GraphClient,
    about: About,
    tools: Vec<&'static dyn AnyTool>,
    to_users: Arc<Offered>,
    to_applications: Arc<Offered>,
}

impl GraphOffer {
    /// The tools that this configuration offers, and what is said about them, reaching Graph through this client.
    pub fn new(about: About, configuration: &GraphConfiguration, graph: GraphClient) -> Self {
        let offered: Vec<_> = configuration.offered().collect();
        let tools: Vec<_> = TOOLS.iter().copied().filter(|tool| offered.contains(&tool.built_in())).collect();
        let shown = |shown: fn(&dyn AnyTool) -> OfferedTool| {
            Arc::new(Offered::new(tools.iter().map(|tool| shown(*tool)).collect(), vec![], vec![], vec![]))
        };
        Self {
            graph,
            about,
            to_users: shown(|tool| tool.for_users()),
            to_applications: shown(|tool| tool.for_applications()),
            tools,
        }
    }

    /// Tools as this caller sees them, in the order of [`Self::tools`].
    fn offered_to(&self, principal: &Principal) -> &Arc<Offered> {
        match principal {
            Principal::User(_) | Principal::LocalUser(_) => &self.to_users,
            Principal::Application(_) => &self.to_applications,
        }
    }

    /// The answer of a tool to these arguments, whose names are checked already.
    async fn run(&self, tool: &dyn AnyTool, call: &Call, mut arguments: JsonObject) -> Result<Value, ToolError> {
        let user = arguments::take_user(&mut arguments)?;
        let delegated = tool.built_in().permissions.delegated;
        let graph = self.graph.for_caller(&call.principal, call.access, user.as_deref(), delegated);
        tool.run(graph, arguments).await
    }
}

#[async_trait]
impl Offer for GraphOffer {
    fn about(&self) -> About {
        self.about.clone()
    }

    async fn snapshot(&self, principal: &Principal) -> Result<Arc<Offered>, Unavailable> {
        Ok(Arc::clone(self.offered_to(principal)))
    }

    async fn call(&self, call: Call) -> Reply {
        let Operation::Tool { name, arguments } = &call.operation else {
            return Reply::Failed(Failure::not_found(&call.operation));
        };
        let mut tools = self.tools.iter().zip(&self.offered_to(&call.principal).tools);
        let Some((tool, offered)) = tools.find(|(tool, _)| tool.built_in().name == name.as_str()) else {
            return Reply::Failed(Failure::not_found(&call.operation));
        };
        if let Err(error) = arguments::check_names(arguments, &offered.input_schema) {
            return ToolError::from(error).into();
        }
        match self.run(*tool, &call, arguments.clone()).await {
            Ok(output) => Reply::structured(output),
            Err(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use mcp_entra_policy::BUILT_IN_TOOLS;

    use super::*;

    #[test]
    fn every_built_in_tool_is_implemented_and_no_other() {
        let named = TOOLS.iter().map(|tool| tool.built_in());
        assert_eq!(Vec::from_iter(named), BUILT_IN_TOOLS.iter().collect::<Vec<_>>());
        assert!(BUILT_IN_TOOLS.is_sorted_by_key(|tool| tool.name), "lists are in this order");
    }

    /// The members of this name, wherever they stand.
    fn members<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
        match value {
            Value::Object(object) => {
                let inner = object.values().flat_map(|value| members(value, name));
                object.get(name).into_iter().chain(inner).collect()
            }
            Value::Array(items) => items.iter().flat_map(|value| members(value, name)).collect(),
            _ => vec![],
        }
    }

    #[test]
    fn every_tool_is_described_in_full_to_users_and_to_applications() {
        for tool in TOOLS {
            let built_in = tool.built_in();
            let name = built_in.name;
            for (offered, takes_a_user) in [(tool.for_users(), false), (tool.for_applications(), true)] {
                assert_eq!(offered.name, name);
                assert!(!offered.title.is_empty() && offered.description.ends_with('.'), "{name}");
                let input = Value::Object((*offered.input_schema).clone());
                let output = Value::Object((*offered.output_schema.expect("a schema of the answer")).clone());
                for schema in [&input, &output] {
                    assert_eq!(schema["type"], "object", "{name}");
                    assert_eq!(members(schema, "format"), [&Value::Null; 0], "{name}: strict clients refuse it");
                    assert_eq!(schema.get("title").or(schema.get("description")), None, "{name}: names of our types");
                }
                assert_eq!(input["additionalProperties"], false, "{name}: a misspelt argument is an error");
                assert_eq!(input["properties"].get("user").is_some(), takes_a_user, "{name}");
                let required = members(&input, "required").into_iter().flat_map(|names| names.as_array().unwrap());
                assert_eq!(required.clone().any(|name| name == "user"), takes_a_user, "{name}");
            }
            let permissions = built_in.permissions;
            for permissions in [permissions.delegated, permissions.application] {
                assert!(!permissions.is_empty(), "{name}: Graph answers nothing without one");
            }
        }
    }
}
