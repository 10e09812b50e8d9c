//! The backend over the pipes of its process.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, stdin, stdout};
use tokio::sync::mpsc;

use super::Options;
use super::backend::{Backend, Host, Source};
use super::outlet::{Outlet, Output};

/// Serves stdin and stdout until stdin ends, then for the time that a tool has set.
///
/// # Errors
/// If stdin cannot be read.
pub async fn serve_stdio(options: Options) -> anyhow::Result<()> {
    let backend = Backend::new(options, Host::Program);
    let (outlet, outputs) = Outlet::new();
    let writer = tokio::spawn(write(outputs));
    backend.listen_on_stdio(outlet.clone());
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let source = Source { headers: Vec::new(), session: None };
        // In the order of the lines, so that a notification takes effect before the next request.
        backend.receive(line, source, outlet.clone()).await;
    }
    if backend.lingers() {
        std::future::pending::<()>().await;
    }
    // The backend holds an outlet for its notifications.
    drop((outlet, backend));
    writer.abort();
    Ok(())
}

/// Writes messages as lines.
async fn write(mut outputs: mpsc::Receiver<Output>) {
    let mut stdout = stdout();
    while let Some(output) = outputs.recv().await {
        let bytes = match output {
            Output::Message(mut text) | Output::Answer(mut text) => {
                text.push('\n');
                text.into_bytes()
            }
            Output::Bytes(bytes) => bytes,
            Output::Events | Output::Status(..) => continue,
            Output::Exit(code) => std::process::exit(code),
        };
        if stdout.write_all(&bytes).await.is_err() || stdout.flush().await.is_err() {
            return;
        }
    }
}
