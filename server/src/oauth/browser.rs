//! A person's browser at a page of the authorization server: its request, and pages that end it.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::pages::{Problem, Visit};
use crate::audit::{Outcome, Trail};
use crate::http::client_address::ClientAddress;

/// A request of a browser.
#[derive(Clone, Copy)]
pub(super) struct Browser<'a> {
    /// Headers of the request.
    pub(super) headers: &'a HeaderMap,
    /// Properties of the request for the pages.
    pub(super) visit: Visit<'a>,
    /// Audit trail of the request.
    pub(super) trail: &'a Trail,
    /// Client address of the request.
    pub(super) address: ClientAddress,
}

/// The page that ends a request. It is boxed, because every step may return it.
pub(super) struct Stop(Box<Response>);

impl Browser<'_> {
    /// Returns the page of a problem and records it in the audit trail.
    pub(super) fn stop(&self, problem: &Problem<'_>) -> Stop {
        self.trail.decided(Outcome::Refused(reason(problem)));
        Stop(Box::new(problem.show(&self.visit)))
    }
}

impl From<Stop> for Response {
    fn from(stop: Stop) -> Self {
        *stop.0
    }
}

/// Returns the audit reason of a problem.
fn reason(problem: &Problem<'_>) -> &'static str {
    match problem {
        Problem::UnknownClient | Problem::ClientNotAllowed { .. } | Problem::ClientUnreadable => "client_not_allowed",
        Problem::RedirectNotRegistered { .. } => "redirect_uri_not_registered",
        Problem::Malformed { .. } => "oauth_request_malformed",
        Problem::NoPage => "method_not_allowed",
        Problem::TooOld => "sign_in_too_old",
        Problem::OtherBrowser => "other_browser",
        Problem::ForeignForm => "origin_not_accepted",
        Problem::CancelledAtMicrosoft => "sign_in_cancelled",
        Problem::AdministratorNeeded { .. } | Problem::EntraRefuses { .. } => "entra_refused",
        Problem::AnotherAccount => "another_account",
        Problem::StoreUnavailable => "session_store_unavailable",
        Problem::EntraUnavailable => "entra_unavailable",
        Problem::TooManyRequests { .. } => "address_rate_limited",
        Problem::Internal => "defect",
    }
}

/// Returns a redirect that is followed with GET and must not be cached.
pub(super) fn redirect(url: &str) -> Response {
    let headers =
        [(header::LOCATION, url), (header::CACHE_CONTROL, "no-store"), (header::REFERRER_POLICY, "no-referrer")];
    (StatusCode::SEE_OTHER, headers).into_response()
}
