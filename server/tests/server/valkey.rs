//! Valkey or Redis server for one test: a process with TLS and an ACL user, on a free port, which ends with the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mcp_entra_policy as policy;
use mcp_entra_server::oauth::store::ValkeyStore;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, copy, sink};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::PATIENCE;

/// ACL user with exactly the rights from the documentation.
pub(crate) const USER: &str = "mcp-entra";
/// Prefix of the keys that the user may access.
pub(crate) const PREFIX: &str = "graph:";

/// A server process. Its data and its port stay when it is stopped and started again.
pub(crate) struct Valkey {
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    /// The CA that signed its certificate, in PEM.
    pub(crate) ca: String,
    process: Option<Child>,
}

impl Valkey {
    /// Starts a server.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with more options.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = write_certificates(folder.path());
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut valkey = Self { folder, port, options, ca, process: None };
        valkey.set_password("first");
        valkey.replace_password_file("first");
        valkey.restart().await;
        valkey
    }

    /// Starts the server again, and waits until it accepts commands.
    pub(crate) async fn restart(&mut self) {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program()).args(["--port", "0", "--bind", "127.0.0.1"]);
        command.args(["--tls-port", &self.port.to_string(), "--tls-auth-clients", "no", "--aclfile", "users.acl"]);
        command.args(["--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key", "--tls-ca-cert-file", "ca.crt"]);
        command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]).args(&self.options);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut log = String::new();
        while !log.contains("Ready to accept connections") {
            match timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
                Some(line) => log.push_str(&line),
                None => panic!("it does not start: {log}"),
            }
        }
        tokio::spawn(async move { copy(&mut lines.into_inner(), &mut sink()).await });
        self.process = Some(process);
    }

    /// Stops the server, which closes its connections.
    pub(crate) async fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        kill(Pid::from_raw(process.id().unwrap().try_into().unwrap()), Signal::SIGTERM).unwrap();
        timeout(PATIENCE, process.wait()).await.unwrap().unwrap();
    }

    /// Stops the server, and starts it again without its data.
    pub(crate) async fn lose_data(&mut self) {
        self.stop().await;
        std::fs::remove_dir_all(self.folder.path().join("appendonlydir")).unwrap();
        self.restart().await;
    }

    /// Sets the password of the ACL user from the next start.
    pub(crate) fn set_password(&self, password: &str) {
        let users = format!(
            "user default off\nuser {USER} on >{password} resetchannels ~{PREFIX}* -@all +getex +set +getdel +eval\n"
        );
        std::fs::write(self.folder.path().join("users.acl"), users).unwrap();
    }

    /// Changes the file with our password.
    pub(crate) fn replace_password_file(&self, password: &str) {
        crate::harness::replace(&self.password_file(), format!("{password}\n").as_bytes());
    }

    /// Path of the file with our password.
    pub(crate) fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    /// The part of our configuration that names this server.
    pub(crate) fn configuration(&self) -> policy::ValkeyStore {
        configuration(self.port)
    }

    /// A store at this server.
    pub(crate) fn store(&self) -> ValkeyStore {
        ValkeyStore::new(&self.configuration(), Some(self.password_file()), Some(self.ca.as_bytes())).unwrap()
    }
}

/// The part of our configuration that names a server on this port.
pub(crate) fn configuration(port: u16) -> policy::ValkeyStore {
    policy::ValkeyStore {
        url: format!("rediss://127.0.0.1:{port}"),
        username: Some(USER.to_owned()),
        key_prefix: PREFIX.to_owned(),
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let programs = std::env::split_paths(&path)
        .flat_map(|folder| ["valkey-server", "redis-server"].map(|name| folder.join(name)))
        .find(|program| program.is_file());
    programs.expect("neither valkey-server nor redis-server is installed: apt-get install -y redis-server")
}

/// Writes a certificate for 127.0.0.1, its key and its CA; returns the CA.
fn write_certificates(folder: &Path) -> String {
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    for (file, pem) in [("ca.crt", &ca_pem), ("tls.crt", &leaf.pem()), ("tls.key", &key.serialize_pem())] {
        std::fs::write(folder.join(file), pem).unwrap();
    }
    ca_pem
}
