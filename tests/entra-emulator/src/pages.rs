//! Pages of the authority for users, as HTML without scripts.

use axum::{
    http::{StatusCode, header},
    response::{Html, IntoResponse as _, Response},
};
use html_escape::encode_quoted_attribute as escape;

use crate::{
    client::Form,
    configuration::User,
    errors::{Aadsts, Failed, Trace},
    resource::Requested,
};

/// Input with the name of the user who signs in. Besides [`DECISION_INPUT`], it is the only input that is not a
/// parameter of the request.
pub(crate) const USER_INPUT: &str = "emulator_user";
/// Input with the user's decision about consent.
pub(crate) const DECISION_INPUT: &str = "emulator_decision";
const ACCEPT: &str = "accept";
const CANCEL: &str = "cancel";

/// A decision of the user about consent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Accept,
    Cancel,
}

impl Decision {
    pub(crate) fn of(form: &Form) -> Option<Self> {
        match form.get(DECISION_INPUT)? {
            ACCEPT => Some(Self::Accept),
            CANCEL => Some(Self::Cancel),
            _ => None,
        }
    }
}

/// Form of a page. It contains the whole request, so that a page needs no state.
pub(crate) struct PageForm<'a> {
    /// Target of the request with the user's choice.
    pub(crate) action: String,
    pub(crate) request: &'a Form,
}

impl PageForm<'_> {
    fn html(&self, content: &str) -> String {
        let inputs = self.request.iter().filter(|(name, _)| !matches!(*name, USER_INPUT | DECISION_INPUT));
        let inputs: String = inputs.map(|(name, value)| hidden(name, value)).collect();
        format!("<form method=\"post\" action=\"{}\">{inputs}{content}</form>", escape(&self.action))
    }

    /// List of users to select from.
    pub(crate) fn users(&self, users: &[User]) -> String {
        let hint = self.request.get("login_hint").unwrap_or_default();
        let users: String = users.iter().map(|user| user_button(user, hint)).collect();
        self.html(&format!("<ul>{users}</ul>"))
    }

    /// Accept and Cancel, for the selected user.
    pub(crate) fn decision(&self, user: &User) -> String {
        self.html(&format!(
            "{}<button name=\"{DECISION_INPUT}\" value=\"{ACCEPT}\">Accept</button> \
             <button name=\"{DECISION_INPUT}\" value=\"{CANCEL}\">Cancel</button>",
            hidden(USER_INPUT, &user.user_principal_name)
        ))
    }

    /// Link back to the application without consent, for the selected user.
    pub(crate) fn back(&self, user: &User) -> String {
        self.html(&format!(
            "{}<button name=\"{DECISION_INPUT}\" value=\"{CANCEL}\">Back</button>",
            hidden(USER_INPUT, &user.user_principal_name)
        ))
    }
}

/// Scopes of a consent, each as in the request.
pub(crate) fn scope_list(asked: &[Requested<'_>], client: &crate::App) -> String {
    let openid = asked.first().map(|first| first.openid.clone()).unwrap_or_default();
    let named = asked.iter().flat_map(|requested| requested.named_scopes(&requested.asked_by(client)));
    let items: String = named.chain(openid).map(|scope| format!("<li><code>{}</code></li>", escape(&scope))).collect();
    format!("<ul>{items}</ul>")
}

fn user_button(user: &User, hint: &str) -> String {
    let name = &user.user_principal_name;
    let focus = if name.eq_ignore_ascii_case(hint) { " autofocus" } else { "" };
    format!(
        "<li><button name=\"{USER_INPUT}\" value=\"{}\"{focus}>{} ({})</button></li>",
        escape(name),
        escape(&user.display_name),
        escape(name)
    )
}

pub(crate) fn hidden(name: &str, value: &str) -> String {
    format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", escape(name), escape(value))
}

pub(crate) fn alert(error: &Aadsts, trace: &Trace) -> String {
    format!("<p role=\"alert\">{}</p>", escape(&error.description(trace)))
}

/// Page for an error that is not sent to the client.
pub(crate) fn error_page(error: &Aadsts, trace: &Trace) -> Response {
    with_error(document(StatusCode::BAD_REQUEST, "Sign-in failed", &alert(error, trace)), error)
}

/// Sets the error on an answer for the request log.
pub(crate) fn with_error(mut response: Response, error: &Aadsts) -> Response {
    response.extensions_mut().insert(Failed { code: error.code() });
    response
}

pub(crate) fn document(status: StatusCode, title: &str, body: &str) -> Response {
    let page = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} – entra-emulator</title>\
         <style>body{{font:1rem/1.5 sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}}\
         ul{{list-style:none;padding:0}}button{{font:inherit;padding:.5rem 1rem;margin:.25rem 0}}</style>\
         </head><body><main><h1>{title}</h1>{body}</main></body></html>"
    );
    (status, [(header::CACHE_CONTROL, "no-store, no-cache")], Html(page)).into_response()
}
