//! A person's browser at one of the pages: its request, and the page that ends it.

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
    /// The request, for the pages.
    pub(super) visit: Visit<'a>,
    /// Audit trail of the request.
    pub(super) trail: &'a Trail,
    /// Address that it comes from.
    pub(super) address: ClientAddress,
}

/// The page at which a request stops. It is in a box, since every step may return it.
pub(super) struct Stop(Box<Response>);

impl Browser<'_> {
    /// The page of a problem, which the audit log has from here on.
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

/// The reason of a problem in the audit log.
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

/// A redirect that is followed by GET, and that nobody keeps.
pub(super) fn redirect(url: &str) -> Response {
    let headers =
        [(header::LOCATION, url), (header::CACHE_CONTROL, "no-store"), (header::REFERRER_POLICY, "no-referrer")];
    (StatusCode::SEE_OTHER, headers).into_response()
}
