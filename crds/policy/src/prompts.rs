//! The built-in prompts and resources by name: what the server offers besides its tools, and mappings can name.
//!
//! Each is made of built-in tools. A server offers it where it offers those, and to users alone: it is about the mailbox,
//! the calendar or the profile of the caller.

use crate::{BuiltInTool, CREATE_EVENT, GET_USER_DETAILS, GraphConfiguration, LIST_MY_MESSAGES, Operation, SEND_MAIL};

/// A prompt that names built-in tools to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltInPrompt {
    /// Name as MCP clients get it and mappings grant it.
    pub name: &'static str,
    /// The tools that it names.
    pub tools: &'static [BuiltInTool],
}

/// A resource that holds the answer of a built-in tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltInResource {
    /// URI as MCP clients read it and mappings grant it.
    pub uri: &'static str,
    /// The tool, which takes no argument.
    pub tool: BuiltInTool,
}

/// A reply to a message in the signed-in user's mailbox.
pub const DRAFT_REPLY: BuiltInPrompt = BuiltInPrompt { name: "draft_reply", tools: &[LIST_MY_MESSAGES, SEND_MAIL] };

/// An introduction of the signed-in user.
pub const INTRODUCE_ME: BuiltInPrompt = BuiltInPrompt { name: "introduce_me", tools: &[GET_USER_DETAILS] };

/// A meeting in the signed-in user's calendar.
pub const PLAN_MEETING: BuiltInPrompt = BuiltInPrompt { name: "plan_meeting", tools: &[CREATE_EVENT] };

/// A summary of the newest messages of the signed-in user.
pub const SUMMARIZE_INBOX: BuiltInPrompt = BuiltInPrompt { name: "summarize_inbox", tools: &[LIST_MY_MESSAGES] };

/// Every built-in prompt, by name.
pub const BUILT_IN_PROMPTS: &[BuiltInPrompt] = &[DRAFT_REPLY, INTRODUCE_ME, PLAN_MEETING, SUMMARIZE_INBOX];

/// The profile of the signed-in user.
pub const MY_PROFILE: BuiltInResource = BuiltInResource { uri: "graph://me/profile", tool: GET_USER_DETAILS };

/// Every built-in resource, by URI.
pub const BUILT_IN_RESOURCES: &[BuiltInResource] = &[MY_PROFILE];

/// Returns the built-in prompts that a server with these tools offers.
pub fn prompts_over(tools: &[&BuiltInTool]) -> impl Iterator<Item = &'static BuiltInPrompt> {
    BUILT_IN_PROMPTS.iter().filter(|prompt| prompt.tools.iter().all(|tool| tools.contains(&tool)))
}

/// Returns the built-in resources that a server with these tools offers.
pub fn resources_over(tools: &[&BuiltInTool]) -> impl Iterator<Item = &'static BuiltInResource> {
    BUILT_IN_RESOURCES.iter().filter(|resource| tools.contains(&&resource.tool))
}

/// Returns the uses that policies decide about on a server with these tools: of them, and of its prompts and resources.
pub fn operations_over(tools: &[&'static BuiltInTool]) -> Vec<Operation<'static>> {
    let prompts = prompts_over(tools).map(|prompt| Operation::Prompt(prompt.name));
    let resources = resources_over(tools).map(|resource| Operation::Resource(resource.uri));
    tools.iter().map(|tool| Operation::built_in(tool)).chain(prompts).chain(resources).collect()
}

impl GraphConfiguration {
    /// Returns the built-in prompts that the server offers: those whose tools it offers.
    pub fn offered_prompts(&self) -> Vec<&'static BuiltInPrompt> {
        prompts_over(&Vec::from_iter(self.offered())).collect()
    }

    /// Returns the built-in resources that the server offers: those whose tools it offers.
    pub fn offered_resources(&self) -> Vec<&'static BuiltInResource> {
        resources_over(&Vec::from_iter(self.offered())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BUILT_IN_TOOLS, GraphAccess};

    #[test]
    fn a_prompt_or_resource_is_offered_where_all_of_its_tools_are() {
        const ALL: &[&str] = &["User.Read", "Mail.Read", "Mail.Send", "Calendars.ReadWrite"];
        for (scopes, prompts, resources) in [
            (ALL, &["draft_reply", "introduce_me", "plan_meeting", "summarize_inbox"][..], &["graph://me/profile"][..]),
            (&["User.Read", "Mail.Read"], &["introduce_me", "summarize_inbox"], &["graph://me/profile"]),
            (&["Mail.Read", "Mail.Send"], &["draft_reply", "summarize_inbox"], &[]),
            (&["Mail.Send"], &[], &[]),
            (&["Calendars.ReadWrite"], &["plan_meeting"], &[]),
            (&["Calendars.Read"], &[], &[]),
        ] {
            let configuration = GraphConfiguration {
                base_url: String::new(),
                scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
                tools: BUILT_IN_TOOLS.iter().map(|tool| tool.name.to_owned()).collect(),
                access: GraphAccess::OnBehalfOf,
            };
            let offered = configuration.offered_prompts();
            assert_eq!(Vec::from_iter(offered.iter().map(|prompt| prompt.name)), prompts, "{scopes:?}");
            let offered = configuration.offered_resources();
            assert_eq!(Vec::from_iter(offered.iter().map(|resource| resource.uri)), resources, "{scopes:?}");
        }
    }

    #[test]
    fn prompts_and_resources_are_in_the_order_of_lists() {
        assert!(BUILT_IN_PROMPTS.is_sorted_by_key(|prompt| prompt.name));
        assert!(BUILT_IN_RESOURCES.is_sorted_by_key(|resource| resource.uri));
    }
}
