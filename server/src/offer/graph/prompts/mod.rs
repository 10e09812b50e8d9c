//! The built-in prompts. Each text tells a model which built-in tools to call, and how.
//!
//! To add a prompt, add a file here, a line in [`PROMPTS`], and its name and tools in the policy crate.

mod draft_reply;
mod introduce_me;
mod plan_meeting;
mod prompt;
mod quoted;
mod summarize_inbox;

pub(super) use prompt::Prompt;

/// The built-in prompts, by name.
pub(super) const PROMPTS: &[Prompt] = &[
    draft_reply::DRAFT_REPLY,
    introduce_me::INTRODUCE_ME,
    plan_meeting::PLAN_MEETING,
    summarize_inbox::SUMMARIZE_INBOX,
];

#[cfg(test)]
mod tests;
