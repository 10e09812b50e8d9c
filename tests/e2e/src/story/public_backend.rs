//! Public MCP server as a backend, as its authors published it. It is in no list of steps, since it needs Python and a
//! download.

use anyhow::ensure;
use serde_json::{Value, json};
use testbed::chart::PUBLIC_BACKEND_IMAGE;

use super::world::World;
use super::{backends, callers};
use crate::report::Evidence;

/// Server of this step.
const NAME: &str = "time";
/// Tool that the role grants.
const GRANTED: &str = "get_current_time";
/// Tool without a grant.
const OTHER: &str = "convert_time";

pub(super) async fn stands_behind_entra(world: &World) -> anyhow::Result<Evidence> {
    let backend = json!({
        "image": PUBLIC_BACKEND_IMAGE, "transport": "Stdio",
        "command": ["python", "-m", "mcp_server_time"], "args": ["--local-timezone", "Europe/Stockholm"],
    });
    backends::deploy(world, NAME, backend, &[GRANTED]).await?;
    let status = world.server_named(NAME).await?.status.and_then(|status| status.backend).unwrap_or_default();
    ensure!(status.tools == 2 && status.ungranted == [OTHER], "the status of the backend: {status:?}");
    let url = world.url_at(&format!("/{NAME}"));
    let (alice, bob) = (world.sign_in(&world.alice).await?.access_token, world.sign_in(&world.bob).await?.access_token);
    let (shown, hidden) =
        (callers::tools_at(world, url.clone(), &alice).await?, callers::tools_at(world, url.clone(), &bob).await?);
    ensure!(shown == [GRANTED] && hidden.is_empty(), "alice sees {shown:?}, bob {hidden:?}");

    let asked = json!({"name": GRANTED, "arguments": {"timezone": "Asia/Tokyo"}});
    let time = callers::call_at(world, &url, &alice, &asked).await?;
    let text = time.body.pointer("/result/content/0/text").and_then(Value::as_str).unwrap_or_default();
    ensure!(time.is_tool_result() && text.contains("+09:00"), "not the time in Tokyo: {time:?}");
    let refused = callers::call_at(world, &url, &bob, &asked).await?;
    ensure!(refused.status == 403, "bob is not refused: {refused:?}");
    let converted = json!({"source_timezone": "Asia/Tokyo", "time": "12:00", "target_timezone": "Europe/Stockholm"});
    let ungranted = callers::call_at(world, &url, &alice, &json!({"name": OTHER, "arguments": converted})).await?;
    ensure!(ungranted.status == 403, "a tool without a grant: {ungranted:?}");
    backends::delete(world, NAME).await?;
    Ok(vec![format!("alice only sees {GRANTED}, which returns: {text}; bob sees no tool and gets 403")])
}
