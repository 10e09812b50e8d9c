//! Headers of a request that repeat parts of its body for intermediaries. Both must be equal.

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Revision;
use crate::authorize::json_rpc::{ErrorValue, code};
use crate::authorize::{Meta, Method};
use crate::offer::{Offered, Operation, parameter_headers};

const PROTOCOL_VERSION: &str = "mcp-protocol-version";
const METHOD: &str = "mcp-method";
const NAME: &str = "mcp-name";

/// Returns the revision of a request, from its headers and its `_meta`.
///
/// # Errors
/// If the revision is not supported, or `_meta` lacks required members.
pub fn revision(headers: &HeaderMap, meta: &Meta) -> Result<Revision, ErrorValue> {
    let header = only(headers, PROTOCOL_VERSION)?;
    if let (Some(header), Some(named)) = (header, &meta.revision) {
        compare(PROTOCOL_VERSION, header, named)?;
    }
    match (header, Revision::of(meta)?) {
        (Some(_), Some(revision)) => Ok(revision),
        (None, Some(_)) => Err(missing(PROTOCOL_VERSION)),
        (None, None) => Ok(Revision::UNNAMED),
        (Some(header), None) => match Revision::served(header)? {
            revision if revision.is_modern() => {
                let text = "_meta must have io.modelcontextprotocol/protocolVersion and \
                            io.modelcontextprotocol/clientCapabilities since 2026-07-28; add them to params";
                Err(ErrorValue::new(code::INVALID_PARAMS, text))
            }
            revision => Ok(revision),
        },
    }
}

/// Checks the headers that repeat the method and the name of its target. They are required since 2026-07-28. If
/// present, they are always compared, since intermediaries may use them.
///
/// # Errors
/// If a header is missing, or differs from the body.
pub fn method_and_name(headers: &HeaderMap, method: &Method, revision: Revision) -> Result<(), ErrorValue> {
    let name = method.operation().map(Operation::name);
    for (header, body) in [(METHOD, Some(method.name())), (NAME, name)] {
        match (only(headers, header)?, body) {
            (Some(said), Some(body)) => compare(header, said, body)?,
            (None, Some(_)) if revision.is_modern() => return Err(missing(header)),
            (None, _) | (Some(_), None) => {}
        }
    }
    Ok(())
}

/// Checks the headers that repeat arguments of a tool, if its schema requires them (`x-mcp-header`).
///
/// # Errors
/// If a header differs from the arguments.
pub fn parameters(headers: &HeaderMap, operation: &Operation, offered: &Offered) -> Result<(), ErrorValue> {
    let Operation::Tool { name, arguments } = operation else { return Ok(()) };
    let Some(tool) = offered.tool(name) else { return Ok(()) };
    for (header, argument) in parameter_headers(&tool.input_schema, arguments) {
        match (only(headers, &header)?, argument) {
            (None, None) => {}
            (None, Some(_)) => return Err(missing(&header)),
            (Some(_), None) => {
                let text = format!("the header {header} repeats an argument that is absent; remove the header");
                return Err(ErrorValue::new(code::HEADER_MISMATCH, text));
            }
            (Some(said), Some(argument)) if is_same_number(said, &argument) => {}
            (Some(said), Some(argument)) => compare(&header, said, &argument)?,
        }
    }
    Ok(())
}

/// Returns whether both are the same number, in any notation.
fn is_same_number(said: &str, argument: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    number(said).is_some_and(|said| number(argument) == Some(said))
}

/// Returns the only value of a header; `None` if there is none.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ErrorValue> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(value) if values.next().is_none() => Ok(Some(value)),
        _ => {
            let text = format!("the header {name} must occur exactly once, in visible ASCII characters");
            Err(ErrorValue::new(code::HEADER_MISMATCH, text))
        }
    }
}

/// A value that no header can contain is encoded in base64.
fn compare(name: &str, said: &str, body: &str) -> Result<(), ErrorValue> {
    let Some(encoded) = said.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return if said == body { Ok(()) } else { Err(differs(name, said, body)) };
    };
    match STANDARD.decode(encoded) {
        Ok(decoded) if decoded == body.as_bytes() => Ok(()),
        _ => Err(differs(name, said, body)),
    }
}

fn missing(name: &str) -> ErrorValue {
    let text = format!("the header {name} is missing; send the value from the body");
    ErrorValue::new(code::HEADER_MISMATCH, text)
}

fn differs(name: &str, said: &str, body: &str) -> ErrorValue {
    let text = format!("the header {name} has {said:?}, and the body has {body:?}; send the same value in both");
    ErrorValue::new(code::HEADER_MISMATCH, text)
}
