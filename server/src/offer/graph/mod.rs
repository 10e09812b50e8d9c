//! The built-in tools with their prompts and resources. Each tool is a small question or request to Microsoft Graph
//! about one user.
//!
//! A failed call (Graph refuses, an argument is out of range) has an answer that a model or a person can act on. To
//! add a tool, add a file here, a line in [`TOOLS`], and its name and permissions in the policy crate.

mod arguments;
mod create_event;
mod get_user_details;
mod list_my_messages;
mod prompts;
mod recipients;
mod resources;
mod schema;
mod send_mail;
mod tool;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mcp_entra_policy::GraphConfiguration;
use serde_json::Value;

use self::prompts::{PROMPTS, Prompt};
use self::resources::{RESOURCES, Resource};
use self::tool::{AnyTool, ToolError};
use super::{
    About, Call, Completion, CompletionReference, CompletionRequest, Failure, JsonObject, Offer, Offered, OfferedTool,
    Operation, Reply, Unavailable,
};
use crate::graph::GraphClient;
use crate::token::Principal;

/// The built-in tools, by name.
const TOOLS: &[&dyn AnyTool] = &[
    &create_event::CreateEvent,
    &get_user_details::GetUserDetails,
    &list_my_messages::ListMyMessages,
    &send_mail::SendMail,
];

/// The built-in tools, prompts and resources of one server.
pub struct GraphOffer {
    graph: GraphClient,
    about: Arc<About>,
    tools: Vec<&'static dyn AnyTool>,
    to_users: Arc<Offered>,
    to_applications: Arc<Offered>,
}

impl GraphOffer {
    /// Returns the tools that this configuration offers with their prompts and resources. `about` describes them, and
    /// `graph` is the client of Graph.
    pub fn new(about: About, configuration: &GraphConfiguration, graph: GraphClient) -> Self {
        let offered = Vec::from_iter(configuration.offered());
        let tools: Vec<_> = TOOLS.iter().copied().filter(|tool| offered.contains(&tool.built_in())).collect();
        let shown =
            |shown: fn(&dyn AnyTool) -> OfferedTool| -> Vec<_> { tools.iter().map(|tool| shown(*tool)).collect() };
        let (offered_prompts, offered_resources) = (configuration.offered_prompts(), configuration.offered_resources());
        let prompts = PROMPTS.iter().filter(|prompt| offered_prompts.contains(&prompt.built_in()));
        let prompts = Vec::from_iter(prompts.map(Prompt::offered));
        let resources = RESOURCES.iter().filter(|resource| offered_resources.contains(&resource.built_in));
        let resources = Vec::from_iter(resources.map(Resource::offered));
        let about = About {
            prompts: !prompts.is_empty(),
            resources: !resources.is_empty(),
            completions: !prompts.is_empty(),
            ..about
        };
        Self {
            graph,
            about: Arc::new(about),
            to_users: Arc::new(Offered::new(shown(|tool| tool.for_users()), prompts, resources, vec![])),
            // An application has no mailbox and no profile.
            to_applications: Arc::new(Offered::new(shown(|tool| tool.for_applications()), vec![], vec![], vec![])),
            tools,
        }
    }

    /// Returns everything that this caller sees, with the tools in the order of [`Self::tools`].
    fn offered_to(&self, principal: &Principal) -> &Arc<Offered> {
        match principal {
            Principal::User(_) | Principal::LocalUser(_) => &self.to_users,
            Principal::Application(_) => &self.to_applications,
        }
    }

