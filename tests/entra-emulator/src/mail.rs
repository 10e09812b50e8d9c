//! Microsoft Graph v1.0: the signed-in user's messages, page by page.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use crate::{
    configuration::{Message, User},
    graph::{Caller, GraphError, Options, select},
    keys::hashed,
    state::Shared,
};

const READ_MAIL: &[&str] = &["Mail.Read", "Mail.ReadBasic", "Mail.ReadWrite"];
const DEFAULT_PAGE: usize = 10;
const LARGEST_PAGE: usize = 1000;

/// `GET /v1.0/me/messages`, newest first.
pub(crate) async fn messages(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    options: Options,
) -> Result<Json<Value>, GraphError> {
    let user = caller.me(READ_MAIL, || {
        GraphError::new(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
    })?;
    check_options(&options)?;
    let top = number(&options, "$top", DEFAULT_PAGE)?;
    if !(1..=LARGEST_PAGE).contains(&top) {
        let message =
            format!("The limit of '{top}' for Top query is invalid. The value must be from 1 to {LARGEST_PAGE}.");
        return Err(GraphError::new(400, "BadRequest", message));
    }
    let skip = number(&options, "$skip", 0)?;
    let mut newest: Vec<&Message> = user.messages.iter().collect();
    newest.sort_by(|one, two| two.received_date_time.cmp(&one.received_date_time));
    let page: Vec<Value> = newest
        .iter()
        .enumerate()
        .skip(skip)
        .take(top)
        .map(|(index, message)| select_with_id(entry(user, index, message), &options))
        .collect();
    let mut answer = json!({
        "@odata.context": format!("{}/v1.0/$metadata#users('{}')/messages", shared.graph, user.oid),
        "value": page,
    });
    let next = skip.saturating_add(top);
    if let (true, Value::Object(answer)) = (next < newest.len(), &mut answer) {
        answer.insert("@odata.nextLink".to_owned(), next_link(&shared, &options, next).into());
    }
    Ok(Json(answer))
}

/// An option that the emulator would have to ignore is refused: an unfiltered answer would look like a filtered one.
fn check_options(options: &Options) -> Result<(), GraphError> {
    let known = |name: &str, value: &str| match name {
        "$top" | "$skip" | "$select" | "$count" => true,
        "$orderby" => value.eq_ignore_ascii_case("receivedDateTime desc"),
        other => !other.starts_with('$'),
    };
    match options.iter().find(|(name, value)| !known(name, value)) {
        None => Ok(()),
        Some((name, value)) => {
            let message = format!("The emulator does not implement {name}={value}.");
            Err(GraphError::new(501, "notImplemented", message))
        }
    }
}

fn number(options: &Options, name: &str, default: usize) -> Result<usize, GraphError> {
    let Some(text) = options.get(name) else {
        return Ok(default);
    };
    text.parse().map_err(|_| {
        let message = format!("Invalid value '{text}' for {name} query option found.");
        GraphError::new(400, "BadRequest", message)
    })
}

fn next_link(shared: &Shared, options: &Options, skip: usize) -> String {
    let kept = options.iter().filter(|(name, _)| *name != "$skip");
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(kept)
        .append_pair("$skip", &skip.to_string())
        .finish();
    format!("{}/v1.0/me/messages?{query}", shared.graph)
}

/// Outlook's items keep their `id` whatever is selected.
fn select_with_id(message: Value, options: &Options) -> Value {
    let id = message.get("id").cloned();
    let mut selected = select(message, options);
    if let (Some(id), Value::Object(members)) = (id, &mut selected) {
        members.insert("id".to_owned(), id);
    }
    selected
}

fn entry(user: &User, index: usize, message: &Message) -> Value {
    let id = hashed(&format!("{} {index} {}", user.oid, message.subject));
    let address = |name: &str, address: &str| json!({"emailAddress": {"name": name, "address": address}});
    json!({
        "@odata.etag": format!("W/\"{id}\""),
        "id": id,
        "subject": message.subject,
        "bodyPreview": message.body_preview,
        "body": {"contentType": "text", "content": message.body_preview},
        "importance": "normal",
        "hasAttachments": false,
        "isRead": message.is_read,
        "isDraft": false,
        "receivedDateTime": message.received_date_time,
        "sentDateTime": message.received_date_time,
        "from": address(&message.from_name, &message.from),
        "sender": address(&message.from_name, &message.from),
        "toRecipients": [address(&user.display_name, user.mail.as_deref().unwrap_or(&user.user_principal_name))],
        "webLink": format!("https://outlook.office365.com/owa/?ItemID={id}"),
    })
}
