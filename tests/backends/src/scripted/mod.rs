//! Backend that behaves as its caller requests, correctly or not.
//!
//! It speaks one era over stdio or streamable HTTP. Each tool of [`TOOLS`] is one behaviour. It uses no library of the
//! protocol, since such a library refuses to misbehave.
//!
//! Over stdio it is the program `scripted-backend`, see [`Options::launch`]. Over HTTP it runs in the test's own process,
//! see [`start`], or as a program, see [`Options::start_http`].

mod backend;
mod call;
mod http;
mod lists;
mod message;
mod methods;
mod options;
mod outlet;
mod stdio;
mod subscriptions;
mod tools;

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use options::{Answers, Era, Listed, Options};
pub use stdio::serve_stdio;
pub use tools::TOOLS;

use backend::{Backend, Host};

/// A message that the backend has received.
#[derive(Clone, Debug)]
pub struct Received {
    /// The text of the message.
    pub body: String,
    /// Names, in lower case, and values of the HTTP headers. Empty over stdio.
    pub headers: Vec<(String, String)>,
}

/// A backend over HTTP in this process. It ends when this is dropped. Tools that end or signal a process refuse to.
#[derive(Debug)]
pub struct Scripted {
    /// The address that it listens on.
    pub address: SocketAddr,
    backend: std::sync::Arc<Backend>,
    task: JoinHandle<()>,
}

impl Scripted {
    /// The URL of its MCP endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, http::PATH)
    }

    /// The messages that it has received, the first 10,000.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.backend.received()
    }

    /// The number of clients that listen for changes.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.backend.subscriptions.len()
    }

    /// Forgets all its sessions: each is answered with 404 from now on.
    pub fn forget_sessions(&self) {
        self.backend.forget_sessions();
    }

    /// Ends it, and waits until its port is free.
    pub async fn stop(mut self) {
        self.backend.end.cancel();
        // A task that panicked has ended, too.
        (&mut self.task).await.ok();
    }

    /// Sends list-changed notifications of tools, prompts and resources to all listening clients.
    pub async fn announce_lists(&self) {
        for kind in ["tools", "prompts", "resources"] {
            self.backend.announce_list(kind).await;
        }
    }

    /// Sends the notification of an updated resource to all subscribed clients.
    pub async fn announce_resource(&self, uri: &str) {
        self.backend.announce_resource(uri).await;
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.backend.end.cancel();
    }
}

/// Starts a backend over streamable HTTP at `/mcp` of a free port on 127.0.0.1.
///
/// # Errors
/// If no port is free.
pub async fn start(options: Options) -> anyhow::Result<Scripted> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let backend = Backend::new(options, Host::Test);
    let task = tokio::spawn(http::serve(listener, backend.clone()));
    Ok(Scripted { address, backend, task })
}

/// Serves streamable HTTP at `/mcp` of a port on 127.0.0.1 until the process ends.
///
/// # Errors
/// If the port is taken.
pub async fn serve_http(options: Options, port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    http::serve(listener, Backend::new(options, Host::Program)).await;
    Ok(())
}
