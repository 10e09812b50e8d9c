//! `--doctor`: tests the way from this machine to Entra and Graph. Each line of the report has a result and, after a
//! failure, the next step.

use std::io::{self, Write};

use super::local::Local;
use super::sign_in;
use crate::http_client;
use crate::report::Report;

/// Largest answer of Graph that is read, in bytes. The content does not matter.
const MAXIMUM_ANSWER: usize = 1024 * 1024;

/// Runs all checks. Returns true if everything works.
pub(super) async fn examine(local: &Local, out: &mut (dyn Write + Send)) -> io::Result<bool> {
    let Local { settings, session, .. } = local;
    let client = session.client();
    let mut report = Report::new(out);
    let issuer = client.issuer().await.map(|issuer| format!("{} has the issuer {issuer}", settings.tenant));
    report.line("tenant", issuer)?;
    report.line("registration", client.examine().await)?;
    let browser = match settings.device_code {
        true => Ok("none is needed with --device-code".to_owned()),
        false => sign_in::browser(),
    };
    report.line("browser", browser)?;
    let store = report.value("token store", session.store().describe().await, String::clone)?;
    let signed_in = match store {
        Some(_) => session.prove().await.map_err(|error| error.to_string()),
        None => Err("unknown without the token store".to_owned()),
    };
    let account = report.value("sign-in", signed_in, |account| match account {
        Some(account) => format!("{} is signed in, and Entra has just renewed the tokens", account.username),
        None => "not signed in yet: run this with --sign-in, or call a tool".to_owned(),
    })?;
    if account.flatten().is_some() {
        report.line("scopes", session.granted().await)?;
    }
    report.line("graph", graph(local).await)?;
    Ok(report.is_all_ok())
}

async fn graph(local: &Local) -> Result<String, String> {
    let url = &local.settings.graph_url;
    // Any answer counts: without a token, Graph answers most requests with 401.
    match http_client::exchange(local.http.get(format!("{url}/v1.0/me")), MAXIMUM_ANSWER).await {
        Ok(_) => Ok(format!("{url} answers")),
        Err(error) => Err(format!("{url} does not answer ({error}); check the network, its proxies and --graph-url")),
    }
}
