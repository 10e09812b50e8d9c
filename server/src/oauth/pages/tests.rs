//! Tests of every page in every language, as a browser receives it.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;
use jiff::Timestamp;
use url::Url;

use super::document::STYLE;
use super::*;

const SERVER: &str = "Mail <reader> & \"co\"";
const CORRELATION_ID: &str = "0f0e0d0c-1111-4222-8333-444455556666";
const CALLBACK: &str = "https://mcp.example.com/mail/callback";
/// Markup, quotes, control characters and excessive length.
const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\u{202e}\u{2066}\u{0}{{7*7}}&amp;";

/// A received page.
struct Arrived {
    name: String,
    status: StatusCode,
    headers: HeaderMap,
    html: String,
}

fn visit(language: Language) -> Visit<'static> {
    Visit { language, server: SERVER, correlation_id: CORRELATION_ID, back: None }
}

async fn arrived(name: &str, language: Language, response: Response) -> Arrived {
    let (parts, body) = response.into_parts();
    let html = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Arrived { name: format!("{name} in {language:?}"), status: parts.status, headers: parts.headers, html }
}

fn consent<'a>(client: ShownClient<'a>, destination: Destination<'a>, permissions: &'a [String]) -> Consent<'a> {
    Consent {
        namespace: "mail",
        client,
        destination,
        permissions,
        scopes: &[],
        context: None,
        action: "/mail/consent",
        request: "sealed-request",
        callback: CALLBACK,
    }
}

fn problems<'a>(hostile: &'a str, permissions: &'a [String], link: &'a Url) -> Vec<Problem<'a>> {
    vec![
        Problem::UnknownClient,
        Problem::ClientNotAllowed { field: "spec.authorizationServer.clients" },
        Problem::ClientUnreadable,
        Problem::RedirectNotRegistered { asked: hostile },
        Problem::Malformed { parameter: hostile },
        Problem::TooOld,
        Problem::OtherBrowser,
        Problem::ForeignForm,
        Problem::CancelledAtMicrosoft,
        Problem::AdministratorNeeded { permissions, link: Some(link) },
        Problem::AdministratorNeeded { permissions: &[], link: None },
        Problem::EntraRefuses { code: Some(50105), advice: hostile },
        Problem::EntraRefuses { code: None, advice: "Ask for help." },
        Problem::AnotherAccount,
        Problem::StoreUnavailable,
        Problem::EntraUnavailable,
        Problem::TooManyRequests { retry_after: Duration::from_millis(1500) },
        Problem::NoPage,
        Problem::Internal,
    ]
}

fn link() -> Url {
    Url::parse("https://login.microsoftonline.com/contoso/v2.0/adminconsent?client_id=1&scope=a%20b").unwrap()
}

fn way_back() -> Url {
    Url::parse("http://127.0.0.1:33418/callback?error=access_denied&state=%22%3E%3Cscript%3E").unwrap()
}

/// Returns every page in this language, with this text in every field that clients or people choose.
async fn pages(language: Language, chosen: &str) -> Vec<Arrived> {
    let visit = &visit(language);
    let permissions = ["https://graph.microsoft.com/Mail.Read", "Strange.Permission", chosen].map(str::to_owned);
    let kinds = [Verification::Listed, Verification::Published { host: "vscode.dev" }, Verification::Registered];
    let destinations = [Destination::Host(chosen), Destination::ThisComputer, Destination::App(chosen)];
    let mut pages = vec![];
    for (verification, destination) in kinds.into_iter().zip(destinations) {
        let page = Consent {
            scopes: &permissions,
            context: Some(chosen),
            ..consent(ShownClient { name: chosen, verification }, destination, &permissions)
        };
        let name = format!("consent {verification:?}");
        pages.push(arrived(&name, language, page.show(visit)).await);
    }
    for problem in problems(chosen, &permissions, &link()) {
        let name = format!("{problem:?}").chars().take(60).collect::<String>();
        pages.push(arrived(&name, language, problem.show(visit)).await);
    }
    let back = way_back();
    let page = Problem::CancelledAtMicrosoft.show(&Visit { back: Some(&back), ..*visit });
    pages.push(arrived("a problem with a way back", language, page).await);
    pages.push(arrived("notice", language, Notice::AdministratorApproved.show(visit)).await);
    let since = Timestamp::from_second(1_800_000_000).unwrap();
    let sessions = kinds.map(|verification| {
        let client = ShownClient { name: chosen, verification };
        ShownSession { handle: "handle", client, since, last_used: since }
    });
    for (sessions, ended) in [(&sessions[..], None), (&[], Some(1)), (&sessions[..1], Some(3))] {
        let page = Sessions {
            signed_in_as: chosen,
            sessions,
            action: "/mail/sessions",
            connect: "/mail/connect",
            csrf: "csrf-value",
            ended,
        };
        pages.push(arrived(&format!("sessions after {ended:?}"), language, page.show(visit)).await);
    }
    let page = Connect { name: "mail", url: "https://mcp.example.com/mail", sessions: "/mail/sessions" };
    pages.push(arrived("connect", language, page.show(visit)).await);
    pages
}

