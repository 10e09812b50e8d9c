//! A user in Chromium, and the program that replaces `xdg-open` and starts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use url::Url;

use crate::tools::script;
use crate::world::{ALICE, PATIENCE, World};

/// Timeout of a browser from its start to the last page.
const BROWSING: Duration = Duration::from_secs(90);

/// Windows that the server requests with `xdg-open`.
pub(crate) struct Openings {
    calls: TcpListener,
    /// All addresses, one per line.
    record: PathBuf,
}

impl Openings {
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self { calls: TcpListener::bind(("127.0.0.1", 0)).await?, record: folder.join("opened") })
    }

    /// Program that replaces `xdg-open`: it records the address, and then passes it on.
    pub(crate) fn script(&self) -> String {
        let port = self.calls.local_addr().map(|address| address.port()).unwrap_or_default();
        let record = self.record.display();
        format!("#!/bin/bash\necho \"$1\" >>{record}\necho \"$1\" >/dev/tcp/127.0.0.1/{port}\n")
    }

    /// Waits for the next window, and returns its address.
    pub(crate) async fn next(&self) -> anyhow::Result<Url> {
        let line = async {
            let (call, _) = self.calls.accept().await?;
            BufReader::new(call).lines().next_line().await
        };
        let line = tokio::time::timeout(PATIENCE, line).await.context("no browser is opened")??;
        let url = line.context("the browser is opened without an address")?;
        Url::parse(&url).with_context(|| format!("the browser is opened at {url:?}"))
    }

    /// Returns the number of windows so far.
    pub(crate) fn count(&self) -> anyhow::Result<usize> {
        if !self.record.exists() {
            return Ok(0);
        }
        Ok(fs::read_to_string(&self.record)?.lines().count())
    }
}

/// The last page of a sign-in.
#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    /// Address that the first page redirected to.
    pub(crate) visited: Url,
    pub(crate) url: Url,
    pub(crate) title: String,
    pub(crate) text: String,
}

/// Fails unless the address is the server's own, on this machine, with an unguessable part.
pub(crate) fn is_one_time_address(url: &Url) -> anyhow::Result<()> {
    let nonce = url.path().strip_prefix("/start/").unwrap_or_default();
    let local = url.scheme() == "http" && matches!(url.host_str(), Some("localhost" | "127.0.0.1"));
    ensure!(local && nonce.len() >= 22 && url.query().is_none(), "{url} is not a one-time address of this machine");
    Ok(())
}

impl World<'_> {
    /// Opens a one-time address, and signs alice in. Returns the last page, which says that it can be closed.
    pub(crate) async fn sign_in(&self, url: &Url) -> anyhow::Result<Page> {
        is_one_time_address(url)?;
        let page = self.browse(url, None).await?;
        ensure!(
            page.visited.as_str().starts_with(self.lane.emulator.authority()),
            "the sign-in begins at Entra, not at {}",
            page.visited
        );
        ensure!(page.url.port() == url.port(), "the sign-in ends at {url}'s server, not at {}", page.url);
        ensure!(page.text.to_lowercase().contains("close"), "the last page does not say what to do: {page:?}");
        ensure!(page.url.query().is_none(), "a code stays in the address: {}", page.url);
        Ok(page)
    }

    /// Enters a device's code, and signs alice in.
    pub(crate) async fn enter_code(&self, url: &Url, code: &str) -> anyhow::Result<Page> {
        self.browse(url, Some(code)).await
    }

    async fn browse(&self, url: &Url, code: Option<&str>) -> anyhow::Result<Page> {
        let emulator = &self.lane.emulator;
        let visit = json!({
            "chromium": self.lane.tools.chromium, "authority": emulator.authority(),
            "authorityFile": self.lane.authorities(), "url": url, "user": ALICE, "code": code,
        });
        self.in_browser("node/browser.cjs", &visit).await
    }

    /// Runs a script that controls the browser. Returns its output.
    pub(crate) async fn in_browser<T: DeserializeOwned>(&self, name: &str, argument: &Value) -> anyhow::Result<T> {
        let tools = &self.lane.tools;
        let child = Command::new(&tools.node)
            .arg(script(name))
            .arg(argument.to_string())
            .env("NODE_PATH", &tools.node_modules)
            .env("HOME", self.file("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = tokio::time::timeout(BROWSING, child.wait_with_output()).await.context("the browser hangs")??;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "in the browser: {errors}");
        serde_json::from_slice(&output.stdout).with_context(|| format!("the browser prints no answer: {errors}"))
    }
}
