//! `plan_meeting`: an event in the signed-in user's calendar. It is created once the user agrees.

use mcp_entra_policy::PLAN_MEETING as BUILT_IN;

use super::prompt::{Argument, Prompt, Takes};

/// The prompt.
pub(super) const PLAN_MEETING: Prompt = Prompt {
    built_in: &BUILT_IN,
    title: "Plan a meeting",
    description: "Plans a meeting in your calendar, and sends the invitations only after you agree.",
    arguments: &[
        Argument { name: "subject", description: "Subject of the meeting.", takes: Takes::Text },
        Argument {
            name: "with",
            description: "Who is invited, best by mail address.",
            takes: Takes::OptionalText,
        },
        Argument {
            name: "when",
            description: "Day, time and time zone, as far as you know them.",
            takes: Takes::OptionalText,
        },
        Argument {
            name: "length",
            description: "Length in minutes: 15, 30, 45, 60 or 90; otherwise 30.",
            takes: Takes::OneOf(&["30", "15", "45", "60", "90"]),
        },
    ],
    text: "\
Plan a meeting of {length} minutes in my calendar. Its subject is `subject` below.

1. The start is what `when` below says. If the day, the time or the time zone is missing or ambiguous, ask me. You cannot \
read anybody's calendar: do not say that a time is free.
2. Those who are invited are named by `with` below; without it, nobody is. Each takes a mail address. Ask me for an address \
that is not given, and never guess one.
3. Propose a short description of the meeting with a goal and an agenda.
4. Show me the subject, the start and the end with their time zone, those who are invited and the description, and ask if \
the event may be created. Change it as I say, and ask again.
5. Only after I have agreed to exactly this, call the tool `create_event` once, and give me the address of the event. \
Without my agreement, create nothing.

Rules:
- The invitations go out by mail at once, and cannot be recalled.
- If the tool fails, tell me what it says, and do not call it again before I have agreed again.",
};