/// Returns the texts between tags.
fn texts(html: &str) -> Vec<&str> {
    let body = html.split_once("</head>").unwrap().1;
    let pieces = body.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| text.trim());
    pieces.filter(|text| !text.is_empty()).collect()
}

#[tokio::test]
async fn every_page_is_a_document_with_language_title_landmark_and_one_heading() {
    for language in Language::ALL {
        for Arrived { name, html, .. } in pages(language, "Code").await {
            assert!(
                html.starts_with(&format!("<!DOCTYPE html>\n<html lang=\"{}\">", language.tag())),
                "{name}: {html}"
            );
            let title = html.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0;
            let heading = html.split_once("<h1>").unwrap().1.split_once("</h1>").unwrap().0;
            assert!(title == heading && !title.is_empty(), "{name}: {title:?}, {heading:?}");
            for once in ["<main>", "</main>", "<h1>", "</html>", "<header>"] {
                assert_eq!(html.matches(once).count(), 1, "{name}: {once}");
            }
            assert!(
                html.contains("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"),
                "{name}"
            );
            let ids =
                html.match_indices(" id=\"").map(|(at, start)| html[at + start.len()..].split('"').next().unwrap());
            let ids: Vec<&str> = ids.collect();
            assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "{name} has an id twice: {ids:?}");
            for attribute in ["aria-labelledby=\"", "href=\"#"] {
                for (at, start) in html.match_indices(attribute) {
                    let named = html[at + start.len()..].split('"').next().unwrap();
                    assert!(named.split(' ').all(|id| ids.contains(&id)), "{name}: {attribute}{named}");
                }
            }
        }
    }
}

#[tokio::test]
async fn no_page_runs_loads_or_links_anything_but_what_it_is_given() {
    for language in Language::ALL {
        for Arrived { name, html, .. } in pages(language, "Code").await {
            for forbidden in ["<script", "javascript:", " on", "<img", "<link", "<iframe", " style=", "@import", "url("]
            {
                let markup = html.split('<').filter_map(|piece| piece.split_once('>')).map(|(tag, _)| tag);
                let found = markup.chain([STYLE]).any(|tag| format!("<{tag}").contains(forbidden));
                assert!(!found || forbidden == " on" && !html.contains(" on="), "{name}: {forbidden}");
            }
            for (at, start) in html.match_indices("href=\"").chain(html.match_indices("action=\"")) {
                let target = html[at + start.len()..].split('"').next().unwrap();
                let is_own = target.starts_with('#') || target.starts_with("/mail/");
                let is_given = ["https://login.microsoftonline.com/", "http://127.0.0.1:33418/callback?"];
                assert!(is_own || is_given.iter().any(|given| target.starts_with(given)), "{name}: {target}");
            }
        }
    }
}

#[tokio::test]
async fn every_page_has_the_headers_that_keep_it_from_being_run_framed_kept_and_passed_on() {
    for language in Language::ALL {
        for Arrived { name, headers, html, .. } in pages(language, "Code").await {
            let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
            let policy = header("content-security-policy");
            let style = html.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
            let hash = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, hash);
            let expected = format!(
                "default-src 'none'; style-src 'sha256-{hash}'; img-src 'none'; base-uri 'none'; frame-ancestors 'none'"
            );
            assert_eq!(policy, expected, "{name}");
            for (header_name, value) in [
                ("content-type", "text/html; charset=utf-8"),
                ("content-language", language.tag()),
                ("vary", "Accept-Language"),
                ("x-frame-options", "DENY"),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("cache-control", "no-store"),
            ] {
                assert_eq!(header(header_name), value, "{name}: {header_name}");
            }
        }
    }
}

