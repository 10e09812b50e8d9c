//! Changes of the lists, and their notifications.

use crate::scripted::Listed;
use crate::scripted::backend::lock;
use crate::scripted::call::Call;

pub(super) async fn announce(call: &Call) {
    let to_all = call.argument("to_all").as_bool() == Some(true);
    match call.text("uri") {
        Some(uri) if to_all => call.backend.announce_resource_to_all(uri).await,
        Some(uri) => call.backend.announce_resource(uri).await,
        None => call.backend.announce_list(call.text("kind").unwrap_or("tools")).await,
    }
    call.answer_text("announced").await;
}

pub(super) async fn change(call: &Call) {
    lock(&call.backend.changes).insert(call.text("what").unwrap_or("description").to_owned());
    if call.argument("notify").as_bool() == Some(true) {
        call.backend.announce_list("tools").await;
    }
    call.answer_text("changed").await;
}

/// Sets the form of the list of tools.
pub(super) async fn set(call: &Call, name: &str) {
    *lock(&call.backend.listed) = match name {
        "many_tools" => Listed::Many,
        "big_list_page" => Listed::BigPage,
        "silent_list" => Listed::Silent,
        "cursor_loop" => Listed::CursorLoop,
        "bad_names" => Listed::BadNames,
        _ => Listed::Ordinary,
    };
    call.answer_text("set").await;
}
