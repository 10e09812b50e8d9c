//! The store that all replicas share: a Valkey or Redis server.
//!
//! One connection carries all commands. After a failure, commands fail at once during a pause. Then one of them tries
//! to connect while the others still fail. No command is repeated, because it may have been carried out.

mod server;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use mcp_entra_policy as policy;
use redis::{Cmd, FromRedisValue, RedisError, ServerErrorKind, cmd};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

pub use server::ValkeyError;
use server::{CONNECT_TIMEOUT, Connection, Server};

use super::{Store, StoreError};

/// Longest time of a command, including connecting.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failure, during which commands fail at once.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest lifetime of a value. The server's clock could overflow beyond it.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Replaces a value if it is the expected one. Scripts are atomic in Redis. The first line, supported since Redis 7,
/// lets a replica refuse the script even if it would write nothing.
const COMPARE_AND_SET: &str = "#!lua\n\
    if redis.call('GETEX', KEYS[1]) ~= ARGV[1] then return 0 end \
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1";

/// A store in a Valkey or Redis server. Its user needs the commands GETEX, SET, GETDEL and EVAL on keys with the
/// prefix.
pub struct ValkeyStore {
    server: Server,
    prefix: String,
    link: Mutex<Link>,
}

enum Link {
    /// No connection was tried yet.
    New,
    Open(Connection),
    Failed {
        error: StoreError,
        until: Instant,
    },
}

impl ValkeyStore {
    /// Returns a store at this server. It connects at the first command, and reads the password file at each
    /// connection. The bundle (PEM) is trusted besides the system's roots.
    pub fn new(
        configuration: &policy::ValkeyStore,
        password_file: Option<PathBuf>,
        ca_bundle: Option<&[u8]>,
    ) -> Result<Self, ValkeyError> {
        let server = Server::new(configuration, password_file, ca_bundle)?;
        Ok(Self { server, prefix: configuration.key_prefix.clone(), link: Mutex::new(Link::New) })
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let mut connection = timeout_at(deadline, self.connection())
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable(self.server.too_slow(COMMAND_TIMEOUT))))?;
        match timeout_at(deadline, command.query_async(&mut connection.commands)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.code() == Some("OOM") => Err(StoreError::Full(format!(
                "{} has no memory left ({error}); raise its maxmemory, and set its maxmemory-policy to noeviction",
                self.server
            ))),
            Ok(Err(error)) => Err(self.fail(&connection, self.problem(&error))),
            Err(_) => Err(self.fail(&connection, self.server.too_slow(COMMAND_TIMEOUT))),
        }
    }

    /// Returns the open connection, or connects.
    async fn connection(&self) -> Result<Connection, StoreError> {
        let mut link = self.link.lock().await;
        let now = Instant::now();
        match &mut *link {
            Link::Open(connection) if connection.is_open() => Ok(connection.clone()),
            Link::Failed { error, until } if now < *until => Err(error.clone()),
            // This caller tries to connect; the others fail meanwhile.
            Link::Failed { until, .. } => {
                *until = now + CONNECT_TIMEOUT;
                drop(link);
                let connected = self.server.connect().await;
                keep(self.link.lock().await, connected)
            }
            // All callers wait for this one.
            Link::New | Link::Open(_) => {
                let connected = self.server.connect().await;
                keep(link, connected)
            }
        }
    }

    /// Gives up a connection, unless another caller did so already.
    fn fail(&self, connection: &Connection, problem: String) -> StoreError {
        let error = StoreError::Unavailable(problem);
        // The holder of the lock is about to replace the connection.
        if let Ok(link) = self.link.try_lock()
            && matches!(&*link, Link::Open(current) if current.is_same(connection))
        {
            pause(link, &error);
        }
        error
    }

    fn problem(&self, error: &RedisError) -> String {
        let server = &self.server;
        match error.kind() {
            redis::ErrorKind::Server(ServerErrorKind::ReadOnly) => format!(
                "{server} is a replica, whose data may be old ({error}); set sessionStore.valkey.url to the primary"
            ),
            redis::ErrorKind::Server(ServerErrorKind::NoPerm) => format!(
                "{server} denies a command to the user ({error}); allow the ACL user \
                 `~{prefix}* +getex +set +getdel +eval`",
                prefix = self.prefix
            ),
            _ if error.code() == Some("NOAUTH") => server.sign_in_problem(error),
            _ => format!("{server} failed ({error}); check that it runs, and its log"),
        }
    }
}

fn keep(mut link: MutexGuard<'_, Link>, connected: Result<Connection, String>) -> Result<Connection, StoreError> {
    match connected {
        Ok(connection) => {
            *link = Link::Open(connection.clone());
            Ok(connection)
        }
        Err(problem) => {
            let error = StoreError::Unavailable(problem);
            pause(link, &error);
            Err(error)
        }
    }
}

fn pause(mut link: MutexGuard<'_, Link>, error: &StoreError) {
    *link = Link::Failed { error: error.clone(), until: Instant::now() + PAUSE };
}

fn milliseconds(life: Duration) -> u64 {
    let life = life.clamp(Duration::from_millis(1), LONGEST_LIFE);
    u64::try_from(life.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl Store for ValkeyStore {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        // Like GET, but counted as a write. So a replica, whose values may be old, refuses it.
        self.run(cmd("GETEX").arg(self.key(key))).await
    }

    async fn put_new(&self, key: &str, value: &[u8], life: Duration) -> Result<bool, StoreError> {
        let mut command = cmd("SET");
        command.arg(self.key(key)).arg(value).arg("NX").arg("PX").arg(milliseconds(life));
        let stored: Option<String> = self.run(&command).await?;
        Ok(stored.is_some())
    }

    async fn take(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.run(cmd("GETDEL").arg(self.key(key))).await
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: &[u8],
        value: &[u8],
        life: Duration,
    ) -> Result<bool, StoreError> {
        let mut command = cmd("EVAL");
        command.arg(COMPARE_AND_SET).arg(1).arg(self.key(key)).arg(expected).arg(value).arg(milliseconds(life));
        self.run(&command).await
    }
}