#[tokio::test]
async fn foreign_text_is_escaped_bounded_and_on_one_line() {
    let long = format!("{HOSTILE}{}", "x".repeat(10_000));
    for language in Language::ALL {
        let (hostile, harmless) = (pages(language, &long).await, pages(language, "Code").await);
        for (Arrived { name, html, .. }, harmless) in hostile.iter().zip(harmless) {
            let tags = |html: &str| html.matches('<').count();
            assert_eq!(tags(html), tags(&harmless.html), "{name} has another element: {html}");
            assert_eq!(html.matches('"').count(), harmless.html.matches('"').count(), "{name} has another attribute");
            let unseen = |character: char| matches!(character, '\u{0}' | '\u{202e}' | '\u{2066}');
            assert!(!html.contains(unseen), "{name} lets a control character through");
            assert!(!html.contains(&"x".repeat(1000)), "{name} shows all of it");
            assert!(!html.contains("<script") && !html.contains("<img"), "{name}");
        }
    }
}

#[tokio::test]
async fn error_pages_say_what_to_do_and_the_id_of_the_request() {
    for language in Language::ALL {
        let labels = &language.texts().problem;
        let mut seen = BTreeSet::new();
        for problem in problems("Code", &[], &link()) {
            let Arrived { name, status, headers, html } =
                arrived("problem", language, problem.show(&visit(language))).await;
            assert_eq!(status, problem.status());
            assert!(status.is_client_error() || status.is_server_error(), "{name}");
            assert!(html.contains(labels.remedy_heading) && html.contains(CORRELATION_ID), "{name}: {html}");
            let retry = headers.get(header::RETRY_AFTER).map(|value| value.to_str().unwrap());
            let expected = match status {
                StatusCode::SERVICE_UNAVAILABLE => Some("60"),
                StatusCode::TOO_MANY_REQUESTS => Some("2"),
                _ => None,
            };
            assert_eq!(retry, expected, "{problem:?}");
            seen.insert(html.split_once("<h1>").unwrap().1.split_once("</h1>").unwrap().0.to_owned());
        }
        // Two problems appear twice in the list.
        assert_eq!(seen.len(), problems("", &[], &link()).len() - 2, "two problems have one heading");
    }
}

#[tokio::test]
async fn a_link_that_is_not_https_is_left_out() {
    let visit = visit(Language::English);
    for address in ["http://login.example.com/", "javascript:alert(1)"] {
        let link = Url::parse(address).unwrap();
        let page = Problem::AdministratorNeeded { permissions: &[], link: Some(&link) }.show(&visit);
        let Arrived { html, .. } = arrived("problem", Language::English, page).await;
        assert!(!html.contains("href") && !html.contains(address), "{html}");
    }
    let page = Problem::AdministratorNeeded { permissions: &[], link: Some(&link()) }.show(&visit);
    let Arrived { html, .. } = arrived("problem", Language::English, page).await;
    assert!(
        html.contains("href=\"https://login.microsoftonline.com/contoso/v2.0/adminconsent?client_id=1&#38;scope"),
        "{html}"
    );
}

#[tokio::test]
async fn a_problem_has_a_way_back_to_the_program_where_there_is_one_and_no_link_where_there_is_none() {
    let back = way_back();
    for language in Language::ALL {
        let text = language.texts().problem.back;
        for (back, is_shown) in [(Some(&back), true), (None, false)] {
            let page = Problem::CancelledAtMicrosoft.show(&Visit { back, ..visit(language) });
            let Arrived { html, .. } = arrived("problem", language, page).await;
            let link = format!(
                "<a class=\"action\" href=\"http://127.0.0.1:33418/callback?error=access_denied&#38;\
                 state=%22%3E%3Cscript%3E\">{text}</a>"
            );
            assert_eq!((html.contains(&link), html.contains("<a ")), (is_shown, is_shown), "{html}");
        }
    }
}

