//! Built-in prompts and resources that the server offers and mappings can name.
//!
//! Each depends on built-in tools. A server offers it if it offers those tools. It offers them only to users, since
//! they concern the caller's mailbox, calendar or profile.

use crate::{BuiltInTool, CREATE_EVENT, GET_USER_DETAILS, GraphConfiguration, LIST_MY_MESSAGES, Operation, SEND_MAIL};

/// Prompt that tells a model to use built-in tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltInPrompt {
    /// Name that MCP clients get and mappings grant.
    pub name: &'static str,
    /// Tools that the prompt mentions.
    pub tools: &'static [BuiltInTool],
}

/// Resource whose content is the result of a built-in tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltInResource {
    /// URI that MCP clients read and mappings grant.
    pub uri: &'static str,
    /// Tool that provides the content. It takes no arguments.
    pub tool: BuiltInTool,
}

/// Drafts a reply to a message in the signed-in user's mailbox.
pub const DRAFT_REPLY: BuiltInPrompt = BuiltInPrompt { name: "draft_reply", tools: &[LIST_MY_MESSAGES, SEND_MAIL] };

/// Introduces the signed-in user.
pub const INTRODUCE_ME: BuiltInPrompt = BuiltInPrompt { name: "introduce_me", tools: &[GET_USER_DETAILS] };

/// Plans a meeting in the signed-in user's calendar.
pub const PLAN_MEETING: BuiltInPrompt = BuiltInPrompt { name: "plan_meeting", tools: &[CREATE_EVENT] };

/// Summarizes the newest messages of the signed-in user.
pub const SUMMARIZE_INBOX: BuiltInPrompt = BuiltInPrompt { name: "summarize_inbox", tools: &[LIST_MY_MESSAGES] };

/// All built-in prompts, sorted by name.
pub const BUILT_IN_PROMPTS: &[BuiltInPrompt] = &[DRAFT_REPLY, INTRODUCE_ME, PLAN_MEETING, SUMMARIZE_INBOX];

/// Profile of the signed-in user.
pub const MY_PROFILE: BuiltInResource = BuiltInResource { uri: "graph://me/profile", tool: GET_USER_DETAILS };

/// All built-in resources, sorted by URI.
pub const BUILT_IN_RESOURCES: &[BuiltInResource] = &[MY_PROFILE];

/// Returns the built-in prompts that a server with these tools offers.
pub fn prompts_over(tools: &[&BuiltInTool]) -> impl Iterator<Item = &'static BuiltInPrompt> {
    BUILT_IN_PROMPTS.iter().filter(|prompt| prompt.tools.iter().all(|tool| tools.contains(&tool)))
}

/// Returns the built-in resources that a server with these tools offers.
pub fn resources_over(tools: &[&BuiltInTool]) -> impl Iterator<Item = &'static BuiltInResource> {
    BUILT_IN_RESOURCES.iter().filter(|resource| tools.contains(&&resource.tool))
}

/// Returns the operations that policies decide about on a server with these tools: its tools, prompts and resources.
pub fn operations_over(tools: &[&'static BuiltInTool]) -> Vec<Operation<'static>> {
    let prompts = prompts_over(tools).map(|prompt| Operation::Prompt(prompt.name));
    let resources = resources_over(tools).map(|resource| Operation::Resource(resource.uri));
    tools.iter().map(|tool| Operation::built_in(tool)).chain(prompts).chain(resources).collect()
}

impl GraphConfiguration {
    /// Returns the built-in prompts that the server offers.
    pub fn offered_prompts(&self) -> Vec<&'static BuiltInPrompt> {
        prompts_over(&Vec::from_iter(self.offered())).collect()
    }

    /// Returns the built-in resources that the server offers.
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
