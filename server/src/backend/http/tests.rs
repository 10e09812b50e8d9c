use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::sync::Notify;

use super::super::held::Share;
use super::*;

/// Time limit for each event.
const SOON: Duration = Duration::from_secs(20);
const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";
const ANSWER: &str = r#"{"jsonrpc":"2.0","id":2,"result":{}}"#;

/// Starts a backend with these routes. Returns its session, with this maximum time between two parts of an answer.
async fn session(router: Router, idle: Duration) -> Http {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Http::within(idle, client().unwrap(), url, Arc::new(|_| ()))
}

/// Starts a backend that answers POST with this body.
async fn answering(
    content_type: &'static str,
    body: impl Fn() -> Body + Clone + Send + Sync + 'static,
    idle: Duration,
) -> Http {
    let answer = async move || ([(CONTENT_TYPE, content_type)], body()).into_response();
    session(Router::new().route("/", post(answer)), idle).await
}

/// Returns a body of these parts, which then neither continues nor ends.
fn unfinished(parts: &'static [&'static str]) -> Body {
    Body::from_stream(
        stream::iter(parts.iter().copied()).map(Ok::<_, std::convert::Infallible>).chain(stream::pending()),
    )
}

/// Sends a request with the id 2. Without memory, the answer is a stream of notifications.
async fn ask(http: &Http, has_memory: bool) -> Result<(RawObject, Held), BackendError> {
    let memory = has_memory.then(|| Budget { caller: None, all: Share::of_all() });
    let headers = Headers { repeated: HeaderMap::new(), told: &Told::Nothing };
    timeout(SOON, http.ask((2, "{}".to_owned()), headers, (None, memory))).await.unwrap()
}

#[tokio::test]
async fn a_backend_without_a_stream_of_notifications_is_asked_for_one_once() {
    for status in [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_FOUND, StatusCode::OK] {
        let gets = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&gets);
        let answer = async move || (counted.fetch_add(1, Ordering::SeqCst), status).1;
        let http = session(Router::new().route("/", get(answer)), IDLE_TIMEOUT).await;
        http.listen(Identity::Nothing);
        let ended = async {
            // The task that listens holds a reference.
            while Arc::strong_count(&http.endpoint) > 1 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PAUSE - Duration::from_secs(1), ended).await.unwrap();
        assert_eq!(gets.load(Ordering::SeqCst), 1, "{status}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_begin_or_does_not_continue_is_given_up() {
    assert_eq!(IDLE_TIMEOUT, Duration::from_secs(120));
    let idle = Duration::from_millis(100);
    let never = Router::new().route("/", post(async || std::future::pending::<()>().await));
    let mut all = vec![session(never, idle).await];
    let cases: [(&'static str, &'static [&'static str]); 4] = [
        (JSON, &[]),
        (JSON, &[r#"{"jsonrpc":"2.0","id":2,"#]),
        (EVENTS, &[": begun\n\n"]),
        (EVENTS, &[": begun\n\n", "data: {\"jsonrpc\""]),
    ];
    for (content_type, parts) in cases {
        all.push(answering(content_type, move || unfinished(parts), idle).await);
    }
    for (case, http) in all.iter().enumerate() {
        let answer = ask(http, true).await;
        assert!(matches!(answer, Err(BackendError::Silent(_))), "{case} {answer:?}");
    }
}

#[tokio::test]
async fn an_answer_that_continues_in_time_may_take_longer() {
    let idle = Duration::from_secs(1);
    for (content_type, space, end) in
        [(EVENTS, ": more\n\n", format!("data: {ANSWER}\n\n")), (JSON, " ", ANSWER.to_owned())]
    {
        let body = move || {
            let parts = (0..15).map(move |_| space.to_owned()).chain([end.clone()]);
            Body::from_stream(stream::iter(parts).then(move |part| async move {
                tokio::time::sleep(idle / 10).await;
                Ok::<_, std::convert::Infallible>(part)
            }))
        };
        let http = answering(content_type, body, idle).await;
        let begun = tokio::time::Instant::now();
        ask(&http, true).await.unwrap();
        assert!(begun.elapsed() > idle, "{content_type}");
    }
}

#[tokio::test]
async fn a_stream_of_notifications_may_be_silent_for_longer() {
    let (idle, goes_on) = (Duration::from_millis(50), Arc::<Notify>::default());
    let continues = Arc::clone(&goes_on);
    let body = move || {
        let continues = Arc::clone(&continues);
        let end = stream::once(async move {
            continues.notified().await;
            format!("data: {ANSWER}\n\n")
        });
        Body::from_stream(stream::iter([": open\n\n".to_owned()]).chain(end).map(Ok::<_, std::convert::Infallible>))
    };
    let http = answering(EVENTS, body, idle).await;
    let listening = ask(&http, false);
    tokio::pin!(listening);
    assert!(timeout(6 * idle, &mut listening).await.is_err());
    goes_on.notify_one();
    listening.await.unwrap();
}

#[tokio::test]
async fn the_connection_of_a_streamed_answer_serves_another_request_after_the_end_of_the_stream() {
    let (clients, end) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(Notify::new()));
    let (seen, ends) = (Arc::clone(&clients), Arc::clone(&end));
    let stream = async move |ConnectInfo(client): ConnectInfo<SocketAddr>| {
        seen.lock().unwrap().insert(client);
        let answer = "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n";
        let rest = stream::once(async move { ends.notified().await }).map(|()| ": the end\n\n");
        let parts = stream::iter([answer]).chain(rest).map(Ok::<_, std::io::Error>);
        ([(CONTENT_TYPE, EVENTS)], Body::from_stream(parts)).into_response()
    };
    let router = Router::new().route("/", post(stream)).into_make_service_with_connect_info::<SocketAddr>();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let http = Http::new(client().unwrap(), url, Arc::new(|_| ()));
    let ask = async || {
        let headers = Headers { repeated: HeaderMap::new(), told: &Told::Nothing };
        http.ask((7, "{}".to_owned()), headers, (None, None)).await.unwrap();
        end.notify_one();
    };
    // The end of a stream takes a moment to arrive.
    let mut asked = 0;
    while clients.lock().unwrap().len() == asked && asked < 100 {
        ask().await;
        asked += 1;
    }
    assert!(clients.lock().unwrap().len() < asked, "each of {asked} requests opened a connection");
}
