//! Microsoft Graph v1.0: lists, page by page.

use axum::Json;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    graph::{GraphError, Options},
    state::Shared,
};

/// Limits of the number of entries on a page.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Default without `$top`.
    pub(crate) default: usize,
    /// Maximum of `$top`.
    pub(crate) largest: usize,
}

/// Whole list, of which a request gets one page.
pub(crate) struct List<'a> {
    /// Part of `@odata.context` after `$metadata#`.
    pub(crate) context: &'a str,
    pub(crate) limits: Limits,
    pub(crate) entries: Vec<Value>,
}

/// Returns the requested page of a list. The address of the next page is opaque.
pub(crate) fn page(shared: &Shared, path: &str, options: &Options, list: List<'_>) -> Result<Json<Value>, GraphError> {
    let List { context, limits, entries } = list;
    let top = number(options, "$top")?.unwrap_or(limits.default);
    if !(1..=limits.largest).contains(&top) {
        let message =
            format!("The limit of '{top}' for Top query is invalid. The value must be from 1 to {}.", limits.largest);
        return Err(GraphError::new(400, "BadRequest", message));
    }
    let skip = match options.get("$skiptoken") {
        Some(token) => read(token).ok_or_else(|| GraphError::new(400, "BadRequest", "The skip token is not valid."))?,
        None => number(options, "$skip")?.unwrap_or_default(),
    };
    let next = skip.saturating_add(top);
    let more = next < entries.len();
    let mut answer = json!({
        "@odata.context": format!("{}/v1.0/$metadata#{context}", shared.graph),
        "value": entries.into_iter().skip(skip).take(top).collect::<Vec<_>>(),
    });
    if let (true, Value::Object(answer)) = (more, &mut answer) {
        answer.insert("@odata.nextLink".to_owned(), next_link(shared, path, options, next).into());
    }
    Ok(Json(answer))
}

fn number(options: &Options, name: &str) -> Result<Option<usize>, GraphError> {
    let number = |text: &String| {
        text.parse().map_err(|_| {
            let message = format!("Invalid value '{text}' for {name} query option found.");
            GraphError::new(400, "BadRequest", message)
        })
    };
    options.get(name).map(number).transpose()
}

fn next_link(shared: &Shared, path: &str, options: &Options, skip: usize) -> String {
    let kept = options.iter().filter(|(name, _)| !matches!(name.as_str(), "$skip" | "$skiptoken"));
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(kept)
        .append_pair("$skiptoken", &token(skip))
        .finish();
    format!("{}{path}?{query}", shared.graph)
}

/// Different for each request of the same page.
fn token(skip: usize) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}:{skip}", uuid::Uuid::new_v4()))
}

fn read(token: &str) -> Option<usize> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    text.split_once(':')?.1.parse().ok()
}
