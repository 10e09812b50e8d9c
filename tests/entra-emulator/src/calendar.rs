//! Microsoft Graph v1.0: creation of events in a user's calendar.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    graph::{Caller, GraphError, Permissions, Target},
    keys::random_token,
    mail,
    state::Shared,
};

const WRITE: Permissions = Permissions {
    own: &["Calendars.ReadWrite"],
    others: &[],
    application: &["Calendars.ReadWrite"],
    denied: mail::denied,
};

/// A created event.
#[derive(Clone, Debug)]
pub struct CreatedEvent {
    /// The organizer's tenant.
    pub tenant: Uuid,
    /// User whose calendar has the event.
    pub user: Uuid,
    /// Its id.
    pub id: String,
    /// The event, as it was posted.
    pub event: Map<String, Value>,
}

/// `POST …/events`: stores the event for tests; invitations are not sent. A second request with the same
/// `transactionId` creates nothing. If it has the same event, the answer is the first event.
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    target: Target,
    caller: Caller,
    Json(event): Json<Map<String, Value>>,
) -> Result<(StatusCode, Json<Value>), GraphError> {
    let user = caller.user(&target, &WRITE)?;
    let is_text = |moment: &str, member: &str| {
        event.get(moment).and_then(|moment| moment.get(member)).is_some_and(Value::is_string)
    };
    if !["start", "end"].iter().all(|moment| is_text(moment, "dateTime") && is_text(moment, "timeZone")) {
        let message = "An event takes start and end, each with dateTime and timeZone.";
        return Err(GraphError::new(400, "ErrorPropertyValidationFailure", message));
    }
    let tenant = caller.directory().id;
    let mut state = shared.lock();
    let transaction = event.get("transactionId").filter(|id| id.is_string());
    let same = |known: &CreatedEvent| {
        (known.tenant, known.user) == (tenant, user.oid)
            && transaction.is_some()
            && known.event.get("transactionId") == transaction
    };
    let created = match state.created.list().into_iter().find(same) {
        Some(known) if known.event == event => known,
        Some(_) => {
            let message = "Your request can't be completed. The TransactionId specified in the request has already been used to create a different event.";
            return Err(GraphError::new(409, "ErrorDuplicateTransactionId", message));
        }
        None => {
            let created = CreatedEvent { tenant, user: user.oid, id: random_token(), event };
            state.created.push(created.clone());
            created
        }
    };
    Ok((StatusCode::CREATED, Json(entry(created))))
}

fn entry(CreatedEvent { id, mut event, .. }: CreatedEvent) -> Value {
    let link = format!("https://outlook.office365.com/owa/?itemid={id}&path=/calendar/item");
    event.extend([
        ("@odata.etag".to_owned(), json!(format!("W/\"{id}\""))),
        ("webLink".to_owned(), json!(link)),
        ("isOrganizer".to_owned(), json!(true)),
        ("id".to_owned(), json!(id)),
    ]);
    Value::Object(event)
}
