//! Story of local mode on a laptop: an MCP client starts the server as a child process, and alice signs in. It needs no
//! control plane.
//!
//! Client, program, HTTPS and token files are real. Entra and Graph are emulated. The browser is a double that follows
//! Entra's pages without showing them.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use entra_emulator::sign_in::{Authority, Browser, Shown};
use entra_emulator::{App, Configuration, EntraEmulator, LoggedRequest, Tenant, User};
use rmcp::model::{CallToolRequestParams, CallToolResult};
use rmcp::service::RunningService;
use rmcp::transport::TokioChildProcess;
use rmcp::{RoleClient, ServiceExt};
use tempfile::TempDir;
use testbed::programs::program;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;

use crate::report::{Evidence, tell};

const ALICE: &str = "alice@contoso.com";
const BOB: &str = "bob@contoso.com";
const PROFILE: &str = "get_user_details";
/// Longest wait for a result.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lifetime of an access token, in seconds.
const AN_HOUR: i64 = 3_700;

/// Laptop with the server, and the Entra that its user signs in to.
pub struct Laptop {
    emulator: EntraEmulator,
    tenant: Uuid,
    client: Uuid,
    alice: Uuid,
    program: PathBuf,
    home: TempDir,
    /// Addresses that a browser should open, in order.
    openings: Mutex<Lines<BufReader<pipe::Receiver>>>,
}

/// MCP client with the server as its child process.
type Client = RunningService<RoleClient, ()>;
type Play = for<'a> fn(&'a Laptop) -> Pin<Box<dyn Future<Output = anyhow::Result<Evidence>> + 'a>>;

/// Steps, each with its title.
pub const STEPS: &[(&str, Play)] = &[
    ("An MCP client starts the server, which lists its tools without a network and without a sign-in", |laptop| {
        Box::pin(laptop.lists())
    }),
    ("The first call opens the browser, alice signs in, and her profile comes from Graph as herself", |laptop| {
        Box::pin(laptop.signs_in())
    }),
    ("The client is restarted, and alice does not sign in again", |laptop| Box::pin(laptop.restarts())),
    ("An hour later her token has expired, and is refreshed without a sign-in", |laptop| Box::pin(laptop.refreshes())),
    ("Her session is revoked: the browser opens again, and bob cannot sign in instead", |laptop| {
        Box::pin(laptop.is_revoked())
    }),
    ("A tool that writes exists only if it is allowed by name", |laptop| Box::pin(laptop.writes())),
    ("She signs out, and none of her data stays on the laptop", |laptop| Box::pin(laptop.signs_out())),
];

