//! Texts of the pages. All languages have the same type, so that none can lack a text.

mod english;
mod swedish;

pub(super) use english::ENGLISH;
pub(super) use swedish::SWEDISH;

/// The texts of a language. Texts with arguments are functions. The page escapes their results.
#[derive(Debug)]
pub(crate) struct Texts {
    pub(super) client: ClientTexts,
    pub(super) consent: ConsentTexts,
    pub(super) notice: NoticeTexts,
    pub(super) problem: ProblemTexts,
    pub(super) sessions: SessionsTexts,
    pub(super) connect: ConnectTexts,
    /// Descriptions of Microsoft Graph's permissions. Each continues the sentence "The program asks to".
    pub(super) permissions: &'static [(&'static str, &'static str)],
}

/// Texts about clients.
#[derive(Debug)]
pub(super) struct ClientTexts {
    pub(super) unnamed: &'static str,
    pub(super) listed: &'static str,
    /// Argument: the host.
    pub(super) published: fn(&str) -> String,
    pub(super) registered: &'static str,
    pub(super) open_quote: &'static str,
    pub(super) close_quote: &'static str,
}

/// Texts of the consent page.
#[derive(Debug)]
pub(super) struct ConsentTexts {
    /// Argument: the server's title.
    pub(super) heading: fn(&str) -> String,
    pub(super) lead: &'static str,
    pub(super) client: &'static str,
    pub(super) destination: &'static str,
    pub(super) this_computer: &'static str,
    /// Argument: the scheme.
    pub(super) app: fn(&str) -> String,
    pub(super) asks: &'static str,
    /// Arguments: the server's title and namespace.
    pub(super) uses: fn(&str, &str) -> String,
    pub(super) stays_signed_in: &'static str,
    /// Precedes the name of a permission without a description.
    pub(super) permission: &'static str,
    /// Precedes the name of a scope of the server.
    pub(super) scope: &'static str,
    /// Argument: the authentication context.
    pub(super) context: fn(&str) -> String,
    pub(super) warning_heading: &'static str,
    pub(super) warning: &'static str,
    pub(super) always: &'static str,
    pub(super) next: &'static str,
    pub(super) cancel: &'static str,
    pub(super) approve: &'static str,
    pub(super) administrators: &'static str,
    pub(super) redirect_uri_missing: &'static str,
    pub(super) redirect_uri: &'static str,
}

/// Texts of the notices.
#[derive(Debug)]
pub(super) struct NoticeTexts {
    pub(super) administrator_approved: NoticeText,
}

/// Texts of a notice.
#[derive(Debug)]
pub(super) struct NoticeText {
    pub(super) heading: &'static str,
    pub(super) text: &'static str,
}

/// Texts of a problem.
#[derive(Debug)]
pub(super) struct ProblemText {
    pub(super) heading: &'static str,
    /// The event, in one or two sentences.
    pub(super) happened: &'static str,
    /// The next step.
    pub(super) remedy: &'static str,
}

/// Texts of the error pages.
#[derive(Debug)]
pub(super) struct ProblemTexts {
    pub(super) remedy_heading: &'static str,
    pub(super) details_heading: &'static str,
    pub(super) administrators_link: &'static str,
    /// The link to the client's redirect URI.
    pub(super) back: &'static str,
    /// The field of an `MCPServer` that administrators must change.
    pub(super) field: &'static str,
    pub(super) redirect_uri: &'static str,
    pub(super) parameter: &'static str,
    pub(super) permissions: &'static str,
    pub(super) microsoft_code: &'static str,
    pub(super) correlation_id: &'static str,

    pub(super) unknown_client: ProblemText,
    /// Instructions for removing the saved registration, by client.
    pub(super) saved_registrations: &'static [&'static str],
    pub(super) client_not_allowed: ProblemText,
    pub(super) client_unreadable: ProblemText,
    pub(super) redirect_not_registered: ProblemText,
    pub(super) malformed: ProblemText,
    pub(super) too_old: ProblemText,
    pub(super) other_browser: ProblemText,
    pub(super) foreign_form: ProblemText,
    pub(super) cancelled_at_microsoft: ProblemText,
    pub(super) administrator_needed: ProblemText,
    pub(super) entra_refuses: ProblemText,
    pub(super) another_account: ProblemText,
    pub(super) store_unavailable: ProblemText,
    pub(super) entra_unavailable: ProblemText,
    pub(super) too_many_requests: ProblemText,
    pub(super) no_page: ProblemText,
    pub(super) internal: ProblemText,
}

/// Texts of the sessions page.
#[derive(Debug)]
pub(super) struct SessionsTexts {
    /// Argument: the server's title.
    pub(super) heading: fn(&str) -> String,
    pub(super) signed_in_as: &'static str,
    pub(super) lead: &'static str,
    pub(super) empty: &'static str,
    /// Argument: the number of sessions.
    pub(super) ended: fn(usize) -> String,
    pub(super) caption: &'static str,
    pub(super) client: &'static str,
    pub(super) since: &'static str,
    pub(super) last_used: &'static str,
    pub(super) action: &'static str,
    pub(super) end: &'static str,
    pub(super) end_all: &'static str,
    pub(super) effect: &'static str,
    pub(super) connect: &'static str,
}

/// Texts of the page with connection instructions.
#[derive(Debug)]
pub(super) struct ConnectTexts {
    /// Argument: the server's title.
    pub(super) heading: fn(&str) -> String,
    pub(super) lead: &'static str,
    pub(super) address: &'static str,
    pub(super) clients: &'static str,
    pub(super) sessions: &'static str,
    pub(super) terminal: &'static str,
    pub(super) vscode: &'static str,
    pub(super) vscode_then: &'static str,
    pub(super) claude_code_then: &'static str,
    pub(super) claude: &'static str,
    pub(super) claude_then: &'static str,
    pub(super) cursor: &'static str,
    pub(super) cursor_then: &'static str,
    pub(super) codex_then: &'static str,
    pub(super) chatgpt: &'static str,
    pub(super) chatgpt_then: &'static str,
    pub(super) copilot_studio: &'static str,
    pub(super) copilot_studio_then: &'static str,
    pub(super) mcp_remote: &'static str,
}
