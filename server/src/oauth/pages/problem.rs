//! Error pages. Each has the event, the next step, and the request id for the logs.

use std::time::Duration;

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use url::Url;

use super::chosen_text::{MAX_ADDRESS, MAX_EXPLANATION, MAX_NAME, chosen_text};
use super::document::{Frame, Visit, respond};
use super::texts::{ProblemText, Texts};

/// Seconds after which a person may retry if the store or Entra does not answer.
const OUTAGE: u64 = 60;

/// The reason why a sign-in or a page fails.
#[derive(Clone, Copy, Debug)]
pub enum Problem<'a> {
    /// No client has this id, or its registration has ended.
    UnknownClient,
    /// An administrator must allow the client.
    ClientNotAllowed {
        /// The field of the `MCPServer` that allows it, such as `spec.authorizationServer.clients`.
        field: &'static str,
    },
    /// The client ID metadata document cannot be fetched, or is wrong.
    ClientUnreadable,
    /// The client has not registered this redirect URI. No answer may go there.
    RedirectNotRegistered {
        /// The redirect URI of the request, unchanged.
        asked: &'a str,
    },
    /// A parameter is missing, repeated or unreadable.
    Malformed {
        /// Name of the parameter, such as `client_id`.
        parameter: &'a str,
    },
    /// The request expired, was already used, or is sealed with a removed key.
    TooOld,
    /// Microsoft's answer came to a browser without the cookie of the sign-in.
    OtherBrowser,
    /// A form came from another page than this server's.
    ForeignForm,
    /// The person cancelled at Microsoft (`access_denied`).
    CancelledAtMicrosoft,
    /// An administrator must approve permissions (AADSTS65001, AADSTS90094 and similar).
    AdministratorNeeded {
        /// The permissions, or none if they are not known.
        permissions: &'a [String],
        /// The https address at Microsoft where an administrator approves.
        link: Option<&'a Url>,
    },
    /// Entra refuses the sign-in for another reason.
    EntraRefuses {
        /// Number of the AADSTS error.
        code: Option<u32>,
        /// The next step, in English.
        advice: &'a str,
    },
    /// The account that signed in is not the one of the session or the request.
    AnotherAccount,
    /// The session store does not answer.
    StoreUnavailable,
    /// Entra does not answer.
    EntraUnavailable,
    /// Too many requests from this address, or in total.
    TooManyRequests {
        /// Time until the next request is allowed.
        retry_after: Duration,
    },
    /// The address does not support this method, for example when somebody opens the address of a form.
    NoPage,
    /// The server failed.
    Internal,
}

/// A fact about a problem, for support.
struct Detail {
    label: &'static str,
    value: String,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemTemplate<'a> {
    frame: Frame<'a>,
    text: &'static ProblemText,
    /// The next step in English, if it depends on the problem.
    advice: Option<String>,
    /// Variants of the next step, by client.
    ways: &'static [&'static str],
    link: Option<&'a str>,
    back: Option<&'a str>,
    details: Vec<Detail>,
}

impl Problem<'_> {
    /// Returns the page.
    pub fn show(&self, visit: &Visit<'_>) -> Response {
        let texts = visit.language.texts();
        let text = self.text(texts);
        let template = ProblemTemplate {
            frame: Frame::of(visit, text.heading),
            text,
            advice: self.advice(),
            ways: self.ways(texts),
            link: self.link(),
            back: visit.back.map(Url::as_str),
            details: self.details(visit, texts),
        };
        let mut response = respond(self.status(), visit.language, &template);
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// Returns the status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownClient
            | Self::ClientUnreadable
            | Self::RedirectNotRegistered { .. }
            | Self::Malformed { .. }
            | Self::TooOld
            | Self::OtherBrowser => StatusCode::BAD_REQUEST,
            Self::ClientNotAllowed { .. }
            | Self::ForeignForm
            | Self::CancelledAtMicrosoft
            | Self::AdministratorNeeded { .. }
            | Self::EntraRefuses { .. }
            | Self::AnotherAccount => StatusCode::FORBIDDEN,
            Self::NoPage => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::StoreUnavailable | Self::EntraUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn text(&self, texts: &'static Texts) -> &'static ProblemText {
        let texts = &texts.problem;
        match self {
            Self::UnknownClient => &texts.unknown_client,
            Self::ClientNotAllowed { .. } => &texts.client_not_allowed,
            Self::ClientUnreadable => &texts.client_unreadable,
            Self::RedirectNotRegistered { .. } => &texts.redirect_not_registered,
            Self::Malformed { .. } => &texts.malformed,
            Self::TooOld => &texts.too_old,
            Self::OtherBrowser => &texts.other_browser,
            Self::ForeignForm => &texts.foreign_form,
            Self::CancelledAtMicrosoft => &texts.cancelled_at_microsoft,
            Self::AdministratorNeeded { .. } => &texts.administrator_needed,
            Self::EntraRefuses { .. } => &texts.entra_refuses,
            Self::AnotherAccount => &texts.another_account,
            Self::StoreUnavailable => &texts.store_unavailable,
            Self::EntraUnavailable => &texts.entra_unavailable,
            Self::TooManyRequests { .. } => &texts.too_many_requests,
            Self::NoPage => &texts.no_page,
            Self::Internal => &texts.internal,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::EntraRefuses { advice, .. } => Some(chosen_text(advice, MAX_EXPLANATION)),
            _ => None,
        }
    }

    fn ways(&self, texts: &'static Texts) -> &'static [&'static str] {
        match self {
            Self::UnknownClient => texts.problem.saved_registrations,
            _ => &[],
        }
    }

    fn link(&self) -> Option<&str> {
        match self {
            Self::AdministratorNeeded { link: Some(link), .. } if link.scheme() == "https" => Some(link.as_str()),
            _ => None,
        }
    }

    /// Returns the whole seconds until a retry makes sense.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::StoreUnavailable | Self::EntraUnavailable => Some(OUTAGE),
            Self::TooManyRequests { retry_after } => {
                Some(retry_after.as_secs().saturating_add(u64::from(retry_after.subsec_nanos() > 0)).max(1))
            }
            _ => None,
        }
    }

    fn details(&self, visit: &Visit<'_>, texts: &'static Texts) -> Vec<Detail> {
        let labels = &texts.problem;
        let own = match self {
            Self::ClientNotAllowed { field } => Some((labels.field, (*field).to_owned())),
            Self::RedirectNotRegistered { asked } => Some((labels.redirect_uri, chosen_text(asked, MAX_ADDRESS))),
            Self::Malformed { parameter } => Some((labels.parameter, chosen_text(parameter, MAX_NAME))),
            Self::AdministratorNeeded { permissions, .. } if !permissions.is_empty() => {
                Some((labels.permissions, chosen_text(&permissions.join(", "), MAX_EXPLANATION)))
            }
            Self::EntraRefuses { code: Some(code), .. } => Some((labels.microsoft_code, format!("AADSTS{code}"))),
            _ => None,
        };
        let id = (labels.correlation_id, chosen_text(visit.correlation_id, MAX_NAME));
        own.into_iter().chain([id]).map(|(label, value)| Detail { label, value }).collect()
    }
}
