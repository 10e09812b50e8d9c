//! Microsoft Graph v1.0: reading and sending a user's messages.

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawPathParams, State},
    http::{StatusCode, Uri},
};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    configuration::{Message, User},
    graph::{Caller, GraphError, Options, Permissions, Target, select},
    keys::hashed,
    paging::{Limits, List, page},
    state::Shared,
};

const READ: Permissions = Permissions {
    own: &[
        "Mail.Read",
        "Mail.Read.Shared",
        "Mail.ReadBasic",
        "Mail.ReadBasic.Shared",
        "Mail.ReadWrite",
        "Mail.ReadWrite.Shared",
    ],
    others: &[],
    application: &["Mail.Read", "Mail.ReadBasic.All", "Mail.ReadWrite"],
    denied,
};
const SEND: Permissions = Permissions { own: &["Mail.Send"], others: &[], application: &["Mail.Send"], denied };
const PAGES: Limits = Limits { default: 10, largest: 1000 };

pub(crate) fn denied() -> GraphError {
    GraphError::new(403, "ErrorAccessDenied", "Access is denied. Check credentials and try again.")
}

/// Message that was sent with `sendMail`.
#[derive(Clone, Debug)]
pub struct SentMessage {
    /// The sender's tenant.
    pub tenant: Uuid,
    /// Mailbox that sent the message.
    pub user: Uuid,
    /// `message`, as sent.
    pub message: Value,
    /// `saveToSentItems`
    pub save_to_sent_items: bool,
}

/// `GET …/messages`, newest first.
pub(crate) async fn messages(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    target: Target,
    caller: Caller,
    options: Options,
) -> Result<Json<Value>, GraphError> {
    let user = caller.user(&target, &READ)?;
    check_options(&options)?;
    let entries = entries(user).into_iter().map(|message| select_with_id(message, &options)).collect();
    let context = &format!("users('{}')/messages", user.oid);
    page(&shared, uri.path(), &options, List { context, limits: PAGES, entries })
}

/// `GET …/messages/{message}`
pub(crate) async fn message(
    target: Target,
    caller: Caller,
    options: Options,
    path: RawPathParams,
) -> Result<Json<Value>, GraphError> {
    let user = caller.user(&target, &READ)?;
    let id = path.iter().find(|(name, _)| *name == "message").map(|(_, id)| id).unwrap_or_default();
    let found = entries(user).into_iter().find(|message| message.get("id").is_some_and(|known| known == id));
    let found = found
        .ok_or_else(|| GraphError::new(404, "ErrorItemNotFound", "The specified object was not found in the store."))?;
    Ok(Json(select_with_id(found, &options)))
}

/// The body of `sendMail`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SendMail {
    message: Value,
    #[serde(default = "yes")]
    save_to_sent_items: bool,
}

fn yes() -> bool {
    true
}

/// `POST …/sendMail`: accepts the message and stores it for tests. It is not delivered.
pub(crate) async fn send(
    State(shared): State<Arc<Shared>>,
    target: Target,
    caller: Caller,
    Json(body): Json<SendMail>,
) -> Result<StatusCode, GraphError> {
    let user = caller.user(&target, &SEND)?;
    let recipients = body.message.get("toRecipients").and_then(Value::as_array);
    let has_address = |recipient: &Value| recipient.pointer("/emailAddress/address").is_some_and(Value::is_string);
    if !recipients.is_some_and(|all| !all.is_empty() && all.iter().all(has_address)) {
        return Err(GraphError::new(400, "ErrorInvalidRecipients", "At least one recipient isn't valid."));
    }
    shared.lock().sent.push(SentMessage {
        tenant: caller.directory().id,
        user: user.oid,
        message: body.message,
        save_to_sent_items: body.save_to_sent_items,
    });
    Ok(StatusCode::ACCEPTED)
}

/// Refuses an option that the emulator would have to ignore. Otherwise an unfiltered answer would look like a filtered
/// one.
fn check_options(options: &Options) -> Result<(), GraphError> {
    let known = |name: &str, value: &str| match name {
        "$top" | "$skip" | "$skiptoken" | "$select" | "$count" => true,
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

/// Items of Outlook always keep their `id`, independent of `$select`.
fn select_with_id(message: Value, options: &Options) -> Value {
    let id = message.get("id").cloned();
    let mut selected = select(message, options);
    if let (Some(id), Value::Object(members)) = (id, &mut selected) {
        members.insert("id".to_owned(), id);
    }
    selected
}

fn entries(user: &User) -> Vec<Value> {
    let mut newest: Vec<&Message> = user.messages.iter().collect();
    newest.sort_by(|one, two| two.received_date_time.cmp(&one.received_date_time));
    newest.into_iter().enumerate().map(|(index, message)| entry(user, index, message)).collect()
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