#[tokio::test]
async fn an_unknown_client_gets_remedies_for_each_program_and_a_refused_one_the_setting() {
    for language in Language::ALL {
        let page = Problem::UnknownClient.show(&visit(language));
        let Arrived { html, .. } = arrived("problem", language, page).await;
        for way in ["Authentication: Remove Dynamic Authentication Providers", "~/.mcp-auth"] {
            assert!(html.contains(way), "{html}");
        }
        let field = "spec.authorizationServer.clients";
        let page = Problem::ClientNotAllowed { field }.show(&visit(language));
        let Arrived { html, .. } = arrived("problem", language, page).await;
        assert!(html.contains(field) && !html.contains("~/.mcp-auth"), "{html}");
    }
}

#[tokio::test]
async fn scopes_of_the_server_and_a_stronger_sign_in_are_described() {
    let client = ShownClient { name: "Code", verification: Verification::Listed };
    let scopes = ["mail.write".to_owned()];
    for (language, scope, context) in [
        (
            Language::English,
            "use this server&#39;s permission (<code>mail.write</code>)",
            "require a stronger sign-in, as the administrators define it (c1)",
        ),
        (
            Language::Swedish,
            "använda serverns behörighet (<code>mail.write</code>)",
            "kräva en starkare inloggning, enligt administratörernas definition (c1)",
        ),
    ] {
        let without = consent(client, Destination::ThisComputer, &[]);
        let page = Consent { scopes: &scopes, context: Some("c1"), ..without };
        for (page, is_shown) in [(page, true), (without, false)] {
            let Arrived { html, .. } = arrived("consent", language, page.show(&visit(language))).await;
            for item in [scope, context] {
                assert_eq!(html.contains(&format!("<li>{item}</li>")), is_shown, "{item}: {html}");
            }
        }
    }
}

#[tokio::test]
async fn the_consent_page_warns_only_of_unverified_clients() {
    for language in Language::ALL {
        let texts = &language.texts().consent;
        for (verification, warns) in [
            (Verification::Listed, false),
            (Verification::Published { host: "vscode.dev" }, true),
            (Verification::Registered, true),
        ] {
            let page = consent(ShownClient { name: "Code", verification }, Destination::ThisComputer, &[]);
            let Arrived { html, .. } = arrived("consent", language, page.show(&visit(language))).await;
            assert_eq!(html.contains(texts.warning), warns, "{verification:?}");
            assert!(html.contains("vscode.dev") == matches!(verification, Verification::Published { .. }));
        }
    }
}

