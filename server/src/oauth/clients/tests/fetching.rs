//! Tests of fetching documents from a server: guards and cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{Response, StatusCode};
use axum::routing::get;
use futures::future::join_all;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::fixture::{HOST, ISSUER, Names, PRIVATE, PUBLIC, Publisher, configuration, sealer, url};
use crate::oauth::clients::fetch::{FetchError, MAXIMUM_LENGTH, proxy_of};
use crate::oauth::clients::{ClientError, Clients, DocumentError, Fetcher};

const PATIENT: Duration = Duration::from_secs(10);
const IMPATIENT: Duration = Duration::from_millis(300);

fn document(port: u16, path: &str) -> String {
    json!({"client_id": url(port, path), "redirect_uris": ["http://127.0.0.1/"]}).to_string()
}

fn answer(status: StatusCode, content_type: &str, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).header(CONTENT_TYPE, content_type).body(body.into()).unwrap()
}

/// Serves a document at each path; some paths have faults.
fn router(port: u16) -> Router {
    let good = move |path: &'static str| answer(StatusCode::OK, "application/json", document(port, path));
    Router::new()
        .route(
            "/redirect",
            get(move || async move {
                Response::builder().status(302).header(LOCATION, url(port, "/client")).body(Body::empty()).unwrap()
            }),
        )
        .route(
            "/created",
            get(move || async move { answer(StatusCode::CREATED, "application/json", document(port, "/created")) }),
        )
        .route("/broken", get(|| async { StatusCode::BAD_GATEWAY }))
        .route("/html", get(move || async move { answer(StatusCode::OK, "text/html", document(port, "/html")) }))
        .route("/untyped", get(move || async move { Response::new(Body::from(document(port, "/untyped"))) }))
        .route(
            "/special",
            get(move || async move {
                answer(StatusCode::OK, "application/client-metadata+json; charset=utf-8", document(port, "/special"))
            }),
        )
        .route(
            "/fits",
            get(move || async move {
                answer(StatusCode::OK, "application/json", format!("{:<MAXIMUM_LENGTH$}", document(port, "/fits")))
            }),
        )
        .route(
            "/long",
            get(move || async move {
                answer(
                    StatusCode::OK,
                    "application/json",
                    format!("{:<1$}", document(port, "/long"), MAXIMUM_LENGTH + 1),
                )
            }),
        )
        .route("/client", get(move || async move { good("/client") }))
        .route("/other", get(move || async move { good("/client") }))
}

fn refused(error: FetchError) -> Option<ClientError> {
    Some(ClientError::Document(DocumentError::Fetch(error)))
}

