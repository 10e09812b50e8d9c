//! The Accept header: the client has to be able to read JSON, which every answer is.
//!
//! Many clients say `*/*`, JSON alone, or nothing, and read JSON all the same: only a header that excludes it is refused.
//! rmcp wants both JSON and event streams by name, though it sends JSON alone, so that the header is written anew for it.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use headers_accept::Accept;
use mediatype::{ReadParams, names};

use super::answer::{self, Refusal};
use crate::authorize::Message;
use crate::authorize::json_rpc::{ErrorValue, code};

const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

/// Refuses requests whose answer the client could not read.
pub(super) fn stage(message: &Message, parts: &mut Parts) -> Result<(), Refusal> {
    if !admits_json(&parts.headers) {
        let text = "the Accept header excludes application/json, which every answer is; send Accept: application/json";
        let error = ErrorValue::new(code::INVALID_REQUEST, text);
        let response = answer::json_rpc_error(StatusCode::NOT_ACCEPTABLE, message.answer_id(), &error);
        return Err(Refusal::new("not_acceptable", response));
    }
    parts.headers.insert(header::ACCEPT, BOTH);
    Ok(())
}

/// A header that is absent or cannot be understood excludes nothing.
fn admits_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    values.peek().is_none()
        || values.any(|value| Accept::try_from(value).map_or(true, |accept| ranges_admit_json(&accept)))
}

/// The most specific of the ranges that mean JSON decides (RFC 9110 section 12.5.1), whatever its parameters are.
fn ranges_admit_json(accept: &Accept) -> bool {
    let mut ranges = accept.media_types().filter(|range| {
        (range.ty() == names::_STAR || range.ty() == names::APPLICATION)
            && (range.subty() == names::_STAR || range.subty() == names::JSON)
    });
    let weight = |value: mediatype::Value<'_>| value.as_str().parse::<f32>().unwrap_or(1.0);
    ranges.next().is_some_and(|range| range.get_param(names::Q).map_or(1.0, weight) > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(values: &[&'static str]) -> bool {
        let values = values.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value)));
        admits_json(&values.collect())
    }

    #[test]
    fn what_does_not_exclude_json_admits_it() {
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
    fn what_excludes_json_does_not() {
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