impl Laptop {
    /// Creates a new laptop, whose user has never signed in.
    ///
    /// # Errors
    /// If the program does not build, or Entra does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let program = tokio::task::spawn_blocking(|| program("mcp-entra-server")).await??;
        let [tenant, client, alice, bob] = [(); 4].map(|()| Uuid::new_v4());
        let person = |oid, name: &str, display_name: &str| User {
            oid,
            user_principal_name: name.to_owned(),
            display_name: display_name.to_owned(),
            ..User::default()
        };
        let registration = App {
            client_id: client,
            display_name: "MCP on a laptop".to_owned(),
            public_client: true,
            redirect_uris: vec!["http://localhost".to_owned()],
            ..App::default()
        };
        let directory = Tenant {
            id: tenant,
            domains: vec!["contoso.com".to_owned()],
            apps: vec![registration],
            users: vec![person(alice, ALICE, "Alice Example"), person(bob, BOB, "Bob Example")],
            ..Tenant::default()
        };
        let configuration = Configuration { tenants: vec![directory], ..Configuration::default() };
        let emulator = EntraEmulator::start(configuration, ([127, 0, 0, 1], 0).into()).await?;
        let home = tempfile::Builder::new().prefix("mcp-entra-laptop-").tempdir()?;
        let pipe = home.path().join("openings");
        ensure!(Command::new("mkfifo").arg(&pipe).status().await?.success(), "no pipe {}", pipe.display());
        // It is also opened for writing, so that it has no end of file between two writers.
        let openings = pipe::OpenOptions::new().read_write(true).open_receiver(&pipe)?;
        let openings = Mutex::new(BufReader::new(openings).lines());
        let laptop = Self { emulator, tenant, client, alice, program, home, openings };
        std::fs::write(laptop.file("ca.pem"), laptop.emulator.ca_pem())?;
        laptop.write_launcher()?;
        Ok(laptop)
    }

    /// Plays the steps up to the first that fails. Returns the number of steps that passed.
    pub async fn play_all(&self) -> usize {
        for (index, (title, play)) in STEPS.iter().enumerate() {
            if !tell((index + 1, STEPS.len()), title, play(self)).await {
                return index;
            }
        }
        STEPS.len()
    }

    /// Addresses of Entra and Graph.
    pub fn addresses(&self) -> (&str, &str) {
        (self.emulator.authority(), self.emulator.graph())
    }

    /// Returns the shell command that starts the server with these arguments.
    pub fn command_line(&self, arguments: &str) -> String {
        format!("{} {} {arguments}", self.program.display(), self.arguments().join(" "))
    }

    fn arguments(&self) -> Vec<String> {
        let (authority, graph) = self.addresses();
        let bundle = self.file("ca.pem").display().to_string();
        [
            ("--tenant", "contoso.com"),
            ("--client-id", &self.client.to_string()),
            ("--authority", authority),
            ("--graph-url", graph),
            ("--trust-bundle", &bundle),
            ("--token-store", "file"),
        ]
        .into_iter()
        .fold(vec!["local".to_owned()], |arguments, (name, value)| {
            [arguments, vec![name.to_owned(), value.to_owned()]].concat()
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes the browser program of this laptop, which records the address.
    fn write_launcher(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir(self.file("bin"))?;
        let launcher = self.file("bin/xdg-open");
        std::fs::write(&launcher, "#!/bin/sh\nprintf '%s\\n' \"$1\" | tee -a \"$HOME/opened\" > \"$HOME/openings\"\n")?;
        Ok(std::fs::set_permissions(launcher, std::fs::Permissions::from_mode(0o755))?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let path = format!("{}:{}", self.file("bin").display(), std::env::var("PATH").unwrap_or_default());
        command.args(self.arguments()).args(arguments).args(["--log-file".as_ref(), self.file("log").as_os_str()]);
        command.args(["--audit-file".as_ref(), self.file("audit").as_os_str()]);
        command.env_clear().env("PATH", path).env("HOME", self.home.path()).env("DISPLAY", ":0").kill_on_drop(true);
        command
    }

    async fn client(&self, arguments: &[&str]) -> anyhow::Result<Client> {
        Ok(().serve(TokioChildProcess::new(self.command(arguments))?).await?)
    }

    async fn tools(&self, client: &Client) -> anyhow::Result<Vec<String>> {
        Ok(client.list_all_tools().await?.into_iter().map(|tool| tool.name.into_owned()).collect())
    }

    fn opened(&self) -> Vec<String> {
        let opened = std::fs::read_to_string(self.file("opened")).unwrap_or_default();
        opened.lines().map(str::to_owned).collect()
    }

    /// Signs this user in, in the next browser that opens.
    async fn signs_in_as(&self, user: &str) -> anyhow::Result<Shown> {
        let mut openings = self.openings.lock().await;
        let address = timeout(PATIENCE, openings.next_line()).await.context("no browser opens")??;
        let address = address.context("the reader of opened addresses has ended")?;
        Browser::new(&Authority::from(&self.emulator))?.sign_in(&address, user).await
    }

    /// Returns the program's requests to the token endpoint with this grant.
    fn grants(&self, grant: &str) -> Vec<LoggedRequest> {
        let all = self.emulator.control().requests().into_iter();
        all.filter(|request| request.grant_type.as_deref() == Some(grant)).collect()
    }

    async fn lists(&self) -> anyhow::Result<Evidence> {
        let started = Instant::now();
        let client = self.client(&[]).await?;
        let answered = started.elapsed();
        let tools = self.tools(&client).await?;
        ensure!(tools == [PROFILE, "list_my_messages"], "it lists {tools:?}");
        let asked = self.emulator.control().requests();
        ensure!(asked.is_empty() && self.opened().is_empty(), "it sent requests: {asked:?}");
        client.cancel().await?;
        Ok(vec![format!(
            "handshake after {answered:.1?}; tools {}; neither Entra nor Graph was asked",
            tools.join(", ")
        )])
    }

    async fn signs_in(&self) -> anyhow::Result<Evidence> {
        let client = self.client(&[]).await?;
        let (answer, shown) = tokio::join!(call(&client), self.signs_in_as(ALICE));
        let (name, shown) = (name_in(&answer?)?, shown?);
        ensure!(shown.status == 200 && shown.html.contains("You can close this page"), "{}", shown.html);
        client.cancel().await?;
        let redeemed = self.grants("authorization_code");
        let [redeemed] = redeemed.as_slice() else { bail!("{redeemed:?}") };
        ensure!(!redeemed.client_secret_present && redeemed.federated.is_none(), "{redeemed:?}");
        Ok(vec![
            "authorization code with PKCE, back to this machine; no secret was sent".to_owned(),
            format!("{PROFILE}: {name}, by Graph's /me"),
        ])
    }

    async fn restarts(&self) -> anyhow::Result<Evidence> {
        let client = self.client(&[]).await?;
        let name = name_in(&call(&client).await?)?;
        client.cancel().await?;
        ensure!(self.opened().len() == 1, "the browser opened again");
        Ok(vec![format!("{PROFILE}: {name}; Entra was not asked")])
    }

    async fn refreshes(&self) -> anyhow::Result<Evidence> {
        self.emulator.control().advance_clock(AN_HOUR);
        let client = self.client(&[]).await?;
        let name = name_in(&call(&client).await?)?;
        client.cancel().await?;
        ensure!(self.opened().len() == 1, "the browser opened again");
        ensure!(self.grants("refresh_token").len() == 1, "{:?}", self.grants("refresh_token"));
        Ok(vec![format!("{PROFILE}: {name}; one refresh, and no browser")])
    }

    async fn is_revoked(&self) -> anyhow::Result<Evidence> {
        self.emulator.control().revoke(self.tenant, self.alice)?;
        let client = self.client(&[]).await?;
        let (answer, shown) = tokio::join!(call(&client), self.signs_in_as(BOB));
        let (answer, shown) = (answer?, shown?);
        ensure!(answer.is_error == Some(true) && shown.status == 400, "bob signed in: {answer:?}");
        let told = text_of(&answer);
        let (answer, shown) = tokio::join!(call(&client), self.signs_in_as(ALICE));
        let name = name_in(&answer?)?;
        ensure!(shown?.status == 200, "alice's page");
        client.cancel().await?;
        Ok(vec![format!("bob: {told}"), format!("alice signs in again: {name}")])
    }

    async fn writes(&self) -> anyhow::Result<Evidence> {
        let client = self.client(&["--allow", "send_mail"]).await?;
        let tools = self.tools(&client).await?;
        client.cancel().await?;
        ensure!(tools.iter().any(|tool| tool == "send_mail") && tools.len() == 3, "it lists {tools:?}");
        Ok(vec![format!("with --allow send_mail: {}", tools.join(", "))])
    }

    async fn signs_out(&self) -> anyhow::Result<Evidence> {
        let output = self.command(&["--sign-out"]).output().await?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        ensure!(output.status.success(), "{output:?}");
        let folder = self.file(".local/share/mcp-entra");
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let is_lock = path.extension().is_some_and(|extension| extension == "lock");
            ensure!(is_lock && path.metadata()?.len() == 0, "{} is left", path.display());
        }
        Ok(vec![said])
    }
}

async fn call(client: &Client) -> anyhow::Result<CallToolResult> {
    Ok(client.call_tool(CallToolRequestParams::new(PROFILE)).await?)
}

/// Text of an answer.
fn text_of(answer: &CallToolResult) -> String {
    let text = answer.content.first().and_then(|content| content.as_text());
    text.map(|text| text.text.clone()).unwrap_or_default()
}

/// Display name in an answer of the profile tool.
fn name_in(answer: &CallToolResult) -> anyhow::Result<String> {
    let name = answer.structured_content.as_ref().and_then(|content| content.get("displayName")?.as_str());
    name.map(str::to_owned).with_context(|| text_of(answer))
}
