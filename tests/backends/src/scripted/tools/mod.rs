//! Tools, each of which is one behaviour.

mod answers;
mod client;
mod listing;
mod ordinary;
mod process;
mod wire;

use serde_json::json;

use super::backend::Host;
use super::call::{Call, Refusal};

/// Names of all tools, and their descriptions with the arguments. Arguments are optional unless the description says
/// so.
pub const TOOLS: &[(&str, &str)] = &[
    // Correct.
    ("echo", "Returns the arguments as they were written."),
    ("add", "Adds two numbers: a and b, both required."),
    ("whoami", "Returns headers and meta of the request."),
    ("regional", "Returns the region, after it compared it with the header Mcp-Param-Region: region, required."),
    (
        "slow",
        "Reports progress every progress_ms (100) until it is cancelled, a file exists (file) or a signal is given (signal).",
    ),
    ("release", "Gives a signal to slow: signal, required."),
    ("pid", "Returns the id of the process."),
    ("counts", "Returns the open sessions and the tools whose calls were cancelled."),
    ("received", "Returns the messages and headers received so far."),
    ("announce", "Tells that a list (kind: tools, prompts, resources) or a resource (uri; to_all: true) has changed."),
    ("needs_state", "Modern: asks to be called again with its state, rounds (1) times."),
    ("needs_input", "Modern: asks for an elicitation."),
    // Wrong answers.
    ("answer_other_id", "Answers an id that nobody asked, then its own."),
    ("answer_twice", "Answers two times."),
    ("cross_ids", "Holds a call until there is a second one, then answers both in reverse order."),
    ("never_answer", "Waits until it is cancelled."),
    ("big_answer", "Returns text of 16 MiB: bytes."),
    ("duplicate_members", "Returns an answer whose members stand twice."),
    ("deep_nesting", "Returns a structure of 100,000 arrays in each other: depth."),
    ("wrong_jsonrpc", "Answers with jsonrpc 1.0."),
    ("odd_answer", "Answers with neither a result nor an error."),
    // Wrong bytes.
    ("garbage", "Writes what is no JSON, then answers over stdio."),
    ("half_answer", "HTTP: writes half of an answer of bytes (204,800), and the rest once a signal is given (signal)."),
    ("long_line", "Writes a line without an end: bytes."),
    ("sse_split", "Answers by events with a BOM, comments, ids, empty events, CR, CRLF and split data."),
    ("forget_session", "Answers, and knows no session from now on."),
    ("http_500", "Is answered by a status: status (500)."),
    ("redirect", "Is answered by a redirect: to, required; status (302)."),
    // Misuse of the client and others.
    ("ask_client", "Asks the client for sampling, elicitation, roots and ping, and returns what came back."),
    ("logs", "Sends log messages of the levels debug to error, whatever the client asked, before it answers."),
    ("flood_notifications", "Sends log messages (count, 100,000) before it answers."),
    ("foreign_progress", "Sends progress under tokens that nobody gave (tokens), then answers."),
    (
        "replay_assertion",
        "Posts a tools/list to url, required, with its assertion as the bearer token, and returns the status.",
    ),
    ("listen_everywhere", "Listens on 0.0.0.0 (port), and returns the port."),
    // Wrong lists.
    ("change_tools", "Changes the description, schema or annotations (what) of add. Tells of it if notify is true."),
    ("many_tools", "Lists 10,000 tools from now on."),
    ("big_list_page", "Lists 10,000 tools in one page of 20 MiB from now on."),
    ("cursor_loop", "Names the same next cursor forever from now on."),
    ("silent_list", "Answers no list of tools from now on."),
    ("bad_names", "Lists tools with bad names from now on."),
    ("ordinary_list", "Lists what there is from now on."),
    // Misbehaviour of a process.
    ("exit", "Ends the process without an answer: code (1)."),
    ("exit_midway", "Ends the process after half of an answer: code (1)."),
    ("fork", "Starts a process that holds stdout for 5 minutes, and returns its id. own_group: true leaves the group."),
    ("ignore_sigterm", "Ignores SIGTERM and the end of stdin from now on."),
    ("fill_stderr", "Writes 8 MiB to stderr, then answers: bytes."),
];

/// Answers a call of a tool.
pub(super) async fn run(call: Call) {
    let name = call.message.text("name").to_owned();
    match name.as_str() {
        "echo" => call.answer_text(call.message.arguments.clone().unwrap_or_default()).await,
        "add" => ordinary::add(&call).await,
        "whoami" => ordinary::whoami(&call).await,
        "regional" => ordinary::regional(&call).await,
        "slow" => ordinary::slow(&call).await,
        "release" => ordinary::release(&call).await,
        "pid" => call.answer_text(std::process::id().to_string()).await,
        "counts" => ordinary::counts(&call).await,
        "received" => ordinary::received(&call).await,
        "announce" => listing::announce(&call).await,
        "needs_state" | "needs_input" if call.is_modern() => ordinary::ask_again(&call, &name).await,
        "answer_other_id" => answers::other_id(&call).await,
        "answer_twice" => answers::twice(&call).await,
        "cross_ids" => answers::cross(call).await,
        "never_answer" => call.cancelled().await,
        "big_answer" => call.answer_text("x".repeat(call.count("bytes", 16 << 20))).await,
        "duplicate_members" => answers::duplicate_members(&call).await,
        "deep_nesting" => answers::deep(&call).await,
        "wrong_jsonrpc" => answers::wrong_version(&call).await,
        "odd_answer" => answers::odd(&call).await,
        "garbage" => wire::garbage(&call).await,
        "half_answer" => wire::half_answer(&call).await,
        "long_line" => wire::long_line(&call).await,
        "sse_split" => wire::split_events(&call).await,
        "forget_session" => wire::forget_session(&call).await,
        "http_500" => wire::status(&call, 500).await,
        "redirect" => wire::status(&call, 302).await,
        "ask_client" => client::ask(&call).await,
        "logs" => client::logs(&call).await,
        "flood_notifications" => client::flood(&call).await,
        "foreign_progress" => client::foreign_progress(&call).await,
        "replay_assertion" => client::replay_assertion(&call).await,
        "listen_everywhere" => process::listen_everywhere(&call).await,
        "change_tools" => listing::change(&call).await,
        "many_tools" | "big_list_page" | "cursor_loop" | "silent_list" | "bad_names" | "ordinary_list" => {
            listing::set(&call, &name).await
        }
        "exit" | "exit_midway" | "fork" | "ignore_sigterm" | "fill_stderr" => {
            if call.backend.host == Host::Test {
                return call.fail("This would be done to the test's own process.").await;
            }
            process::run(&call, &name).await;
        }
        _ => {
            let data = json!({ "name": name });
            call.refuse(Refusal { data, ..Refusal::new(-32602, format!("Unknown tool: {name}")) }).await;
        }
    }
}
