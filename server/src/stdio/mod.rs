//! Local mode: the server as a child process of an MCP client, over standard input and output, for the person who runs it.
//!
//! The person signs in once, as a user of a public client: no secret, no cluster. `arguments` say for whom and for
//! what, bounded by the `machine_policy` of an administrator; `settings` hold it. `connection` reads, judges and answers messages, `offer` has the tools,
//! `session` the tokens, `sign_in` brings the person to Entra and back, and `store` keeps the tokens between starts.
//! `doctor` says what works, and `client_config` prints the block that an MCP client takes.

pub mod arguments;
pub mod client_config;
mod connection;
mod doctor;
pub mod machine_policy;
mod offer;
mod session;
pub mod settings;
mod sign_in;
pub mod store;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mcp_entra_policy::{
    AuditConfiguration, Caller, CallerKind, CompiledPolicy, Grant, GraphAccess, GraphConfiguration, Groups,
    MappingReference, Pattern, Primitives, Requirements, ServerReference, Subject,
};

use self::arguments::Mode;
use self::connection::Connection;
use self::offer::LocalOffer;
use self::session::Session;
use self::settings::Settings;
use self::sign_in::{Opener, SignInError, SignIns};
use self::store::{StoreKind, TokenStore};
use crate::audit::AuditLog;
use crate::entra::{PublicClient, Registration, SignIn};
use crate::graph::{GraphClient, OwnTokens};
use crate::inputs;
use crate::offer::graph::GraphOffer;
use crate::telemetry;
use crate::token::{LocalUser, Principal};

/// The role that the person has, and that the grant of the settings is for.
const PERSON: &str = "local";
/// Title of the server, for people.
const TITLE: &str = "Microsoft Graph";
/// Time for the last audit lines to be written.
const LAST_LINES: Duration = Duration::from_millis(500);
/// A little longer than a sign-in is open.
const SIGN_IN_PATIENCE: Duration = Duration::from_secs(610);

/// The parts of local mode.
struct Local {
    settings: Settings,
    http: reqwest::Client,
    session: Arc<Session>,
    graph: GraphClient,
}

impl Local {
    fn new(settings: Settings) -> anyhow::Result<Self> {
        let http = inputs::http_client(settings.trust_bundle.as_deref())?;
        let registration = Registration {
            authority: settings.authority.clone(),
            tenant: settings.tenant.clone(),
            client_id: settings.client_id.clone(),
        };
        let client = PublicClient::new(http.clone(), registration, &settings.graph_url, &settings.scopes);
        let client = client.context("--authority is no address; correct it")?;
        let folder = store::default_folder().unwrap_or_default();
        let store = TokenStore::new(settings.store, folder, &settings.tenant, &settings.client_id);
        let session = Arc::new(Session::new(Arc::new(client), store));
        let tokens: Arc<dyn OwnTokens> = Arc::clone(&session) as _;
        let graph = GraphClient::own(http.clone(), &settings.graph_url, tokens)
            .context("--graph-url is no address; correct it")?;
        Ok(Self { settings, http, session, graph })
    }

    /// The tools, as the settings allow them.
    fn offer(&self) -> LocalOffer {
        let Settings { device_code, tools, scopes, graph_url, aliases, .. } = &self.settings;
        let configuration = GraphConfiguration {
            base_url: graph_url.clone(),
            scopes: scopes.iter().cloned().collect(),
            tools: tools.iter().cloned().collect(),
            access: GraphAccess::OnBehalfOf,
        };
        let graph = GraphOffer::new(TITLE.to_owned(), &configuration, self.graph.clone());
        let sign_ins = Arc::new(SignIns::new(Arc::clone(&self.session), *device_code, false));
        LocalOffer::new(graph, sign_ins, aliases.clone(), self.sign_in_command())
    }

    /// The command that signs in in a terminal.
    fn sign_in_command(&self) -> String {
        let program = std::env::current_exe().unwrap_or_else(|_| env!("CARGO_PKG_NAME").into());
        let mut arguments = vec!["local".to_owned()];
        arguments.extend(self.settings.arguments());
        arguments.push("--sign-in".to_owned());
        client_config::shell_command(&program, &arguments)
    }

    /// The policy: the person may use each tool that the settings name, by its own name and by its aliases.
    fn policy(&self) -> CompiledPolicy {
        let Settings { tools, aliases, .. } = &self.settings;
        let names = tools.iter().chain(aliases.keys());
        let grant = Grant {
            mapping: MappingReference { namespace: None, name: PERSON.to_owned() },
            name: "arguments".to_owned(),
            registration: None,
            to: vec![Subject::AppRole { role: PERSON.to_owned(), callers: [CallerKind::User].into() }],
            require: Requirements::default(),
            graph: GraphAccess::OnBehalfOf,
            allow: Primitives { tools: names.cloned().map(Pattern).collect(), ..Primitives::default() },
        };
        CompiledPolicy { denies: vec![], grants: vec![grant] }
    }

