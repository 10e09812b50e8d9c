//! Pages of the server's authorization server, in a browser.

use std::time::Duration;

use anyhow::ensure;
use axum::Router;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use e2e::report::Evidence;
use mcp_entra_server::oauth::pages::{
    Connect, Consent, Destination, Language, Notice, Problem, Sessions, ShownClient, ShownSession, Verification, Visit,
};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

use crate::world::World;

const CONSENT: &str = "/consent";
type Show = fn(&Visit<'_>) -> Response;
/// Path, and the page there.
const PAGES: &[(&str, Show)] = &[
    (CONSENT, |visit| consent(visit, "Visual Studio Code", Verification::Registered, Destination::ThisComputer)),
    ("/consent-long", |visit| {
        let host = "a-host-with-quite-a-long-name.of.some.organization.example.com";
        consent(visit, &"W".repeat(500), Verification::Published { host }, Destination::Host(host))
    }),
    ("/consent-listed", |visit| consent(visit, "Cursor", Verification::Listed, Destination::App("cursor"))),
    ("/administrator", |visit| {
        let link = Url::parse("https://login.microsoftonline.com/contoso/v2.0/adminconsent?client_id=1").ok();
        Problem::AdministratorNeeded { permissions: &permissions(), link: link.as_ref() }.show(visit)
    }),
    ("/redirect", |visit| {
        let asked = format!("https://example.com/{}", "long".repeat(100));
        Problem::RedirectNotRegistered { asked: &asked }.show(visit)
    }),
    ("/refused", |visit| {
        let back = Url::parse("http://127.0.0.1:9/callback?error=access_denied").ok();
        let visit = Visit { back: back.as_ref(), ..*visit };
        Problem::EntraRefuses { code: Some(50105), advice: "Ask to be assigned." }.show(&visit)
    }),
    ("/unknown", |visit| Problem::UnknownClient.show(visit)),
    ("/not-allowed", |visit| {
        Problem::ClientNotAllowed { field: "spec.authorizationServer.allowedRedirects" }.show(visit)
    }),
    ("/busy", |visit| Problem::TooManyRequests { retry_after: Duration::from_secs(9) }.show(visit)),
    ("/notice", |visit| Notice::AdministratorApproved.show(visit)),
    ("/sessions", |visit| sessions(visit, &[Verification::Registered, Verification::Listed], Some(1))),
    ("/sessions-none", |visit| sessions(visit, &[], None)),
    ("/connect", |visit| {
        let url = "https://mcp.example.com/a-team/a-server-with-a-long-name";
        Connect { name: "a-server-with-a-long-name", url, sessions: "/sessions" }.show(visit)
    }),
];

fn permissions() -> Vec<String> {
    ["User.Read", "Mail.Read", "Strange.Permission"].map(str::to_owned).to_vec()
}

fn consent(visit: &Visit<'_>, name: &str, verification: Verification<'_>, destination: Destination<'_>) -> Response {
    let page = Consent {
        namespace: "a-team",
        client: ShownClient { name, verification },
        destination,
        permissions: &permissions(),
        scopes: &["mail.write".to_owned()],
        context: Some("c1"),
        action: "/answer",
        request: "sealed",
        callback: "https://mcp.example.com/a-team/a-server-with-a-long-name/callback",
    };
    page.show(visit)
}

fn sessions(visit: &Visit<'_>, kinds: &[Verification<'_>], ended: Option<usize>) -> Response {
    let time = jiff::Timestamp::UNIX_EPOCH;
    let session = |verification| {
        let client = ShownClient { name: "Visual Studio Code", verification };
        ShownSession { handle: "handle", client, since: time, last_used: time }
    };
    let sessions: Vec<ShownSession<'_>> = kinds.iter().copied().map(session).collect();
    let page = Sessions {
        signed_in_as: "alice@contoso.com",
        sessions: &sessions,
        action: "/sessions",
        connect: "/connect",
        csrf: "value",
        ended,
    };
    page.show(visit)
}

/// A form of the consent page.
#[derive(Deserialize)]
struct Form {
    request: String,
    decision: String,
}

/// Findings of the visits, and pages after key presses.
#[derive(Deserialize)]
struct Seen {
    found: Vec<String>,
    answers: Vec<String>,
}

fn site() -> Router {
    let answer = |form: axum::Form<Form>| async move { format!("posted {} {}", form.request, form.decision) };
    PAGES.iter().fold(Router::new().route("/answer", post(answer)), |site, (path, page)| {
        let show = move |headers: HeaderMap| async move {
            let language = Language::of(&headers);
            page(&Visit {
                language,
                server: "Mail reader",
                correlation_id: "0f0e0d0c-1111-4222-8333-444455556666",
                back: None,
            })
        };
        site.route(path, get(show))
    })
}

pub(super) async fn all(world: &mut World<'_>) -> anyhow::Result<Evidence> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let origin = format!("http://{}", listener.local_addr()?);
    // Ends with this function.
    let mut server = JoinSet::new();
    server.spawn(async { axum::serve(listener, site()).await });

    let paths: Vec<&str> = PAGES.iter().map(|(path, _)| *path).collect();
    let visit = json!({
        "chromium": world.lane.tools.chromium, "origin": origin, "paths": paths, "consent": CONSENT,
        "languages": Language::ALL.map(Language::tag), "screenshots": std::env::var("SCREENSHOTS").ok(),
    });
    let Seen { found, answers } = world.in_browser("node/pages.cjs", &visit).await?;
    ensure!(found.is_empty(), "{}", found.join("\n"));
    let [unfocused, first, second] = answers.as_slice() else { anyhow::bail!("answers are missing: {answers:?}") };
    ensure!(!unfocused.contains("posted"), "Enter alone answers: {unfocused}");
    ensure!(first == "posted sealed cancel", "the first button does not cancel: {first}");
    ensure!(second == "posted sealed approve", "the second button does not approve: {second}");
    Ok(vec![format!("{} pages, {} languages", paths.len(), Language::ALL.len())])
}