#[tokio::test]
async fn a_document_of_json_up_to_the_limit_is_let_in_and_every_other_answer_kept_out() {
    let publisher = Publisher::start(router).await;
    let clients = publisher.clients(json!({}));
    for path in ["/client", "/special", "/fits"] {
        let client = clients.find(&publisher.url(path)).await.unwrap();
        assert_eq!(client.id, publisher.url(path));
    }
    // A new client set has a new budget.
    let clients = publisher.clients(json!({}));
    for (path, error) in [
        ("/redirect", FetchError::Status(StatusCode::FOUND)),
        ("/created", FetchError::Status(StatusCode::CREATED)),
        ("/broken", FetchError::Status(StatusCode::BAD_GATEWAY)),
        ("/absent", FetchError::Status(StatusCode::NOT_FOUND)),
        ("/html", FetchError::ContentType),
        ("/untyped", FetchError::ContentType),
        ("/long", FetchError::TooLong),
    ] {
        assert_eq!(clients.find(&publisher.url(path)).await.err(), refused(error), "{path}");
    }
    let other = clients.find(&publisher.url("/other")).await;
    assert_eq!(other.err(), Some(ClientError::Document(DocumentError::OtherClient)));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let followed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&followed);
    let publisher = Publisher::start(|port| {
        let target = get(move || async move { counted.fetch_add(1, Ordering::SeqCst).to_string() });
        let redirect = get(move || async move {
            Response::builder().status(307).header(LOCATION, url(port, "/target")).body(Body::empty()).unwrap()
        });
        Router::new().route("/target", target).route("/client", redirect)
    });
    let publisher = publisher.await;
    let error = publisher.clients(json!({})).find(&publisher.url("/client")).await.err();
    assert_eq!(error, refused(FetchError::Status(StatusCode::TEMPORARY_REDIRECT)));
    assert_eq!(followed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_host_that_takes_too_long_is_given_up() {
    let publisher = Publisher::start(|_| {
        let never_ends = || async {
            let start = futures::stream::once(async { Ok::<_, std::io::Error>(" ") });
            let body = Body::from_stream(futures::StreamExt::chain(start, futures::stream::pending()));
            answer(StatusCode::OK, "application/json", body)
        };
        Router::new().route("/silent", get(std::future::pending::<StatusCode>)).route("/endless", get(never_ends))
    });
    let publisher = publisher.await;
    let clients = publisher.clients_with(json!({}), Names::new(&[&[PUBLIC]]), IMPATIENT);
    for path in ["/silent", "/endless"] {
        let url = publisher.url(path);
        let find = tokio::time::timeout(PATIENT, clients.find(&url));
        assert_eq!(find.await.unwrap().err(), refused(FetchError::Unreachable), "{path}");
    }
}

#[tokio::test]
async fn a_name_with_any_address_that_is_not_public_is_connected_to_at_none() {
    let publisher = Publisher::start(router).await;
    for addresses in [&[PRIVATE][..], &[PUBLIC, PRIVATE], &[PRIVATE, PUBLIC], &[]] {
        let clients = publisher.clients_with(json!({}), Names::new(&[addresses]), PATIENT);
        let error = clients.find(&publisher.url("/client")).await.err();
        assert_eq!(error, refused(FetchError::Unreachable), "{addresses:?}");
    }
    assert_eq!(publisher.connections(), (0, 0));
}

#[tokio::test]
async fn a_name_that_later_resolves_to_a_private_address_is_refused() {
    let publisher = Publisher::start(router).await;
    let names = Names::new(&[&[PUBLIC], &[PRIVATE]]);
    let clients = publisher.clients_with(json!({}), Arc::clone(&names), PATIENT);
    assert!(clients.find(&publisher.url("/client")).await.is_ok());
    assert_eq!((names.asked(), publisher.connections()), (vec![HOST.to_owned()], (1, 0)));
    // The next request resolves the name again and does not reuse the first connection.
    assert_eq!(clients.find(&publisher.url("/special")).await.err(), refused(FetchError::Unreachable));
    assert_eq!((names.asked().len(), publisher.connections()), (2, (1, 0)));
}

#[tokio::test]
async fn a_certificate_of_another_name_or_authority_is_refused() {
    let (publisher, other) = (Publisher::start(router).await, Publisher::start(router).await);
    let clients = publisher.clients(json!({}));
    for url in [other.url("/client"), publisher.url("/client").replace(HOST, "other.example")] {
        assert_eq!(clients.find(&url).await.err(), refused(FetchError::Unreachable), "{url}");
    }
}

#[tokio::test]
async fn on_the_public_internet_a_document_is_fetched_only_from_port_443() {
    let clients = Clients::new(&configuration(json!({})), sealer(1, ISSUER), Fetcher::new(None, None).unwrap());
    for url in ["https://client.example:8443/client", "https://client.example:80/client"] {
        assert_eq!(clients.find(url).await.err(), refused(FetchError::Port));
    }
}

#[tokio::test]
async fn with_listed_hosts_no_other_host_is_fetched() {
    let publisher = Publisher::start(router).await;
    let names = Names::new(&[&[PUBLIC]]);
    let clients =
        publisher.clients_with(json!({"clientMetadataHosts": ["client.example"]}), Arc::clone(&names), PATIENT);
    assert!(clients.find(&publisher.url("/client")).await.is_ok());
    for host in ["www.client.example", "client.example.evil.example", "example"] {
        let error = clients.find(&publisher.url("/client").replace(HOST, host)).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Document(DocumentError::HostNotListed(_) | DocumentError::Url(_))),
            "{host}"
        );
    }
    assert_eq!(names.asked(), [HOST]);
}

#[tokio::test]
async fn a_forward_proxy_is_used_only_for_listed_hosts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let clients =
        |members| Clients::new(&configuration(members), sealer(1, ISSUER), Fetcher::new(None, Some(&proxy)).unwrap());
    let not_listed = ClientError::Document(DocumentError::HostNotListed(HOST.to_owned()));
    assert_eq!(clients(json!({})).find("https://client.example/client").await, Err(not_listed));

    let listed = clients(json!({"clientMetadataHosts": [HOST]}));
    let asked = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 1024];
        let length = stream.read(&mut head).await.unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    };
    let (found, asked) = tokio::join!(listed.find("https://client.example/client"), asked);
    assert!(asked.starts_with("CONNECT client.example:443 "), "{asked}");
    assert_eq!(found.err(), refused(FetchError::Unreachable));
}

#[test]
fn the_proxy_is_that_of_the_environment_for_https() {
    for (variables, expected) in [
        (&[("HTTPS_PROXY", "http://a"), ("ALL_PROXY", "http://b")][..], Some("http://a")),
        (&[("HTTPS_PROXY", ""), ("all_proxy", "http://b")], Some("http://b")),
        (&[("HTTP_PROXY", "http://a"), ("NO_PROXY", "*")], None),
    ] {
        let environment =
            |asked: &str| variables.iter().find(|(name, _)| *name == asked).map(|(_, value)| (*value).to_owned());
        assert_eq!(proxy_of(environment).as_deref(), expected);
    }
}