    fn principal(&self) -> Principal {
        let caller = Caller {
            kind: CallerKind::User,
            registration: mcp_entra_policy::Registration::Unknown,
            client_id: self.settings.client_id.clone(),
            roles: [PERSON.to_owned()].into(),
            groups: Groups::Unknown,
            scopes: BTreeSet::new(),
            authentication_contexts: BTreeSet::new(),
        };
        Principal::LocalUser(LocalUser { account: Arc::clone(self.session.account()), caller: Arc::new(caller) })
    }
}

/// Runs local mode: everything but [`Mode::PrintConfig`].
///
/// # Errors
/// If it cannot start, or what was asked for does not work.
pub async fn run(mode: Mode, settings: Settings) -> anyhow::Result<ExitCode> {
    // Dropped last, so that the last lines are written.
    let _log = telemetry::log_to(file(settings.log_file.as_deref(), "--log-file")?);
    let local = Local::new(settings)?;
    let mut out = std::io::stdout();
    let is_well = match mode {
        Mode::Serve => local.serve().await.map(|()| true),
        Mode::SignIn => local.sign_in(&mut out).await.map(|()| true),
        Mode::SignOut => local.sign_out(&mut out).await.map(|()| true),
        Mode::Doctor => Ok(doctor::examine(&local, &mut out).await?),
        Mode::PrintConfig(_) => Ok(true),
    };
    Ok(if is_well? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Standard error, or this file in its place. Standard output belongs to the protocol.
fn file(path: Option<&Path>, option: &'static str) -> anyhow::Result<Box<dyn Write + Send>> {
    let Some(path) = path else { return Ok(Box::new(std::io::stderr())) };
    let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
    let file = file.with_context(|| format!("cannot write to {}; choose another {option}", path.display()))?;
    Ok(Box::new(file))
}

impl Local {
    /// Serves the MCP client that started this program, until its input ends.
    async fn serve(self) -> anyhow::Result<()> {
        let server = ServerReference { namespace: PERSON.to_owned(), name: "graph".to_owned() };
        let lines = file(self.settings.audit_file.as_deref(), "--audit-file")?;
        let audit = AuditLog::start(&server, AuditConfiguration::default(), Arc::default(), lines);
        let audit = Arc::new(audit.context("cannot start a thread that writes the audit log")?);
        let connection = Connection {
            principal: Arc::new(self.principal()),
            policy: self.policy(),
            offer: Arc::new(self.offer()),
            audit: Arc::clone(&audit),
        };
        let served = connection.serve(tokio::io::stdin(), tokio::io::stdout()).await;
        // A request that changes something runs to its end. Without any, this is nothing to wait for.
        self.graph.end().await;
        _ = audit.end(LAST_LINES).await;
        served.map_err(anyhow::Error::msg)
    }

    /// Signs the person in, in a terminal.
    async fn sign_in(self, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
        if self.settings.store == StoreKind::Memory {
            anyhow::bail!(
                "with --token-store memory a sign-in ends with this program: leave that out, or let a tool call sign you in"
            );
        }
        let kept = self.session.store().describe().await?;
        if let Ok(Some(account)) = self.session.resume().await {
            writeln!(
                out,
                "{} is signed in already. To sign in as somebody else, run --sign-out first.",
                account.username
            )?;
            return Ok(());
        }
        let sign_ins = SignIns::new(Arc::clone(&self.session), self.settings.device_code, true);
        let open = match sign_ins.open(&SignIn::Anew, Opener::Browser).await {
            // Whoever runs this sees the address, and may open it by hand.
            Err(SignInError::NoBrowser(_)) => sign_ins.open(&SignIn::Anew, Opener::Client).await,
            open => open,
        };
        let (open, _) = open.map_err(|error| anyhow::anyhow!(error.told()))?;
        writeln!(out, "{}", open.instruction_in_terminal())?;
        out.flush()?;
        match open.wait(SIGN_IN_PATIENCE).await {
            Some(Ok(account)) => Ok(writeln!(out, "{} is signed in. Tokens are kept in {kept}.", account.username)?),
            Some(Err(error)) => Err(anyhow::anyhow!(error.told())),
            None => anyhow::bail!("nobody signed in"),
        }
    }

    /// Deletes what is kept of the person's sign-in.
    async fn sign_out(self, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
        let text = match self.session.end().await? {
            true => {
                "Signed out: the tokens that were kept on this machine are deleted. An MCP client that runs goes on until it is restarted."
            }
            false => "Nobody was signed in here.",
        };
        Ok(writeln!(out, "{text}")?)
    }
}
