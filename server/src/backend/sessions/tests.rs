use std::collections::BTreeSet;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::*;

/// Time limit for each event.
const SOON: Duration = Duration::from_secs(20);

/// A backend at a socket. It answers all methods except those in `silent`. Each connection represents a process.
struct Fake {
    folder: TempDir,
    /// Names in the calls of open connections.
    living: watch::Sender<BTreeSet<String>>,
    /// Methods of the received messages, in order.
    asked: watch::Sender<Vec<String>>,
    silent: Vec<&'static str>,
}

impl Fake {
    fn start(silent: Vec<&'static str>) -> Arc<Self> {
        let (living, asked) = (watch::Sender::default(), watch::Sender::default());
        let fake = Arc::new(Self { folder: tempfile::tempdir().unwrap(), living, asked, silent });
        let (listener, serving) = (UnixListener::bind(fake.socket()).unwrap(), Arc::clone(&fake));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&serving).serve(stream));
            }
        });
        fake
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("s")
    }

    async fn serve(self: Arc<Self>, mut stream: UnixStream) {
        let (reads, mut writes) = stream.split();
        let (mut lines, mut name) = (BufReader::new(reads).lines(), None);
        while let Ok(Some(line)) = lines.next_line().await {
            let message: Value = serde_json::from_str(&line).unwrap();
            let method = message["method"].as_str().unwrap().to_owned();
            self.asked.send_modify(|asked| asked.push(method.clone()));
            if message["id"].is_null() || self.silent.contains(&method.as_str()) {
                continue;
            }
            let answered = match method.as_str() {
                "initialize" => json!({ "result": { "protocolVersion": "2025-11-25", "capabilities": {} } }),
                "tools/call" => json!({ "result": { "content": [] } }),
                _ => json!({ "error": { "code": -32601, "message": "no" } }),
            };
            if let Some(called) = message["params"]["name"].as_str() {
                name = Some(called.to_owned());
                self.living.send_modify(|living| {
                    living.insert(called.to_owned());
                });
            }
            let mut answer = json!({ "jsonrpc": "2.0", "id": message["id"] });
            answer.as_object_mut().unwrap().extend(answered.as_object().unwrap().clone());
            writes.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
        }
        if let Some(name) = name {
            self.living.send_modify(|living| {
                living.remove(&name);
            });
        }
    }

    /// Returns sessions with this backend, with this maximum number and this time without use.
    fn sessions(&self, most: u64, idle: Duration) -> Arc<Sessions> {
        self.sessions_of(most, idle, Timeouts::default())
    }

    fn sessions_of(&self, most: u64, idle: Duration, timeouts: Timeouts) -> Arc<Sessions> {
        let place = Place::Socket(self.socket());
        let within = Sessions::within((most, idle), place, BackendSessions::PerPrincipal, Arc::new(|| ()));
        Arc::new(Sessions { timeouts, ..within.unwrap() })
    }

    async fn was_asked(&self, method: &str) {
        let asked = async { self.asked.subscribe().wait_for(|all| all.iter().any(|one| one == method)).await.is_ok() };
        assert!(timeout(SOON, asked).await.unwrap());
    }

    fn count(&self, method: &str) -> usize {
        self.asked.borrow().iter().filter(|asked| *asked == method).count()
    }

    fn living(&self) -> Vec<String> {
        self.living.borrow().iter().cloned().collect()
    }
}

/// Makes a call that names its caller.
async fn call(sessions: &Arc<Sessions>, caller: &str) -> Result<(RawObject, Held), BackendError> {
    let mut params = RawObject::default();
    params.set("name", crate::raw_json::raw(&json!(caller)));
    let request = Request {
        method: "tools/call",
        params,
        name: Some(caller),
        repeated: vec![],
        capabilities: Arc::default(),
        log_level: None,
        notices: None,
    };
    sessions.ask(caller, &request, &Identity::Nothing).await
}

/// Makes calls as these callers until exactly the expected processes are alive.
async fn until_there_live(fake: &Fake, sessions: &Arc<Sessions>, callers: &[&str], expected: &[&str]) {
    let end = Instant::now() + SOON;
    while fake.living() != expected {
        assert!(Instant::now() < end, "{:?}", fake.living());
        for caller in callers {
            call(sessions, caller).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_process_that_was_used_least_recently_ends_when_there_are_too_many() {
    let fake = Fake::start(vec![]);
    let sessions = fake.sessions(2, IDLE);
    for caller in ["alice", "bob", "alice"] {
        call(&sessions, caller).await.unwrap();
    }
    until_there_live(&fake, &sessions, &["carol", "alice"], &["alice", "carol"]).await;
    call(&sessions, "bob").await.unwrap();
    assert!(fake.living().contains(&"bob".to_owned()), "its next call begins another one");
}

#[tokio::test]
async fn an_idle_process_ends_and_one_in_use_does_not() {
    let fake = Fake::start(vec![]);
    let sessions = fake.sessions(10, Duration::from_secs(1));
    for caller in ["alice", "bob"] {
        call(&sessions, caller).await.unwrap();
    }
    assert_eq!(fake.living(), ["alice", "bob"]);
    until_there_live(&fake, &sessions, &["bob"], &["bob"]).await;
    assert_eq!(fake.count("initialize"), 2, "Bob has the same one");
}

#[tokio::test]
async fn a_backend_that_is_silent_when_it_is_asked_for_its_revision_is_initialized_and_asked_no_more() {
    let fake = Fake::start(vec!["server/discover"]);
    let sessions = fake.sessions_of(10, IDLE, Timeouts { discover: Duration::from_millis(100), ..Timeouts::default() });
    for caller in ["alice", "bob"] {
        timeout(SOON, call(&sessions, caller)).await.unwrap().unwrap();
    }
    assert_eq!((fake.count("server/discover"), fake.count("initialize")), (1, 2));
}

#[tokio::test]
async fn a_call_times_out_and_the_backend_is_notified() {
    assert_eq!(Timeouts::default().call, Duration::from_secs(300));
    let fake = Fake::start(vec!["tools/call"]);
    let sessions = fake.sessions_of(10, IDLE, Timeouts { call: Duration::from_millis(100), ..Timeouts::default() });
    let given_up = timeout(SOON, call(&sessions, "alice")).await.unwrap();
    assert!(matches!(given_up, Err(BackendError::Silent(_))), "{given_up:?}");
    fake.was_asked("notifications/cancelled").await;
    assert_eq!(fake.count("tools/call"), 1, "it is not repeated");
}