    /// Returns the prompt with this name, if this caller sees it.
    fn prompt(&self, name: &str, principal: &Principal) -> Option<&'static Prompt> {
        self.offered_to(principal).prompt(name)?;
        PROMPTS.iter().find(|prompt| prompt.built_in().name == name)
    }

    /// Returns the resource with this URI and its tool, if this caller sees it.
    fn resource(&self, uri: &str, principal: &Principal) -> Option<(&'static Resource, &'static dyn AnyTool)> {
        self.offered_to(principal).has_resource(uri).then_some(())?;
        let resource = RESOURCES.iter().find(|resource| resource.built_in.uri == uri)?;
        let tool = self.tools.iter().find(|tool| *tool.built_in() == resource.built_in.tool)?;
        Some((resource, *tool))
    }

    /// Runs a tool with these arguments, whose names are already checked.
    async fn run(&self, tool: &dyn AnyTool, call: &Call, mut arguments: JsonObject) -> Result<Value, ToolError> {
        let user = arguments::take_user(&mut arguments)?;
        let delegated = tool.built_in().permissions.delegated;
        let graph = self.graph.for_caller(&call.principal, call.access, user.as_deref(), delegated);
        let notices = call.client.notices.clone();
        let waits = move |pause: Duration| {
            notices.progress(format!("waiting {} s as Microsoft Graph requests", pause.as_secs_f64().ceil()));
        };
        tool.run(graph.map(|graph| graph.telling(waits)), arguments).await
    }

    async fn call_tool(&self, name: &str, arguments: &JsonObject, call: &Call) -> Reply {
        let mut tools = self.tools.iter().zip(&self.offered_to(&call.principal).tools);
        let Some((tool, offered)) = tools.find(|(tool, _)| tool.built_in().name == name) else {
            return Reply::Failed(Failure::not_found(&call.operation));
        };
        if let Err(error) = arguments::check_names(arguments, &offered.input_schema) {
            return ToolError::from(error).into();
        }
        match self.run(*tool, call, arguments.clone()).await {
            Ok(output) => Reply::structured(output),
            Err(error) => error.into(),
        }
    }

    fn get_prompt(&self, name: &str, arguments: &JsonObject, call: &Call) -> Reply {
        let Some(prompt) = self.prompt(name, &call.principal) else {
            return Reply::Failed(Failure::not_found(&call.operation));
        };
        match prompt.get(arguments) {
            Ok(result) => Reply::Complete(result),
            Err(error) => Reply::Failed(Failure::invalid(error.to_string())),
        }
    }

    async fn read_resource(&self, uri: &str, call: &Call) -> Reply {
        let Some((resource, tool)) = self.resource(uri, &call.principal) else {
            return Reply::Failed(Failure::not_found(&call.operation));
        };
        match self.run(tool, call, JsonObject::new()).await {
            Ok(output) => Reply::Complete(resource.contents(&output)),
            Err(error) => error.without_result(),
        }
    }
}

#[async_trait]
impl Offer for GraphOffer {
    fn about(&self) -> Arc<About> {
        Arc::clone(&self.about)
    }

    async fn snapshot(&self, principal: &Arc<Principal>) -> Result<Arc<Offered>, Unavailable> {
        Ok(Arc::clone(self.offered_to(principal)))
    }

    async fn call(&self, call: Call) -> Reply {
        match &call.operation {
            Operation::Tool { name, arguments } => self.call_tool(name, arguments, &call).await,
            Operation::Prompt { name, arguments } => self.get_prompt(name, arguments, &call),
            Operation::Resource { uri } => self.read_resource(uri, &call).await,
        }
    }

    async fn complete(&self, completing: CompletionRequest, principal: &Arc<Principal>) -> Result<Completion, Failure> {
        let prompt = match &completing.reference {
            CompletionReference::Prompt(name) => self.prompt(name, principal),
            CompletionReference::Template(_) => None,
        };
        let prompt = prompt.ok_or_else(|| Failure::invalid("this has no arguments with suggested values"))?;
        let completion = prompt.complete(&completing.argument, &completing.value);
        completion.map_err(|error| Failure::invalid(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use mcp_entra_policy::{BUILT_IN_PROMPTS, BUILT_IN_RESOURCES, BUILT_IN_TOOLS};

    use super::*;

    #[test]
    fn every_built_in_prompt_and_resource_is_implemented_and_no_other() {
        let named = PROMPTS.iter().map(Prompt::built_in);
        assert_eq!(Vec::from_iter(named), BUILT_IN_PROMPTS.iter().collect::<Vec<_>>());
        let named = RESOURCES.iter().map(|resource| resource.built_in);
        assert_eq!(Vec::from_iter(named), BUILT_IN_RESOURCES.iter().collect::<Vec<_>>());
    }

    #[test]
    fn every_built_in_tool_is_implemented_and_no_other() {
        let named = TOOLS.iter().map(|tool| tool.built_in());
        assert_eq!(Vec::from_iter(named), BUILT_IN_TOOLS.iter().collect::<Vec<_>>());
        assert!(BUILT_IN_TOOLS.is_sorted_by_key(|tool| tool.name), "lists are in this order");
    }

    /// Returns all members with this name at any depth.
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
