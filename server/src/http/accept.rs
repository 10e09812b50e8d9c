//! The Accept header. Clients must accept JSON, the format of most answers, and may accept event streams.
//!
//! Many clients send `*/*`, only JSON, or no header, and still read JSON. So only a header that excludes JSON is
//! refused. A client gets an event stream only if it names that type.

use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use headers_accept::Accept;
use mediatype::{ReadParams, names};

use super::answer::{self, Refusal};
use crate::authorize::Message;
use crate::authorize::json_rpc::{ErrorValue, code};

/// The header in the specification, which most clients send.
const USUAL: &str = "application/json, text/event-stream";

/// The formats that a client accepts besides JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// True if the client accepts event streams.
    pub(super) events: bool,
}

/// Refuses requests whose answer the client could not read.
pub(super) fn stage(message: &Message, parts: &Parts) -> Result<Accepted, Refusal> {
    let headers = &parts.headers;
    if headers.get(header::ACCEPT).is_some_and(|value| value == USUAL) {
        return Ok(Accepted { events: true });
    }
    if !admits_json(headers) {
        let text =
            "the Accept header excludes application/json, the format of every answer; send Accept: application/json";
        let error = ErrorValue::new(code::INVALID_REQUEST, text);
        let response = answer::json_rpc_error(StatusCode::NOT_ACCEPTABLE, message.answer_id(), &error);
        return Err(Refusal::new("not_acceptable", response));
    }
    Ok(Accepted { events: names_events(headers) })
}

fn names_events(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| Accept::try_from(value).ok());
    ranges.into_iter().any(|accept| {
        let mut ranges = accept.media_types();
        ranges.any(|range| {
            range.ty() == names::TEXT
                && range.subty() == names::EVENT_STREAM
                && range.get_param(names::Q).map_or(1.0, weight) > 0.0
        })
    })
}

fn weight(value: mediatype::Value<'_>) -> f32 {
    value.as_str().parse().unwrap_or(1.0)
}

/// True unless the header excludes JSON. An absent or malformed header excludes nothing.
fn admits_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    values.peek().is_none()
        || values.any(|value| Accept::try_from(value).map_or(true, |accept| ranges_admit_json(&accept)))
}

/// True unless the most specific range for JSON has the weight 0 (RFC 9110 section 12.5.1). Its other parameters do
/// not count.
fn ranges_admit_json(accept: &Accept) -> bool {
    let mut ranges = accept.media_types().filter(|range| {
        (range.ty() == names::_STAR || range.ty() == names::APPLICATION)
            && (range.subty() == names::_STAR || range.subty() == names::JSON)
    });
    ranges.next().is_some_and(|range| range.get_param(names::Q).map_or(1.0, weight) > 0.0)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value))).collect()
    }

    fn admitted(values: &[&'static str]) -> bool {
        admits_json(&headers(values))
    }

    #[test]
    fn only_a_client_that_names_event_streams_gets_one() {
        for (values, expected) in [
            (&["application/json, text/event-stream"][..], true),
            (&["application/json", "Text/Event-Stream; q=0.5"], true),
            (&["application/json, text/event-stream;q=0"], false),
            (&["*/*"], false),
            (&["text/*"], false),
            (&["application/json"], false),
            (&[], false),
        ] {
            assert_eq!(names_events(&headers(values)), expected, "{values:?}");
        }
    }

    #[test]
    fn an_accept_header_that_does_not_exclude_json_is_accepted() {
        for values in [
            &[][..],
            &["*/*"],
            &["application/*"],
            &["application/json"],
            &["Application/JSON; charset=utf-8"],
            &["application/json;q=0.1, text/event-stream"],
            &["text/event-stream", "application/json"],
            &["text/event-stream, */*;q=0.1"],
            &["what is this"],
        ] {
            assert!(admitted(values), "{values:?}");
        }
    }

    #[test]
    fn an_accept_header_that_excludes_json_is_refused() {
        for values in [
            &["text/html"][..],
            &["text/event-stream"],
            &["text/*", "image/png"],
            &["application/json;q=0"],
            &["*/*, application/json;q=0"],
            &["*/*;q=0.0"],
            &["application/jsonl"],
        ] {
            assert!(!admitted(values), "{values:?}");
        }
    }
}
