use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use url::Url;

use super::super::http;
use super::super::lines::Lines;
use super::*;

/// Time limit for each event.
const SOON: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_millis(200);

/// A backend over HTTP that never answers a call.
struct Silent {
    /// Received messages, in order.
    received: watch::Sender<Vec<Value>>,
    /// Number of open calls.
    open: watch::Sender<usize>,
}

/// An open call, until it is dropped.
struct Open(Arc<Silent>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

impl Silent {
    /// Starts the backend. Returns its URL.
    async fn start() -> (Arc<Self>, Url) {
        let silent = Arc::new(Self { received: watch::Sender::default(), open: watch::Sender::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let router = Router::new().route("/", post(Self::answer)).with_state(Arc::clone(&silent));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (silent, url)
    }

    async fn answer(State(silent): State<Arc<Self>>, body: String) -> Response {
        let message: Value = serde_json::from_str(&body).unwrap();
        silent.received.send_modify(|received| received.push(message.clone()));
        let result = match message["method"].as_str().unwrap() {
            "initialize" => json!({ "protocolVersion": "2025-06-18", "capabilities": {} }),
            "server/discover" => json!({ "supportedVersions": [MODERN], "capabilities": {} }),
            "tools/call" => {
                silent.open.send_modify(|open| *open += 1);
                let _open = Open(silent);
                std::future::pending().await
            }
            _ => return StatusCode::ACCEPTED.into_response(),
        };
        Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })).into_response()
    }

    /// Returns the first message with this method.
    async fn first(&self, method: &str) -> Value {
        let mut received = self.received.subscribe();
        let has = |one: &&Value| one["method"] == method;
        let all = timeout(SOON, received.wait_for(|all| all.iter().any(|one| has(&one)))).await.unwrap().unwrap();
        all.iter().find(has).unwrap().clone()
    }
}

#[tokio::test]
async fn a_call_over_http_is_given_up_after_its_time_or_after_a_silence_and_the_backend_notices() {
    for (era, total, idle) in
        [(Era::Legacy, SHORT, LONG), (Era::Legacy, LONG, SHORT), (Era::Modern, SHORT, LONG), (Era::Modern, LONG, SHORT)]
    {
        let (silent, url) = Silent::start().await;
        let link = Link::Http(Http::within(idle, http::client().unwrap(), url, Arc::new(|_| ())));
        let timeouts = Timeouts { call: total, ..Timeouts::default() };
        let session = Session::begin(link, (Share::of_all(), timeouts), (Some(era), &Identity::Nothing)).await.unwrap();
        let answer = timeout(SOON, session.ask(Asking::new("tools/call"))).await.unwrap();
        assert!(matches!(answer, Err(BackendError::Silent(_))), "{era:?} {answer:?}");
        match era {
            Era::Legacy => {
                let cancelled = silent.first("notifications/cancelled").await;
                let call = silent.first("tools/call").await;
                assert_eq!(cancelled["params"]["requestId"], call["id"], "{cancelled}");
            }
            Era::Modern => {
                let mut open = silent.open.subscribe();
                timeout(SOON, open.wait_for(|open| *open == 0)).await.expect("the connection is open").unwrap();
            }
        }
        assert_eq!(silent.received.borrow().iter().filter(|one| one["method"] == "tools/call").count(), 1);
    }
}

/// Begins a session with a process that agrees on this revision. Returns the methods of all messages of the
/// handshake, too.
async fn agreed(revision: &'static str) -> (Result<Session, BackendError>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let process = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (reads, mut writes) = stream.split();
        let (mut lines, mut methods) = (BufReader::new(reads).lines(), vec![]);
        while let Ok(Some(line)) = lines.next_line().await {
            let message: Value = serde_json::from_str(&line).unwrap();
            methods.push(message["method"].as_str().unwrap().to_owned());
            if message["method"] == "notifications/initialized" {
                break;
            }
            let result = json!({ "protocolVersion": revision, "capabilities": { "tools": {} } });
            let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
            writes.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        }
        methods
    });
    let link = Lines::connect(&folder.path().join("s"), Share::of_all(), Arc::new(|_| ())).await.unwrap();
    let begun = Session::begin(
        Link::Lines(link),
        (Share::of_all(), Timeouts::default()),
        (Some(Era::Legacy), &Identity::Nothing),
    );
    let begun = timeout(SOON, begun).await.unwrap();
    (begun, timeout(SOON, process).await.unwrap().unwrap())
}

#[tokio::test]
async fn a_session_begins_in_every_known_revision_with_a_handshake_and_in_no_other() {
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let (session, methods) = agreed(revision).await;
        let session = session.unwrap();
        assert_eq!((session.peer().protocol.as_str(), session.era()), (revision, Era::Legacy));
        assert_eq!(methods, ["initialize", "notifications/initialized"], "{revision}");
    }
    for revision in [MODERN, "2024-10-07", "2027-01-01", "", "2025-06-18\n"] {
        let (session, methods) = agreed(revision).await;
        let Some(BackendError::Malformed(reason)) = session.err() else { panic!("{revision} is known") };
        assert!(reason.contains(&short(revision)), "{reason}");
        assert_eq!(methods, ["initialize"], "{revision:?}");
    }
}