#[tokio::test]
async fn the_consent_form_holds_the_sealed_request_and_cancels_first() {
    let client = ShownClient { name: "", verification: Verification::Registered };
    let page = consent(client, Destination::App("cursor"), &[]);
    let Arrived { html, .. } = arrived("consent", Language::English, page.show(&visit(Language::English))).await;
    let form =
        html.split_once("<form method=\"post\" action=\"/mail/consent\">").unwrap().1.split_once("</form>").unwrap().0;
    assert!(form.contains("<input type=\"hidden\" name=\"request\" value=\"sealed-request\">"), "{form}");
    assert_eq!(form.matches("<input").count(), 1, "{form}");
    let values: Vec<&str> =
        form.split("name=\"decision\" value=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(values, ["cancel", "approve"]);
    assert!(!html.contains("autofocus") && html.contains("(no name)") && html.contains("cursor: links"), "{html}");
    assert!(html.contains(CALLBACK) && html.contains("AADSTS50011"), "{html}");
}

#[tokio::test]
async fn known_permissions_are_described_and_unknown_ones_are_named() {
    let permissions =
        ["https://graph.microsoft.com/Mail.Read", "calendars.read", "Strange.Permission"].map(str::to_owned);
    let client = ShownClient { name: "Code", verification: Verification::Listed };
    for (language, words) in [
        (Language::English, ["read your mail", "read your calendars", "use the Microsoft Graph permission"]),
        (Language::Swedish, ["läsa din e-post", "läsa dina kalendrar", "använda Microsoft Graph-behörigheten"]),
    ] {
        let page = consent(client, Destination::ThisComputer, &permissions);
        let Arrived { html, .. } = arrived("consent", language, page.show(&visit(language))).await;
        for (words, name) in words.iter().zip(["Mail.Read", "calendars.read", "Strange.Permission"]) {
            assert!(html.contains(&format!("<li>{words} (<code>{name}</code>)</li>")), "{html}");
        }
    }
}

#[tokio::test]
async fn each_session_has_a_form_of_its_own_and_an_empty_list_has_none() {
    let since = Timestamp::from_second(1_800_000_000).unwrap();
    let client = ShownClient { name: "Code", verification: Verification::Listed };
    let sessions = ["first", "second"].map(|handle| ShownSession { handle, client, since, last_used: since });
    let page = Sessions {
        signed_in_as: "alice@contoso.com",
        sessions: &sessions,
        action: "/s",
        connect: "/connect",
        csrf: "c",
        ended: Some(2),
    };
    let Arrived { html, .. } = arrived("sessions", Language::English, page.show(&visit(Language::English))).await;
    for button in
        ["name=\"session\" value=\"first\"", "name=\"session\" value=\"second\"", "name=\"all\" value=\"true\""]
    {
        assert_eq!(html.matches(button).count(), 1, "{button}");
    }
    assert_eq!(html.matches("name=\"csrf\" value=\"c\"").count(), 3);
    assert!(html.contains("alice@contoso.com") && html.contains("2 sessions are ended."), "{html}");
    assert!(html.contains("<time datetime=\"2027-01-15T08:00:00Z\">2027-01-15 08:00 UTC</time>"), "{html}");
    let page = Sessions { sessions: &[], ended: None, ..page };
    let Arrived { html, .. } = arrived("sessions", Language::English, page.show(&visit(Language::English))).await;
    assert!(
        !html.contains("<form") && !html.contains("role=\"status\"") && html.contains("No program is signed in"),
        "{html}"
    );
}

#[tokio::test]
async fn every_text_is_translated() {
    /// Texts that are the same in both languages: names, codes, addresses and loanwords.
    const SAME: &[&str] = &[
        "Visual Studio Code",
        "Claude Code",
        "Claude Desktop, claude.ai",
        "Cursor",
        "Codex",
        "ChatGPT",
        "Copilot Studio",
        "MCP Inspector",
        "mcp-remote",
        "Parameter",
        "Program",
        "Strange.Permission",
        "Mail.Read",
        "Code",
        "”",
        ")",
        "Ask for help.",
        "AADSTS50105",
        "spec.authorizationServer.clients",
        "vscode.dev",
    ];
    let (english, swedish) = (pages(Language::English, "Code").await, pages(Language::Swedish, "Code").await);
    for (english, swedish) in english.iter().zip(&swedish) {
        let (mine, others) = (texts(&english.html), texts(&swedish.html));
        assert_eq!(mine.len(), others.len(), "{}", english.name);
        for (mine, other) in mine.iter().zip(&others) {
            let is_data = |text: &str| {
                text.starts_with(['{', '/'])
                    || text.contains("https://")
                    || text.contains(CORRELATION_ID)
                    || text.contains("UTC")
                    || text.contains("npx")
                    || text.contains("codex mcp")
                    || text.contains("reader") && !text.contains(' ')
            };
            let is_server = *mine == "Mail &#60;reader&#62; &#38; &#34;co&#34;";
            assert!(mine != other || is_server || is_data(mine) || SAME.contains(mine), "{}: {mine:?}", english.name);
        }
    }
    let names = |language: Language| language.texts().permissions.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    assert_eq!(names(Language::English), names(Language::Swedish));
    for ((_, english), (_, swedish)) in
        Language::English.texts().permissions.iter().zip(Language::Swedish.texts().permissions)
    {
        assert_ne!(english, swedish);
    }
}

#[tokio::test]
async fn no_placeholder_is_left_on_a_page() {
    for language in Language::ALL {
        for Arrived { name, html, .. } in pages(language, "Code").await {
            let is_left =
                |text: &str| text.contains("{}") || text.contains("{{") || text.contains("%s") || text.contains("TODO");
            assert!(!texts(&html).into_iter().any(is_left), "{name}: {html}");
        }
    }
}
