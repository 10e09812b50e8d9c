//! The modes of the program: serving a client, and sign-in and sign-out in a terminal.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use mcp_entra_policy::{AuditConfiguration, ServerReference};

use super::connection::Connection;
use super::file;
use super::local::Local;
use super::sign_in::SignIns;
use super::store::StoreKind;
use crate::audit::AuditLog;
use crate::entra::SignIn;
use crate::signals::StopSignals;

/// Longest wait for the last audit lines.
const LAST_LINES: Duration = Duration::from_millis(500);
/// Longest wait for another process that uses the tokens.
const SIGN_OUT_PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait for a sign-in: a little longer than a sign-in stays open.
const SIGN_IN_PATIENCE: Duration = Duration::from_secs(610);

/// Serves the MCP client that started this program, until its input ends or a stop signal arrives.
pub(super) async fn serve(local: Local) -> anyhow::Result<()> {
    let signals = StopSignals::take()?;
    let server = ServerReference { namespace: "local".to_owned(), name: "graph".to_owned() };
    let lines = file(local.settings.audit_file.as_deref(), "--audit-file")?;
    let audit = AuditLog::start(&server, AuditConfiguration::default(), Arc::default(), lines);
    let audit = Arc::new(audit.context("cannot start a thread that writes the audit log")?);
    let connection = Connection {
        principal: Arc::new(local.principal()),
        policy: local.policy(),
        offer: Arc::new(local.offer()),
        audit: Arc::clone(&audit),
    };
    let (tenant, client_id) = (&local.settings.tenant, &local.settings.client_id);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), tenant, client_id, "serving");
    tokio::select! {
        () = connection.serve(tokio::io::stdin(), tokio::io::stdout()) => {}
        () = signals.asked() => {}
    }
    tracing::info!("ending");
    // A request that changes something runs to its end. Returns at once if there is none.
    local.graph.end().await;
    _ = audit.end(LAST_LINES).await;
    Ok(())
}

/// Signs the person in, in a terminal.
pub(super) async fn sign_in(local: &Local, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let session = &local.session;
    if local.settings.store == StoreKind::Memory {
        bail!(
            "with --token-store memory a sign-in ends with this program: remove that option, or sign in during a tool call"
        );
    }
    // Fails early if the tokens cannot be stored.
    let kept = session.store().describe().await?;
    session.client().examine().await.map_err(anyhow::Error::msg)?;
    if let Ok(Some(account)) = session.prove().await
        && session.granted().await.is_ok()
    {
        writeln!(out, "{} is already signed in. To use another account, run --sign-out first.", account.username)?;
        return Ok(());
    }
    let sign_ins = SignIns::new(session.clone(), local.settings.device_code, true);
    let (open, _) = sign_ins.open(&SignIn::Anew).await.map_err(|error| anyhow!(error.told()))?;
    writeln!(out, "{}", open.instruction_in_terminal())?;
    out.flush()?;
    // If no browser opens, the person sees the address.
    open.show_if_possible().await;
    let outcome = open.wait(SIGN_IN_PATIENCE).await;
    if outcome.is_some() {
        open.ended().await;
    }
    match outcome {
        Some(Ok(account)) => Ok(writeln!(out, "{} is signed in; {kept}.", account.username)?),
        Some(Err(error)) => Err(anyhow!(error.told())),
        None => bail!("the sign-in did not complete"),
    }
}

/// Deletes everything stored from the person's sign-in.
pub(super) async fn sign_out(local: &Local, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let text = match local.session.end(SIGN_OUT_PATIENCE).await? {
        true => "Signed out: the tokens on this machine are deleted.",
        false => "There was no sign-in on this machine.",
    };
    Ok(writeln!(out, "{text}")?)
}