#[tokio::test]
async fn a_document_is_fetched_once_for_all_who_ask_and_kept_and_so_is_a_refusal() {
    let fetched = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fetched);
    let publisher = Publisher::start(|port| {
        let serve = move |path: &'static str, status| {
            let counted = Arc::clone(&counted);
            get(move || async move {
                counted.fetch_add(1, Ordering::SeqCst);
                answer(status, "application/json", document(port, path))
            })
        };
        Router::new()
            .route("/client", serve("/client", StatusCode::OK))
            .route("/refused", serve("/refused", StatusCode::NOT_FOUND))
    });
    let publisher = publisher.await;
    let clients = publisher.clients(json!({}));
    for (path, is_found) in [("/client", true), ("/refused", false)] {
        let (before, url) = (fetched.load(Ordering::SeqCst), publisher.url(path));
        let found = join_all((0..20).map(|_| clients.find(&url))).await;
        assert!(found.iter().all(|found| found.is_ok() == is_found));
        assert_eq!(clients.find(&url).await.is_ok(), is_found);
        assert_eq!(fetched.load(Ordering::SeqCst), before + 1, "{path}");
    }
}

#[tokio::test]
async fn no_more_than_four_documents_are_fetched_at_a_time() {
    let (in_flight, go) = (Arc::new(watch::Sender::new(0)), Arc::new(watch::Sender::new(false)));
    let (counter, gate) = (Arc::clone(&in_flight), Arc::clone(&go));
    let publisher = Publisher::start(|_| {
        let handler = move || async move {
            counter.send_modify(|count| *count += 1);
            drop(gate.subscribe().wait_for(|go| *go).await);
            StatusCode::NOT_FOUND
        };
        Router::new().fallback(handler)
    });
    let publisher = publisher.await;
    let clients = publisher.clients(json!({}));
    let urls: Vec<String> = (0..7).map(|n| publisher.url(&format!("/{n}"))).collect();
    let finds = join_all(urls.iter().map(|url| clients.find(url)));
    let watched = async {
        in_flight.subscribe().wait_for(|count| *count >= 4).await.unwrap();
        // Enough time for a fifth request.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(*in_flight.borrow(), 4);
        go.send_replace(true);
    };
    let (found, ()) = tokio::join!(finds, watched);
    for found in found {
        assert_eq!(found.err(), refused(FetchError::Status(StatusCode::NOT_FOUND)));
    }
}

#[tokio::test]
async fn each_host_has_its_own_limit_of_ten_requests_a_minute() {
    let publisher = Publisher::start(router).await;
    let clients = publisher.clients(json!({}));
    for n in 0..10 {
        let error = clients.find(&publisher.url(&format!("/absent/{n}"))).await.err();
        assert_eq!(error, refused(FetchError::Status(StatusCode::NOT_FOUND)));
    }
    assert_eq!(clients.find(&publisher.url("/client")).await.err(), refused(FetchError::Busy));
    let other = publisher.url("/absent").replace(HOST, "other.client.example");
    assert_eq!(clients.find(&other).await.err(), refused(FetchError::Status(StatusCode::NOT_FOUND)));
}

#[tokio::test]
async fn a_client_stays_known_while_its_host_fails_and_ends_when_its_host_says_so() {
    let state = Arc::new(watch::Sender::new(StatusCode::OK));
    let served = Arc::clone(&state);
    let publisher = Publisher::start(|port| {
        let client = get(move || async move {
            let status = *served.borrow();
            answer(status, "application/json", document(port, "/client"))
        });
        Router::new().route("/client", client)
    });
    let publisher = publisher.await;
    let (clients, url) = (publisher.clients(json!({})), publisher.url("/client"));
    for (status, is_found) in [
        (StatusCode::OK, true),
        (StatusCode::SERVICE_UNAVAILABLE, true),
        (StatusCode::TOO_MANY_REQUESTS, true),
        (StatusCode::NOT_FOUND, false),
        (StatusCode::SERVICE_UNAVAILABLE, false),
    ] {
        state.send_replace(status);
        clients.documents.expire(&url).await;
        assert_eq!(clients.find(&url).await.is_ok(), is_found, "{status}");
    }
}

#[tokio::test]
async fn a_document_may_be_kept_for_as_long_as_its_host_says() {
    let publisher = Publisher::start(|port| {
        let serve = move |path: &'static str, value: &'static str| {
            get(move || async move {
                let mut answer = answer(StatusCode::OK, "application/json", document(port, path));
                answer.headers_mut().insert(CACHE_CONTROL, value.parse().unwrap());
                answer
            })
        };
        Router::new()
            .route("/none", serve("/none", "public"))
            .route("/short", serve("/short", "max-age=10"))
            .route("/hour", serve("/hour", "Public, Max-Age=3600, immutable"))
            .route("/year", serve("/year", "max-age=31536000"))
            .route("/never", serve("/never", "no-store, max-age=3600"))
            .route("/odd", serve("/odd", "max-age=-1"))
    });
    let publisher = publisher.await;
    let clients = publisher.clients(json!({}));
    for (path, seconds) in
        [("/none", 300), ("/short", 300), ("/hour", 3600), ("/year", 86_400), ("/never", 300), ("/odd", 300)]
    {
        clients.find(&publisher.url(path)).await.unwrap();
        assert_eq!(
            clients.documents.kept_for(&publisher.url(path)).await,
            Some(Duration::from_secs(seconds)),
            "{path}"
        );
    }
}
